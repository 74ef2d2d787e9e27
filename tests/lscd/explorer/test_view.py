"""What the explorer shows is what the models say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lscd.explorer.state import PRESETS, State
from lscd.explorer.view import View, view
from perfmodel import predict
from perfmodel.analysis import crossover_sparsity
from perfmodel.catalog import load_gpu, load_model
from perfmodel.kernels import KERNELS
from perfmodel.serving.run import evaluate
from perfmodel.serving.transformer import layer_matrices
from tests.lscd.explorer.cases import facts


@pytest.mark.parametrize("name", PRESETS)
def test_every_kernel_that_takes_this_n_has_its_own_prediction(name: str) -> None:
    found = view(PRESETS[name])
    state = found.state
    matrices = {matrix.name: matrix for matrix in layer_matrices(load_model(state.model).shape, state.gpus)}
    matrix = matrices[state.matrix]
    assert set(found.kernels["kernel"]) | set(found.refused) == set(KERNELS)
    for row in found.kernels.itertuples():
        p = predict(row.kernel, state.gpu, matrix.m, matrix.k, row.n, state.sparsity)
        high = np.nan if p.at_least else float(p.hi_s) * 1e6
        expected = (float(p.time_s) * 1e6, float(p.lo_s) * 1e6, high)
        assert (row.time_us, row.lo_us, row.hi_us) == pytest.approx(expected, rel=1e-12, nan_ok=True)
        assert row.n >= state.batch
        assert row.at_least or row.lo_us < row.time_us < row.hi_us
    for kernel in found.refused:
        assert np.isnan(KERNELS[kernel].padded_n(state.batch))


def test_no_kernel_stands_above_the_roof(shown: View) -> None:
    gpu = load_gpu(shown.state.gpu)
    roof = np.interp(shown.kernels["intensity"], shown.roof["intensity"], shown.roof["flops_per_s"])
    assert (shown.kernels["flops_per_s"] <= roof * 1.05).all()
    assert shown.roof["flops_per_s"].max() == gpu.peak.fp16_tensor
    assert shown.roof.loc[shown.roof["intensity"] == shown.ridge, "flops_per_s"].item() == pytest.approx(
        gpu.peak.fp16_tensor
    )


def test_the_throughput_curve_passes_through_the_chosen_run(shown: View) -> None:
    state = shown.state
    for system in (state.system, "fastertransformer"):
        curve = shown.throughput[shown.throughput["system"] == system].set_index("batch")
        run = evaluate(
            state.model, state.gpu, system, batch=state.batch, sparsity=state.sparsity, gpus=state.gpus,
            input_len=state.input_len, output_len=state.output_len,
        )  # fmt: skip
        assert curve.loc[state.batch, "tokens_per_gpu_s"] == pytest.approx(float(run.tokens_per_gpu_s))
        assert curve.loc[state.batch, "fits"] == bool(run.memory.fits)
    assert curve["fits"].is_monotonic_decreasing


def test_memory_adds_up_to_the_models_total(shown: View) -> None:
    assert shown.memory["gigabytes"].sum() * 1e9 == pytest.approx(float(shown.run.memory.total))


def test_the_crossover_is_where_the_drawn_curve_passes_one(shown: View) -> None:
    curve = shown.speedups[shown.speedups["kernel"] == "flash-llm"]
    assert np.interp(shown.crossover or np.nan, curve["sparsity"], curve["speedup"]) == pytest.approx(1.0, abs=0.01)
    assert shown.crossover == crossover_sparsity("flash-llm", "a100-80gb", "opt-66b", 64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 0}, "batch must be a whole number of at least 1"),
        ({"sparsity": 1.5}, "sparsity must lie in"),
        ({"gpus": 5}, "cannot be shared by 5 GPUs"),
        ({"output_len": 5000}, "positions, got 5064"),
        ({"input_len": -3}, "input_len must be"),
    ],
)
def test_values_out_of_range_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        view(replace(State(), **change))


def test_systems_without_a_sparse_kernel_have_no_crossover() -> None:
    assert facts(State(system="deepspeed"))["crossover"].value == "–"
    assert facts(State(gpu="v100"))["cost"].value
