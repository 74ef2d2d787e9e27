"""What a reader of a figure sees: its words, where they stand, and whether they cover each other."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

LEAST_PT = 6  # of letters on paper
SLACK_PT = 1.0  # boxes hold room for letters that reach below the line, which may touch


def _ticks(axis: Axis) -> Iterator[Text]:
    """Labels of ticks in view."""
    low, high = sorted(axis.get_view_interval())
    slack = 1e-9 * (high - low)
    places = axis.get_majorticklocs()
    for place, tick in zip(places, axis.get_major_ticks(len(places)), strict=True):
        if low - slack <= place <= high + slack:
            yield from (tick.label1, tick.label2)


def _of(axes: Axes) -> Iterator[Text]:
    yield from axes.texts
    yield from (axes.title, axes._left_title, axes._right_title)
    for axis in (axes.xaxis, axes.yaxis):
        yield axis.label
        yield from _ticks(axis)
    if axes.legend_ is not None:
        yield from axes.legend_.get_texts()
    for child in axes.child_axes:
        yield from _of(child)


def words(figure: Figure) -> list[tuple[Text, Bbox]]:
    """Every visible text with its box in points, the layout final."""
    figure.draw_without_rendering()
    found = [*figure.texts, *(text for legend in figure.legends for text in (*legend.get_texts(), legend.get_title()))]
    found += [text for axes in figure.axes if axes.get_visible() for text in _of(axes)]
    shown = [text for text in found if text.get_visible() and text.get_text().strip()]
    scale = 72 / figure.dpi
    return [(text, Bbox(Text.get_window_extent(text).get_points() * scale)) for text in shown]


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts of which one covers another."""
    return [
        (one.get_text(), other.get_text())
        for (one, a), (other, b) in combinations(words(figure), 2)
        if min(a.x1, b.x1) - max(a.x0, b.x0) > SLACK_PT and min(a.y1, b.y1) - max(a.y0, b.y0) > SLACK_PT
    ]


def cut(figure: Figure) -> list[str]:
    """Texts that stick out of the figure."""
    width, height = 72 * figure.get_size_inches()
    return [
        text.get_text()
        for text, box in words(figure)
        if box.x0 < -SLACK_PT or box.y0 < -SLACK_PT or box.x1 > width + SLACK_PT or box.y1 > height + SLACK_PT
    ]


def small(figure: Figure) -> list[str]:
    """Texts too small for paper."""
    return [text.get_text() for text, _ in words(figure) if text.get_fontsize() < LEAST_PT]
