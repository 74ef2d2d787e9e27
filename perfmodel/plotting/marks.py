"""Marks that every figure may need: labels at the ends of lines, hatching outside the evidence, ramps, plain ticks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backend_bases import RendererBase
from matplotlib.colors import to_hex, to_rgb
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path
from matplotlib.text import Annotation, Text
from matplotlib.transforms import IdentityTransform
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import isotonic_regression

LABEL_PT, LEADER_PT = 7.0, 5.0  # height of a label at a line's end; room between the axes and it
OUTSIDE: dict[str, Any] = {"facecolor": "none", "edgecolor": "#B0B0B0", "hatch": "/////", "linewidth": 0}
LUMINANCE, LEGIBLE = np.array([0.2126, 0.7152, 0.0722]), 0.5  # weights of red, green and blue; the most of letters
LIGHTEST, DARKEST = 0.25, 1.0  # of the colour map of `ramp`: lighter ones vanish on white paper


class _EndLabel(Annotation):
    """A line's label beside the axes; where it stands is found as it is drawn, when the axes have their final place."""

    def __init__(self, line: Line2D, text: str, group: list[_EndLabel], side: Literal["left", "right"]) -> None:
        colour = to_hex(line.get_color())
        leader = {"arrowstyle": "-", "color": colour, "lw": 0.4, "shrinkA": 1.5, "shrinkB": 0, "patchA": None}
        leader["relpos"] = (0.0 if side == "right" else 1.0, 0.5)
        super().__init__(
            text, (0, 0), (0, 0), textcoords="axes fraction", xycoords="axes fraction", arrowprops=leader,
            annotation_clip=False, fontsize=LABEL_PT, va="center", ha="left" if side == "right" else "right",
        )  # fmt: skip
        self.set_color(legible(colour))
        self.set_transform(IdentityTransform())  # not the data's, in whose domain a place beside the axes may not be
        self.line, self.group, self.side = line, group, side

    def update_positions(self, renderer: RendererBase) -> None:
        """Spread the whole group, then place this label."""
        _spread(self.group, renderer)
        super().update_positions(renderer)


def legible(colour: str) -> str:
    """``colour`` as letters on white paper may have it: a pale one darkened until it is read."""
    red, green, blue = to_rgb(colour)
    light = float(LUMINANCE @ (red, green, blue))
    share = min(1.0, LEGIBLE / light) if light else 1.0
    return to_hex((share * red, share * green, share * blue))


def label_ends(axes: Axes, lines: Iterable[Line2D] | None = None, *, side: Literal["left", "right"] = "right") -> None:
    """Write each line's label beside the axes where it leaves them, in its colour; labels never overlap.

    ``lines`` default to all lines of ``axes`` with a label of their own. A line that runs out of the view is labelled
    at its last point within. Give no legend then.
    """
    chosen = list(axes.get_lines() if lines is None else lines)
    group: list[_EndLabel] = []
    for line in chosen:
        text = str(line.get_label())
        if text and not text.startswith("_"):
            group.append(_EndLabel(line, text, group, side))
            axes.add_artist(group[-1]).set_clip_box(None)  # else the layout leaves it no room


def _spread(group: Sequence[_EndLabel], renderer: RendererBase) -> None:
    """Move the labels of ``group`` as little as keeps them apart, and within the height of their axes if they fit."""
    axes = group[0].axes
    assert axes is not None  # `label_ends` added them
    axes.viewLim  # noqa: B018 - brings limits up to date that `transData` alone would not
    box = axes.bbox
    ends = np.array([_end(label) for label in group])
    heights = np.array([Text.get_window_extent(label, renderer).height for label in group])
    order = np.lexsort((np.arange(len(group)), ends[:, 1]))
    heights = heights[order]
    stacked = np.concatenate([[0.0], np.cumsum((heights[1:] + heights[:-1]) / 2)])
    low, high = box.y0 + heights[0] / 2, box.y1 - heights[-1] / 2 - stacked[-1]
    apart = stacked + np.clip(isotonic_regression(ends[order, 1] - stacked).x, low, max(low, high))
    leader = float(np.asarray(renderer.points_to_pixels(LEADER_PT))) / box.width
    beside = 1 + leader if group[0].side == "right" else -leader
    for label, y in zip((group[i] for i in order), apart, strict=True):
        label.xy = tuple((ends[group.index(label)] - (box.x0, box.y0)) / (box.width, box.height))
        label.set_position((beside, (y - box.y0) / box.height))


def _end(label: _EndLabel) -> NDArray[np.float64]:
    """The last point of a label's line within the view, in pixels: the rightmost, or leftmost, one."""
    axes = label.axes
    assert axes is not None
    points = label.line.get_transform().transform(np.asarray(label.line.get_xydata(), dtype=float))
    inside = points[np.isfinite(points).all(axis=1)]
    box = axes.bbox.padded(1)
    seen = inside[[box.contains(x, y) for x, y in inside]] if len(inside) else inside
    if not len(seen):
        return np.array([axes.bbox.x1, axes.bbox.y1])
    return seen[seen[:, 0].argmax() if label.side == "right" else seen[:, 0].argmin()]


def outside(axes: Axes, low: float | None = None, high: float | None = None, *, axis: Literal["x", "y"] = "x") -> None:
    """Hatch what lies left of ``low`` and right of ``high``, the ends of the evidence; set the axes' limits before."""
    view = axes.get_xlim() if axis == "x" else axes.get_ylim()
    span = axes.axvspan if axis == "x" else axes.axhspan
    for start, end in ((view[0], low), (high, view[1])):
        if start is not None and end is not None and start < end:
            span(start, end, zorder=0.5, **OUTSIDE)
    (axes.set_xlim if axis == "x" else axes.set_ylim)(view)


def outside_cells(
    axes: Axes, mask: ArrayLike, x_edges: ArrayLike | None = None, y_edges: ArrayLike | None = None, **look: Any
) -> None:
    """Hatch the cells of a map that are extrapolated.

    ``mask``: ``(rows, columns)``, true where hatched. ``x_edges, y_edges``: those of the cells, one more than there
    are; left out, those of `imshow`. ``look`` changes `OUTSIDE`, e.g. ``hatchcolor="white"`` on a dark map.
    """
    flagged = np.asarray(mask, dtype=bool)
    x = np.arange(flagged.shape[1] + 1) - 0.5 if x_edges is None else np.asarray(x_edges, dtype=float)
    y = np.arange(flagged.shape[0] + 1) - 0.5 if y_edges is None else np.asarray(y_edges, dtype=float)
    cells = [_rectangle(x[j], y[i], x[j + 1], y[i + 1]) for i, j in zip(*np.nonzero(flagged), strict=True)]
    if cells:
        axes.add_patch(PathPatch(Path.make_compound_path(*cells), **{**OUTSIDE, **look}))


def _rectangle(x0: float, y0: float, x1: float, y1: float) -> Path:
    return Path(np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]), closed=True)


def outside_key(label: str = "outside the evidence", **look: Any) -> Artist:
    """What stands for the hatching in a legend."""
    return Patch(label=label, **{**OUTSIDE, **look})


def ramp(n: int) -> list[str]:
    """``n`` colours for what is ordered, little to much from light to dark, as grey print and every eye see it."""
    return [to_hex(mpl.colormaps["viridis_r"](at)) for at in np.linspace(DARKEST if n == 1 else LIGHTEST, DARKEST, n)]


def ticks(axis: Axis, values: Iterable[float]) -> None:
    """Ticks at those of ``values`` that are in view, as plain numbers, and none between; set the limits before."""
    low, high = sorted(axis.get_view_interval())
    shown = [value for value in values if low <= value <= high]
    axis.set_ticks(shown, [f"{value:.10g}" for value in shown])
    axis.set_ticks([], minor=True)
