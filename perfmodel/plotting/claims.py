"""Claims of papers beside what our models say: one row a claim, our interval over the published number."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from perfmodel.plotting.marks import ticks
from perfmodel.plotting.style import BLACK, FOREST, PAGE, ROSE

LOOKS = {"reproduced": (FOREST, "o"), "not reproduced": (ROSE, "X")}
ROW_INCH, HEAD_INCH = 0.14, 0.7
RATIOS = (0.5, 0.7, 0.85, 1, 1.2, 1.5, 2)
VIEW = 0.4, 2.4  # what reaches further says nothing more


def claims(table: pd.DataFrame) -> Figure:
    """Ratio of ours to published for each claim, with the 90 % interval, under the name of its paper.

    ``table``: ``paper, says, verdict, ratio, low, high``, in the order drawn.
    """
    first = (table["paper"] != table["paper"].shift()).to_numpy()
    places = -(np.arange(len(table)) + np.cumsum(first)).astype(float)  # a heading above each paper takes a row
    figure, axes = plt.subplots(figsize=(PAGE, HEAD_INCH + ROW_INCH * (1 - places[-1])))
    for verdict, (colour, marker) in LOOKS.items():
        mine = (table["verdict"] == verdict).to_numpy()
        rows = table[mine]
        axes.hlines(places[mine], rows["low"], rows["high"], color=colour, lw=1.4)
        axes.plot(rows["ratio"], places[mine], marker, color=colour, ms=3.5, ls="", label=verdict)
    axes.axvline(1, color=BLACK, lw=0.8)
    axes.set(xscale="log", ylim=(places[-1] - 0.7, 0.2), xlabel="ours over published")
    axes.set_xlim(*VIEW)
    ticks(axes.xaxis, RATIOS)
    axes.set_yticks([*places, *(places[first] + 1)], [*table["says"], *table.loc[first, "paper"]])
    for label in axes.get_yticklabels()[len(table) :]:
        label.set_fontweight("bold")
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper right", ncols=len(LOOKS))
    return figure
