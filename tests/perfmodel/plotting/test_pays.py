"""Maps are hatched where they are extrapolated; every best kernel has its mark and its name."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.contour import QuadContourSet
from matplotlib.patches import PathPatch

from perfmodel.plotting import pays
from perfmodel.plotting.style import KERNEL_MARKERS, house_style
from tests.figures import faults
from tests.perfmodel.plotting.boxes import overlaps


@pytest.fixture(autouse=True)
def style() -> Iterator[None]:
    with house_style():
        yield
    plt.close("all")


def maps() -> pd.DataFrame:
    cases = product(("a100-80gb", "h100"), (8, 16, 32, 64), (0.5, 0.6, 0.7, 0.8))
    table = pd.DataFrame(list(cases), columns=["gpu", "n", "sparsity"])
    guessed = (table["gpu"] == "h100") | (table["n"] > 32) | (table["sparsity"] < 0.6)
    return table.assign(speedup=4 * table["sparsity"] - table["n"] / 64, extrapolated=guessed)


def test_a_map_is_hatched_exactly_where_it_is_extrapolated() -> None:
    table = maps()
    figure = pays.speedup_maps(table, {"opt-66b": 0.5}, {"a100-80gb": "A100", "h100": "H100"})
    for gpu, axes in zip(("a100-80gb", "h100"), figure.axes, strict=False):
        (hatched,) = [patch for patch in axes.patches if isinstance(patch, PathPatch) and patch.get_hatch()]
        cells = hatched.get_path().to_polygons(closed_only=False)
        rows = table[table["gpu"] == gpu]
        assert len(cells) == rows["extrapolated"].sum()
        samples = np.column_stack([100 * rows["sparsity"], rows["n"]])
        held = [any(((cell.min(axis=0) <= at) & (at <= cell.max(axis=0))).all() for cell in cells) for at in samples]
        assert held == list(rows["extrapolated"])


def test_colours_end_in_arrows_for_what_is_beyond() -> None:
    figure = pays.speedup_maps(maps(), {}, {"a100-80gb": "A100", "h100": "H100"})
    (bar,) = [axes for axes in figure.axes if axes.get_ylabel() == "speed-up over cuBLAS"]
    assert bar._colorbar.extend == "both"


@pytest.mark.parametrize(("factor", "crossed"), [(0.01, 0), (1.0, 1), (100.0, 0)])
def test_lines_are_drawn_where_they_are_crossed_and_nowhere_else(factor: float, crossed: int) -> None:
    """A GPU on which sparse never wins, or always does, is a picture too, without a warning."""
    table = maps().query("gpu == 'h100' and n <= 16")
    figure = pays.speedup_maps(table.assign(speedup=factor * table["speedup"]), {}, {"h100": "H100"})
    figure.draw_without_rendering()
    contours = [drawn for drawn in figure.axes[0].collections if isinstance(drawn, QuadContourSet) and not drawn.filled]
    assert sum(len(drawn.levels) for drawn in contours) == crossed


def test_tokens_have_plain_ticks_from_one_to_thousands() -> None:
    table = maps().query("gpu == 'h100'")
    wide = table.assign(n=table["n"].map({8: 1, 16: 48, 32: 256, 64: 4096}))
    for rows, ticks in ((table, ["8", "16", "32", "64"]), (wide, ["1", "4", "16", "64", "256", "1024", "4096"])):
        axes = pays.speedup_maps(rows, {}, {"h100": "H100"}).axes[0]
        assert [label.get_text() for label in axes.get_yticklabels()] == ticks


def test_every_best_has_its_mark_and_name_and_is_hollow_where_a_guess() -> None:
    cases = [("a10", "pruned", "bitmap", 1.8, True), ("h100", "pruned", "two-four", 1.5, False),
             ("a10", "rounded", "int4", 3.8, True), ("h100", "rounded", "int4", 2.9, True)]  # fmt: skip
    table = pd.DataFrame(cases, columns=["gpu", "change", "kernel", "speedup", "extrapolated"])
    table = table.assign(low=0.8 * table["speedup"], high=1.3 * table["speedup"])
    titles = {"bitmap": "SpInfer (bitmap)", "two-four": "2:4", "int4": "INT4 weights"}
    figure = pays.bests_by_gpu(table, titles, {"h100": "h100 (10.9)", "a10": "a10 (4.1)"})
    assert [axes.get_title("left") for axes in figure.axes] == ["pruned", "rounded"]
    drawn = {
        (line.get_marker(), *np.concatenate(line.get_data())): line.get_markerfacecolor() == "white"
        for line in figure.axes[0].lines
        if line.get_marker() not in (None, "None")
    }
    assert drawn == {(KERNEL_MARKERS["bitmap"], 1.8, 1): True, (KERNEL_MARKERS["two-four"], 1.5, 0): False}
    assert {text.get_text() for text in figure.axes[0].texts} == {"SpInfer", "2:4"}
    assert not overlaps(figure)
    assert not faults(figure)


def test_each_gpu_has_one_line_over_tokens_named_once_and_dotted_outside_the_evidence() -> None:
    table = pd.DataFrame(
        {"gpu": "a10", "n": [1, 16, 256], "speedup": [2.0, 1.8, 0.7], "extrapolated": [False, False, True]}
    )
    table = pd.concat([table, table.assign(gpu="h100", speedup=0.5 * table["speedup"], extrapolated=True)])
    figure = pays.over_tokens(table, {"a10": "A10", "h100": "H100"})
    (axes,) = figure.axes
    assert sorted(text.get_text() for text in axes.texts) == ["A10", "H100"]
    drawn = {
        line.get_linestyle(): np.isfinite(line.get_ydata()).sum() for line in axes.lines if line.get_label() == "A10"
    }
    assert drawn == {":": 1}, "the name stands with the stretch that comes last"
    assert not faults(figure)
    assert not overlaps(figure)
