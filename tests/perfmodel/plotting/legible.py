"""What is written in a figure, and which of it lies on something else written: beside `tests.figures`."""

from __future__ import annotations

from itertools import combinations

from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

TOUCHING_PX = 1.0  # boxes of letters that overlap by less only touch


def texts_of(figure: Figure) -> list[Text]:
    """Everything that is written in a figure, once it is laid out."""
    figure.draw_without_rendering()
    unseen = {label for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for label in _beyond(axis)}
    found = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    return [text for text in found if text not in unseen]


def _beyond(axis: Axis) -> list[Text]:
    """Labels of ticks that the limits leave out."""
    low, high = sorted(axis.get_view_interval())
    ticks = [tick for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high]
    return [label for tick in ticks for label in (tick.label1, tick.label2)]


def overlaps(figure: Figure) -> list[str]:
    """Texts that lie on each other, in words."""
    boxes = [(text.get_text(), _ink(text)) for text in texts_of(figure)]
    return [f"{one!r} on {two!r}" for (one, a), (two, b) in combinations(boxes, 2) if a.overlaps(b)]


def _ink(text: Text) -> Bbox:
    box = Text.get_window_extent(text)  # of an annotation without its arrow
    return box.padded(-min(TOUCHING_PX, box.width / 4, box.height / 4))
