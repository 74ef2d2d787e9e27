"""Figures about whole models: throughput against batch, where the time goes, what fills the memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

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
    SKY,
    VERMILION,
)

SYSTEM_COLOURS = {
    "flash-llm": VERMILION,
    "fastertransformer": BLACK,
    "deepspeed": BLUE,
    # A host with another kernel looks as that kernel does.
    "fastertransformer+bitmap": KERNEL_COLOURS["bitmap"],
    "fastertransformer+flash-llm-noreorder": KERNEL_COLOURS["flash-llm-noreorder"],
}
SYSTEM_MARKERS = {
    "flash-llm": "o",
    "fastertransformer": "s",
    "deepspeed": "^",
    "fastertransformer+bitmap": KERNEL_MARKERS["bitmap"],
    "fastertransformer+flash-llm-noreorder": KERNEL_MARKERS["flash-llm-noreorder"],
}
DASHES: tuple[Literal["-"], Literal["--"]] = ("-", "--")  # fewer GPUs solid, more GPUs dashed
PART_COLOURS = {"matmul": VERMILION, "attention": SKY, "communication": ORANGE, "other": GREY}
PALE = 0.45  # opacity of what is published, where it stands beside a prediction
MEMORY_COLOURS = {"weights": VERMILION, "kv_cache": SKY, "activations": GREEN, "workspace": ORANGE, "reserve": GREY}


def throughput(lines: pd.DataFrame, markers: pd.DataFrame, models: Mapping[str, str]) -> Figure:
    """Tokens per GPU-second against batch, a panel per model.

    Parameters
    ----------
    lines : DataFrame
        ``model, system, gpus, batch, tokens_per_gpu_s`` predicted, only runs that fit.
    markers : DataFrame
        The same columns, published; may hold no row of a model.
    models : mapping
        Model name to panel title, in order.
    """
    figure, panels = plt.subplots(1, len(models), figsize=(1.7 * COLUMN_WIDTH, 3.9))
    for axes, (model, title) in zip(panels, models.items(), strict=True):
        mine = lines[lines["model"] == model]
        for (system, gpus), group in mine.groupby(["system", "gpus"]):
            fewest = mine.loc[mine["system"] == system, "gpus"].min()
            dash = DASHES[int(gpus > max(fewest, mine["gpus"].min()))]
            axes.plot(group["batch"], group["tokens_per_gpu_s"], color=SYSTEM_COLOURS[str(system)], linestyle=dash)
        for (system, _), group in markers[markers["model"] == model].groupby(["system", "gpus"]):
            colour, marker = SYSTEM_COLOURS[str(system)], SYSTEM_MARKERS[str(system)]
            axes.plot(group["batch"], group["tokens_per_gpu_s"], marker, mec=colour, mfc="white", mew=1.4)
        _batch_axis(axes, mine["batch"])
        axes.set_title(title)
        axes.legend(handles=_system_handles(mine), loc="upper left", fontsize=8, handlelength=3.4)
        axes.set_ylim(0, 1.42 * max(mine["tokens_per_gpu_s"].max(), _largest(markers, model)))
    panels[0].set_ylabel("output tokens per GPU-second")
    return figure


def _largest(markers: pd.DataFrame, model: str) -> float:
    return float(markers.loc[markers["model"] == model, "tokens_per_gpu_s"].max(skipna=True) or 0)


def _batch_axis(axes: Axes, batches: pd.Series) -> None:
    ticks = [2**i for i in range(11) if batches.min() <= 2**i <= batches.max()]
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlabel("batch (sequences)")


def _system_handles(mine: pd.DataFrame) -> list[Line2D]:
    names = {"flash-llm": "Flash-LLM", "fastertransformer": "FasterTransformer", "deepspeed": "DeepSpeed"}
    handles = []
    for system, group in mine.groupby("system", sort=False):
        counts = sorted(group["gpus"].unique())
        for gpus in counts:
            dash = DASHES[int(gpus > max(counts[0], mine["gpus"].min()))]
            label = f"{names[str(system)]}, {_gpus(gpus)}"
            marker = SYSTEM_MARKERS[str(system)]
            handles.append(
                Line2D(
                    [], [], color=SYSTEM_COLOURS[str(system)], linestyle=dash, marker=marker, mfc="white", label=label
                )
            )
    return handles


def _gpus(count: int) -> str:
    return "1 GPU" if count == 1 else f"{count} GPUs"


def breakdown_beside(table: pd.DataFrame, parts: Sequence[str], *, same_scale: bool) -> Figure:
    """GPU-seconds of runs, stacked by part: published above in pale, predicted below in full colour.

    ``table``: ``panel, label``, a column of published GPU-seconds for each of ``parts``, and one of predicted ones with
    ``predicted_`` before its name; a part that a run does not have is 0. ``same_scale``: whether bars of different
    panels are to be compared.
    """
    panels, counts = list(dict.fromkeys(table["panel"])), table.groupby("panel", sort=False).size()
    size = (COLUMN_WIDTH, 0.29 * len(table) + 0.48 * len(panels) + 0.6)
    ratios = list(counts)
    figure, grid = plt.subplots(len(panels), 1, figsize=size, height_ratios=ratios, sharex=same_scale, squeeze=False)
    for axes, panel in zip(grid[:, 0], panels, strict=True):
        _breakdown_panel(axes, table[table["panel"] == panel], parts)
        axes.set_title(panel, fontsize=9)
    grid[-1, 0].set_xlabel("GPU-seconds of the run")
    handles = [Patch(color=PART_COLOURS[part], label=part) for part in parts]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=len(handles),
        title="pale, above: published; full, below: model",
    )
    return figure


def _breakdown_panel(axes: Axes, rows: pd.DataFrame, parts: Sequence[str]) -> None:
    at = np.arange(len(rows))[::-1]
    for which, shift, alpha in (("", 0.2, PALE), ("predicted_", -0.2, 1.0)):
        left = np.zeros(len(rows))
        for part in parts:
            width = rows[f"{which}{part}"].to_numpy()
            axes.barh(at + shift, width, 0.36, left=left, color=PART_COLOURS[part], alpha=alpha, lw=0)
            left = left + width
        for y, total in zip(at + shift, left, strict=True):
            axes.annotate(
                f"{total:.1f}", (total, y), xytext=(3, 0), textcoords="offset points", va="center", fontsize=7
            )
    axes.set_yticks(at, rows["label"], fontsize=7.5)
    axes.set_ylim(-0.5, len(rows) - 0.5)
    axes.margins(x=0.08)
    axes.grid(visible=False, axis="y")


def memory(table: pd.DataFrame, parts: Sequence[str], capacity_gb: float) -> Figure:
    """Memory per GPU, stacked by purpose; bars beyond the line are out of memory.

    ``table``: ``label`` and a column of GB for each of ``parts``, top to bottom.
    """
    figure, axes = plt.subplots(figsize=(COLUMN_WIDTH, 0.36 * len(table) + 1.2))
    at, left = np.arange(len(table))[::-1], np.zeros(len(table))
    for part in parts:
        axes.barh(at, table[part], 0.72, left=left, color=MEMORY_COLOURS[part], label=part.replace("_", " "))
        left = left + table[part].to_numpy()
    for y, total in zip(at, left, strict=True):
        verdict = f"{total:.0f} GB" if total <= capacity_gb else f"{total:.0f} GB: out of memory"
        axes.annotate(
            verdict, (max(total, capacity_gb), y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8
        )
    axes.axvline(capacity_gb, color=BLACK, linewidth=1.2, linestyle=":")
    axes.set_yticks(at, table["label"])
    axes.set(xlabel="GB per GPU (dotted: what the GPU has)", xlim=(0, 1.45 * left.max()))
    axes.grid(visible=False, axis="y")
    figure.legend(loc="outside upper center", ncols=len(parts))
    return figure


def cost(table: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Price range of a million output tokens against GPUs, one colour per system.

    ``table``: ``system, gpus, batch, usd_low, usd_high``; the best batch stands beside each bar.
    """
    figure, axes = plt.subplots(figsize=(COLUMN_WIDTH, 3.4))
    counts = sorted(table["gpus"].unique())
    systems = list(table["system"].unique())
    for i, system in enumerate(systems):
        rows = table[table["system"] == system]
        at = np.array([counts.index(gpus) for gpus in rows["gpus"]]) + 0.22 * (i - (len(systems) - 1) / 2)
        span = rows["usd_high"] - rows["usd_low"]
        axes.bar(at, span, 0.14, bottom=rows["usd_low"], color=SYSTEM_COLOURS[system], label=titles[system])
        for x, top, batch in zip(at, rows["usd_high"], rows["batch"], strict=True):
            axes.annotate(str(batch), (x, top), xytext=(0, 3), textcoords="offset points", ha="center", fontsize=8)
    axes.set_yscale("log")
    axes.set_ylim(0.75 * table["usd_low"].min(), 1.3 * table["usd_high"].max())
    ticks = [
        tick for tick in (0.5, 1, 2, 5, 10, 20, 50) if table["usd_low"].min() / 2 < tick < 2 * table["usd_high"].max()
    ]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xticks(np.arange(len(counts)), [_gpus(gpus) for gpus in counts])
    axes.set_ylabel("US dollars per million tokens")
    axes.grid(visible=False, axis="x")
    axes.legend(loc="upper right", title="number on a bar: batch")
    return figure
