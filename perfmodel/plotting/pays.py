"""Figures that answer "does sparse pay here?": maps over sparsity and tokens, bars over GPUs."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import TwoSlopeNorm, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from perfmodel.plotting.style import COLUMN_WIDTH, GREY, KERNEL_COLOURS

WORST, BEST = 0.5, 3.0  # speed-ups at the ends of the colour scale


def speedup_maps(table: pd.DataFrame, feasible: tuple[float, float], titles: Mapping[str, str]) -> Figure:
    """Speed-up over dense by sparsity and tokens, one panel per GPU; the heavy line is where sparse equals dense.

    ``table``: ``gpu, sparsity, n, speedup``. Dotted verticals: highest sparsity that keeps accuracy in one shot, and
    with retraining.
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
        for limit in feasible:
            axes.axvline(limit * 100, color="k", ls=":", lw=1)
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


def speedup_by_gpu(table: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Geometric-mean speed-up over cuBLAS by GPU, a bar per kernel, whiskers the 90 % interval.

    ``table``: ``gpu, kernel, speedup, low, high, extrapolated``; pale bars are extrapolations.
    """
    gpus, kernels = (list(dict.fromkeys(table[column])) for column in ("gpu", "kernel"))
    figure, axes = plt.subplots(figsize=(COLUMN_WIDTH, 0.42 * len(gpus) * max(1, len(kernels) / 3)))
    height = 0.82 / len(kernels)
    for i, kernel in enumerate(kernels):
        rows = table[table["kernel"] == kernel].set_index("gpu").loc[gpus]
        places = np.arange(len(gpus)) + (i - (len(kernels) - 1) / 2) * height
        axes.barh(
            places,
            rows["speedup"],
            height * 0.9,
            color=[to_rgba(KERNEL_COLOURS[kernel], 0.5 if guess else 1.0) for guess in rows["extrapolated"]],
            xerr=[rows["speedup"] - rows["low"], rows["high"] - rows["speedup"]],
            error_kw={"lw": 0.8, "ecolor": GREY},
        )
    axes.axvline(1, color="k", lw=1)
    axes.set_yticks(np.arange(len(gpus)), gpus)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set(xlabel="speed-up over cuBLAS (bar: geometric mean over shapes; whisker: 90 % interval)", xlim=(0, None))
    handles = [Patch(color=KERNEL_COLOURS[name], label=titles[name]) for name in kernels]
    figure.legend(handles=handles, loc="outside upper left", ncols=len(kernels), title="pale: extrapolated")
    return figure
