"""Labels never overlap, hatching covers what it should, ramps are ordered for every eye, ticks are plain numbers."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from perfmodel.plotting.marks import label_ends, legible, outside, outside_cells, outside_key, ramp, ticks
from perfmodel.plotting.style import COLUMN, PAGE, house_style

LUMINANCE = np.array([0.2126, 0.7152, 0.0722])


@pytest.fixture
def axes() -> Iterator[Axes]:
    with house_style():
        figure, axes = plt.subplots(figsize=(COLUMN, 2.0))
        yield axes
        plt.close(figure)


def extents(axes: Axes) -> list[Bbox]:
    """Where each label's text lies, in pixels, once the layout is final."""
    figure = axes.figure
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    return [Text.get_window_extent(text) for text in axes.texts]  # without their leaders


@pytest.mark.parametrize("scale", ["linear", "log"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("spread", [0.0, 0.02, 3.0])
def test_labels_of_lines_never_overlap_and_stay_in_the_figure(axes: Axes, scale: str, side: str, spread: float) -> None:
    x = np.linspace(1, 10, 20)
    for i in range(6):
        axes.plot(x, x**0.5 + spread * i, label=f"line {i}" + "\nin two" * (i == 3))
    axes.set(xscale=scale, ylim=(0, 20))
    label_ends(axes, side=side)
    boxes = extents(axes)
    assert len(boxes) == 6
    for lower, upper in pairwise(sorted(boxes, key=lambda box: box.y0)):
        assert lower.y1 <= upper.y0 + 1
    figure = axes.figure.bbox
    assert all(figure.x0 <= box.x0 and box.x1 <= figure.x1 for box in boxes)
    beside = [(box.x0 >= axes.bbox.x1) if side == "right" else (box.x1 <= axes.bbox.x0) for box in boxes]
    assert all(beside)


def test_a_label_has_its_lines_colour_and_stands_at_its_end(axes: Axes) -> None:
    (high,) = axes.plot([0, 1], [0, 9], color="#112233", label="high")
    axes.plot([0, 1], [0, 1], color="#445566", label="low")
    axes.plot([0, 1], [5, 5], color="k")
    label_ends(axes)
    boxes = extents(axes)
    assert [text.get_text() for text in axes.texts] == ["high", "low"]
    assert [text.get_color() for text in axes.texts] == [high.get_color(), "#445566"]
    for text, box, y in zip(axes.texts, boxes, (9, 1), strict=True):
        assert abs((box.y0 + box.y1) / 2 - axes.transData.transform((1, y))[1]) < text.get_fontsize()


def test_a_line_that_leaves_the_view_is_labelled_within_it(axes: Axes) -> None:
    axes.plot([0, 1, 2], [1, 2, 1000], label="leaves")
    axes.set_ylim(0, 3)
    label_ends(axes)
    (box,) = extents(axes)
    assert axes.bbox.y0 <= box.y0 <= box.y1 <= axes.bbox.y1


def test_what_lies_outside_the_evidence_is_hatched_and_the_view_kept(axes: Axes) -> None:
    axes.set(xlim=(1, 1000), ylim=(0, 1), xscale="log")
    outside(axes, 10, 100)
    spans = [patch for patch in axes.patches if patch.get_hatch()]
    assert [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in spans] == [(1, 10), (100, 1000)]
    assert axes.get_xlim() == (1, 1000)
    outside(axes, 0.5, 2000)
    assert len(axes.patches) == 2  # all of the view is evidence


def test_flagged_cells_are_hatched_and_no_other(axes: Axes) -> None:
    mask = np.array([[True, False, False], [False, False, True]])
    outside_cells(axes, mask, x_edges=[1, 10, 100, 1000], y_edges=[0, 1, 2], edgecolor="white")
    (patch,) = axes.patches
    assert isinstance(patch, PathPatch)
    for i, j in np.ndindex(mask.shape):
        at = (np.sqrt(10.0) * 10.0**j, i + 0.5)
        assert patch.get_path().contains_point(at) == mask[i, j]
    outside_cells(axes, np.zeros((2, 2), bool))
    assert len(axes.patches) == 1
    assert outside_key().get_hatch() == patch.get_hatch()


def test_hatching_has_the_colour_that_was_asked_for(axes: Axes) -> None:
    axes.imshow(np.zeros((1, 2)), cmap="gray", aspect="auto")
    axes.grid(visible=False)
    outside_cells(axes, [[True, False]], edgecolor="#FF0000")
    canvas = FigureCanvasAgg(axes.figure)
    canvas.draw()
    red, green, _, _ = np.moveaxis(np.asarray(canvas.buffer_rgba()), -1, 0)
    assert ((red > 200) & (green < 60)).sum() > 100


@pytest.mark.parametrize("n", range(1, 9))
def test_a_ramp_darkens_evenly_enough_to_tell_in_grey(n: int) -> None:
    light = [float(LUMINANCE @ to_rgb(colour)) for colour in ramp(n)]
    assert len(light) == n
    assert all(one - other > 0.4 / n for one, other in pairwise(light))
    assert light[0] < 0.72  # seen on white paper


def test_ticks_are_plain_numbers_within_the_view(axes: Axes) -> None:
    axes.set(xscale="log", xlim=(1, 2_000_000))
    ticks(axes.xaxis, [0.5, 1, 1.5, 4096, 1_000_000, 1e7])
    axes.figure.draw_without_rendering()
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "1.5", "4096", "1000000"]
    assert not len(axes.xaxis.get_minorticklocs())
    assert axes.get_xlim() == (1, 2_000_000)


def test_the_two_widths_are_those_of_papers() -> None:
    assert (COLUMN, PAGE) == (3.33, 7.0)


def test_letters_are_dark_enough_to_read_and_keep_their_hue() -> None:
    for colour in ("#F0E442", "#FFCF7F", "#7FE0F0", "#FFFFFF"):
        before, after = np.array(to_rgb(colour)), np.array(to_rgb(legible(colour)))
        assert LUMINANCE @ after < 0.51
        np.testing.assert_allclose(after / after.max(), before / before.max(), atol=0.01)
    assert legible("#112233") == "#112233"
    assert legible("#000000") == "#000000"
