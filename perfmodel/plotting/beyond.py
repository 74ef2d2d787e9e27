"""Figures beyond the paper: kernels of our own, and accuracy beside speed."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from perfmodel.plotting.kernels import last_has, stretches
from perfmodel.plotting.marks import label_ends, ticks
from perfmodel.plotting.style import BLACK, COLUMN, FORMAT_COLOURS, GREY, KERNEL_COLOURS, PAGE

# Column of `own_kernel` -> kernel whose colour it has, words.
OURS = {
    "speedup": ("lscd-bitmap", "bitmap, ours"),
    "pairs": ("lscd-bitmap-pairs", "a bit a pair, ours"),
    "condensed": ("lscd-condensed-pairs", "condensed, ours"),
}
PUBLISHED = {"flash_llm": ("flash-llm", "Flash-LLM"), "spinfer": ("bitmap", "SpInfer")}
# In the order of the kernels that `simulated_kernels` draws: whose colour a line has, and dashes that tell them apart.
SIMULATED = (
    ("flash-llm", (0, (1, 1))), ("lscd-bitmap", (0, (5, 1))), ("lscd-bitmap-pairs", (0, (5, 1, 1, 1))),
    ("lscd-condensed", (0, (3, 1.5))), ("lscd-condensed-pairs", (0, (3, 1, 1, 1, 1, 1))),
)  # fmt: skip
SPEEDUPS = (0.25, 0.5, 1, 2, 4, 8, 16)


def own_kernel(table: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Predicted speed-up over cuBLAS against sparsity, a panel per GPU, the band what the assumptions span.

    ``table``: ``gpu, sparsity, speedup, low, high, pairs, condensed, flash_llm, spinfer, flash_llm_extrapolated,
    spinfer_extrapolated``. Ours are dashed, as nobody measured them; published kernels dotted outside their evidence.
    """
    gpus = list(dict.fromkeys(table["gpu"]))
    figure, panels = _panels(gpus, titles, "predicted")
    top, bottom = table[["high", *OURS, *PUBLISHED]].max(axis=None), table[["low", *OURS, *PUBLISHED]].min(axis=None)
    for axes, gpu in panels.items():
        rows = table[table["gpu"] == gpu]
        at = rows["sparsity"] * 100
        axes.fill_between(at, rows["low"], rows["high"], color=KERNEL_COLOURS["lscd-bitmap"], alpha=0.18, lw=0)
        for column, (kernel, words) in OURS.items():
            axes.plot(at, rows[column], "--", color=KERNEL_COLOURS[kernel], label=words)
        for column, (kernel, words) in PUBLISHED.items():
            _predicted(axes, at, rows[column], rows[f"{column}_extrapolated"], KERNEL_COLOURS[kernel], words)
        _finish(axes, bottom, top)
    return figure


def _panels(gpus: list[str], titles: Mapping[str, str], how: str) -> tuple[Figure, dict[Axes, str]]:
    """A figure of two columns and its panels, each with its GPU: four in a row leave lines no room."""
    lines = -(-len(gpus) // 2)
    figure, grid = plt.subplots(lines, 2, figsize=(PAGE, 1.75 * lines + 0.3), sharex=True, sharey=True, squeeze=False)
    for axes, gpu in zip(grid.flat, gpus, strict=False):
        axes.set_title(titles[gpu])
    for axes in grid.flat[len(gpus) :]:
        axes.set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel("sparsity [%]")
    for axes in grid[:, 0]:
        axes.set_ylabel(f"{how} speed-up\nover cuBLAS")
    return figure, dict(zip(grid.flat, gpus, strict=False))


def _predicted(axes: Axes, at: pd.Series, values: pd.Series, extrapolated: pd.Series, colour: str, words: str) -> None:
    """A line, dotted where it is outside the evidence, its name with the stretch that comes last."""
    for dash, stretch in stretches(values, extrapolated):
        axes.plot(at, stretch, dash, color=colour, label=words if last_has(dash, extrapolated) else "_")


def _finish(axes: Axes, low: float, high: float) -> None:
    """A logarithmic scale of speed-ups, even at 1, and a name at the end of each line."""
    axes.axhline(1, color=BLACK, lw=0.8)
    axes.set(yscale="log", ylim=(low / 1.1, high * 1.1))
    ticks(axes.yaxis, SPEEDUPS)
    axes.margins(x=0.01)
    label_ends(axes)


def accuracy_and_speed(table: pd.DataFrame, gpus: Mapping[str, str]) -> Figure:
    """What pruning costs and what it buys, by sparsity, one below the other.

    ``table``: ``sparsity, top1_wanda, top1_magnitude, size_bitmap`` and, of each GPU, ``speedup_`` of the fastest
    sparse kernel and ``extrapolated_``: dotted where it is outside its evidence.
    """
    figure, (cost, gain) = plt.subplots(2, 1, figsize=(COLUMN, 3.3), sharex=True)
    at = table["sparsity"] * 100
    dense = table["top1_wanda"].iloc[0]
    cost.plot(at, table["top1_wanda"] / dense * 100, "o-", color=BLACK, lw=0.6, label="quality, Wanda")
    cost.plot(at, table["top1_magnitude"] / dense * 100, "s-", color=GREY, lw=0.6, label="quality,\nmagnitude")
    cost.plot(at, table["size_bitmap"] * 100, "P-", color=FORMAT_COLOURS["bitmap"], lw=0.6, label="size, bitmap")
    cost.set(ylabel="percent of dense", title="measured: quality and size", ylim=(0, 112))
    label_ends(cost)
    lowest = 1.0
    for (gpu, title), colour in zip(gpus.items(), (BLACK, GREY), strict=False):
        speedup = table[f"speedup_{gpu}"]
        _predicted(gain, at, speedup, table[f"extrapolated_{gpu}"], colour, title)
        lowest = min(lowest, speedup.min())
    _finish(gain, lowest, max(table[f"speedup_{gpu}"].max() for gpu in gpus))
    gain.set(xlabel="sparsity [%]", ylabel="speed-up over cuBLAS", title="predicted: fastest sparse kernel, FP16")
    return figure


def simulated_kernels(
    table: pd.DataFrame, titles: Mapping[str, str], gpus: Mapping[str, str], aims: Mapping[str, Mapping[float, float]]
) -> Figure:
    """Simulated speed-ups over cuBLAS, a panel per GPU, a line per kernel of ``titles``; ``aims`` of a GPU as crosses.

    ``table``: ``gpu, kernel, sparsity, speedup``. Nothing of it is measured, so no line is solid or has a marker.
    """
    figure, panels = _panels(list(gpus), gpus, "simulated")
    for axes, gpu in panels.items():
        for kernel, (like, dash) in zip(titles, SIMULATED, strict=True):
            rows = table[(table["gpu"] == gpu) & (table["kernel"] == kernel)]
            axes.plot(
                rows["sparsity"] * 100, rows["speedup"], ls=dash, color=KERNEL_COLOURS[like], label=titles[kernel]
            )
        if gpu in aims:
            axes.plot([100 * s for s in aims[gpu]], list(aims[gpu].values()), "+", color=BLACK, ms=6, mew=0.9)
        _finish(axes, table["speedup"].min(), table["speedup"].max())
    aim = Line2D(
        [], [], color=BLACK, marker="+", ms=6, mew=0.9, ls="", label="what was aimed at before any was written"
    )
    figure.legend(handles=[aim], loc="outside lower center")
    return figure
