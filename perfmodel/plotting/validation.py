"""Figures about trust: errors by GPU, residuals by sparsity, crossovers, second sources, coverage of intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from perfmodel.plotting.kernels import ERROR_BANDS, PALE, look, short
from perfmodel.plotting.marks import ticks
from perfmodel.plotting.style import GREY, KERNEL_COLOURS, KERNEL_MARKERS, PAGE, in_order

GPU_ROW, KERNEL_ROW = 0.19, 0.155  # inches
# Panels of `by_gpu`, so that a row has few kernels in each; kernels that are in none have the last.
FAMILIES = {
    "dense": ("cublas",),
    "sparse": ("flash-llm", "flash-llm-noreorder", "sparta", "sputnik", "bitmap", "macko"),
    "patterns": ("two-four", "six-eight", "two-four-int8", "two-four-fp8"),
    "fewer bits": (),
}
WIDEST = 65  # percent of error that is shown
SMALL_COLUMNS = 6  # of small panels, a pair of kernel and GPU each
SPEEDUPS = (0.25, 0.5, 1, 2, 4)


def by_gpu(joined: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Signed error on each GPU, a row each, the best met first, by kernel: median and the middle 80 %.

    ``joined``: ``gpu, kernel, error, fitted``. Only rows that took part in no fit; their number stands in brackets.
    """
    unseen = joined[~joined["fitted"]]
    counts = unseen["gpu"].value_counts()
    gpus = list(unseen["error"].abs().groupby(unseen["gpu"]).mean().sort_values().index)
    named = [kernel for family in FAMILIES.values() for kernel in family]
    size = PAGE, 1.5 + GPU_ROW * len(gpus)
    figure, panels = plt.subplots(1, len(FAMILIES), figsize=size, sharex=True, sharey=True)
    for axes, (family, kernels) in zip(panels, FAMILIES.items(), strict=True):
        rows = unseen[unseen["kernel"].isin(kernels) if kernels else ~unseen["kernel"].isin(named)]
        _errors_by_gpu(axes, rows, gpus, titles)
        axes.set_title(family)
    panels[0].set_yticks(range(len(gpus)), [f"{gpu} ({counts[gpu]:,})" for gpu in gpus])
    panels[0].set(ylim=(len(gpus) - 0.5, -0.5), xlim=(-WIDEST, WIDEST))
    return figure


def _errors_by_gpu(axes: Axes, rows: pd.DataFrame, gpus: Sequence[str], titles: Mapping[str, str]) -> None:
    """One family's kernels, above each other within a GPU's row."""
    error_bands(axes, axes.axvspan, axes.axvline)
    kernels = list(dict.fromkeys(rows["kernel"].sort_values()))
    for (gpu, kernel), errors in rows.groupby(["gpu", "kernel"])["error"]:
        mine = sorted(rows.loc[rows["gpu"] == gpu, "kernel"].unique())
        y = gpus.index(gpu) + 0.8 * ((mine.index(kernel) + 0.5) / len(mine) - 0.5)
        low, middle, high = (100 * errors.quantile(level) for level in (0.1, 0.5, 0.9))
        axes.hlines(y, low, high, color=KERNEL_COLOURS[kernel], lw=0.8)
        axes.plot(middle, y, KERNEL_MARKERS[kernel], ms=3, **look(kernel))
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("error of the time [%]")
    axes.legend(handles=kernel_marks(kernels, titles), loc="upper left", bbox_to_anchor=(-0.04, -0.09), fontsize=6.5)


def error_bands(axes: Axes, span: Any, line: Any) -> None:
    """Grey bands of +-10 and +-20 % and a line at none; ``span`` and ``line`` are of the axis that has the errors."""
    for share, shade in ERROR_BANDS:
        span(-100 * share, 100 * share, color=shade, zorder=0, lw=0)
    line(0, color=GREY, lw=0.8)


def kernel_marks(kernels: Sequence[str], titles: Mapping[str, str]) -> list[Line2D]:
    """A legend's handles: each kernel's marker in its colour."""
    return [
        Line2D([], [], ls="none", marker=KERNEL_MARKERS[name], label=short(titles[name]), **look(name))
        for name in kernels
    ]


def small_panels(count: int, columns: int, height: float, below: str) -> tuple[Figure, list[Axes]]:
    """A page of ``count`` panels in rows of ``columns`` that share both axes; ``below``: the name of the x axis."""
    lines = -(-count // columns)
    figure, panels = plt.subplots(
        lines, columns, figsize=(PAGE, height * lines + 0.45), squeeze=False, sharex=True, sharey=True
    )
    for axes in list(panels.flat)[count:]:
        axes.remove()
    for axes in list(panels.flat)[max(0, count - columns) : count]:
        axes.tick_params(labelbottom=True)
        axes.set_xlabel(below)
    return figure, list(panels.flat)[:count]


def residuals_by_sparsity(joined: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Signed error against sparsity, one panel per kernel and GPU.

    ``joined``: ``kernel, gpu, sparsity, error``. A line joins the medians, a band spans the middle 80 %.
    """
    pairs = sorted(joined.groupby(["kernel", "gpu"]), key=lambda pair: list(KERNEL_COLOURS).index(pair[0][0]))
    figure, panels = small_panels(len(pairs), SMALL_COLUMNS, 1.35, "sparsity [%]")
    for axes, ((kernel, gpu), rows) in zip(panels, pairs, strict=True):
        error_bands(axes, axes.axhspan, axes.axhline)
        errors = rows.groupby("sparsity")["error"]
        low, middle, high = (errors.quantile(level) * 100 for level in (0.1, 0.5, 0.9))
        at, colour = middle.index.to_numpy() * 100, KERNEL_COLOURS[str(kernel)]
        axes.fill_between(at, low, high, color=colour, alpha=1.5 * PALE, lw=0)
        axes.plot(at, middle, KERNEL_MARKERS[str(kernel)] + "-", color=colour, ms=2.5, lw=0.8)
        axes.set_title(f"{short(titles[str(kernel)])},\n{gpu}")
        axes.set_ylim(-50, 50)
    figure.supylabel("error of the predicted time [%]")
    return figure


def crossovers(table: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Predicted against measured sparsity at which a sparse kernel overtakes the dense one, a panel per GPU.

    ``table``: ``kernel, gpu, measured, predicted`` (fractions).
    """
    gpus, line = list(dict.fromkeys(table["gpu"])), np.array([0.0, 100.0])
    figure, panels = small_panels(len(gpus), 4, 1.8, "measured crossover [%]")
    for axes, gpu in zip(panels, gpus, strict=True):
        axes.fill_between(line, line - 5, line + 5, color=ERROR_BANDS[1][1], zorder=0, lw=0)
        axes.plot(line, line, color=GREY, lw=0.8)
        for kernel, rows in table[table["gpu"] == gpu].groupby("kernel"):
            mark: dict[str, Any] = {"mec": KERNEL_COLOURS[str(kernel)], "mfc": "none", "mew": 0.7}
            axes.plot(100 * rows["measured"], 100 * rows["predicted"], KERNEL_MARKERS[str(kernel)], **mark)
        axes.set(title=gpu, xlim=(0, 100), ylim=(0, 100))
        for axis in (axes.xaxis, axes.yaxis):
            ticks(axis, range(0, 101, 25))
    figure.supylabel("predicted crossover [%]")
    kernels = kernel_marks(list(dict.fromkeys(table["kernel"])), titles)
    band = Patch(color=ERROR_BANDS[1][1], label="within 5 points")
    figure.legend(handles=[*kernels, band], loc="outside upper left", ncols=6)
    return figure


def second_sources(table: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Predicted over published speed-ups of second sources, a panel for each source and GPU.

    ``table``: ``source, gpu, kernel, published, predicted``.
    """
    pairs = list(table.groupby(["source", "gpu"], sort=False))
    largest = table[["published", "predicted"]].to_numpy().max()
    span = np.array([0.18, max(3.2, 1.15 * largest)])
    figure, panels = small_panels(len(pairs), 4, 1.95, "published speed-up")
    for axes, ((source, gpu), points) in zip(panels, pairs, strict=True):
        for share, shade in ERROR_BANDS:
            axes.fill_between(span, span * (1 - share), span * (1 + share), color=shade, zorder=0, lw=0)
        axes.plot(span, span, color=GREY, lw=0.8)
        for kernel, rows in points.groupby("kernel", sort=False):
            axes.plot(rows["published"], rows["predicted"], KERNEL_MARKERS[str(kernel)], ms=3, **look(str(kernel)))
        axes.set(xscale="log", yscale="log", xlim=span, ylim=span, title=f"{source},\n{gpu}")
        ticks(axes.xaxis, SPEEDUPS)
        ticks(axes.yaxis, SPEEDUPS)
    figure.supylabel("predicted, over cuBLAS")
    kernels = kernel_marks(list(dict.fromkeys(table["kernel"])), titles)
    shades = [Patch(color=shade, label=f"within {share:.0%}") for share, shade in reversed(ERROR_BANDS)]
    figure.legend(handles=[*kernels, *shades], loc="outside upper left", ncols=6)
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
    figure, panels = small_panels(len(cards), len(cards), 2.0, "sparsity [%]")
    first = KERNEL_COLOURS[kernels[0]]
    for axes, card in zip(panels, cards, strict=True):
        for kernel, rows in lines[lines["card"] == card].groupby("kernel", sort=False):
            at = rows["sparsity"] * 100
            if kernel == kernels[0]:
                axes.fill_between(at, rows["low"], rows["high"], color=first, alpha=PALE, zorder=0, lw=0)
            axes.plot(at, rows["speedup"], color=KERNEL_COLOURS[str(kernel)])
        for kernel, rows in markers[markers["card"] == card].groupby("kernel", sort=False):
            axes.plot(rows["sparsity"] * 100, rows["speedup"], KERNEL_MARKERS[str(kernel)], **look(str(kernel)))
        axes.axhline(1, color=GREY, lw=0.8)
        axes.set(title=card, yscale="log")
        ticks(axes.yaxis, (0.5, 1, 2, 4))
    panels[0].set_ylabel("speed-up over cuBLAS")
    handles = [Line2D([], [], marker=KERNEL_MARKERS[name], label=titles[name], **look(name)) for name in kernels]
    band = Patch(color=first, alpha=PALE, lw=0, label=f"90 % interval of {titles[kernels[0]]}")
    figure.legend(handles=[*handles, band], loc="outside lower center", ncols=3)
    return figure


def covered(table: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Share of held-out rows inside their 90 % interval, and how wide it is, a row per kernel.

    ``table``: ``kernel, where, rows, covered, width`` as `perfmodel.evidence.uncertainty.coverage` gives it; hollow
    marks: on another GPU than the fit's, whose rows were all left out.
    """
    grouped = table.assign(inside=table["covered"] * table["rows"]).groupby(["kernel", "where"])
    found = grouped.agg(rows=("rows", "sum"), inside=("inside", "sum"), width=("width", "median")).reset_index()
    found["covered"] = 100 * found["inside"] / found["rows"]
    kernels = in_order(found["kernel"])
    size = PAGE, 0.8 + KERNEL_ROW * len(kernels)
    figure, panels = plt.subplots(1, 3, figsize=size, sharey=True)
    for row in found.itertuples():
        in_l2, foreign = row.where.endswith("L2"), row.where.startswith("another")
        mark = look(row.kernel) | ({"mfc": "white", "mec": KERNEL_COLOURS[row.kernel]} if foreign else {})
        y, marker = kernels.index(row.kernel), KERNEL_MARKERS[row.kernel]
        panels[1 if in_l2 else 0].plot(row.covered, y, marker, **mark)
        if not in_l2:
            panels[2].plot(row.width, y, marker, **mark)
    for axes, title in zip(
        panels, ("rows inside", "rows inside, weights in the L2", "width of the interval"), strict=True
    ):
        axes.set(title=title, xlabel="share of the rows [%]", xlim=(-4, 104))
        axes.axvline(90, color=GREY, lw=0.8)
    panels[2].lines[-1].remove()
    panels[2].set(xlabel="upper end / lower end", xscale="log", xlim=(1, 1.1 * found["width"].max()))
    ticks(panels[2].xaxis, (1, 1.5, 2, 3, 5, 8, 12))
    panels[0].set_yticks(range(len(kernels)), [titles[name] for name in kernels])
    panels[0].set_ylim(len(kernels) - 0.5, -0.5)
    marks: dict[str, Any] = {"color": GREY, "marker": "o", "ls": "none"}
    handles = [
        Line2D([], [], label="on GPUs of the fit", **marks),
        Line2D([], [], label="on a GPU that was left out", mfc="white", **marks),
        Line2D([], [], color=GREY, lw=0.8, label="90 %"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure
