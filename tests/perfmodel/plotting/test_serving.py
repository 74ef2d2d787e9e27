"""Pictures of whole models."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgba

from perfmodel.plotting import serving
from perfmodel.plotting.style import KERNEL_COLOURS, house_style
from tests.figures import faults
from tests.perfmodel.plotting.boxes import overlaps

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
    full = {to_rgba(serving.PART_COLOURS[part]) for part in PARTS}
    published = [bar for bar in second.patches if bar.get_facecolor() in full]
    predicted = [bar for bar in second.patches if bar.get_facecolor() not in full]
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


def test_every_line_of_throughput_says_its_gpus_where_it_ends() -> None:
    whole = pd.DataFrame({"model": "opt-30b", "system": "flash-llm", "gpus": 1, "batch": [8, 16, 32]})
    full = pd.DataFrame({"model": "opt-30b", "system": "fastertransformer", "gpus": 1, "batch": [8, 16]})
    more = full.assign(gpus=2), pd.DataFrame({**full.iloc[:1], "batch": 32}).assign(gpus=2)
    lines = pd.concat([whole, full, *more], ignore_index=True)
    lines["tokens_per_gpu_s"] = 100.0 * lines["batch"] / lines["gpus"]
    figure = serving.throughput(lines, lines.iloc[:0], {"opt-30b": "OPT-30B"})
    (axes,) = figure.axes
    assert sorted(text.get_text() for text in axes.texts) == ["1 GPU", "1 GPU: memory full", "2 GPUs"]
    assert not faults(figure)
    assert not overlaps(figure)


def test_the_cheapest_stands_first_and_what_is_outside_the_evidence_is_hollow() -> None:
    rows = [
        ("flash-llm", 2, 64, 0.5, 2.0, False),
        ("deepspeed", 1, 8, 0.3, 1.2, True),
        ("flash-llm", 1, 8, 0.9, 3.6, True),
    ]
    table = pd.DataFrame(rows, columns=["system", "gpus", "batch", "usd_low", "usd_high", "extrapolated"])
    figure = serving.cost(table, {"flash-llm": "Flash-LLM", "deepspeed": "DeepSpeed"})
    (axes,) = figure.axes
    named = [label.get_text() for label in axes.get_yticklabels()]
    assert named == ["DeepSpeed, 1 GPU, batch 8", "Flash-LLM, 2 GPUs, batch 64", "Flash-LLM, 1 GPU, batch 8"]
    assert axes.yaxis_inverted(), "the first row on top"
    assert [list(line.get_xdata()) for line in axes.lines] == [[0.3, 1.2], [0.5, 2.0], [0.9, 3.6]]
    assert [line.get_markerfacecolor() == "white" for line in axes.lines] == [True, False, True]


def test_most_tokens_stand_first_with_their_interval() -> None:
    rows = [("flash-llm", 2, 64, 400.0, 300.0, 520.0, False), ("deepspeed", 1, 8, 500.0, 350.0, 700.0, True)]
    columns = ["system", "gpus", "batch", "tokens_per_gpu_s", "low", "high", "extrapolated"]
    titles = {"flash-llm": "Flash-LLM", "deepspeed": "DeepSpeed"}
    figure = serving.yields(pd.DataFrame(rows, columns=columns), titles)
    (axes,) = figure.axes
    named = [label.get_text() for label in axes.get_yticklabels()]
    assert named == ["DeepSpeed, 1 GPU, batch 8", "Flash-LLM, 2 GPUs, batch 64"]
    drawn = [list(np.atleast_1d(line.get_xdata())) for line in axes.lines]
    assert drawn == [[350.0, 700.0], [300.0, 520.0], [500.0], [400.0]]
    assert not faults(figure)
    assert not overlaps(figure)


def test_only_what_does_not_fit_is_said_to_be_out_of_memory() -> None:
    table = pd.DataFrame({"label": ["small", "large"], "weights": [60.0, 70.0], "kv_cache": [10.0, 20.0]})
    figure = serving.memory(table, ("weights", "kv_cache"), 80.0)
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["70 GB", "90 GB: out of memory", "a GPU has 80 GB"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["weights", "KV cache"]


@pytest.mark.parametrize("gb", [0.2, 60.0, 2000.0])
def test_memory_of_any_size_lies_beside_what_the_gpu_has(gb: float) -> None:
    table = pd.DataFrame({"label": ["only"], "weights": [gb], "kv_cache": [0.1 * gb]})
    figure = serving.memory(table, ("weights", "kv_cache"), 80.0)
    (axes,) = figure.axes
    assert axes.get_xlim()[1] > max(80.0, 1.1 * gb)
    assert not faults(figure)
