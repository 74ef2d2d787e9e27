"""Rows of a sweep are the numbers of one prediction at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from perfmodel import predict
from perfmodel.kernels import BASELINE, KERNELS
from perfmodel.prediction import predict_table
from perfmodel.serving.run import evaluate
from perfmodel.sweep import Plan, run
from perfmodel.sweep.table import chunk_table
from tests.comparison import assert_close
from tests.perfmodel.cases import OURS
from tests.perfmodel.kernels.running import RUNNING
from tests.perfmodel.sweep.cases import AXES, E2E, plan, small_chunks, swept


def test_a_sweep_says_the_same() -> None:
    axes = {
        "gpu": "h100",
        "kernel": [OURS, BASELINE],
        "m": [4096, 36864],
        "k": 9216,
        "n": [8, 100],
        "sparsity": [0.4, 0.8],
    }
    columns = ["time_us", "lo_us", "hi_us", "extrapolated"]
    plan = Plan.of({"sweep": {"target": "predict", "columns": columns}, "axes": axes})
    table = pd.concat([chunk_table(plan, i).to_pandas() for i in range(plan.spec.grid.chunks)])
    rows = table[table["kernel"] == OURS]
    p = predict(OURS, "h100", *(rows[column].to_numpy() for column in ("m", "k", "n", "sparsity")))
    assert len(rows) == 8
    assert rows["extrapolated"].all()
    for column, seconds in (("time_us", p.time_s), ("lo_us", p.lo_s), ("hi_us", p.hi_s)):
        np.testing.assert_allclose(rows[column], seconds * 1e6, rtol=1e-12)


def test_how_a_product_is_called_is_an_axis() -> None:
    axes = {"gpu": "rtx-4090", "kernel": BASELINE, "m": 4096, "k": 4096, "n": 8, "sparsity": 0.0}
    how = {"launch": "all", "cache": ["cold", "warm"], "split_k": [1, 4]}
    sweep = Plan.of({"sweep": {"target": "predict", "columns": ["time_us"]}, "axes": axes | how})
    table = pd.concat([chunk_table(sweep, i).to_pandas() for i in range(sweep.spec.grid.chunks)])
    assert len(table) == 8
    for row in table.itertuples():
        p = predict(BASELINE, "rtx-4090", 4096, 4096, 8, launch=row.launch, cache=row.cache, split_k=row.split_k)
        assert row.time_us == pytest.approx(float(p.time_s) * 1e6)


def test_predict_rows_equal_single_predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_chunks(monkeypatch)
    columns = ["n_padded", "time_us", "speedup_vs_dense", "bound", "extrapolated", "lo_us", "hi_us"]
    rows = swept(plan(columns=columns), tmp_path / "out.parquet")
    running = [KERNELS[name] for gpu, name in RUNNING if gpu in AXES["gpu"]]
    takes = [int((~np.isnan(model.padded_n([1, 8, 12, 100]))).sum()) for model in running]
    shares = [int(model.takes_sparsity([0.0, 0.3, 0.6, 0.9]).sum()) for model in running]
    assert len(rows) == 2 * 2 * np.dot(takes, shares)
    assert set(rows["kernel"]) == {model.name for model in running if not model.patterns}
    alone = predict_table(rows.assign(n=rows["n_padded"]).astype({"gpu": str, "kernel": str}))
    same_n = rows["n"] == rows["n_padded"]  # otherwise the baseline of the sweep multiplies fewer tokens
    for column in ("time_us", "lo_us"):
        assert_close(rows[column], alone[column], relative=1e-12)
    np.testing.assert_allclose(rows["hi_us"], alone["hi_us"], rtol=1e-12)  # missing where only a bound is known
    assert_close(rows["speedup_vs_dense"][same_n], alone["speedup_vs_dense"][same_n], relative=1e-12)
    assert (rows["speedup_vs_dense"] <= alone["speedup_vs_dense"] + 1e-12).all()
    assert (rows["bound"].astype(str) == alone["bound"]).all()
    assert (rows["extrapolated"] == alone["extrapolated"]).all()


def test_patterns_keep_their_own_sparsities_and_refused_gpus_are_left_out() -> None:
    axes = AXES | {
        "gpu": ["v100", "a100-80gb", "h100"],
        "kernel": ["two-four", "six-eight", "two-four-fp8", "fp8"],
        "n": 64,
        "sparsity": [0.25, 0.5, 0.8],
    }
    rows = chunk_table(plan(columns=["time_us"], axes=axes), 0).to_pandas()
    found = {(row.gpu, row.kernel, row.sparsity) for row in rows.itertuples()}
    assert found == {
        *((gpu, kernel, s) for gpu in ("a100-80gb", "h100") for kernel, s in (("two-four", 0.5), ("six-eight", 0.25))),
        *(("h100", "two-four-fp8", s) for s in (0.25, 0.5)),
        *(("h100", "fp8", s) for s in (0.25, 0.5, 0.8)),
    }
    row = rows[(rows["gpu"] == "h100") & (rows["kernel"] == "six-eight")].iloc[-1]
    alone = predict("six-eight", "h100", row["m"], row["k"], 64, 0.25)
    assert row["time_us"] == pytest.approx(float(alone.time_s) * 1e6)


def test_activations_are_an_axis() -> None:
    axes = {"gpu": "h100", "kernel": ["fp8", BASELINE], "m": 4096, "k": 4096, "n": 8, "sparsity": 0.0}
    sweep = Plan.of({"sweep": {"target": "predict", "columns": ["time_us"]}, "axes": axes | {"activations": "all"}})
    rows = chunk_table(sweep, 0).to_pandas().set_index(["kernel", "activations"])["time_us"]
    assert rows["fp8", "quantised"] < rows["fp8", "fp16"]
    assert rows[BASELINE, "quantised"] == rows[BASELINE, "fp16"]


def test_e2e_rows_equal_single_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_chunks(monkeypatch)
    rows = swept(plan("e2e"), tmp_path / "out.parquet")
    # 3 GPUs share neither model; OPT knows 2048 positions, Mixtral's are computed.
    assert len(rows) == 2 * 2 * 2 * 3 * 2 * (2 + 3)
    for row in rows.sample(40, random_state=0).itertuples():
        alone = evaluate(
            row.model, row.gpu, row.system, batch=row.batch, input_len=row.input_len, output_len=row.output_len,
            sparsity=row.sparsity, gpus=row.gpus,
        )  # fmt: skip
        assert row.fits == bool(alone.memory.fits)
        assert row.memory_gb == pytest.approx(float(alone.memory.total) / 1e9, rel=1e-12)
        expected = float(alone.tokens_per_gpu_s) if row.fits else np.nan
        assert row.tokens_per_gpu_s == pytest.approx(expected, rel=1e-12, nan_ok=True)


def test_more_bandwidth_is_never_slower_and_scale_one_changes_nothing() -> None:
    scales = [0.5, 1.0, 2.0, 4.0]
    what_if = chunk_table(plan(axes=AXES | {"dram_bandwidth_scale": scales}), 0).to_pandas()
    times = what_if["time_us"].to_numpy().reshape(-1, len(scales))
    assert (np.diff(times, axis=1) <= 1e-12).all()
    assert np.array_equal(times[:, 1], chunk_table(plan(), 0).to_pandas()["time_us"])


PATTERNS = {
    "model": "opt-13b", "gpu": ["a100-80gb", "h100"], "gpus": 1, "sparsity": [0.5, 0.8], "batch": 8, "input_len": 64,
    "output_len": 64, "system": ["vllm+two-four", "vllm+4:6", "vllm+fp8", "vllm"],
}  # fmt: skip


def test_systems_are_left_out_where_their_pattern_or_the_gpu_differs(tmp_path: Path) -> None:
    rows = swept(plan("e2e", PATTERNS), tmp_path / "out.parquet")
    left = {(row.gpu, row.system, row.sparsity): row.tokens_per_gpu_s for row in rows.itertuples()}
    assert set(left) == {
        *((gpu, "vllm+two-four", 0.5) for gpu in PATTERNS["gpu"]),
        *((gpu, "vllm", share) for gpu in PATTERNS["gpu"] for share in (0.5, 0.8)),
        *(("h100", "vllm+fp8", share) for share in (0.5, 0.8)),
    }
    for (gpu, system, sparsity), rate in left.items():
        alone = evaluate("opt-13b", gpu, system, batch=8, input_len=64, output_len=64, sparsity=sparsity)
        assert rate == pytest.approx(float(alone.tokens_per_gpu_s), rel=1e-6)


def test_impossible_points_are_refused_before_work_unless_left_out(tmp_path: Path) -> None:
    for target, change, message in (
        ("predict", AXES, "macko takes N of 1, got n 8"),
        ("e2e", E2E, "opt-30b .* knows 2048 positions; impossible is gpus 1, input_len 64, output_len 2048"),
        ("e2e", E2E | {"output_len": 512}, "opt-30b has 56 heads .* impossible is gpus 3"),
        ("e2e", PATTERNS | {"gpu": "h100"}, "two-four takes the sparsity of its pattern, 0.5, got sparsity 0.8"),
        ("e2e", PATTERNS | {"system": "vllm+fp8"}, "has no FP8 Tensor Cores"),
    ):
        asked = plan(target, change, constraints={"possible": False})
        with pytest.raises(ValueError, match=message):
            run(asked, tmp_path / "out.parquet")
    assert not list(tmp_path.iterdir())
