"""Can a reader read a figure? What is too small, cut off, or written over something else."""

from __future__ import annotations

from itertools import combinations

from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

SMALLEST_PT = 6.0
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


def faults(figure: Figure) -> list[str]:
    """What a reader could not read, in words."""
    boxes = {text: _ink(text) for text in texts_of(figure)}
    found = [f"{text.get_text()!r} is small" for text in boxes if text.get_fontsize() < SMALLEST_PT]
    page = figure.bbox.padded(TOUCHING_PX)
    found += [f"{text.get_text()!r} is cut off" for text, box in boxes.items() if not _within(box, page)]
    for (one, a), (two, b) in combinations(boxes.items(), 2):
        if a.overlaps(b):
            found.append(f"{one.get_text()!r} overlaps {two.get_text()!r}")
    return found


def _ink(text: Text) -> Bbox:
    box = Text.get_window_extent(text)  # of an annotation without its arrow
    return box.padded(-min(TOUCHING_PX, box.width / 4, box.height / 4))


def _within(box: Bbox, page: Bbox) -> bool:
    return page.x0 <= box.x0 and page.y0 <= box.y0 and box.x1 <= page.x1 and box.y1 <= page.y1
