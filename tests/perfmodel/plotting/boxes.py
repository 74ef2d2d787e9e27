"""Where the texts of a figure stand, as it is drawn: on each other, or on what they should not hide?"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.text import Text
from matplotlib.transforms import Affine2D, Bbox

SLACK = 1.0  # pixels that boxes may share: letters do not fill theirs


def texts(figure: Figure) -> list[Text]:
    """All texts that are seen, in their final places."""
    figure.draw_without_rendering()
    hidden = {text for axes in figure.axes if not axes.get_visible() for text in axes.findobj(Text)}
    found = figure.findobj(
        lambda artist: isinstance(artist, Text) and artist.get_visible() and artist.get_text().strip()
    )
    ticks = {text for axes in figure.axes for part in (axes, *axes.child_axes) for text in _unused_ticks(part)}
    return [text for text in dict.fromkeys(found) if text not in hidden and text not in ticks]


def _unused_ticks(axes: Axes) -> Iterator[Text]:
    """Labels of ticks that Matplotlib keeps but does not draw."""
    for axis in (axes.xaxis, axes.yaxis):
        drawn = {label for tick in axis._update_ticks() for label in (tick.label1, tick.label2)}
        for tick in (*axis.majorTicks, *axis.minorTicks):
            yield from {tick.label1, tick.label2} - drawn


def outline(text: Text) -> Path:
    """The frame of a text, turned as it is."""
    angle = text.get_rotation()
    if angle % 90 == 0:
        box, turn = Text.get_window_extent(text), Affine2D()  # an annotation's own would hold its leader too
    else:
        kept = text._rotation, text.get_transform_rotates_text()
        text.set(rotation=0, transform_rotates_text=False)
        box = Text.get_window_extent(text)
        text.set(rotation=kept[0], transform_rotates_text=kept[1])
        at = text.get_transform().transform(text.get_unitless_position())
        turn = Affine2D().rotate_deg_around(*at, angle)
    box = Bbox.from_extents(box.x0 + SLACK, box.y0 + SLACK, box.x1 - SLACK, box.y1 - SLACK)
    return turn.transform_path(Path.unit_rectangle().transformed(Affine2D().scale(*box.size).translate(*box.min)))


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts that lie on each other."""
    framed = [(text.get_text(), outline(text)) for text in texts(figure)]
    return [(a, b) for (a, one), (b, other) in combinations(framed, 2) if one.intersects_path(other, filled=True)]


def on_markers(figure: Figure) -> list[str]:
    """Words written in axes over the middle of a marker."""
    figure.draw_without_rendering()
    found = []
    for axes in figure.axes:
        marked = [line for line in axes.lines if line.get_marker() not in ("None", "", None) and line.get_visible()]
        at = [line.get_transform().transform(np.column_stack(line.get_data()).astype(float)) for line in marked]
        points = np.concatenate(at) if at else np.empty((0, 2))
        found += [text.get_text() for text in axes.texts if outline(text).contains_points(points).any()]
    return found
