"""What the explorer shows is what the models say."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lscd.explorer import html, words
from lscd.explorer.state import LARGEST, PRESETS, State, format_names, joined, parted
from lscd.explorer.view import Files, View, _kept, view
from perfmodel import predict
from perfmodel.analysis import crossover_sparsity
from perfmodel.catalog import gpu_names, load_gpu, load_model
from perfmodel.catalog.altered import altered
from perfmodel.kernels import GPU_KERNELS, KERNELS
from perfmodel.kernels.rivals import standing
from perfmodel.serving.run import evaluate
from perfmodel.serving.systems import VLLM, load_system
from perfmodel.serving.transformer import layer_matrices
from perfmodel.worth import worth
from tests.lscd.explorer.cases import SYSTEMS, drawn, facts


@pytest.mark.parametrize("name", PRESETS)
def test_every_kernel_that_takes_this_n_has_its_own_prediction(name: str) -> None:
    found = view(replace(PRESETS[name].state, unmeasured=True))
    state = found.state
    matrices = {matrix.name: matrix for matrix in layer_matrices(load_model(state.model).shape, state.gpus)}
    matrix = matrices[found.matrix.name]
    assert state.matrix in (LARGEST, matrix.name)
    assert set(found.kernels["kernel"]) | set(found.refused) == set(GPU_KERNELS)
    for row in found.kernels.itertuples():
        own = KERNELS[row.kernel].own_sparsity(state.sparsity)
        p = predict(row.kernel, state.gpu, matrix.m, matrix.k, row.n, own)
        high = np.nan if p.at_least else float(p.hi_s) * 1e6
        expected = (float(p.time_s) * 1e6, float(p.lo_s) * 1e6, high)
        assert (row.time_us, row.lo_us, row.hi_us) == pytest.approx(expected, rel=1e-12, nan_ok=True)
        assert row.n >= found.product[2]
        assert row.at_least or row.lo_us < row.time_us < row.hi_us
        assert row.standing == standing(KERNELS[row.kernel])
    for kernel, reason in found.refused.items():
        refusal = KERNELS[kernel].refusal(load_gpu(state.gpu))
        assert reason == refusal or (refusal is None and np.isnan(KERNELS[kernel].padded_n(found.product[2])))


def test_no_kernel_stands_above_the_roof(shown: View) -> None:
    gpu = load_gpu(shown.state.gpu)
    sixteen = shown.kernels[[KERNELS[name].precision == "fp16" for name in shown.kernels["kernel"]]]
    sixteen = sixteen[[not KERNELS[name].sparse_cores for name in sixteen["kernel"]]]
    roof = np.interp(sixteen["intensity"], shown.roof["intensity"], shown.roof["flops_per_s"])
    assert (sixteen["flops_per_s"] <= roof * 1.05).all()
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
        ({"batch": 0}, "batch must be a whole number from 1 to"),
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


@pytest.mark.parametrize("gpu", gpu_names())
def test_every_gpu_has_a_whole_page(gpu: str) -> None:
    found = view(State(gpu=gpu))
    assert words.facts(found)[0].name == "worth"
    assert words.question(found)
    assert all("<figcaption>" in html.panel(found, panel.name, drawn) for panel in html.PANELS)
    assert all(len(table) for table in words.downloads(found).values())
    assert set(found.kernels["kernel"]) | set(found.refused) | set(found.hidden) == set(GPU_KERNELS)


def refused_systems(gpu: str) -> tuple[str, ...]:
    return tuple(name for name in SYSTEMS if load_system(name).refusal(load_gpu(gpu)) is not None)


@pytest.mark.parametrize("gpu", gpu_names())
def test_every_offered_system_runs_on_every_gpu(gpu: str) -> None:
    for system in SYSTEMS:
        found = view(State(gpu=gpu, system=system))
        assert found.system == (parted(system)[0] if system in refused_systems(gpu) else system)
        assert float(found.run.tokens_per_gpu_s) > 0


# One GPU of each kind: those that refuse the same systems.
@pytest.mark.parametrize("gpu", sorted({refused_systems(gpu): gpu for gpu in gpu_names()}.values()))
def test_every_offered_system_is_shown_or_says_why_not(gpu: str) -> None:
    for name in format_names(unmeasured=True):
        system = joined(VLLM, name)
        found = view(State(gpu=gpu, system=system))
        tiles = {fact.name: fact for fact in words.facts(found)}
        refusal = load_system(system).refusal(load_gpu(gpu))
        assert ("refused" in tiles) == (refusal is not None)
        if refusal is not None:
            assert tiles["refused"].note == f"{refusal}. Shown instead: dense {load_system(parted(system)[0]).title}"


@pytest.mark.parametrize(("gpu", "sparsity"), [("a100-80gb", 0.8), ("mi300x", 0.6), ("l40s", 0.8), ("rtx-3090", 0.5)])
def test_the_first_tile_is_the_verdict_of_worth(gpu: str, sparsity: float) -> None:
    tile = facts(State(gpu=gpu, sparsity=sparsity))["worth"]
    asked = {"batches": (16,), "sparsity": sparsity, "input_len": 64, "output_len": 512}
    assert tile.value == worth("opt-30b", gpu, **asked).verdict
    assert tile.title == "Worth it"


def test_a_pattern_runs_at_its_own_sparsity_whatever_the_slider_says() -> None:
    found = [view(State(system="fastertransformer+two-four", sparsity=sparsity)) for sparsity in (0.1, 0.9)]
    assert found[0].sparsity == found[1].sparsity == 0.5
    assert float(found[0].run.tokens_per_gpu_s) == float(found[1].run.tokens_per_gpu_s)
    assert "50% sparsity of its pattern (the slider does not apply to it)" in words.question(found[0])
    assert not found[0].kernels.set_index("kernel").loc["two-four", "competes"], "it drops more than 10 %"
    assert found[1].kernels.set_index("kernel").loc["two-four", "competes"]


def test_only_measured_kernels_compete() -> None:
    kernels = view(State(sparsity=0.6, unmeasured=True)).kernels
    left_out = kernels[~kernels["competes"]]
    assert set(left_out["kernel"]) == {
        "flash-llm-noreorder", "cusparse", "lscd-bitmap", "lscd-bitmap-pairs", "lscd-condensed", "lscd-condensed-pairs",
        "lscd-bitmap-8", "lscd-bitmap-4", "lscd-condensed-pairs-8", "lscd-condensed-pairs-4",
    }  # fmt: skip
    assert list(kernels["rank"]) == list(range(1, len(kernels) + 1))


def test_speedups_have_curves_points_and_the_rival() -> None:
    table = view(State(gpu="h100")).speedups
    assert set(table["kind"]) == {"curve", "pattern", "whole"}
    points = table[table["kernel"] == "six-eight"].set_index("sparsity")["speedup"]
    assert list(points.index) == pytest.approx([0.2, 0.25, 1 / 3])
    assert (table["kind"] == "whole").sum() == 1
    assert set(view(State(gpu="mi300x")).speedups["kind"]) == {"pattern", "whole"}


@pytest.mark.parametrize(
    "factors", [{"bandwidth": 1.5}, {"sms": 0.5, "clock": 1.2}, {"l2": 4.0, "memory": 2.0, "price": 0.5}]
)
def test_a_card_changed_is_the_catalogues_altered(factors: dict[str, float]) -> None:
    found = view(State(**factors))
    card = altered(load_gpu("a100-80gb"), **factors)
    assert found.gpu == card
    asked = {"batch": 16, "sparsity": 0.8, "input_len": 64, "output_len": 512}
    run = evaluate("opt-30b", card, "flash-llm", **asked)
    assert float(found.run.tokens_per_gpu_s) == float(run.tokens_per_gpu_s)
    assert "extrapolated" in facts(State(**factors))["throughput"].note
    assert card.name in words.question(found)


def test_without_a_factor_the_card_is_the_catalogues() -> None:
    assert view(State()).gpu is load_gpu("a100-80gb")


@pytest.mark.parametrize("system", ["vllm+fp8", "sglang+int4", "tensorrt-llm+two-four", "deepspeed", "flash-llm"])
def test_the_rival_is_the_engine_with_dense_weights(system: str) -> None:
    state = State("llama-3.1-8b", "h100", system=system, sparsity=0.5, batch=8)
    found = view(state)
    engine = parted(system)[0]
    run = evaluate("llama-3.1-8b", "h100", engine, batch=8, input_len=64, output_len=512)
    assert found.engine == engine
    assert float(found.dense.tokens_per_gpu_s) == float(run.tokens_per_gpu_s)
    assert set(found.throughput["system"]) == {system, engine}
    assert {parted(name)[0] for name in found.tradeoff["system"]} == {engine}


def test_what_nobody_measured_is_hidden_and_never_recommended() -> None:
    plain, all_ = (view(State("llama-3.1-8b", "h100", system="vllm+fp8", unmeasured=on)) for on in (False, True))
    assert plain.kernels["measured"].all()
    assert set(plain.hidden)
    assert set(all_.kernels["kernel"]) - set(plain.kernels["kernel"]) <= set(plain.hidden)
    assert plain.tradeoff["measured"].all()
    assert not all_.tradeoff["measured"].all()
    assert all_.tradeoff.loc[all_.tradeoff["front"], "measured"].all()
    assert all_.kernels.loc[all_.kernels["competes"], "measured"].all()
    assert set(all_.speedups["kernel"]) > set(plain.speedups["kernel"])
    assert all_.hidden == ()


def test_the_largest_matrix_follows_the_model() -> None:
    for model in ("opt-30b", "qwen3-30b-a3b", "deepseek-v3"):
        found = view(State(model, "h200", gpus=8, system="vllm"))
        matrices = [matrix for matrix in layer_matrices(load_model(model).shape, 8) if matrix.prunable]
        assert float(found.matrix.m * found.matrix.k) == max(float(one.m * one.k) for one in matrices)


def everything(found: View) -> str:
    """All that a page may show, charts as their specifications."""
    panels = [html.panel(found, one.name, lambda chart: json.dumps(chart.spec)) for one in html.PANELS]
    return "".join([html.answer(found), html.tiles(found), html.needs(found), *panels])


@pytest.mark.parametrize(
    "question",
    [
        {},
        {"gpu": "t4", "gpus": 8, "batch": 300},
        {"model": "llama-3.1-8b", "gpu": "h100", "system": "vllm+lscd-condensed-pairs"},
        {"model": "deepseek-v3", "gpu": "b200", "gpus": 8, "system": "vllm+fp8", "unmeasured": True},
    ],
)
def test_what_stays_while_zeros_move_is_what_a_fresh_answer_says(question: dict[str, Any]) -> None:
    moved = [everything(view(State(**question, sparsity=zeros))) for zeros in (0.0, 0.55, 0.9)]
    for zeros, shown in zip((0.9, 0.55, 0.0), reversed(moved), strict=True):
        _kept.cache_clear()
        assert everything(view(State(**question, sparsity=zeros))) == shown


def test_a_record_edited_meanwhile_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = view(State())
    slow = float(before.dense.tpot_s)
    monkeypatch.setattr("lscd.explorer.view.load_gpu", lambda name: altered(load_gpu(name), bandwidth=2.0))
    assert float(view(State()).dense.tpot_s) < slow


def test_another_question_or_file_shares_nothing() -> None:
    first = view(State())
    assert view(State(sparsity=0.4)).dense is first.dense
    assert view(State(batch=8)).dense is not first.dense
    assert view(State(bandwidth=2.0)).gpu != first.gpu
    own = view(State(), Files(model=load_model("opt-13b")))
    assert own.dense.memory.total < first.dense.memory.total
