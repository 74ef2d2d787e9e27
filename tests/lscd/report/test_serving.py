"""Chapter on whole models: OPT-175B beside its published numbers, which no fit has seen."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from matplotlib import pyplot as plt

from lscd.report import serving
from lscd.report.exhibit import Context, percent
from perfmodel.plotting.style import house_style

TEST_MODEL = "opt-175b"


@pytest.fixture(autouse=True)
def style() -> Iterator[None]:
    with house_style():
        yield
    plt.close("all")


def test_every_published_point_of_the_three_models_stands_beside_a_line(context: Context) -> None:
    exhibit = serving.throughput(context)
    both = exhibit.table.dropna(subset="published_tokens_per_gpu_s")
    runs = serving.published_runs()
    assert both.groupby("model").size().to_dict() == runs.groupby("model").size().to_dict()
    largest = both[both["model"] == TEST_MODEL]
    assert set(zip(largest["system"], largest["gpus"], strict=True)) == {("flash-llm", 4), ("fastertransformer", 8)}
    error = (largest["published_tokens_per_gpu_s"] / largest["tokens_per_gpu_s"] - 1).abs().mean()
    assert f"{percent(error)} (OPT-175B)" in exhibit.finding
    assert error < 0.08


def test_opt_175b_takes_part_in_no_fit(context: Context) -> None:
    assert not context.runs.loc[context.runs["model"] == TEST_MODEL, "fitted"].any()
    assert not context.parts.loc[context.parts["model"] == TEST_MODEL, "fitted"].any()
    assert "OPT-175B was never fitted" in serving.breakdown(context).evidence


def test_parts_of_opt_175b_add_up_and_their_errors_are_printed(context: Context) -> None:
    exhibit = serving.breakdown(context)
    table = exhibit.table
    assert len(table) == 2 * 4 * len(serving.PART_NAMES)  # systems, batches
    for part, rows in table.groupby("part"):
        error = (rows["predicted_gpu_s"] / rows["gpu_s"] - 1).abs().mean()
        assert f"{part} {percent(error, 0)}" in exhibit.finding
    totals = table.groupby(["system", "batch"])[["gpu_s", "predicted_gpu_s"]].sum()
    assert (totals["predicted_gpu_s"] / totals["gpu_s"]).between(0.9, 1.1).all()


def test_goals_are_judged_model_by_model(context: Context) -> None:
    """A held-out model that is easy does not hide one that is not."""
    finding = serving.errors(context).finding
    runs = serving.published_runs()
    for model, goal in serving.GOALS.items():
        mean = runs.loc[runs["model"] == model, "error"].abs().mean()
        verdict = "met" if mean <= goal else "missed"
        assert f"{percent(mean, 2)} (goal {percent(goal)}, {verdict})" in finding
    assert set(serving.GOALS) == set(runs["model"])
