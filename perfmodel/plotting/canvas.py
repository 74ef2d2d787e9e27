"""A sheet to draw on, in inches: boxes, arrows and words at the size that a reader sees."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.text import Text
from numpy.typing import NDArray

from perfmodel.plotting.style import BLACK

TEXT_PT, SMALL_PT = 7.0, 6.5
LINE_IN = 1.2 * TEXT_PT / 72  # what a line of text takes


def sheet(width: float, height: float) -> Axes:
    """Axes that cover a new figure of this size, a unit an inch, the origin at the bottom left."""
    figure = plt.figure(figsize=(width, height))
    figure.set_layout_engine("none")  # not as an argument: saving would bring the style's own back
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    return axes


def box(axes: Axes, x: float, y: float, width: float, height: float, colour: str, **look: Any) -> Rectangle:
    """A rectangle with its lower left corner at (x, y), thinly framed in ``colour``."""
    style: dict[str, Any] = {"facecolor": "none", "edgecolor": colour, "linewidth": 0.6} | look
    rectangle = Rectangle((x, y), width, height, **style)
    axes.add_patch(rectangle)
    return rectangle


def words(axes: Axes, x: float, y: float, text: str, *, size: float = TEXT_PT, **look: Any) -> Text:
    """Text around (x, y), centred unless ``ha`` and ``va`` say otherwise."""
    style: dict[str, Any] = {"ha": "center", "va": "center", "color": BLACK, "linespacing": 1.15} | look
    return axes.text(x, y, text, fontsize=size, **style)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = BLACK, **look: Any) -> None:
    """An arrow from ``start`` to ``end``."""
    style: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 5, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 0}
    axes.add_patch(FancyArrowPatch(start, end, color=colour, **(style | look)))


def raster(axes: Axes, filled: NDArray[Any], x: float, y: float, scale: float, colour: str) -> None:
    """A matrix of which what is not 0 is dark, ``scale`` inches an element, its lower left corner at (x, y)."""
    height, width = (scale * size for size in filled.shape)
    axes.imshow(
        filled != 0, cmap=ListedColormap(["white", colour]), vmin=0, vmax=1, extent=(x, x + width, y, y + height),
        aspect="auto", interpolation="nearest", zorder=2,
    )  # fmt: skip
    box(axes, x, y, width, height, colour, zorder=3)


def figure_of(axes: Axes) -> Figure:
    """The figure that a sheet covers."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure
