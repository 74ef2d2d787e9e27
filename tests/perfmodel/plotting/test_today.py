"""Engines as pictures: a panel each, no run out of view, filled where a fit saw it."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import pytest
from matplotlib import pyplot as plt

from perfmodel.plotting import today as draw
from perfmodel.plotting.style import house_style
from tests.figures import faults
from tests.perfmodel.plotting.boxes import overlaps


@pytest.fixture(autouse=True)
def style() -> Iterator[None]:
    with house_style():
        yield
    plt.close("all")


def test_every_run_is_in_view_on_the_panel_of_its_engine() -> None:
    runs = pd.DataFrame({"engine": ["vllm", "vllm", "sglang"], "measured": [5.0, 50.0, 20.0]})
    runs = runs.assign(predicted=[2.0, 45.0, 60.0], fitted=[False, True, False])
    figure = draw.against_measured({"together": runs, "constant": runs[:1]}, "ms")
    vllm, sglang = figure.axes[:2]
    assert vllm.get_title(loc="left") == "vLLM: 2 runs no fit saw"
    drawn = {
        (tuple(line.get_ydata()), line.get_marker(), line.get_markerfacecolor() != "none") for line in vllm.lines[1:]
    }
    assert drawn == {((0.4,), "o", False), ((0.9,), "o", True), ((0.4,), "^", False)}
    for axes, ratio in ((vllm, 0.4), (sglang, 3.0)):
        low, high = axes.get_ylim()
        assert low < ratio < high
    assert not faults(figure)
    assert not overlaps(figure)


def test_experts_are_named_beside_each_panel() -> None:
    kernels = {"flash-llm": "Flash-LLM", "int4": "INT4"}
    table = pd.DataFrame({"model": "m", "kernel": "flash-llm", "n": [1.0, 16.0, 256.0], "each": [1.0, 2.0, 16.0]})
    table = table.assign(speedup=[1.2, 1.5, 0.8])
    table = pd.concat([table, table.assign(kernel="int4", speedup=[2.0, 3.0, 0.9])])
    figure = draw.sparse_experts(table, {"m": "a model"}, kernels)
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["Flash-LLM", "INT4"]
    (top,) = axes.child_axes
    assert [label.get_text() for label in top.get_xticklabels()] == ["1", "2", "16"]
    assert not faults(figure)
    assert not overlaps(figure)
