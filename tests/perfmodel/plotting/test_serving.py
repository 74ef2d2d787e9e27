"""Pictures of whole models."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import pytest
from matplotlib import pyplot as plt

from perfmodel.plotting import serving
from perfmodel.plotting.style import KERNEL_COLOURS, house_style

PARTS = ("matmul", "attention")


@pytest.fixture(autouse=True)
def style() -> Iterator[None]:
    with house_style():
        yield
    plt.close("all")


def test_a_host_with_another_kernel_looks_as_that_kernel() -> None:
    assert serving.SYSTEM_COLOURS["fastertransformer+bitmap"] == KERNEL_COLOURS["bitmap"]
    assert set(serving.SYSTEM_COLOURS) == set(serving.SYSTEM_MARKERS)
    for looks in (serving.SYSTEM_COLOURS, serving.SYSTEM_MARKERS):
        assert len(set(looks.values())) == len(looks)


@pytest.mark.parametrize("same_scale", [True, False])
def test_published_bars_stand_above_predicted_ones(same_scale: bool) -> None:
    table = pd.DataFrame(
        {
            "panel": ["A", "A", "B"],
            "label": ["1 GPU", "2 GPUs", "1 GPU"],
            "matmul": [5.0, 6.0, 50.0],
            "attention": [1.0, 2.0, 10.0],
            "predicted_matmul": [4.0, 7.0, 40.0],
            "predicted_attention": [1.5, 2.5, 15.0],
        }
    )
    figure = serving.breakdown_beside(table, PARTS, same_scale=same_scale)
    first, second = figure.axes
    assert [len(axes.patches) for axes in figure.axes] == [2 * 2 * 2, 2 * 2]
    assert [text.get_text() for text in first.get_yticklabels()] == ["1 GPU", "2 GPUs"]
    assert sorted(text.get_text() for text in first.texts) == ["5.5", "6.0", "8.0", "9.5"]
    published = [bar for bar in second.patches if bar.get_alpha() == serving.PALE]
    predicted = [bar for bar in second.patches if bar.get_alpha() != serving.PALE]
    assert [bar.get_width() for bar in published] == [50, 10]
    assert [bar.get_x() for bar in predicted] == [0, 40], "stacked"
    assert min(bar.get_y() for bar in published) > max(bar.get_y() for bar in predicted)
    assert (first.get_xlim() == second.get_xlim()) == same_scale


def test_throughput_marks_what_is_published() -> None:
    lines = pd.DataFrame({"model": "opt-175b", "system": "flash-llm", "gpus": 4, "batch": [8, 16, 32]})
    lines["tokens_per_gpu_s"] = [45.0, 80.0, 135.0]
    markers = lines[lines["batch"] != 16]
    (axes,) = serving.throughput(
        pd.concat([lines, lines.assign(model="opt-30b")]), markers, {"opt-30b": "OPT-30B", "opt-175b": "OPT-175B"}
    ).axes[1:]
    line, seen = axes.lines
    assert list(line.get_xdata()) == [8, 16, 32]
    assert list(seen.get_xdata()) == [8, 32]
