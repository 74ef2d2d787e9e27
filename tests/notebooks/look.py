"""Runs in a notebook's kernel: lays figures out without drawing them, and refuses a part that shows nothing."""

from __future__ import annotations

import numpy as np
from IPython import get_ipython
from matplotlib.axes import Axes
from matplotlib.figure import Figure


def shows(axes: Axes) -> bool:
    """Whether there is anything to see between the axes."""
    points = (np.asarray(line.get_xydata(), float) for line in axes.lines)
    lines = any(np.isfinite(each).all(axis=1).any() for each in points)
    return lines or any((axes.collections, axes.patches, axes.images, axes.artists, axes.texts))


def lay_out(figure: Figure) -> None:
    """In place of a PNG.

    Raises
    ------
    ValueError
        If axes show nothing.
    """
    figure.draw_without_rendering()
    empty = [i for i, axes in enumerate(figure.axes) if axes.axison and not shows(axes)]
    if empty:
        raise ValueError(f"axes {empty} of a figure show nothing")


get_ipython().display_formatter.formatters["image/png"].for_type(Figure, lay_out)
