"""Figures that answer "does sparse pay here?": maps over sparsity and tokens, the best kernels over GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from textwrap import fill
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from perfmodel.plotting.kernels import last_has, short, stretches
from perfmodel.plotting.marks import label_ends, outside_cells, outside_key, ticks
from perfmodel.plotting.style import BLACK, GREY, KERNEL_COLOURS, KERNEL_MARKERS, OTHERS, PAGE

WORST, BEST = 0.5, 3.0  # speed-ups at the ends of the colour scale
MAP_COLUMNS, TITLE_LETTERS = 4, 20
HATCH = "#8A8A8A"  # seen on the light and on the dark ends of the colours
LINES = {1.0: 1.6, 1.5: 0.6, 2.0: 0.6}  # speed-up -> width of its line, on the maps and in the scale of colours
WIDE = 64  # last N of a map over its first, up to which each power of two has a tick
GPU_ROW = 0.165  # inches
NAME_ROOM = 1.45  # of the longest interval, for the name of the kernel right of it


def speedup_maps(table: pd.DataFrame, reached: Mapping[str, float], titles: Mapping[str, str]) -> Figure:
    """Speed-up over dense by sparsity and tokens, one panel per GPU; the heavy line is where sparse equals dense.

    ``table``: ``gpu, sparsity, n, speedup, extrapolated``; hatched where extrapolated. ``reached``: sparsity to which
    each model named can be pruned, dotted.
    """
    gpus = list(dict.fromkeys(table["gpu"]))
    lines = -(-len(gpus) // MAP_COLUMNS)
    size = PAGE, 0.7 + 1.75 * lines
    figure, panels = plt.subplots(lines, MAP_COLUMNS, figsize=size, sharex=True, sharey=True, squeeze=False)
    colours = None
    for axes, gpu in zip(panels.flat, gpus, strict=False):
        colours = _map(axes, table[table["gpu"] == gpu])
        axes.set(title=fill(titles[gpu], TITLE_LETTERS), xlabel="sparsity [%]")
        for limit in reached.values():
            axes.axvline(limit * 100, color=BLACK, ls=":", lw=1)
    for axes in panels.flat[len(gpus) :]:
        axes.remove()
    for axes in panels[:, 0]:
        axes.set_ylabel("tokens N")
    assert colours is not None
    shown = list(panels.flat[: len(gpus)])
    bar = figure.colorbar(colours, ax=shown, label="speed-up over cuBLAS", ticks=[0.5, 1, 1.5, 2, 2.5, 3], pad=0.01)
    bar.add_lines(list(LINES), [BLACK] * len(LINES), list(LINES.values()))
    limits = [
        Line2D([], [], color=BLACK, ls=":", lw=1, label=f"{model} pruned to {limit:.0%}")
        for model, limit in reached.items()
    ]
    even = Line2D([], [], color=BLACK, lw=1.6, label="as fast as cuBLAS")
    figure.legend(handles=[even, outside_key(), *limits], loc="outside lower center", ncols=3)
    return figure


def _map(axes: Axes, rows: pd.DataFrame) -> QuadContourSet:
    """Colours, lines of equal speed-up, and the hatching of one GPU."""
    grid, guessed = (
        rows.pivot_table(index="n", columns="sparsity", values=name) for name in ("speedup", "extrapolated")
    )
    x, y = grid.columns.to_numpy() * 100, grid.index.to_numpy()
    levels, norm = np.linspace(WORST, BEST, 26), TwoSlopeNorm(1.0, WORST, BEST)
    filled = axes.contourf(x, y, grid, levels, cmap="RdBu", norm=norm, extend="both")
    edges = (np.concatenate([at[:1], (at[1:] + at[:-1]) / 2, at[-1:]]) for at in (x, y))
    outside_cells(axes, guessed > 0, *edges, edgecolor=HATCH)
    crossed = {level: width for level, width in LINES.items() if grid.min(axis=None) < level < grid.max(axis=None)}
    if crossed:
        axes.contour(x, y, grid, list(crossed), colors=BLACK, linewidths=list(crossed.values()))
    axes.set_yscale("log")
    ticks(axes.yaxis, 2.0 ** np.arange(0, 13, 1 if y[-1] <= WIDE * y[0] else 2))
    axes.grid(visible=False)
    return filled


def bests_by_gpu(table: pd.DataFrame, titles: Mapping[str, str], gpus: Mapping[str, str] | None = None) -> Figure:
    """Speed-up over cuBLAS of the best kernel of each kind, a row per GPU, a panel a kind; lines: the 90 % interval.

    ``table``: ``gpu, change, kernel, speedup, low, high, extrapolated``; hollow marks are extrapolations.
    ``gpus``: their titles, in the order of the rows; left out, as in the table.
    """
    changes, gpus = list(dict.fromkeys(table["change"])), gpus or {gpu: gpu for gpu in dict.fromkeys(table["gpu"])}
    size = PAGE, 0.75 + GPU_ROW * len(gpus)
    figure, panels = plt.subplots(1, len(changes), figsize=size, sharex=True, sharey=True, squeeze=False)
    rows_of = {gpu: y for y, gpu in enumerate(gpus)}
    for axes, change in zip(panels[0], changes, strict=True):
        for row in table[table["change"] == change].itertuples():
            _best(axes, rows_of[row.gpu], row, short(titles[row.kernel]))
        axes.axvline(1, color=GREY, lw=0.8)
        axes.set(title=change, xlabel="speed-up over cuBLAS")
        axes.grid(axis="y", visible=False)
    panels[0, 0].set_yticks(range(len(gpus)), list(gpus.values()))
    panels[0, 0].set(ylim=(len(gpus) - 0.4, -0.6), xlim=(0, NAME_ROOM * table["high"].max()))
    marks: dict[str, Any] = {"color": GREY, "marker": "o"}
    handles = [
        Line2D([], [], label="within the evidence (line: 90 % interval)", **marks),
        Line2D([], [], label="outside the evidence", mfc="white", **marks),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def _best(axes: Axes, y: int, row: Any, name: str) -> None:
    colour = KERNEL_COLOURS[row.kernel]
    axes.hlines(y, row.low, row.high, color=colour, lw=0.8)
    fill = "white" if row.extrapolated else colour
    axes.plot(row.speedup, y, KERNEL_MARKERS[row.kernel], mec=colour, mfc=fill, mew=0.6, ms=4.6)
    axes.annotate(
        name,
        (row.high, y),
        xytext=(3, 0),
        textcoords="offset points",
        va="center",
        fontsize=6,
        path_effects=[withStroke(linewidth=1.5, foreground="white")],
    )


def over_tokens(table: pd.DataFrame, gpus: Mapping[str, str]) -> Figure:
    """Speed-up over cuBLAS against the tokens, a line per GPU, named at its end; dotted outside the evidence.

    ``table``: ``gpu, n, speedup, extrapolated``. ``gpus``: their titles.
    """
    figure, axes = plt.subplots(figsize=(PAGE, 2.2))
    for (gpu, title), colour in zip(gpus.items(), cycle(OTHERS)):
        rows = table[table["gpu"] == gpu].sort_values("n")
        for dash, stretch in stretches(rows["speedup"], rows["extrapolated"]):
            label = title if last_has(dash, rows["extrapolated"]) else "_"
            axes.plot(rows["n"], stretch, dash, color=colour, label=label)
    axes.axhline(1, color=BLACK, lw=0.8)
    axes.set(xscale="log", xlim=(table["n"].min(), table["n"].max()), xlabel="tokens N", ylabel="speed-up over cuBLAS")
    axes.set_ylim(0, None)
    ticks(axes.xaxis, (1, 4, 16, 64, 256, 1024, 4096))
    label_ends(axes)
    return figure
