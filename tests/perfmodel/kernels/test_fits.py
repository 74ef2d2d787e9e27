"""Kernels that nobody measured: predicted everywhere, marked everywhere, never fitted without rows."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from lscd.cli import app
from perfmodel import predict
from perfmodel.catalog import gpu_names, load_gpu, load_kernel_times
from perfmodel.evidence.kernel_fit import fit, fitted_kernels, rules_with
from perfmodel.evidence.uncertainty import coverage, with_spread
from perfmodel.evidence.validation import join_predictions
from perfmodel.kernels import BASELINE, KERNELS, Machine, Shape
from perfmodel.kernels.fits import calibrated, extrapolated, interval, kernel_fits, unmeasured_kernels
from perfmodel.serving.run import evaluate
from perfmodel.sweep.table import Plan, chunk_table

OURS = "lscd-bitmap"
SIZES = ((36864, 9216), (9216, 36864), (12288, 12288), (4096, 4096))
TRUTH = {"bandwidth_efficiency": 0.8, "issue_efficiency": 0.6, "shared_efficiency": 0.85, "block_s": 3e-6}


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def own() -> pd.DataFrame:
    """Times of a made-up H100 whose parameters are `TRUTH`, in the schema of the evidence."""
    model, machine = KERNELS[OURS], Machine.of(load_gpu("h100"))
    rows = pd.DataFrame(
        [(m, k, n, s) for m, k in SIZES for n in (8, 16, 32) for s in (0.5, 0.7, 0.9)],
        columns=["m", "k", "n", "sparsity"],
    )
    shape = Shape.of(*(rows[column].to_numpy() for column in rows))
    time_us = model.time(machine, shape, model.Parameters(**TRUTH)).time_s * 1e6
    return rows.assign(gpu="h100", kernel=OURS, time_us=time_us, status="value", source="made-up")


def test_nothing_is_stored_for_them() -> None:
    assert set(unmeasured_kernels()) == {name for name, model in KERNELS.items() if model.assumed}
    assert OURS in unmeasured_kernels()
    assert set(kernel_fits()) == set(fitted_kernels(load_kernel_times()))
    assert all(entry.rows >= 1 for entry in kernel_fits().values())
    # Once there are rows, a rule of `perfmodel.calibration` must name them, or these kernels are no longer unmeasured.
    assert not set(unmeasured_kernels()) & set(load_kernel_times()["kernel"])


@pytest.mark.parametrize("kernel", unmeasured_kernels())
@pytest.mark.parametrize("gpu", gpu_names())
def test_every_prediction_is_an_extrapolation_with_the_range_of_its_assumptions(kernel: str, gpu: str) -> None:
    model, machine = KERNELS[kernel], Machine.of(load_gpu(gpu))
    p = predict(kernel, gpu, m=[[4096], [36864]], k=9216, n=16, sparsity=[0.4, 0.8])
    assert p.extrapolated.shape == (2, 2)
    assert p.extrapolated.all()
    fast, slow = model.at_ends()
    shape = Shape.of([[4096], [36864]], 9216, 16, [0.4, 0.8])
    np.testing.assert_array_equal(p.lo_s, model.time(machine, shape, fast).time_s)
    np.testing.assert_array_equal(p.hi_s, model.time(machine, shape, slow).time_s)
    assert (p.lo_s < p.time_s).all()
    assert (p.time_s < p.hi_s).all()


@pytest.mark.parametrize("kernel", unmeasured_kernels())
def test_each_range_has_its_fast_end_where_declared(kernel: str) -> None:
    """Moving one parameter alone to its fast end makes no shape slower, and some faster."""
    model, machine = KERNELS[kernel], Machine.of(load_gpu("a100-80gb"))
    shape = Shape.of(*np.array([(m, k, n) for m, k in SIZES for n in (8, 64)]).T[:, :, None], [0.3, 0.6, 0.95])
    middle, (fast, slow) = model.Parameters(), model.at_ends()
    at = model.time(machine, shape, middle).time_s
    for name in vars(middle):
        sooner, later = (
            model.time(machine, shape, model.Parameters(**{**vars(middle), name: getattr(end, name)})).time_s
            for end in (fast, slow)
        )
        assert (sooner <= at).all()
        assert (at <= later).all()
        assert (sooner < later).any()


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


def test_whole_models_on_them_are_extrapolations() -> None:
    asked = {"batch": 16, "input_len": 64, "output_len": 512, "sparsity": 0.8, "gpus": 2}
    measured, ours = (
        evaluate("opt-66b", "a100-80gb", system, **asked) for system in ("flash-llm", f"fastertransformer+{OURS}")
    )
    assert not measured.extrapolated
    assert ours.extrapolated
    assert ours.memory.weights < measured.memory.weights


def test_rows_of_a_user_make_it_a_kernel_like_any_other(
    own: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = kernel_fits()
    found = fit(OURS, own, rules=rules_with(own))
    assert found.parameters == pytest.approx(TRUTH, rel=1e-3)
    assert found.rows == len(own)
    fitted = stored | with_spread(
        {"flash-llm": stored["flash-llm"], "macko": stored["macko"], OURS: found}, load_kernel_times(), own
    )
    assert 0 < fitted[OURS].spread["inside"] < 0.05
    path = tmp_path / "own.json"
    path.write_bytes(msgspec.json.encode(fitted))
    before = predict(OURS, "h100", *SIZES[0], 16, 0.8)
    monkeypatch.setenv("LSCD_CALIBRATION", str(path))
    after = predict(OURS, "h100", *SIZES[0], 16, 0.8)
    assert OURS not in unmeasured_kernels()
    assert not after.extrapolated
    assert predict(OURS, "h100", *SIZES[0], 16, 0.3).extrapolated
    assert predict(OURS, "a100-80gb", *SIZES[0], 16, 0.8).extrapolated
    assert float(after.hi_s / after.lo_s) < float(before.hi_s / before.lo_s)
    assert join_predictions(own)["fitted"].all()


def test_rows_at_one_sparsity_say_nothing_about_another(own: pd.DataFrame) -> None:
    """Unlike those of a dense or a quantised kernel, which any sparsity leaves as it is."""
    rows = own[own["sparsity"] == 0.7]
    found = fit(OURS, rows, rules=rules_with(rows))
    assert list(extrapolated(found, "h100", 9216, 36864, 16, [0.6, 0.7, 0.8])) == [True, False, True]
    dense = kernel_fits()[BASELINE]
    assert not extrapolated(dense, "a100-80gb", 36864, 9216, 8, [0.0, 0.8]).any()


def test_rows_of_a_user_without_a_fit_are_held_out(own: pd.DataFrame) -> None:
    joined = join_predictions(own)
    assert not joined["fitted"].any()
    assert 0.01 < joined["error"].abs().mean() < 0.2
    assert coverage(joined, kernel_fits()).empty


def test_interval_and_mark_need_no_fit() -> None:
    model, machine = KERNELS[OURS], Machine.of(load_gpu("l40s"))
    shape = Shape.of(4096, 4096, 8, 0.5)
    time_s = model.time(machine, shape, calibrated(OURS)).time_s
    lo_s, hi_s = interval(model, None, "l40s", machine, shape, time_s)
    assert lo_s < time_s < hi_s
    assert extrapolated(None, "l40s", np.ones((3, 1)), 1, np.ones(2), 0.5).shape == (3, 2)


def test_a_calibration_that_lacks_a_measured_kernel_is_refused() -> None:
    incomplete = {name: entry for name, entry in kernel_fits().items() if name != "flash-llm"}
    with pytest.raises(ValueError, match="no kernel 'flash-llm'"):
        calibrated("flash-llm", incomplete)


def test_commands_name_them_and_say_so() -> None:
    question = ("--gpu", "h100", "--m", "36864", "--k", "9216", "--n", "16", "--sparsity", "0.6")
    found = {row["kernel"]: row for row in json.loads(run("predict", *question, "--json"))["kernels"]}
    assert {name for name, row in found.items() if not row["measured"]} == set(unmeasured_kernels())
    assert found[OURS]["time_us"] < found["flash-llm"]["time_us"]
    answer = run("predict", *question)
    assert f"never measured, but might reach: {OURS} " in answer
    assert f"{OURS} is the fastest" not in answer
    assert "none at all" in answer
    assert f"no evidence: {', '.join(unmeasured_kernels())}" in run("validate")
    assert OURS in run("kernels", "list")
    listed = run("formats")
    assert all(f"\n{name} " in listed for name in (OURS, f"{OURS}-8", f"{OURS}-4"))
    assert "(extrapolated)" in run(
        "e2e", "--model", "opt-30b", "--gpu", "a100-80gb", "--batch", "16", "--system", f"fastertransformer+{OURS}"
    )
