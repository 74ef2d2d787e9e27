"""Figures beyond the paper: a kernel of our own, and accuracy beside speed."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from perfmodel.plotting.style import BLUE, COLUMN_WIDTH, GREEN, GREY, ORANGE, VERMILION


def own_kernel(table: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Predicted speed-up over cuBLAS against sparsity, a panel per GPU, the band what the assumptions span.

    ``table``: ``gpu, sparsity, speedup, low, high, flash_llm``. All dashed: nothing of it is measured on these GPUs.
    """
    gpus = list(dict.fromkeys(table["gpu"]))
    figure, panels = plt.subplots(1, len(gpus), figsize=(COLUMN_WIDTH, 2.9), sharey=True)
    for axes, gpu in zip(panels, gpus, strict=True):
        rows = table[table["gpu"] == gpu]
        at = rows["sparsity"] * 100
        axes.fill_between(at, rows["low"], rows["high"], color=BLUE, alpha=0.18, lw=0)
        axes.plot(at, rows["speedup"], "--", color=BLUE)
        axes.plot(at, rows["flash_llm"], "--", color=VERMILION)
        axes.axhline(1, color="k", lw=1)
        axes.set_title(titles[gpu], fontsize=8.5)
        axes.set_xlabel("sparsity [%]")
    panels[0].set(ylabel="speed-up over cuBLAS", ylim=(0, None))
    handles = [
        Line2D([], [], color=BLUE, ls="--", label="our bitmap kernel (band: assumptions)"),
        Line2D([], [], color=VERMILION, ls="--", label="Flash-LLM"),
    ]
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
