"""Figures that answer "does sparse pay here?": maps over sparsity and tokens, bars over GPUs."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import TwoSlopeNorm, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from perfmodel.plotting.style import BLUE, COLUMN_WIDTH, GREY, PURPLE, VERMILION

CHANGE_COLOURS = {"pruned": VERMILION, "rounded": BLUE, "pruned and rounded": PURPLE}
WORST, BEST = 0.5, 3.0  # speed-ups at the ends of the colour scale


def speedup_maps(table: pd.DataFrame, reached: Mapping[str, float], titles: Mapping[str, str]) -> Figure:
    """Speed-up over dense by sparsity and tokens, one panel per GPU; the heavy line is where sparse equals dense.

    ``table``: ``gpu, sparsity, n, speedup``. ``reached``: sparsity to which each model named can be pruned, dotted.
    """
    gpus = list(dict.fromkeys(table["gpu"]))
    columns = (len(gpus) + 1) // 2
    figure, panels = plt.subplots(2, columns, figsize=(COLUMN_WIDTH, 5), sharex=True, sharey=True, squeeze=False)
    norm = TwoSlopeNorm(1.0, WORST, BEST)
    filled = None
    for axes, gpu in zip(panels.flat, gpus, strict=False):
        grid = table[table["gpu"] == gpu].pivot_table(index="n", columns="sparsity", values="speedup")
        x, y = grid.columns.to_numpy() * 100, grid.index.to_numpy()
        levels = np.linspace(WORST, BEST, 26)
        filled = axes.contourf(x, y, np.clip(grid, WORST, BEST), levels, cmap="RdBu", norm=norm)
        lines = axes.contour(x, y, grid, [1.0, 1.5, 2.0], colors="k", linewidths=[2, 0.8, 0.8])
        axes.clabel(lines, fmt="%.1fx", fontsize=7.5)
        for model, limit in reached.items():
            axes.axvline(limit * 100, color="k", ls=":", lw=1)
            if gpu == gpus[0]:
                axes.text(limit * 100 - 1, y[-1] * 0.93, model, fontsize=6.5, rotation=90, ha="right", va="top")
        axes.set(title=titles[gpu], yscale="log")
        axes.set_yticks([8, 16, 32, 64, 128, 256], ["8", "16", "32", "64", "128", "256"])
        axes.minorticks_off()
        axes.grid(visible=False)
    for axes in panels[-1]:
        axes.set_xlabel("sparsity [%]")
    for axes in panels[:, 0]:
        axes.set_ylabel("tokens N")
    assert filled is not None
    figure.colorbar(filled, ax=panels, label="speed-up over cuBLAS", ticks=[0.5, 1, 1.5, 2, 2.5, 3], shrink=0.8)
    return figure


def bests_by_gpu(table: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Speed-up over cuBLAS of the best kernel of each kind, a row of bars per GPU, whiskers the 90 % interval.

    ``table``: ``gpu, change, kernel, speedup, low, high, extrapolated``; pale bars are extrapolations.
    """
    gpus, changes = (list(dict.fromkeys(table[column])) for column in ("gpu", "change"))
    figure, axes = plt.subplots(figsize=(COLUMN_WIDTH, 1.0 + 0.42 * len(gpus)))
    height = 0.82 / len(changes)
    places = {gpu: i for i, gpu in enumerate(gpus)}
    for i, change in enumerate(changes):
        rows = table[table["change"] == change]
        y = rows["gpu"].map(places) + (i - (len(changes) - 1) / 2) * height
        axes.barh(
            y,
            rows["speedup"],
            height * 0.9,
            color=[to_rgba(CHANGE_COLOURS[change], 0.5 if guess else 1.0) for guess in rows["extrapolated"]],
            xerr=[rows["speedup"] - rows["low"], rows["high"] - rows["speedup"]],
            error_kw={"lw": 0.8, "ecolor": GREY},
        )
        for at, kernel, end in zip(y, rows["kernel"], rows["high"], strict=True):
            axes.text(end + 0.03, at, titles[kernel].split(" (")[0], va="center", fontsize=6)
    axes.axvline(1, color="k", lw=1)
    axes.set_yticks(np.arange(len(gpus)), gpus)
    axes.set_ylim(len(gpus) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.set(xlabel="speed-up over cuBLAS (whisker: 90 % interval)", xlim=(0, 1.12 * table["high"].max()))
    handles = [Patch(color=CHANGE_COLOURS[change], label=change) for change in changes]
    figure.legend(handles=handles, loc="outside upper left", ncols=len(changes), title="pale: extrapolated")
    return figure
