"""Pictures about trust are drawn, with what they promise in them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from perfmodel.kernels import KERNELS
from perfmodel.plotting.style import KERNEL_COLOURS, KERNEL_MARKERS, house_style
from perfmodel.plotting.validation import by_gpu, covered, encoders, residuals_by_sparsity, second_sources
from tests.perfmodel.plotting.boxes import overlaps

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
    """A panel for each source and GPU; nothing is cut off, however large a speed-up."""
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
        assert [axes.get_title("left") for axes in figure.axes] == ["a,\nv100", "a,\nrtx-4090", "b,\nv100"]
        assert all(axes.get_xlim()[1] > 4.5 for axes in figure.axes)
        assert all(axes.get_ylim()[1] > 4.5 for axes in figure.axes)
        plt.close(figure)


def errors() -> pd.DataFrame:
    """Two GPUs, one of them with rows of a fit only but for one kernel."""
    cases = [
        ("a100-80gb", "cublas", False, 0.1), ("a100-80gb", "sputnik", False, -0.2), ("h100", "cublas", True, 0.9),
        ("h100", "fp8", False, 0.05), ("rtx-3090", "cublas", True, 0.0),
    ]  # fmt: skip
    return pd.DataFrame(cases, columns=["gpu", "kernel", "fitted", "error"])


def marks(axes: Axes) -> dict[str, list[float]]:
    """Places along x of each marker that is drawn."""
    found = [line for line in axes.lines if line.get_marker() not in (None, "None")]
    return {line.get_marker(): list(line.get_xdata()) for line in found}


def test_errors_stand_in_the_panel_of_their_family_and_never_those_of_a_fit():
    with house_style():
        figure = by_gpu(errors(), TITLES)
        panels = {axes.get_title("left"): marks(axes) for axes in figure.axes}
        assert panels == {
            "dense": {KERNEL_MARKERS["cublas"]: [10.0]},
            "sparse": {KERNEL_MARKERS["sputnik"]: [-20.0]},
            "patterns": {},
            "fewer bits": {KERNEL_MARKERS["fp8"]: [5.0]},
        }
        assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["h100 (1)", "a100-80gb (2)"]
        plt.close(figure)


def test_residuals_have_a_panel_for_each_kernel_and_gpu():
    table = pd.DataFrame(
        [
            (k, g, s, 0.1)
            for k, g in (("sputnik", "v100"), ("flash-llm", "h100"), ("sputnik", "a10"))
            for s in (0.5, 0.9)
        ],
        columns=["kernel", "gpu", "sparsity", "error"],
    )
    with house_style():
        figure = residuals_by_sparsity(table, TITLES)
        shown = [axes.get_title("left") for axes in figure.axes if axes.get_visible()]
        assert shown == ["Flash-LLM,\nh100", "Sputnik,\na10", "Sputnik,\nv100"]
        plt.close(figure)


def test_coverage_counts_rows_and_not_gpus():
    """Nine rows of ten and none of ninety are nine of a hundred; what the L2 holds has a panel of its own."""
    table = pd.DataFrame(
        [("cublas", "a", "inside", 10, 0.9, 1.5), ("cublas", "b", "inside", 90, 0.0, 1.5),
         ("cublas", "c", "another GPU, in L2", 4, 0.5, 2.0)],
        columns=["kernel", "gpu", "where", "rows", "covered", "width"],
    )  # fmt: skip
    with house_style():
        figure = covered(table, TITLES)
        square = KERNEL_MARKERS["cublas"]
        assert [marks(axes) for axes in figure.axes] == [{square: [9.0]}, {square: [50.0]}, {square: [1.5]}]
        assert not overlaps(figure)
        plt.close(figure)
