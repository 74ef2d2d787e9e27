"""Our kernels and what pruning buys: dotted just outside the evidence, every line named, losses in view."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from perfmodel.plotting import beyond as draw
from perfmodel.plotting.style import house_style
from tests.figures import faults
from tests.perfmodel.plotting.boxes import overlaps

AT = np.array([0.3, 0.5, 0.7, 0.9])


@pytest.fixture(autouse=True)
def style() -> Iterator[None]:
    with house_style():
        yield
    plt.close("all")


def dotted(axes: Axes, colour: str) -> list[float]:
    """Where dotted lines of a colour have points."""
    lines = [line for line in axes.lines if line.get_color() == colour and line.get_linestyle() == ":"]
    return [x for line in lines for x, y in line.get_xydata() if np.isfinite(y)]


def test_published_kernels_are_dotted_just_outside_their_evidence_and_all_are_named() -> None:
    table = pd.DataFrame({"gpu": "h100", "sparsity": AT, "speedup": 1 + AT, "low": AT, "high": 2 + AT, "pairs": 1 + AT})
    table = table.assign(condensed=1 + 2 * AT, flash_llm=2 * AT, spinfer=0.9 + 0 * AT)
    table = table.assign(flash_llm_extrapolated=[True, True, False, False], spinfer_extrapolated=True)
    figure = draw.own_kernel(table, {"h100": "H100"})
    axes = figure.axes[0]
    assert dotted(axes, draw.KERNEL_COLOURS["flash-llm"]) == [30, 50]
    assert dotted(axes, draw.KERNEL_COLOURS["bitmap"]) == [30, 50, 70, 90]
    named = sorted(text.get_text() for text in axes.texts)
    assert named == sorted(words for _, words in (*draw.OURS.values(), *draw.PUBLISHED.values()))
    assert not faults(figure)
    assert not overlaps(figure)


def test_a_loss_is_in_view() -> None:
    table = pd.DataFrame({"sparsity": AT, "top1_wanda": 1 - AT, "top1_magnitude": 0.9 - AT, "size_bitmap": 1 - AT})
    table = table.assign(speedup_h100=[0.4, 0.7, 1.2, 2.0], extrapolated_h100=[True, False, False, False])
    figure = draw.accuracy_and_speed(table, {"h100": "H100"})
    gain = figure.axes[1]
    assert gain.get_ylim()[0] < 0.4
    assert dotted(gain, draw.BLACK) == [30]
    assert [text.get_text() for text in gain.texts] == ["H100"]


def test_nothing_simulated_looks_measured() -> None:
    """No line is solid or has a marker; aims are crosses, on the GPUs that have any."""
    titles = {f"kernel-{i}": f"kernel {i}" for i in range(len(draw.SIMULATED))}
    gpus = {"a100": "A100", "h100": "H100"}
    cases = [(gpu, kernel, s, 1 + i + s) for gpu in gpus for i, kernel in enumerate(titles) for s in AT]
    table = pd.DataFrame(cases, columns=["gpu", "kernel", "sparsity", "speedup"])
    figure = draw.simulated_kernels(table, titles, gpus, {"h100": {0.5: 1.2, 0.9: 2.4}})
    for axes, count in zip(figure.axes, (0, 1), strict=True):
        lines = [line for line in axes.lines if len(line.get_xdata()) == len(AT)]
        assert len(lines) == len(titles)
        assert all(line.get_linestyle() != "-" and line.get_marker() == "None" for line in lines)
        assert [line.get_marker() for line in axes.lines].count("+") == count
        assert sorted(text.get_text() for text in axes.texts) == sorted(titles.values())
    assert not faults(figure)
    assert not overlaps(figure)


def test_a_line_that_leaves_its_evidence_at_the_last_point_is_named_once() -> None:
    table = pd.DataFrame({"gpu": "h100", "sparsity": AT, "speedup": 1 + AT, "low": AT, "high": 2 + AT, "pairs": 1 + AT})
    table = table.assign(condensed=1 + 2 * AT, flash_llm=2 * AT, spinfer=0.9 + 0 * AT, spinfer_extrapolated=True)
    axes = draw.own_kernel(table.assign(flash_llm_extrapolated=AT > 0.8), {"h100": "H100"}).axes[0]
    assert [text.get_text() for text in axes.texts].count("Flash-LLM") == 1
