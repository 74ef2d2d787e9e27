"""Who competes, in which words, and when somebody has won."""

from __future__ import annotations

import pytest

from perfmodel import choice, worth
from perfmodel.kernels import KERNELS
from perfmodel.kernels.rivals import STANDINGS, Verdict, drops_more, rivals, standing, verdict_of


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"),
    [
        ((5, 6), (3, 4), "yes"),
        ((3, 4), (5, 6), "no"),
        ((3, 5), (4, 6), "tie"),
        ((3, 4), (4, 6), "tie"),  # they touch
        (None, (3, 4), "no"),
        ((3, 4), None, "yes"),
        (None, None, "no"),
    ],
)
def test_a_verdict_needs_intervals_apart(ours, theirs, verdict):
    assert verdict_of(ours, theirs) == verdict


@pytest.mark.parametrize(
    ("kernel", "words"),
    [
        ("cublas", "lossless"),
        ("fp8", "rounded"),
        ("flash-llm", "pruned"),
        ("two-four", "pruned"),
        ("two-four-int8", "pruned and rounded"),
        ("mxfp4", "not measured"),
        ("lscd-bitmap-4", "not measured"),
    ],
)
def test_what_a_reader_must_know_first(kernel, words):
    assert standing(KERNELS[kernel]) == words
    assert words in STANDINGS


def test_rivals_are_measured_and_no_slower_variants():
    names = {model.name for model in rivals()}
    assert {standing(KERNELS[name]) for name in names} <= {"lossless", "rounded", "pruned", "pruned and rounded"}
    assert "flash-llm-noreorder" not in names
    assert {"fp8", "int4", "two-four", "flash-llm"} <= names


@pytest.mark.parametrize(
    ("kernel", "sparsity", "more"),
    [("two-four", 0.4, True), ("two-four", 0.5, False), ("six-eight", 0.2, False), ("flash-llm", 0.1, False)],
)
def test_a_pattern_may_drop_more_than_asked(kernel, sparsity, more):
    assert drops_more(KERNELS[kernel], sparsity) == more


def test_the_list_and_the_verdict_are_the_same_everywhere():
    assert choice.rivals is rivals
    assert worth.Verdict is Verdict
