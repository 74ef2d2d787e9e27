"""Pictures about trust are drawn, with what they promise in them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

from perfmodel.kernels import KERNELS
from perfmodel.plotting.style import KERNEL_COLOURS, house_style
from perfmodel.plotting.validation import encoders, second_sources

TITLES = {name: model.title for name, model in KERNELS.items()}
ENCODERS = ("flash-llm", "flash-llm-noreorder")


@pytest.fixture
def drawn():
    at = np.linspace(0.4, 0.9, 6)
    lines = pd.concat(
        [
            pd.DataFrame(
                {"card": card, "kernel": kernel, "sparsity": at, "speedup": at + 1, "low": at + 0.8, "high": at + 1.2}
            )
            for card in ("one", "two")
            for kernel in ENCODERS
        ]
    )
    markers = pd.DataFrame({"card": ["two"], "kernel": ["flash-llm-noreorder"], "sparsity": [0.7], "speedup": [1.3]})
    with house_style():
        figure = encoders(lines, markers, TITLES)
        yield figure
        plt.close(figure)


def test_encoders_have_a_panel_a_card_and_a_line_a_kernel(drawn):
    assert [axes.get_title("left") for axes in drawn.axes] == ["one", "two"]
    for axes in drawn.axes:
        colours = {to_hex(line.get_color()).upper() for line in axes.lines}
        assert {KERNEL_COLOURS[name].upper() for name in ENCODERS} <= colours


def test_encoders_shade_the_first_kernel_only_and_mark_what_was_measured(drawn):
    first, second = drawn.axes
    assert len(first.collections) == len(second.collections) == 1
    marked = [line for line in second.lines if line.get_marker() not in (None, "None")]
    assert len(marked) == 1
    assert marked[0].get_xdata() == pytest.approx([70])
    assert not [line for line in first.lines if line.get_marker() not in (None, "None")]


def test_encoders_can_be_saved(drawn, tmp_path):
    drawn.savefig(tmp_path / "encoders.png")
    assert (tmp_path / "encoders.png").stat().st_size > 5000


def test_second_sources_show_every_point():
    """A panel a source; nothing is cut off, however large a speed-up."""
    table = pd.DataFrame(
        {
            "source": ["a", "a", "b"],
            "gpu": ["v100", "rtx-4090", "v100"],
            "kernel": "bitmap",
            "published": [0.5, 1.0, 4.5],
            "predicted": [0.6, 1.1, 4.0],
        }
    )
    with house_style():
        figure = second_sources(table, TITLES)
        assert [axes.get_title("left") for axes in figure.axes] == ["a", "b"]
        assert all(axes.get_xlim()[1] > 4.5 for axes in figure.axes)
        assert all(axes.get_ylim()[1] > 4.5 for axes in figure.axes)
        plt.close(figure)
