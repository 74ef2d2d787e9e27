"""What every figure has to keep to be printed: checked for all of the report, and of use to a test of any one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from perfmodel.plotting.style import COLUMN, PAGE

BODY, SMALLEST, LARGEST = 7.0, 6.0, 8.0  # pt
SLACK = 0.02  # inches by which a line's own width may reach over the edge, or the empty rim of a text over another


def faults(figure: Figure) -> list[str]:
    """What a paper would send back: another width, letters too small or large or over others, something cut off."""
    return [*_width(figure), *_letters(figure), *_cut(figure), *_overlaps(figure)]


def _width(figure: Figure) -> list[str]:
    width = figure.get_size_inches()[0]
    return [] if width in (COLUMN, PAGE) else [f"{width:g} in wide"]


def _letters(figure: Figure) -> list[str]:
    seen = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    sizes = {text.get_fontsize(): text.get_text() for text in seen}
    wrong = [f"{words!r} of {size:g} pt" for size, words in sizes.items() if not SMALLEST <= size <= LARGEST]
    return wrong if BODY in sizes else [*wrong, f"no text of {BODY:g} pt"]


def _cut(figure: Figure) -> list[str]:
    figure.draw_without_rendering()
    drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    beyond = {"left": -drawn.x0, "right": drawn.x1 - width, "bottom": -drawn.y0, "top": drawn.y1 - height}
    return [f"{inches:.2f} in cut off at the {side}" for side, inches in beyond.items() if inches > SLACK]


def _overlaps(figure: Figure) -> list[str]:
    figure.draw_without_rendering()
    shown = [text for text in _texts(figure) if text.get_visible() and text.get_text().strip()]
    boxes = [(text.get_text(), Text.get_window_extent(text)) for text in shown]  # an annotation's, without its arrow
    both = ((a, b, Bbox.intersection(one, other)) for (a, one), (b, other) in combinations(boxes, 2))
    least = SLACK * figure.dpi
    return [f"{a!r} over {b!r}" for a, b, box in both if box is not None and min(box.width, box.height) > least]


def _texts(figure: Figure) -> Iterator[Text]:
    """Every text that is in view: `findobj` gives ticks out of it too."""
    yield from figure.texts
    for legend in figure.legends:
        yield from (*legend.get_texts(), legend.get_title())
    for axes in figure.axes:
        if axes.get_visible():
            yield from _of_axes(axes)


def _of_axes(axes: Axes) -> Iterator[Text]:
    yield from (axes.title, axes._left_title, axes._right_title)  # no public way to those beside the middle
    yield from (*axes.texts, axes.xaxis.label, axes.yaxis.label)
    yield from (*_ticks(axes.xaxis), *_ticks(axes.yaxis))
    if (legend := axes.get_legend()) is not None:
        yield from legend.get_texts()
    for child in axes.child_axes:
        yield from _of_axes(child)


def _ticks(axis: Axis) -> Iterator[Text]:
    low, high = sorted(axis.get_view_interval())
    for place, tick in zip(axis.get_majorticklocs(), axis.get_major_ticks(), strict=False):
        if low <= place <= high:
            yield from (tick.label1, tick.label2)
