"""Kernel models: goals on held-out evidence, invariants, limits, bad input."""

from __future__ import annotations

import json
from dataclasses import asdict

import msgspec
import numpy as np
import pandas as pd
import pytest

from perfmodel import predict
from perfmodel.catalog import CALIBRATION_FILE, data_directory, gpu_names, load_gpu
from perfmodel.catalog.specs import Bound
from perfmodel.evidence.kernel_fit import FIT_RULES, fit_all
from perfmodel.evidence.validation import error_statistics, join_predictions, nearest_evidence
from perfmodel.kernels import KERNELS, Machine, Shape, kernel_model
from perfmodel.kernels.base import imbalance, overlap
from perfmodel.kernels.fits import calibrated, extrapolated, kernel_fits
from perfmodel.kernels.sparta import RESIDUAL
from perfmodel.kernels.tiled_csl import blocks_per_sm, padded_tokens, split_k
from perfmodel.plotting.style import KERNEL_COLOURS, KERNEL_MARKERS
from perfmodel.prediction import predict_table
from tests.comparison import assert_close

CASE = {"m": 36864, "k": 9216, "n": 8}
GRID = np.linspace(0, 1, 41)
MANY_TOKENS = [name for name in KERNELS if name != "macko"]


@pytest.fixture(scope="module")
def joined() -> pd.DataFrame:
    return join_predictions()


# Goals of the project for rows no parameter was fitted on (mean absolute error, Fig 9 at N = 16).
@pytest.mark.parametrize(
    ("kernel", "goal"), [("cublas", 0.03), ("flash-llm", 0.03), ("sparta", 0.08), ("sputnik", 0.10)]
)
def test_held_out_rows_of_figure_9(joined: pd.DataFrame, kernel: str, goal: float) -> None:
    rows = joined[(joined["source"] == "flash-llm-fig9") & (joined["kernel"] == kernel) & (joined["n"] == 16)]
    assert len(rows) == (12 if kernel == "cublas" else 36)
    assert not rows["fitted"].any()
    assert rows["error"].abs().mean() <= goal


def test_sparsity_sweep_of_flash_llm(joined: pd.DataFrame) -> None:
    rows = joined[(joined["source"] == "flash-llm-sweep") & (joined["kernel"] == "flash-llm")]
    assert len(rows) == 9
    assert rows["error"].abs().mean() <= 0.03


def test_dense_rows_of_unseen_gpus_are_near(joined: pd.DataFrame) -> None:
    rows = joined[(joined["source"] == "macko-bench") & (joined["kernel"] == "cublas")]
    statistics = error_statistics(rows, ["gpu"]).set_index("gpu")
    assert (statistics["mean"] < 0.08).all()
    assert (statistics["rank"] > 0.99).all()


def test_no_model_has_more_than_five_free_parameters() -> None:
    for model in KERNELS.values():
        assert len(calibrated(model.name).__dataclass_fields__) <= 5


def test_every_kernel_has_a_colour_and_a_marker_of_its_own() -> None:
    for looks in (KERNEL_COLOURS, KERNEL_MARKERS):
        assert set(looks) == set(KERNELS)
        assert len(set(looks.values())) == len(looks)


def test_fit_and_report_are_disjoint(joined: pd.DataFrame) -> None:
    fitted = joined[joined["fitted"]]
    assert 16 not in set(fitted["n"])
    assert set(fitted["source"]) == {rule.source for rule in FIT_RULES}
    assert {"rtx-2080-super", "rtx-4090", "rtx-a6000", "h100", "a100-40gb"}.isdisjoint(fitted["gpu"])


def test_stored_calibration_is_what_the_evidence_gives() -> None:
    again = json.loads(msgspec.json.encode(fit_all()[0]))
    stored = json.loads((data_directory() / CALIBRATION_FILE).read_text())
    assert again.keys() == stored.keys()
    for kernel, fit in again.items():
        for name, value in fit["parameters"].items():
            assert value == pytest.approx(stored[kernel]["parameters"][name], rel=2e-3, abs=1e-9), (kernel, name)


@pytest.mark.parametrize("kernel", ["flash-llm", "sputnik", "cusparse", "sparta"])
@pytest.mark.parametrize("gpu", gpu_names())
def test_sparser_is_never_slower(kernel: str, gpu: str) -> None:
    times = predict(kernel, gpu, **CASE, sparsity=GRID).time_s
    assert (np.diff(times) <= 1e-12).all()


@pytest.mark.parametrize("kernel", list(KERNELS))
def test_more_bandwidth_is_never_slower(kernel: str) -> None:
    machine = Machine.of(load_gpu("a100-80gb"))
    scale = np.geomspace(0.25, 64, 30)
    faster = machine.with_(dram_bytes_per_s=machine.dram_bytes_per_s * scale)
    times = kernel_model(kernel).time(faster, Shape.of(*CASE.values(), 0.7), calibrated(kernel)).time_s
    assert (np.diff(times) <= 1e-15).all()


@pytest.mark.parametrize("kernel", MANY_TOKENS)
def test_more_tokens_are_never_faster(kernel: str) -> None:
    tokens = np.array([8, 16, 32, 64, 128, 256, 512, 1024, 4096])
    times = predict(kernel, "a100-80gb", m=12288, k=12288, n=tokens, sparsity=0.8).time_s
    assert (np.diff(times) >= -0.03 * times[:-1]).all()  # another split of K may fill the last wave better


@pytest.mark.parametrize("kernel", MANY_TOKENS)
@pytest.mark.parametrize("gpu", gpu_names())
def test_no_prediction_beats_the_datasheet(kernel: str, gpu: str) -> None:
    record = load_gpu(gpu)
    p = predict(kernel, gpu, m=12288, k=12288, n=[8, 64, 1024], sparsity=0.5)
    assert (p.time_s > p.weight_bytes / record.dram.bandwidth_bytes_per_s).all()
    assert np.isfinite(p.time_s).all()


def test_infinite_bandwidth_leaves_the_on_chip_floor() -> None:
    machine = Machine.of(load_gpu("a100-80gb")).with_(dram_bytes_per_s=1e18)
    result = TILED.time(machine, Shape.of(*CASE.values(), 0.7), calibrated("flash-llm"))
    assert result.bound.item() is Bound.SHARED_MEMORY
    floor = result.terms[Bound.SHARED_MEMORY] + result.terms[Bound.LATENCY]
    assert_close(result.time_s, floor, relative=1e-3)


def test_empty_matrix_keeps_the_published_floor() -> None:
    p = predict("flash-llm", "a100-80gb", **CASE, sparsity=1.0)
    assert float(p.time_s) == pytest.approx(136e-6, rel=0.04)


TILED = kernel_model("flash-llm")


def test_split_k_rule_gives_the_tuned_values_of_the_released_code() -> None:
    # Flash-LLM's benchmark and inference scripts, by local M (two 256-row blocks resident on each of 108 SMs).
    tuned = {
        21504: 5, 7168: 7, 28672: 7, 27648: 2, 9216: 6, 36864: 3, 12288: 9, 49152: 9,
        10752: 5, 14336: 7, 13824: 4, 18432: 3, 24576: 9, 5376: 10, 6912: 8,
    }  # fmt: skip
    m = np.array(list(tuned))
    assert list(split_k(m / 256, 216, 112)) == list(tuned.values())


def test_unsplit_products_pay_for_no_reduction() -> None:
    machine, p = Machine.of(load_gpu("a100-80gb")), calibrated("flash-llm")
    wide = TILED.time(machine, Shape.of(36864, 9216, 4096, 0.8), p)
    moved = TILED.format.bytes(36864, 9216, 0.8) + 2 * 4096 * (36864 + 9216)
    assert float(wide.dram_bytes) == pytest.approx(float(moved))


def test_sparta_residual_is_the_calibrated_sputnik() -> None:
    stored = kernel_fits()["sputnik"].parameters
    assert asdict(RESIDUAL) == pytest.approx(stored, rel=5e-3)


def test_split_k_never_exceeds_the_k_tiles() -> None:
    assert (split_k(1, 216, np.array([1, 2, 5])) <= np.array([1, 2, 5])).all()


@pytest.mark.parametrize(("gpu", "blocks"), [("a100-80gb", 2), ("h100", 2), ("rtx-4090", 1), ("v100", 1)])
def test_resident_blocks_follow_shared_memory(gpu: str, blocks: int) -> None:
    assert blocks_per_sm(Machine.of(load_gpu(gpu)), np.array(16.0)) == blocks


def test_padded_tokens() -> None:
    assert list(padded_tokens([1, 8, 9, 16, 17, 33, 64, 65, 128, 129])) == [8, 8, 16, 16, 32, 64, 64, 128, 128, 256]


@pytest.mark.parametrize("sharpness", [1, 2, 3])
def test_overlap_lies_between_maximum_and_sum(sharpness: int) -> None:
    a, b = np.array([1.0, 1.0, 0.0, 5.0]), np.array([1.0, 1e-9, 2.0, 4.0])
    joint = overlap(a, b, sharpness)
    assert (joint >= np.maximum(a, b)).all()
    assert (joint <= a + b + 1e-12).all()
    assert joint[0] == pytest.approx(2 ** (1 / 2**sharpness))


def test_imbalance_of_whole_blocks() -> None:
    assert_close(imbalance(np.array([108.0, 109.0, 54.0]), 108), [1.0, 216 / 109, 2.0], relative=1e-12)


def test_arrays_broadcast_and_agree_with_scalars() -> None:
    p = predict("flash-llm", "a100-80gb", m=np.array([7168, 36864])[:, None], k=9216, n=8, sparsity=[0.6, 0.8, 0.9])
    assert p.time_s.shape == p.bound.shape == p.extrapolated.shape == p.dram_bytes.shape == (2, 3)
    single = predict("flash-llm", "a100-80gb", m=36864, k=9216, n=8, sparsity=0.8)
    assert float(p.time_s[1, 1]) == float(single.time_s)


def test_one_machine_of_arrays_equals_many_machines() -> None:
    names = ["a100-80gb", "h100", "rtx-4090"]
    gpus = [load_gpu(name) for name in names]
    stacked = Machine.stack(gpus, [2, 0, 1])
    shape = Shape.of(7168, 7168, 16, 0.7)
    for kernel, model in KERNELS.items():
        if kernel == "macko":
            continue
        together = model.time(stacked, shape, calibrated(kernel)).time_s
        alone = [float(model.time(Machine.of(gpus[i]), shape, calibrated(kernel)).time_s) for i in (2, 0, 1)]
        assert_close(together, alone, relative=1e-12)


def test_table_keeps_the_order_of_its_rows() -> None:
    rows = pd.DataFrame(
        {
            "gpu": ["h100", "a100-80gb", "h100"],
            "m": [4096, 36864, 4096],
            "k": [4096, 9216, 4096],
            "n": [8, 8, 16],
            "sparsity": [0.5, 0.8, 0.5],
            "kernel": ["flash-llm", "cublas", "sputnik"],
        }
    )
    predicted = predict_table(rows)
    for i, row in rows.iterrows():
        alone = predict(row["kernel"], row["gpu"], row["m"], row["k"], row["n"], row["sparsity"])
        assert predicted.loc[i, "time_us"] == pytest.approx(float(alone.time_s) * 1e6)


def test_extrapolation_is_marked() -> None:
    fit = kernel_fits()["flash-llm"]
    inside = extrapolated(fit, "a100-80gb", 36864, 9216, 8, 0.8)
    assert not inside
    for gpu, m, k, n, sparsity in (
        ("h100", 36864, 9216, 8, 0.8),
        ("a100-80gb", 1024, 9216, 8, 0.8),
        ("a100-80gb", 36864, 9216, 128, 0.8),
        ("a100-80gb", 36864, 9216, 8, 0.3),
    ):
        assert extrapolated(fit, gpu, m, k, n, sparsity)
    assert not extrapolated(kernel_fits()["cublas"], "a100-80gb", 36864, 9216, 8, 0.8)


def test_nearest_evidence_finds_the_row_itself(joined: pd.DataFrame) -> None:
    row = nearest_evidence(joined, "flash-llm", "a100-80gb", 36864, 9216, 16, 0.9)
    assert row is not None
    assert (row["m"], row["k"], row["n"], row["sparsity"]) == (36864, 9216, 16, 0.9)
    assert nearest_evidence(joined, "flash-llm", "v100", 36864, 9216, 16, 0.9) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 12}, "flash-llm takes N of 8, 16, 32, 64 or a multiple of 128, got 12; pad N to 16"),
        ({"m": 0}, "m must be at least 1, got 0"),
        ({"k": -5}, "k must be at least 1, got -5"),
        ({"n": float("nan")}, "n must be at least 1, got nan"),
        ({"sparsity": 80}, "did you mean 0.8"),
        ({"kernel": "flashllm"}, "did you mean flash-llm"),
        ({"gpu": "a100"}, "did you mean a100-"),
    ],
)
def test_bad_input_names_value_and_remedy(change: dict[str, object], message: str) -> None:
    arguments = {"kernel": "flash-llm", "gpu": "a100-80gb", **CASE, "sparsity": 0.8} | change
    with pytest.raises(ValueError, match=message):
        predict(**arguments)
