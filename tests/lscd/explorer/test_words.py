"""The explorer's verdicts in words."""

from __future__ import annotations

import pytest

from lscd.explorer.state import PRESETS, State
from tests.lscd.explorer.cases import facts


def test_the_verdict_follows_the_memory() -> None:
    assert facts(PRESETS["opt-66b-two-gpus"])["fits"].value == "✓ fits"
    too_big = facts(PRESETS["too-big"])
    assert too_big["fits"].value == "✗ does not fit"
    assert "if it did fit" in too_big["throughput"].note


@pytest.mark.parametrize(
    ("sparsity", "value"), [(0.4, "one-shot pruning"), (0.75, "needs retraining"), (0.97, "not shown")]
)
def test_the_accuracy_tile_follows_published_pruning(sparsity: float, value: str) -> None:
    assert facts(State(sparsity=sparsity))["accuracy"].value == value


@pytest.mark.parametrize(("sparsity", "tie"), [(0.5, True), (0.9, False)])
def test_the_throughput_tile_says_tie_where_intervals_overlap(sparsity: float, tie: bool) -> None:
    note = facts(State(model="opt-30b", gpus=2, batch=16, sparsity=sparsity))["throughput"].note
    assert note.startswith("90 % interval")
    assert ("a tie: their intervals overlap" in note) == tie
