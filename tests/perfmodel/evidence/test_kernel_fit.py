"""Fits of the kernel models: disjoint from what is reported, reproducible, and open to a user's rows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pandas as pd
import pytest

from perfmodel import predict
from perfmodel.catalog import CALIBRATION_FILE, data_directory, load_kernel_times
from perfmodel.evidence.kernel_fit import FIT_RULES, LIBRARY_KERNELS, fit, fit_all, fitted_kernels, rules_with
from perfmodel.evidence.rows import with_residency
from perfmodel.evidence.uncertainty import with_spread
from perfmodel.evidence.validation import join_predictions
from perfmodel.kernels import BASELINE, KERNELS
from perfmodel.kernels.fits import extrapolated, kernel_fits, unmeasured_kernels
from tests.perfmodel.cases import OURS
from tests.perfmodel.evidence.own_rows import SIZES, TRUTH


def test_fit_and_report_are_disjoint(joined: pd.DataFrame) -> None:
    fitted = joined[joined["fitted"]]
    assert 16 not in set(fitted["n"])
    assert set(fitted["source"]) == {rule.source for rule in FIT_RULES}
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
        for name, value in found["parameters"].items():
            assert value == pytest.approx(stored[kernel]["parameters"][name], rel=2e-3, abs=1e-9), (kernel, name)


def test_nothing_is_stored_for_them() -> None:
    assert set(unmeasured_kernels()) == {name for name, model in KERNELS.items() if model.assumed}
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
