"""The chapter on accuracy: drawn from data, counted, and of nobody else's family."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import pytest

from lscd.report import accuracy as chapter
from lscd.report import kernels, pays
from lscd.report.exhibit import Context, pruned_to, rests_on
from perfmodel.catalog import load_model
from perfmodel.evidence import accuracy
from perfmodel.evidence.quality_words import POINTS
from perfmodel.evidence.relatives import family_and_size
from perfmodel.frontier import best, frontier
from perfmodel.plotting.style import house_style
from perfmodel.serving.transformer import layer_matrices


@pytest.fixture(autouse=True)
def style() -> Iterator[None]:
    with house_style():
        yield
    plt.close("all")


def test_the_summary_answers_with_language_models() -> None:
    exhibit = chapter.within_budget(Context())
    assert chapter.CHAPTER.question == "And accuracy?"
    assert chapter.CHAPTER.headline == "within_budget"
    table = exhibit.table
    assert set(table["model"]) == set(chapter.MODELS)
    assert {family_and_size(model)[0] for model in chapter.MODELS} >= {"opt"}
    for row in table.to_dict("records"):
        assert row["loss"] <= row["budget"]
    found = best(frontier("qwen3-8b", "h100", batch=chapter.BATCH), 1.0)
    assert found is not None
    shown = table[(table["model"] == "qwen3-8b") & (table["gpu"] == "h100") & (table["budget"] == 1)]
    assert shown.loc[shown["kind"] == "any", "way"].item() == found.row["way"]
    counts = [len(accuracy.results(model)) for model in chapter.MODELS]
    assert all(f"{count} results in" in exhibit.evidence for count in counts)


def test_every_frontier_says_how_much_it_rests_on() -> None:
    for maker, model in ((chapter.frontier_llama, chapter.MODELS[0]), (chapter.frontier_opt, chapter.MODELS[1])):
        exhibit = maker(Context())
        known = accuracy.variants(model)
        assert exhibit.evidence.startswith(f"{known['results'].sum()} published results of {len(known)} ways")
        assert exhibit.figure is not None
        assert len(exhibit.figure.axes) == len(chapter.GPUS)
        families = {family_and_size(name)[0] for name in exhibit.table["model"].dropna()}
        assert families == {family_and_size(model)[0]}


def test_limits_are_of_the_models_they_stand_beside() -> None:
    table = chapter.reach_table()
    assert len(table) > 40
    row = table[(table["model"] == "opt-175b") & (table["metric"] == POINTS)].iloc[0]
    limit = accuracy.feasible("opt-175b")
    assert limit is not None
    assert (row["sparsity"], row["method"]) == (limit.sparsity, limit.method)


def test_lines_in_figures_of_products_name_their_model() -> None:
    """A line is of the model whose matrices the figure is about, or says whose it is."""
    limits = pruned_to(*pays.SHAPES_OF)
    shapes = {(int(x.m), int(x.k)) for name in pays.SHAPES_OF for x in layer_matrices(load_model(name).shape)}
    drawn = Context().benchmark[["m", "k"]].drop_duplicates()
    assert shapes & set(drawn.itertuples(index=False, name=None))
    for name, limit in limits.items():
        assert family_and_size(limit.model)[0] == family_and_size(name)[0]
    exhibit = kernels.storage(Context())
    assert exhibit.figure is not None
    named = {text.get_text() for text in exhibit.figure.axes[0].texts}
    marked = pruned_to("opt-66b", "llama-2-7b", "llama-3.1-8b")
    assert set(marked) <= named
    assert all(limit.words in exhibit.evidence for limit in marked.values())


def test_a_model_without_results_has_no_line() -> None:
    assert pruned_to("gpt-oss-20b") == {}
    assert "nothing is published" in rests_on({})
