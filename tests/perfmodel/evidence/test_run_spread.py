"""Intervals of whole runs: they hold nine published runs in ten, and nothing of the test model."""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel.evidence.run_spread import judged_runs, run_coverage, run_spread
from perfmodel.serving.uncertainty import SPREADS


@pytest.fixture(scope="module")
def judged():
    return judged_runs()


def mean(coverage):
    rows = coverage[coverage["source"] != "gpt-fast-a100"]  # predicted as FasterTransformer, which it is not
    return np.average(rows["covered"], weights=rows["rows"])


def test_intervals_hold_nine_runs_in_ten(judged):
    assert 0.85 <= mean(run_coverage(judged, leave_out=False)) <= 0.95


def test_intervals_set_without_a_group_hold_it_nearly_as_often(judged):
    coverage = run_coverage(judged)
    assert 0.85 <= mean(coverage) <= 0.95
    assert set(coverage["kind"]) == set(SPREADS)


def test_they_are_narrow_at_home_and_wider_away(judged):
    width = run_coverage(judged, leave_out=False).set_index(["source", "gpu", "kind"])["width"]
    assert width["flash-llm-fig13", "a100-80gb", "inside"] < 1.25
    assert width["spinfer-fig13-14", "rtx-4090", "gpu"] < 1.7


def test_the_test_model_sets_no_spread(judged):
    others = judged[judged["model"] != "opt-175b"]
    assert run_spread() == pytest.approx(run_spread_of(others))


def run_spread_of(rows):
    from perfmodel.evidence.run_spread import _spread

    return _spread(rows)


def test_fitted_runs_are_not_judged(judged):
    assert run_coverage(judged)["rows"].sum() == (~judged["fitted"]).sum()
