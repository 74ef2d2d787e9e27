"""Fits of the kernel models: disjoint from what is reported, reproducible, and open to a user's rows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest

from perfmodel import predict
from perfmodel.catalog import CALIBRATION_FILE, data_directory, load_kernel_times
from perfmodel.catalog.checks import checked_kernel_times
from perfmodel.evidence.kernel_fit import (
    FIT_RULES,
    LIBRARY_KERNELS,
    fit,
    fit_all,
    fitted_kernels,
    fitted_rows,
    own_fitted,
    predictor,
    rules_with,
)
from perfmodel.evidence.rows import calls, kernel_evidence, machines, shapes_of, with_residency
from perfmodel.evidence.uncertainty import with_spread
from perfmodel.evidence.validation import join_predictions
from perfmodel.kernels import BASELINE, GPU_KERNELS, KERNELS, kernel_model
from perfmodel.kernels.fits import (
    calibrated,
    extrapolated,
    interval,
    kernel_fits,
    kernel_parameters,
    unmeasured_kernels,
)
from tests.comparison import assert_close
from tests.perfmodel.cases import OURS
from tests.perfmodel.evidence.own_rows import SIZES, TRUTH


def test_fit_and_report_are_disjoint(joined: pd.DataFrame) -> None:
    fitted = joined[joined["fitted"] & ~joined["gpu"].str.contains("@")]  # CPUs hold shapes out, not tokens
    assert 16 not in set(fitted["n"])
    assert set(fitted["source"]) == {rule.source for rule in FIT_RULES if "@" not in rule.gpu}
    assert {"a10", "rtx-a5000", "rtx-a6000", "v100", "a100-40gb", "mi300x"}.isdisjoint(fitted["gpu"])
    # Elsewhere than on the A100 and the RTX 3090: what memories sustain, two kernels of one token, those of few bits.
    elsewhere = fitted[~fitted["gpu"].isin(["a100-80gb", "rtx-3090"])]
    low = {"fp8", "fp8-block", "nvfp4", *LIBRARY_KERNELS}
    assert set(elsewhere["kernel"]) == {"cublas", "sputnik", "cusparse"} | low
    dense = fitted[fitted["kernel"] == "cublas"]
    # The dense model is checked there.
    assert {"gb200", "a100-80gb-pcie", "h100-pcie", "mi300x"}.isdisjoint(dense["gpu"])
    # A benchmark of 2:4 holds most of its weights in the L2; no other such row is fitted.
    assert set(fitted.loc[fitted["resident"], "source"]) == {"slidesparse"}
    assert set(fitted.loc[fitted["source"] == "slidesparse", "kernel"]) == {*LIBRARY_KERNELS, "cublas"}
    assert not fitted["at_least"].any()


def test_resident_rows_take_part_only_where_a_rule_says_so() -> None:
    evidence = with_residency(load_kernel_times("measured/h100-pcie/*"))
    rule = next(rule for rule in FIT_RULES if rule.gpu == "h100-pcie")
    chosen, without = (replace(rule, resident=resident).select(evidence) for resident in (True, False))
    assert rule.resident
    assert evidence.loc[chosen, "resident"].any()
    assert not evidence.loc[without, "resident"].any()
    assert (chosen & ~evidence["resident"].to_numpy()).sum() == without.sum() > 100
    assert set(evidence.loc[chosen, "n"]) == {64, 256, 1024, 4096}


def test_stored_calibration_is_what_the_evidence_gives() -> None:
    again = json.loads(msgspec.json.encode(fit_all()[0]))
    stored = json.loads((data_directory() / CALIBRATION_FILE).read_text())
    assert again.keys() == stored.keys()
    for kernel, found in again.items():
        kept = stored[kernel]["parameters"]
        for name, value in found["parameters"].items():
            if value != pytest.approx(kept[name], rel=2e-3, abs=1e-9):
                assert makes_no_difference(kernel, kept, name, value), (kernel, name)


def makes_no_difference(kernel: str, kept: dict[str, float], name: str, value: float) -> bool:
    """Whether another value of one parameter gives every fitted row the same time: nothing there depends on it."""
    model, evidence = kernel_model(kernel), kernel_evidence(calibrated(BASELINE))
    seconds = predictor(model, evidence[fitted_rows(evidence) & (evidence["kernel"] == kernel).to_numpy()])
    one, other = (seconds(model.Parameters(**(kept | {name: number}))) for number in (kept[name], value))
    return np.allclose(one, other, rtol=1e-9, atol=0)


def test_nothing_is_stored_for_them() -> None:
    assert set(unmeasured_kernels()) == {name for name, model in GPU_KERNELS.items() if model.assumed}
    assert OURS in unmeasured_kernels()
    assert set(kernel_fits()) == set(fitted_kernels(with_residency(load_kernel_times())))
    assert all(entry.rows >= 1 for entry in kernel_fits().values())
    # Once there are rows, a rule of `perfmodel.calibration` must name them, or these kernels are no longer unmeasured.
    assert not set(unmeasured_kernels()) & set(load_kernel_times()["kernel"])


def test_rows_of_a_user_make_it_a_kernel_like_any_other(
    own: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = kernel_fits()
    found = fit(OURS, own, rules=rules_with(own))
    assert found.parameters == pytest.approx(TRUTH, rel=1e-3)
    assert found.rows == len(own)
    fitted = stored | with_spread(
        {"flash-llm": stored["flash-llm"], "macko": stored["macko"], OURS: found},
        with_residency(load_kernel_times()),
        own,
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


CPU_RULE = next(rule for rule in FIT_RULES if rule.source == "cpu-kernels")
SHAPES = (*(CPU_RULE.shapes or ()), (1536, 576), (11008, 4096))
CPU = CPU_RULE.gpu.partition("@")[0]


def synthetic(kernel: str, parameters: object) -> pd.DataFrame:
    """What a machine would measure on which the model is exact."""
    sizes = [(m, k, n, s, t) for m, k in SHAPES for n in (1, 4, 8, 16) for s in (0.5, 0.6, 0.9) for t in (1, 2)]
    rows = pd.DataFrame(sizes, columns=["m", "k", "n", "sparsity", "threads"])
    same = {"kernel": kernel, "time_us": 1.0, "time_err_us": 0.0, "status": "value", "cache": "warm"}
    rows = rows.assign(gpu=CPU + "@" + rows.pop("threads").astype(str), source=CPU_RULE.source, note="", **same)
    rows = with_residency(checked_kernel_times(rows))
    return rows.assign(time_us=predictor(KERNELS[kernel], rows)(parameters) * 1e6)


@pytest.fixture(scope="module")
def bitmap() -> pd.DataFrame:
    wanted = replace(KERNELS["cpu-bitmap"].Parameters(), read_share=0.9, cycles=5e4, decode_flops=6.0, token_flops=4.0)
    return synthetic("cpu-bitmap", wanted)


def test_the_fit_finds_what_made_the_times(bitmap: pd.DataFrame) -> None:
    found = fit("cpu-bitmap", bitmap)
    assert found.parameters == pytest.approx(
        {"read_share": 0.9, "cycles": 5e4, "decode_flops": 6.0, "token_flops": 4.0}, rel=0.01
    )
    assert found.gpus == [CPU_RULE.gpu]
    assert found.fitted_on.startswith(f"cpu-kernels on {CPU_RULE.gpu}, all N, 576 x 576, ")
    assert found.fitted_on.endswith("sparsity 0, 0.5, 0.7, 0.9")


def test_one_thread_other_shapes_and_sparsities_are_held_out(bitmap: pd.DataFrame) -> None:
    chosen = fitted_rows(bitmap)
    assert chosen.any()
    seen, other = bitmap[chosen], bitmap[~chosen]
    assert set(seen["gpu"]) == {CPU_RULE.gpu}
    assert set(other["gpu"]) == {f"{CPU}@1", f"{CPU}@2"}
    assert not set(zip(seen["m"], seen["k"], strict=True)) & {(1536, 576), (11008, 4096)}
    assert set(seen["sparsity"]) == {0.5, 0.9}
    assert not bitmap["resident"].any()


def test_kernels_of_cpus_leave_the_spread_of_the_others_alone(bitmap: pd.DataFrame) -> None:
    """Foreign errors are pooled by kind of device: a bad CPU does not widen a GPU's interval."""
    stored = {name: kernel_fits()[name] for name in ("sputnik",)}
    wrong = bitmap.assign(time_us=bitmap["time_us"] * np.where(bitmap["gpu"] == CPU_RULE.gpu, 1.0, 3.0))
    published = kernel_evidence(calibrated("cublas"))
    both = pd.concat([published[published["kernel"] == "sputnik"], wrong], ignore_index=True)
    fits = {**stored, "cpu-bitmap": fit("cpu-bitmap", wrong)}
    alone, together = with_spread(stored, both)["sputnik"], with_spread(fits, both)
    assert together["sputnik"] == alone
    assert together["cpu-bitmap"].spread["gpu"] > 1.0  # log 3, on one thread


def test_predictions_of_a_fitted_cpu_kernel_have_its_interval(bitmap: pd.DataFrame) -> None:
    fits = with_spread({"cpu-bitmap": fit("cpu-bitmap", bitmap)}, bitmap)
    model, rows = KERNELS["cpu-bitmap"], bitmap[fitted_rows(bitmap)]
    machine, shape, call = machines(rows), shapes_of(rows), calls(rows)
    result = model.time(machine, shape, kernel_parameters(fits["cpu-bitmap"], "cpu-bitmap"), call)
    low, high = interval(model, fits, CPU_RULE.gpu, machine, shape, call, result)
    assert_close(result.time_s * 1e6, rows["time_us"].to_numpy(), relative=0.02)
    assert (low < result.time_s).all()
    assert (high < 1.5 * result.time_s).all()


def test_errors_on_cpu_rows_are_joined_like_all_others(bitmap: pd.DataFrame) -> None:
    joined = join_predictions(bitmap)
    assert len(joined) == len(bitmap)
    assert np.isfinite(joined["error"]).all()
    assert joined["error"].abs().max() > 0.05  # assumed parameters are not those that made the times


def test_tokens_of_a_users_rows_can_be_held_out() -> None:
    """No rule of theirs selects them, the fit says so, and only the others count as seen."""
    own = load_kernel_times("published/kernel_a100.csv").assign(source="mine", resident=False)
    rule = rules_with(own, [16])[-1]
    chosen = own[rule.select(own)]
    assert set(chosen["n"]) == {8, 32}
    assert rule.describe() == "mine on a100-80gb, all N but 16"
    fitted = fit("flash-llm", own, [rule])
    assert (fitted.held_out, fitted.own) == ([16], [("mine", "a100-80gb")])
    rows = own[own["kernel"] == "flash-llm"]
    assert set(rows.loc[own_fitted(fitted, rows, "mine", "a100-80gb"), "n"]) == {8, 32}
    assert not own_fitted(fitted, rows, "others", "a100-80gb").any()
