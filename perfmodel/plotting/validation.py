"""Figures about trust: errors by GPU, residuals by sparsity, crossovers, second sources."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from perfmodel.plotting.style import (
    BLACK,
    BLUE,
    COLUMN_WIDTH,
    GREEN,
    GREY,
    KERNEL_COLOURS,
    KERNEL_MARKERS,
    ORANGE,
    PURPLE,
    SAND,
    SKY,
    VERMILION,
    WINE,
)

GPU_COLOURS = {
    "a100-80gb": BLACK,
    "a100-40gb": PURPLE,
    "h100": BLUE,
    "rtx-3090": ORANGE,
    "rtx-4090": SKY,
    "rtx-2080-super": GREEN,
    "rtx-a5000": SAND,
    "rtx-a6000": WINE,
}
OTHER_GPU = VERMILION
GPU_MARKERS = {"a100-80gb": "o", "rtx-3090": "^", "rtx-4090": "D"}
OTHER_MARKER = "s"
SOURCE_MARKERS = ("o", "^", "s", "D", "v")
GPU_ROW = 0.2  # inches
BANDS = ((0.2, "#f2f2f2"), (0.1, "#e4e4e4"))


def by_gpu(joined: pd.DataFrame) -> Figure:
    """Signed error of each GPU, a row each, the best met first: median and the middle 80 %, over +-10 and +-20 %.

    ``joined``: ``gpu, error, fitted``. Hollow markers took part in a fit; the number of rows that did not stands right.
    """
    unseen = joined[~joined["fitted"]]
    gpus = list(unseen["error"].abs().groupby(unseen["gpu"]).mean().sort_values().index)
    figure, axes = plt.subplots(figsize=(COLUMN_WIDTH, 1.2 + GPU_ROW * len(gpus)))
    for band, shade in BANDS:
        axes.axvspan(-100 * band, 100 * band, color=shade, zorder=0)
    axes.axvline(0, color=GREY, lw=1)
    for fitted, offset in ((False, -0.16), (True, 0.16)):
        errors = joined[joined["fitted"] == fitted].groupby("gpu")["error"]
        low, middle, high = (errors.quantile(level) * 100 for level in (0.1, 0.5, 0.9))
        y = np.array([gpus.index(gpu) for gpu in middle.index if gpu in gpus]) + offset
        shown = middle.index.isin(gpus)
        colour = SKY if fitted else BLUE
        axes.hlines(y, low[shown], high[shown], color=colour, lw=1.2)
        axes.plot(middle[shown], y, "o", ms=4.5, color=colour, mfc="white" if fitted else colour)
    for row, gpu in enumerate(gpus):
        label = f"{(unseen['gpu'] == gpu).sum():,}"
        axes.text(1.01, row, label, transform=axes.get_yaxis_transform(), va="center", fontsize=8, color=GREY)
    axes.set_yticks(range(len(gpus)), gpus)
    axes.set_ylim(len(gpus) - 0.5, -0.5)
    axes.set_xlim(-65, 65)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("error of the predicted time [%]; right: rows held out")
    marks = [
        Line2D([], [], color=BLUE, marker="o", label="held out"),
        Line2D([], [], color=SKY, marker="o", mfc="white", label="fitted"),
        *(Patch(color=shade, label=f"within {band:.0%}") for band, shade in reversed(BANDS)),
    ]
    figure.legend(handles=marks, loc="outside upper left", ncols=4)
    return figure


def residuals_by_sparsity(joined: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Signed error against sparsity, one panel per kernel, one colour per GPU.

    ``joined``: ``kernel, gpu, sparsity, error``. A line joins the medians, a bar spans the middle 80 %.
    """
    kernels = list(dict.fromkeys(joined["kernel"]))
    figure, panels = plt.subplots(
        (len(kernels) + 1) // 2, 2, figsize=(COLUMN_WIDTH, 1.9 * ((len(kernels) + 1) // 2)), sharex=True, sharey=True
    )
    for axes, kernel in zip(panels.flat, kernels, strict=False):
        _residual_panel(axes, joined[joined["kernel"] == kernel])
        axes.set_title(titles[kernel], fontsize=9)
    for axes in list(panels.flat)[len(kernels) :]:
        axes.set_visible(False)
    for axes in panels[-1]:
        axes.set_xlabel("sparsity [%]")
    for axes in panels[:, 0]:
        axes.set_ylabel("error [%]")
    handles = [
        Line2D([], [], color=GPU_COLOURS.get(gpu, OTHER_GPU), marker="o", label=gpu) for gpu in joined["gpu"].unique()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def _residual_panel(axes: Axes, rows: pd.DataFrame) -> None:
    axes.axhspan(-20, 20, color=BANDS[0][1], zorder=0)
    axes.axhspan(-10, 10, color=BANDS[1][1], zorder=0)
    axes.axhline(0, color=GREY, lw=0.8)
    for gpu, group in rows.groupby("gpu"):
        errors = group.groupby("sparsity")["error"]
        low, middle, high = (errors.quantile(level) * 100 for level in (0.1, 0.5, 0.9))
        at = middle.index.to_numpy() * 100
        colour = GPU_COLOURS.get(str(gpu), OTHER_GPU)
        axes.vlines(at, low, high, color=colour, lw=1)
        axes.plot(at, middle, "o-", color=colour, ms=3, lw=1)
    axes.set_ylim(-50, 50)


def crossovers(table: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Predicted against measured sparsity at which a sparse kernel overtakes the dense one.

    ``table``: ``kernel, gpu, measured, predicted`` (fractions).
    """
    figure, axes = plt.subplots(figsize=(COLUMN_WIDTH * 0.8, 4.2))
    line = np.array([0.0, 100.0])
    axes.fill_between(line, line - 5, line + 5, color=BANDS[1][1], zorder=0)
    axes.plot(line, line, color=GREY, lw=1)
    for (kernel, gpu), rows in table.groupby(["kernel", "gpu"]):
        axes.plot(
            rows["measured"] * 100,
            rows["predicted"] * 100,
            GPU_MARKERS.get(str(gpu), OTHER_MARKER),
            color=KERNEL_COLOURS[kernel],
            mfc="none",
            ms=5,
            label=f"{titles[kernel]}, {gpu}",
        )
    axes.legend(loc="upper left", title="band: 5 points")
    axes.set(xlabel="measured crossover sparsity [%]", ylabel="predicted [%]", xlim=(0, 100), ylim=(0, 100))
    return figure


def second_sources(table: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Predicted over published speed-ups of second sources, a panel a source, a colour a kernel, a marker a GPU.

    ``table``: ``source, gpu, kernel, published, predicted``.
    """
    sources = list(dict.fromkeys(table["source"]))
    figure, panels = plt.subplots(1, len(sources), figsize=(COLUMN_WIDTH, 3.0), sharex=True, sharey=True)
    span = np.array([0.18, max(3.2, 1.15 * table[["published", "predicted"]].to_numpy().max())])
    ticks = [tick for tick in (0.25, 0.5, 1, 2, 4) if tick < span[1]]
    gpus = list(dict.fromkeys(table["gpu"]))
    for axes, source in zip(panels, sources, strict=True):
        for band, shade in BANDS:
            axes.fill_between(span, span * (1 - band), span * (1 + band), color=shade, zorder=0)
        axes.plot(span, span, color=GREY, lw=1)
        axes.axhline(1, color=GREY, lw=0.6, ls=":")
        axes.axvline(1, color=GREY, lw=0.6, ls=":")
        for (kernel, gpu), rows in table[table["source"] == source].groupby(["kernel", "gpu"], sort=False):
            marker = SOURCE_MARKERS[gpus.index(gpu) % len(SOURCE_MARKERS)]
            axes.plot(
                rows["published"],
                rows["predicted"],
                marker,
                ms=4,
                mew=0.5,
                mec=BLACK,
                color=KERNEL_COLOURS[str(kernel)],
            )
        axes.set(xscale="log", yscale="log", xlim=span, ylim=span, title=source, xlabel="published")
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_aspect("equal")
    panels[0].set_ylabel("predicted speed-up over cuBLAS")
    kernels = [
        Line2D([], [], color=KERNEL_COLOURS[name], marker="o", mec=BLACK, mew=0.5, linestyle="none", label=titles[name])
        for name in dict.fromkeys(table["kernel"])
    ]
    cards = [
        Line2D(
            [],
            [],
            color="white",
            mec=BLACK,
            marker=SOURCE_MARKERS[i % len(SOURCE_MARKERS)],
            linestyle="none",
            label=gpu,
        )
        for i, gpu in enumerate(gpus)
    ]
    figure.legend(handles=[*kernels, *cards], loc="outside lower center", ncols=4)
    return figure


def encoders(lines: pd.DataFrame, markers: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Speed-up over cuBLAS against sparsity, a panel a card: what the encoder of one and the same kernel is worth.

    Parameters
    ----------
    lines : DataFrame
        ``card, kernel, sparsity, speedup, low, high`` predicted; the first kernel's interval is shaded.
    markers : DataFrame
        ``card, kernel, sparsity, speedup`` measured.
    titles : mapping
        Kernel name to label.
    """
    cards, kernels = (list(dict.fromkeys(lines[name])) for name in ("card", "kernel"))
    figure, panels = plt.subplots(1, len(cards), figsize=(1.25 * COLUMN_WIDTH, 3.3), sharex=True, sharey=True)
    for axes, card in zip(panels, cards, strict=True):
        for kernel, rows in lines[lines["card"] == card].groupby("kernel", sort=False):
            colour, at = KERNEL_COLOURS[str(kernel)], rows["sparsity"] * 100
            if kernel == kernels[0]:
                axes.fill_between(at, rows["low"], rows["high"], color=BANDS[1][1], zorder=0)
            axes.plot(at, rows["speedup"], color=colour)
        for kernel, rows in markers[markers["card"] == card].groupby("kernel", sort=False):
            at, colour = rows["sparsity"] * 100, KERNEL_COLOURS[str(kernel)]
            axes.plot(at, rows["speedup"], KERNEL_MARKERS[str(kernel)], color=colour, mec=BLACK, mew=0.7, ms=6)
        axes.axhline(1, color=GREY, lw=0.8)
        axes.set(title=card, xlabel="sparsity [%]", yscale="log")
        axes.set_yticks([0.5, 1, 2, 4], ["0.5", "1", "2", "4"])
        axes.minorticks_off()
    panels[0].set_ylabel("speed-up over cuBLAS")
    handles = [
        Line2D([], [], color=KERNEL_COLOURS[name], marker=KERNEL_MARKERS[name], mec=BLACK, mew=0.7, label=titles[name])
        for name in kernels
    ]
    band = Patch(color=BANDS[1][1], label=f"90 % interval of {titles[kernels[0]]}")
    figure.legend(handles=[*handles, band], loc="outside lower center", ncols=3)
    return figure
