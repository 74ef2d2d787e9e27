"""Quality against speed as pictures: every way has its mark, gaps stand apart, rings sit on the best."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from perfmodel.evidence.ways import WAYS
from perfmodel.plotting import frontier as draw
from perfmodel.plotting.style import house_style
from tests.figures import faults
from tests.perfmodel.plotting.boxes import on_markers, overlaps


@pytest.fixture(autouse=True)
def style() -> Iterator[None]:
    with house_style():
        yield
    plt.close("all")


def table() -> pd.DataFrame:
    """Dense, FP8, two prunings as fast as each other, one way unpublished, one beyond the edge."""
    rows = [
        ("dense", 0.0, 100.0, None), ("FP8", 0.5, 150.0, False), ("zeros anywhere", 1.5, 200.0, False),
        ("zeros anywhere", 1.8, 200.0, False), ("6:8", np.nan, 120.0, None), ("2:4", 30.0, 400.0, True),
    ]  # fmt: skip
    found = pd.DataFrame(rows, columns=["way", "loss", "tokens_per_gpu_s", "retrained"])
    spread = {"loss_low": found["loss"], "loss_high": found["loss"], "sparsity": 0.5, "model": "opt-30b"}
    ends = {"low": found["tokens_per_gpu_s"] * 0.9, "high": found["tokens_per_gpu_s"] * 1.1}
    return found.assign(**spread, **ends, extrapolated=found["way"] == "6:8")


def test_every_way_has_a_mark_and_says_what_becomes_of_the_weights() -> None:
    assert {way.title for way in WAYS} | {"dense", "layers dropped", "smaller dense model"} == set(draw.MARKS)
    assert len({(mark.colour, mark.marker) for mark in draw.MARKS.values()}) == len(draw.MARKS)
    for way in WAYS:
        rounds = way.weights != "fp16"
        expected = "pruned and rounded" if way.prunes and rounds else "pruned" if way.prunes else "rounded"
        assert draw.change_of(way.title) == expected


def test_the_best_is_ringed_and_what_is_unknown_stands_apart() -> None:
    figure = draw.frontiers({"one": table()}, (1, 2), "points")
    axes = figure.axes[0]
    rings = [line for line in axes.lines if line.get_markerfacecolor() == "none"]
    assert [tuple(np.concatenate(line.get_data())) for line in rings] == [(0.5, 150.0), (1.5, 200.0)]
    unknown = [line for line in axes.lines if line.get_markerfacecolor() == "lightgrey"]
    assert [line.get_data()[0][0] for line in unknown] == [draw.UNKNOWN * draw.RIGHT]
    drawn = {text.get_text() for text in figure.legends[0].get_texts()}
    headings = {"16-bit weights", "rounded", "pruned"}
    assert drawn - {" "} == {"dense", "FP8", "zeros anywhere", "6:8"} | headings  # nothing beyond the edge
    assert axes.get_ylim()[1] < 300


def test_names_of_the_best_cover_no_mark_and_bars_are_dotted_outside_the_evidence() -> None:
    figure = draw.frontiers({"one": table()}, (1, 2), "points")
    axes = figure.axes[0]
    assert {text.get_text() for text in axes.texts} == {"FP8", "50 %"}
    marks = [line for line in axes.lines if line.get_marker() != "None"]
    for text in axes.texts:
        box = text.get_window_extent()
        assert not [line for line in marks if box.contains(*axes.transData.transform(line.get_xydata()[0]))]
    dotted = [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":" and line.get_alpha()]
    assert dotted == [draw.UNKNOWN * draw.RIGHT]  # of 6:8
    assert not faults(figure)
    assert not overlaps(figure)


def test_a_name_goes_where_no_mark_is() -> None:
    figure, axes = plt.subplots(figsize=(draw.PAGE, 2))
    axes.plot([0.5], [0.5], "o")
    axes.plot([0.53], [0.55], "o")  # where the name would stand first
    axes.set(xlim=(0, 1), ylim=(0, 1))
    figure.draw_without_rendering()
    draw._write(axes, [("a name", (0.5, 0.5), "#000000")])
    assert on_markers(figure) == []


def test_key_has_a_column_a_group_and_blanks_below_short_ones() -> None:
    key = [handle.get_label() for handle in draw._key(set(draw.MARKS))]
    lines = draw._lines(set(draw.MARKS))
    assert len(key) % lines == 0
    assert [key[i] for i in range(0, len(key), lines)] == [
        "16-bit weights", "rounded", " ", "pruned", "pruned and rounded",
    ]  # fmt: skip
    assert {way for way in key if way in draw.MARKS} == set(draw.MARKS)


def test_profiles_stand_by_model_each_with_its_zeros_and_its_time() -> None:
    layers = pd.DataFrame({"profile": ["b"] * 2 + ["a"] * 2, "layer": [0, 1] * 2, "sparsity": [0.6, 0.8, 0.5, 0.7]})
    compared = pd.DataFrame({"profile": ["b", "b", "a"], "model": ["m", "m", "l"], "sparsity": [0.7, 0.7, 0.6]})
    compared["layer_wise"], compared["uniform"], compared["dense"] = [9.0, 9.0, np.nan], [12.0, 12.0, np.nan], 5.0
    compared["step_layer_wise_s"], compared["step_uniform_s"] = [1.01, 1.03, 1.02], 1.0
    figure = draw.layer_wise(layers, compared)
    depth, kept, time = figure.axes
    assert [label.get_text() for label in depth.get_yticklabels()] == ["a", "b"]
    assert [text.get_text() for text in kept.texts] == ["not published"]
    assert [np.round(line.get_xdata(), 6).tolist() for line in time.lines[:2]] == [[2, 2], [1, 3]]
    outline = depth.patches[-1]  # of b: fewer zeros than the mean first, then more, drawn upwards
    np.testing.assert_allclose(outline.get_data().values, [1 + 5 / draw.HALF, 1 - 5 / draw.HALF])
    assert not faults(figure)
    assert not overlaps(figure)


def test_a_panel_without_marks_says_why() -> None:
    nothing = table().assign(tokens_per_gpu_s=np.nan, low=np.nan, high=np.nan, gap="too large for 8 GPUs")
    figure = draw.frontiers({"one": table(), "other": nothing}, (1, 2), "points")
    said = [text.get_text() for text in figure.axes[1].texts]
    assert said == ["nothing to draw:\ntoo large for 8 GPUs"]
    assert not faults(figure)


def test_profiles_without_a_time_say_so() -> None:
    names = list("abcdef")
    layers = pd.DataFrame({"profile": names * 2, "layer": [0] * 6 + [1] * 6, "sparsity": [0.5] * 6 + [0.7] * 6})
    compared = pd.DataFrame({"profile": names, "model": "l", "sparsity": 0.6, "dense": 5.0})
    compared = compared.assign(layer_wise=9.0, uniform=12.0, step_layer_wise_s=np.nan, step_uniform_s=np.nan)
    figure = draw.layer_wise(layers, compared)
    assert [text.get_text() for text in figure.axes[2].texts] == ["no measured\nkernel"]
    assert not faults(figure)


def test_reach_says_where_nothing_is_published() -> None:
    rows = pd.DataFrame(
        {
            "model": ["opt-30b", "opt-30b", "llama-2-7b"],
            "family": ["opt", "opt", "llama-2"],
            "metric": ["points", "points", "wikitext2-perplexity"],
            "retrained": [False, True, False],
            "sparsity": [0.5, 0.8, 0.2],
            "low": [0.4, 0.8, 0.1],
            "high": [0.6, 0.8, 0.3],
            "beyond": [False, True, False],
            "sources": [2, 1, 1],
        }
    )
    figure = draw.pruning_reach(rows, {"points": "within 2 points", "wikitext2-perplexity": "within 10 %"})
    assert [[text.get_text() for text in axes.texts] for axes in figure.axes] == [["not published"], ["not published"]]
    sizes = [line.get_markersize() for line in figure.axes[0].lines if line.get_marker() in ("o", ">")]
    assert sizes[0] > sizes[1]  # two sources, one
