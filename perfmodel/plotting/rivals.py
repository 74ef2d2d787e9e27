"""Sparse against the rivals that keep all weights: where it overtakes them, who is fastest, 2:4 as measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from perfmodel.plotting.style import BLACK, COLUMN_WIDTH, GREY, KERNEL_COLOURS, KERNEL_MARKERS, in_order

ROW = 0.26  # inches of a GPU's row
NOWHERE = 104.0  # where "nowhere" stands on an axis in percent
LAST = 97.5  # between the highest sparsity shown and "nowhere"
HATCH = "////"


def overtaking(table: pd.DataFrame, titles: Mapping[str, str], labels: Mapping[str, str]) -> Figure:
    """Sparsity from which the best sparse kernel overtakes each rival, a row per GPU, whiskers the 90 % interval.

    ``table``: ``gpu, rival, sparsity, low, high``, missing where nowhere; GPUs in the order of the rows. Open markers
    in the last column: at no sparsity shown; a whisker that reaches it has no upper end.
    """
    gpus, rivals = (list(dict.fromkeys(table[column])) for column in ("gpu", "rival"))
    figure, axes = plt.subplots(figsize=(COLUMN_WIDTH, 1.3 + ROW * len(gpus)))
    offsets = np.linspace(-0.28, 0.28, len(rivals))
    for rival, offset in zip(rivals, offsets, strict=True):
        rows = table[table["rival"] == rival]
        y = rows["gpu"].map({gpu: i for i, gpu in enumerate(gpus)}) + offset
        at, low, high = (np.where(rows[end].isna(), NOWHERE, rows[end] * 100) for end in ("sparsity", "low", "high"))
        colour, nowhere = KERNEL_COLOURS[rival], rows["sparsity"].isna().to_numpy()
        axes.hlines(y, low, high, color=colour, lw=1.2)
        style: dict[str, Any] = {"marker": KERNEL_MARKERS[rival], "s": 26, "edgecolors": colour, "zorder": 3}
        axes.scatter(at[~nowhere], y[~nowhere], facecolors=colour, **style)
        axes.scatter(at[nowhere], y[nowhere], facecolors="white", **style)
    for row in range(1, len(gpus), 2):
        axes.axhspan(row - 0.5, row + 0.5, color=GREY, alpha=0.1, lw=0)
    axes.axvline(LAST, color=BLACK, lw=0.8)
    axes.set_yticks(range(len(gpus)), [labels[gpu] for gpu in gpus])
    axes.set_ylim(len(gpus) - 0.5, -0.5)
    axes.set_xlim(38, 109)
    axes.set_xticks([40, 50, 60, 70, 80, 90, NOWHERE], ["40", "50", "60", "70", "80", "90", "nowhere"])
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("sparsity from which the best sparse kernel is faster [%]")
    axes.set_title("GPU (memory bytes per SM and clock)", fontsize=8, loc="right", x=-0.02)
    handles = [
        Line2D([], [], color=KERNEL_COLOURS[name], marker=KERNEL_MARKERS[name], label=f"than {titles[name]}")
        for name in rivals
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=len(rivals))
    return figure


def winner_map(table: pd.DataFrame, titles: Mapping[str, str], labels: Mapping[str, str]) -> Figure:
    """The fastest kernel by sparsity and tokens, a panel per GPU; hatched where it is outside its evidence.

    ``table``: ``gpu, n, sparsity, kernel, extrapolated``, a full grid for each GPU.
    """
    gpus = list(dict.fromkeys(table["gpu"]))
    kernels = in_order(table["kernel"])
    number = {name: i for i, name in enumerate(kernels)}
    colours = ListedColormap([KERNEL_COLOURS[name] for name in kernels])
    columns = 3 if len(gpus) > 4 else 2
    lines = -(-len(gpus) // columns)
    figure, panels = plt.subplots(
        lines, columns, figsize=(COLUMN_WIDTH, 0.9 + 2.1 * lines), sharex=True, sharey=True, squeeze=False
    )
    for axes, gpu in zip(panels.flat, gpus, strict=False):
        rows = table[table["gpu"] == gpu].assign(code=lambda part: part["kernel"].map(number))
        codes = rows.pivot_table(index="n", columns="sparsity", values="code")
        outside = rows.pivot_table(index="n", columns="sparsity", values="extrapolated").to_numpy()
        x, y = codes.columns.to_numpy() * 100, np.arange(float(len(codes.index)))
        axes.pcolormesh(x, y, codes, cmap=colours, vmin=-0.5, vmax=len(kernels) - 0.5, shading="nearest")
        with plt.rc_context({"hatch.color": "white", "hatch.linewidth": 0.7}):
            axes.contourf(
                _to_edges(x),
                _to_edges(y),
                np.pad(outside, 1, mode="edge"),
                levels=[0.5, 1.5],
                colors="none",
                hatches=[HATCH],
            )
        axes.set_title(labels[gpu])
        axes.set_yticks(y, [str(n) for n in codes.index])
        axes.grid(visible=False)
    for axes in panels.flat[len(gpus) :]:
        axes.set_visible(False)
    for axes in panels[-1]:
        axes.set_xlabel("sparsity [%]")
    for axes in panels[:, 0]:
        axes.set_ylabel("tokens N")
    handles = [Patch(color=KERNEL_COLOURS[name], label=titles[name]) for name in kernels]
    handles.append(Patch(facecolor=GREY, edgecolor="white", hatch=HATCH, label="outside the evidence"))
    figure.legend(handles=handles, loc="outside upper left", ncols=3)
    return figure


def two_four_measured(
    table: pd.DataFrame, titles: Mapping[str, str], labels: Mapping[str, str], kernels: Sequence[str]
) -> Figure:
    """Speed-up of 2:4 over dense of its own precision by tokens: markers as measured, lines as predicted.

    ``table``: ``gpu, kernel, n, measured, predicted``, medians over matrices.
    """
    gpus = list(dict.fromkeys(table["gpu"]))
    figure, panels = plt.subplots(1, len(gpus), figsize=(COLUMN_WIDTH, 2.9), sharex=True, sharey=True, squeeze=False)
    for axes, gpu in zip(panels[0], gpus, strict=True):
        for kernel in kernels:
            rows = table[(table["gpu"] == gpu) & (table["kernel"] == kernel)].sort_values("n")
            axes.plot(rows["n"], rows["predicted"], color=KERNEL_COLOURS[kernel])
            axes.plot(
                rows["n"], rows["measured"], color=KERNEL_COLOURS[kernel], marker=KERNEL_MARKERS[kernel], ms=7, ls=""
            )
        _even(axes)
        axes.set(title=labels[gpu], xlabel="tokens N", xscale="log")
        axes.set_xticks([64, 512, 4096], ["64", "512", "4096"])
        axes.minorticks_off()
    panels[0, 0].set_ylabel("speed-up over dense")
    handles = [
        Line2D([], [], color=KERNEL_COLOURS[name], marker=KERNEL_MARKERS[name], label=titles[name]) for name in kernels
    ]
    figure.legend(
        handles=handles, loc="outside upper left", ncols=len(kernels), title="markers: measured; lines: predicted"
    )
    return figure


def _to_edges(centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """``centres`` of cells, and the outer edges of the first and the last."""
    step = (centres[1] - centres[0]) / 2
    return np.concatenate([[centres[0] - step], centres, [centres[-1] + step]])


def _even(axes: Axes) -> None:
    axes.axhline(1, color=BLACK, lw=0.8)
