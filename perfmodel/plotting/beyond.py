"""Figures beyond the paper: a kernel of our own, and accuracy beside speed."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from perfmodel.plotting.style import (
    BLUE,
    COLUMN_WIDTH,
    FUCHSIA,
    GREEN,
    GREY,
    INDIGO,
    KERNEL_COLOURS,
    ORANGE,
    SCARLET,
    VERMILION,
    WINE,
)

OWN_LINES = {  # column -> colour, words
    "speedup": (INDIGO, "our bitmap kernel, unmeasured (band: assumptions)"),
    "pairs": (WINE, "a bit a pair, unmeasured"),
    "condensed": (FUCHSIA, "condensed, unmeasured"),
    "flash_llm": (KERNEL_COLOURS["flash-llm"], "Flash-LLM"),
    "spinfer": (KERNEL_COLOURS["bitmap"], "SpInfer"),
}


def own_kernel(table: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Predicted speed-up over cuBLAS against sparsity, a panel per GPU, the band what the assumptions span.

    ``table``: ``gpu, sparsity, speedup, low, high, pairs, flash_llm, spinfer``. All dashed: an extrapolation, or close
    to one.
    """
    gpus = list(dict.fromkeys(table["gpu"]))
    figure, panels = plt.subplots(1, len(gpus), figsize=(COLUMN_WIDTH, 2.9), sharey=True)
    for axes, gpu in zip(panels, gpus, strict=True):
        rows = table[table["gpu"] == gpu]
        at = rows["sparsity"] * 100
        axes.fill_between(at, rows["low"], rows["high"], color=INDIGO, alpha=0.18, lw=0)
        for column, (colour, _) in OWN_LINES.items():
            axes.plot(at, rows[column], "--", color=colour)
        axes.axhline(1, color="k", lw=1)
        axes.set_title(titles[gpu], fontsize=8.5)
        axes.set_xlabel("sparsity [%]")
    panels[0].set(ylabel="speed-up over cuBLAS", ylim=(0, None))
    handles = [Line2D([], [], color=colour, ls="--", label=label) for colour, label in OWN_LINES.values()]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def accuracy_and_speed(table: pd.DataFrame, gpus: Mapping[str, str]) -> Figure:
    """What pruning costs and what it buys, by sparsity, in one picture of two panels.

    ``table``: ``sparsity, top1_wanda, top1_magnitude, size_tiled_csl, size_bitmap`` and ``speedup_<gpu>``.
    """
    figure, (cost, gain) = plt.subplots(1, 2, figsize=(COLUMN_WIDTH, 3.0))
    at = table["sparsity"] * 100
    dense = table["top1_wanda"].iloc[0]
    cost.plot(at, table["top1_wanda"] / dense * 100, "o-", color=GREEN, label="Wanda")
    cost.plot(at, table["top1_magnitude"] / dense * 100, "s-", color=ORANGE, label="magnitude")
    cost.plot(at, table["size_bitmap"] * 100, ":", color=GREY, label="size, bitmap")
    cost.set(xlabel="sparsity [%]", ylabel="percent of dense", title="measured: quality, size", ylim=(0, 112))
    cost.legend(loc="lower left")
    for (gpu, title), colour in zip(gpus.items(), (VERMILION, BLUE), strict=True):
        gain.plot(at, table[f"speedup_{gpu}"], "--", color=colour, label=title)
    gain.axhline(1, color="k", lw=1)
    gain.set(xlabel="sparsity [%]", ylabel="speed-up over cuBLAS", title="predicted: best exact kernel", ylim=(0, None))
    gain.legend(loc="upper left")
    return figure


def simulated_kernels(
    table: pd.DataFrame, titles: Mapping[str, str], gpus: Mapping[str, str], aims: Mapping[str, Mapping[float, float]]
) -> Figure:
    """Simulated speed-ups over cuBLAS, a panel per GPU, a line per kernel of ``titles``; ``aims`` of a GPU as marks.

    ``table``: ``gpu, kernel, sparsity, speedup``. Dashed: nothing of it is measured.
    """
    figure, panels = plt.subplots(1, len(gpus), figsize=(COLUMN_WIDTH, 3.0), sharey=True)
    looks = ((VERMILION, "o"), (INDIGO, "<"), (WINE, "H"), (SCARLET, "p"), (FUCHSIA, "h"))
    lines = dict(zip(titles, looks, strict=True))
    for axes, gpu in zip(panels, gpus, strict=True):
        for kernel, (colour, marker) in lines.items():
            rows = table[(table["gpu"] == gpu) & (table["kernel"] == kernel)]
            axes.plot(
                rows["sparsity"] * 100, rows["speedup"], "--", marker=marker, ms=4, color=colour, label=titles[kernel]
            )
        if gpu in aims:
            axes.plot([100 * s for s in aims[gpu]], list(aims[gpu].values()), "+", color="k", ms=9, label="aim")
        axes.axhline(1, color="k", lw=1)
        axes.set_title(gpus[gpu], fontsize=8.5)
        axes.set_xlabel("sparsity [%]")
    panels[0].set(ylabel="speed-up over cuBLAS, simulated", ylim=(0, None))
    handles = {
        label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles=list(handles.values()), labels=list(handles), loc="outside lower center", ncols=4)
    return figure
