"""Rivals as pictures: rows in their order, hatching just where it is extrapolated, every region with its kernel."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection, QuadMesh

from perfmodel.plotting import rivals as draw
from perfmodel.plotting.style import KERNEL_COLOURS, house_style
from tests.figures import faults
from tests.perfmodel.plotting.boxes import overlaps

TITLES = {"fp8": "FP8", "int4": "INT4", "flash-llm": "Flash-LLM", "macko": "MACKO", "two-four": "2:4"}


@pytest.fixture(autouse=True)
def style() -> Iterator[None]:
    with house_style():
        yield
    plt.close("all")


def test_each_rival_has_a_panel_and_hollow_marks_are_outside_the_evidence() -> None:
    rows = [
        ("small", "fp8", 0.6, 0.5, 0.7, False), ("small", "int4", np.nan, 0.9, np.nan, True),
        ("large", "int4", 0.8, 0.7, np.nan, True),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["gpu", "rival", "sparsity", "low", "high", "extrapolated"])
    figure = draw.overtaking(table, TITLES, {"small": "small (2.0)", "large": "large (9.0)"})
    fp8, int4 = figure.axes
    assert [label.get_text() for label in fp8.get_yticklabels()] == ["small (2.0)", "large (9.0)"]
    assert fp8.yaxis_inverted(), "the first row on top"
    assert [text.get_text() for text in fp8.texts] == ["does not run it", "GPU (bytes per SM and clock)"]
    assert not faults(figure)
    assert not overlaps(figure)
    assert not int4.texts
    places, filled = _marks(int4)
    assert places == [(draw.NOWHERE, 0), (80, 1)]
    assert not any(filled)
    assert _marks(fp8) == ([(60, 0)], [True])
    whiskers = int4.collections[0].get_paths()
    assert [path.vertices[:, 0].tolist() for path in whiskers] == [[90, draw.NOWHERE], [70, draw.NOWHERE]]


def _marks(axes: Axes) -> tuple[list[tuple[float, float]], list[bool]]:
    (marks,) = [found for found in axes.collections if isinstance(found, PathCollection)]
    white = [tuple(face[:3]) == (1, 1, 1) for face in marks.get_facecolors()]
    return [tuple(place) for place in np.asarray(marks.get_offsets())], [not one for one in white]


def winners() -> pd.DataFrame:
    """INT4 below 80 %, Flash-LLM above it but for one token, where MACKO wins one cell; two tokens extrapolated."""
    n, sparsity = (grid.ravel() for grid in np.meshgrid((1, 2, 3, 8, 64), np.linspace(0.3, 0.9, 13), indexing="ij"))
    kernel = np.where(sparsity > 0.8, "flash-llm", "int4")
    kernel = np.where((n == 1) & (sparsity > 0.89), "macko", kernel)
    return pd.DataFrame({"gpu": "h100", "n": n, "sparsity": sparsity, "kernel": kernel, "extrapolated": n <= 2})


def test_hatching_is_just_where_it_is_extrapolated() -> None:
    table = winners()
    axes = draw.winner_map(table, TITLES, {"h100": "H100"}).axes[0]
    (hatched,) = [patch for patch in axes.patches if patch.get_hatch()]
    for row in table.itertuples():
        assert hatched.get_path().contains_point((100 * row.sparsity, row.n)) == row.extrapolated


def test_cells_show_who_wins_and_every_region_is_named() -> None:
    table = winners()
    figure = draw.winner_map(table, TITLES, {"h100": "H100"})
    axes = figure.axes[0]
    (mesh,) = [found for found in axes.collections if isinstance(found, QuadMesh)]
    kernels = [name for name in KERNEL_COLOURS if name in set(table["kernel"])]
    codes = table["kernel"].map(kernels.index).to_numpy().reshape(mesh.get_array().shape)
    np.testing.assert_array_equal(mesh.get_array(), codes)
    assert {text.get_text() for text in axes.texts} == {"INT4", "Flash-LLM"}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["MACKO", "winner outside its evidence"]
    assert not faults(figure)
    assert not overlaps(figure)


def test_a_name_stands_within_its_region() -> None:
    axes = draw.winner_map(winners(), TITLES, {"h100": "H100"}).axes[0]
    axes.figure.draw_without_rendering()
    for text in axes.texts:
        box = text.get_window_extent()
        ends = [axes.transData.inverted().transform((x, box.y0)) for x in (box.x0, box.x1)]
        assert all((end[0] > 82.5 - 2.5) == (text.get_text() == "Flash-LLM") for end in ends)


def test_two_four_has_lines_for_the_model_and_markers_for_what_is_measured() -> None:
    table = pd.DataFrame({"gpu": "h100", "kernel": "two-four", "n": [64, 512], "measured": [1.1, 1.6]})
    table["predicted"] = [1.0, 1.5]
    figure = draw.two_four_measured(table, TITLES, {"h100": "H100"}, ("two-four", "fp8"))
    (axes,) = figure.axes
    line, marks, _ = axes.lines
    assert (line.get_marker(), marks.get_linestyle()) == ("None", "None")
    assert [list(one.get_ydata()) for one in (line, marks)] == [[1.0, 1.5], [1.1, 1.6]]
    assert [text.get_text() for text in axes.texts] == ["2:4"]  # a kernel without rows is not named


@pytest.mark.parametrize(("least", "first"), [(0.62, "50"), (0.3, "30")])
def test_a_rival_that_is_overtaken_early_is_in_view(least: float, first: str) -> None:
    rows = [("h200", "fp8", least, least, np.nan, True), ("b200", "fp8", np.nan, np.nan, np.nan, True)]
    table = pd.DataFrame(rows, columns=["gpu", "rival", "sparsity", "low", "high", "extrapolated"])
    figure = draw.overtaking(table, TITLES, {"h200": "h200", "b200": "b200"})
    (axes,) = figure.axes
    assert axes.get_xlim()[0] < 100 * least
    assert axes.get_xticklabels()[0].get_text() == first
    assert not faults(figure)
    assert not overlaps(figure)
