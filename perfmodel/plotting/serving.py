"""Figures about whole models: throughput against batch, where the time goes, what fills the memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from perfmodel.plotting.marks import label_ends, legible, ticks
from perfmodel.plotting.style import BLACK, COLUMN, FOREST, GRAPE, GREY, KERNEL_COLOURS, KERNEL_MARKERS, MIST, PAGE, TAN

SMALL = 6.5  # points, of names and numbers of many rows
SYSTEM_COLOURS = {  # those that multiply dense weights are black and grey
    "flash-llm": KERNEL_COLOURS["flash-llm"],
    "fastertransformer": KERNEL_COLOURS["cublas"],
    "deepspeed": "#777777",
    # A host with another kernel looks as that kernel does.
    "fastertransformer+bitmap": KERNEL_COLOURS["bitmap"],
    "fastertransformer+flash-llm-noreorder": KERNEL_COLOURS["flash-llm-noreorder"],
}
SYSTEM_MARKERS = {
    "flash-llm": KERNEL_MARKERS["flash-llm"],
    "fastertransformer": KERNEL_MARKERS["cublas"],
    "deepspeed": "D",
    "fastertransformer+bitmap": KERNEL_MARKERS["bitmap"],
    "fastertransformer+flash-llm-noreorder": KERNEL_MARKERS["flash-llm-noreorder"],
}
SYSTEM_NAMES = {"flash-llm": "Flash-LLM", "fastertransformer": "FasterTransformer", "deepspeed": "DeepSpeed"}
DASHES: tuple[Literal["-"], Literal["--"]] = ("-", "--")  # fewer GPUs solid, more GPUs dashed
PEBBLE = "#D9D9D9"  # what is left
PART_COLOURS = {"matmul": GRAPE, "attention": MIST, "communication": TAN, "other": PEBBLE}
PALE = 0.35  # share of a colour within the outline of what is predicted, the rest white
MEMORY_COLOURS = {"weights": GRAPE, "kv_cache": MIST, "activations": TAN, "workspace": FOREST, "reserve": PEBBLE}
MEMORY_NAMES = {"kv_cache": "KV cache", "reserve": "reserve of the framework"}
RATES = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
DOLLARS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)


def throughput(lines: pd.DataFrame, markers: pd.DataFrame, models: Mapping[str, str]) -> Figure:
    """Tokens per GPU-second against batch, a panel per model; each line ends at its number of GPUs.

    Parameters
    ----------
    lines : DataFrame
        ``model, system, gpus, batch, tokens_per_gpu_s`` predicted, only runs that fit.
    markers : DataFrame
        The same columns, published; may hold no row of a model.
    models : mapping
        Model name to panel title, in order.
    """
    figure, panels = plt.subplots(1, len(models), figsize=(PAGE, 2.3), squeeze=False)
    for axes, (model, title) in zip(panels[0], models.items(), strict=True):
        mine, seen = lines[lines["model"] == model], markers[markers["model"] == model]
        _rates(axes, mine)
        for system, group in seen.groupby("system"):
            look = {"mec": SYSTEM_COLOURS[str(system)], "mfc": "white", "mew": 1.0, "ms": 4}
            axes.plot(group["batch"], group["tokens_per_gpu_s"], SYSTEM_MARKERS[str(system)], **look)
        _batch_axis(axes, mine["batch"])
        rates = pd.concat([mine, seen])["tokens_per_gpu_s"]
        axes.set(title=title, yscale="log", ylim=(0.87 * rates.min(), 1.15 * rates.max()))
        ticks(axes.yaxis, RATES)
        label_ends(axes)
    panels[0, 0].set_ylabel("output tokens per GPU-second")
    handles = [
        Line2D([], [], color=SYSTEM_COLOURS[name], marker=SYSTEM_MARKERS[name], mfc="white", mew=1.0, label=title)
        for name, title in SYSTEM_NAMES.items()
        if (lines["system"] == name).any()
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=len(handles), title="line: model; marker: published"
    )
    return figure


def _rates(axes: Axes, mine: pd.DataFrame) -> None:
    """Lines of one model; one that memory ends before the last batch is named where it ends."""
    last = mine["batch"].max()
    ended: set[int] = set()
    fastest_first = sorted(mine.groupby(["system", "gpus"]), key=lambda one: -one[1]["tokens_per_gpu_s"].max())
    for (system, gpus), group in fastest_first:
        fewest = mine.loc[mine["system"] == system, "gpus"].min()
        dash, name = DASHES[int(gpus > max(fewest, mine["gpus"].min()))], _gpus(int(gpus))
        (line,) = axes.plot(group["batch"], group["tokens_per_gpu_s"], dash, color=SYSTEM_COLOURS[str(system)])
        end = group.loc[group["batch"].idxmax()]
        if end["batch"] == last:
            line.set_label(name)
        elif gpus not in ended:  # systems alike in memory end side by side
            axes.annotate(
                f"{name}: memory full", (end["batch"], end["tokens_per_gpu_s"]), xytext=(0.98, 0.06), ha="right",
                textcoords="axes fraction", fontsize=SMALL, arrowprops={"arrowstyle": "-", "lw": 0.4, "shrinkB": 1},
            )  # fmt: skip
            ended.add(int(gpus))


def _batch_axis(axes: Axes, batches: pd.Series) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xlim(batches.min() / 1.1, batches.max() * 1.1)
    ticks(axes.xaxis, [2**i for i in range(11)])
    axes.set_xlabel("batch (sequences)")


def _gpus(count: int) -> str:
    return "1 GPU" if count == 1 else f"{count} GPUs"


def breakdown_beside(table: pd.DataFrame, parts: Sequence[str], *, same_scale: bool) -> Figure:
    """GPU-seconds of runs, stacked by part: published above in full colour, predicted below as pale outlines.

    ``table``: ``panel, label``, a column of published GPU-seconds for each of ``parts``, and one of predicted ones with
    ``predicted_`` before its name; a part that a run does not have is 0. ``same_scale``: whether bars of different
    panels are to be compared. More than two panels stand in two columns.
    """
    panels, counts = list(dict.fromkeys(table["panel"])), table.groupby("panel", sort=False).size()
    columns = 1 if len(panels) <= 2 else 2
    ratios = [max(counts.iloc[i : i + columns]) for i in range(0, len(panels), columns)]
    size = (COLUMN if columns == 1 else PAGE, 0.27 * sum(ratios) + 0.32 * len(ratios) + 0.5)
    figure, grid = plt.subplots(
        len(ratios), columns, figsize=size, height_ratios=ratios, sharex=same_scale, squeeze=False
    )
    for axes, panel in zip(grid.flat, panels, strict=False):
        _breakdown_panel(axes, table[table["panel"] == panel], parts)
        axes.set_title(panel)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel("GPU-seconds of the run")
    handles = [Patch(color=PART_COLOURS[part], label=part) for part in parts]
    title = "filled, above: published; outlined, below: model"
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), title=title)
    return figure


def _breakdown_panel(axes: Axes, rows: pd.DataFrame, parts: Sequence[str]) -> None:
    at = np.arange(len(rows))[::-1]
    for which, shift in (("", 0.2), ("predicted_", -0.2)):
        left = np.zeros(len(rows))
        for part in parts:
            width, colour = rows[f"{which}{part}"].to_numpy(), PART_COLOURS[part]
            face, edge = (pale(colour), legible(colour)) if which else (colour, "white")
            axes.barh(at + shift, width, 0.34, left=left, facecolor=face, edgecolor=edge, lw=0.5)
            left = left + width
        for y, total in zip(at + shift, left, strict=True):
            axes.annotate(
                f"{total:.1f}", (total, y), xytext=(2, 0), textcoords="offset points", va="center", fontsize=SMALL
            )
    axes.set_yticks(at, rows["label"])
    axes.set_ylim(-0.5, len(rows) - 0.5)
    axes.margins(x=0.13)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def pale(colour: str) -> str:
    """``colour`` as it fills the outline of a prediction."""
    red, green, blue = (PALE * channel + 1 - PALE for channel in to_rgb(colour))
    return to_hex((red, green, blue))


def memory(table: pd.DataFrame, parts: Sequence[str], capacity_gb: float) -> Figure:
    """Memory per GPU, stacked by purpose; bars beyond the line are out of memory.

    ``table``: ``label`` and a column of GB for each of ``parts``, top to bottom.
    """
    figure, axes = plt.subplots(figsize=(PAGE, 0.165 * len(table) + 0.75))
    at, left = np.arange(len(table))[::-1], np.zeros(len(table))
    for part in parts:
        label = MEMORY_NAMES.get(part, part)
        axes.barh(at, table[part], 0.72, left=left, color=MEMORY_COLOURS[part], label=label)
        left = left + table[part].to_numpy()
    for y, total in zip(at, left, strict=True):
        fits = total <= capacity_gb
        axes.annotate(
            f"{total:.0f} GB" if fits else f"{total:.0f} GB: out of memory", (max(total, capacity_gb), y),
            xytext=(4, 0), textcoords="offset points", va="center", fontweight="normal" if fits else "bold",
        )  # fmt: skip
    axes.axvline(capacity_gb, color=BLACK, linewidth=1, linestyle=":")
    axes.annotate(
        f"a GPU has {capacity_gb:.0f} GB", (capacity_gb, 1), xycoords=("data", "axes fraction"), xytext=(0, 2),
        textcoords="offset points", ha="center",
    )  # fmt: skip
    axes.set_yticks(at, table["label"])
    axes.set(xlabel="GB per GPU", xlim=(0, 1.25 * max(left.max(), capacity_gb)), ylim=(-0.6, len(table) - 0.4))
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside lower center", ncols=len(parts))
    return figure


def cost(table: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Price range of a million output tokens, cheapest first: a row a system and number of GPUs, at its best batch.

    ``table``: ``system, gpus, batch, usd_low, usd_high, extrapolated``. Dots: the least and the most that clouds ask;
    hollow outside the evidence.
    """
    rows = table.sort_values(["usd_low", "usd_high"]).reset_index(drop=True)
    figure, axes = _ranges(rows, titles, rows["usd_low"], rows["usd_high"])
    ticks(axes.xaxis, DOLLARS)
    axes.set_xlabel("US dollars per million tokens, least to most", ha="right", x=1)
    return figure


def yields(table: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """90 % interval of tokens per GPU-second, most first: a row a system and number of GPUs, at its best batch.

    ``table``: ``system, gpus, batch, tokens_per_gpu_s, low, high, extrapolated``; hollow outside the evidence.
    """
    rows = table.sort_values("tokens_per_gpu_s", ascending=False).reset_index(drop=True)
    figure, axes = _ranges(rows, titles, rows["low"], rows["high"])
    for y, row in enumerate(rows.itertuples()):
        axes.plot(row.tokens_per_gpu_s, y, "|", color=SYSTEM_COLOURS[row.system], ms=7, mew=1.2)
    ticks(axes.xaxis, [mantissa * 10.0**power for power in range(-3, 7) for mantissa in (1, 2, 3, 5)])
    axes.set_xlabel("tokens per GPU-second, 90 % interval", ha="right", x=1)
    return figure


def _ranges(rows: pd.DataFrame, titles: Mapping[str, str], low: pd.Series, high: pd.Series) -> tuple[Figure, Axes]:
    """From ``low`` to ``high``, a row each, its system and GPUs named."""
    figure, axes = plt.subplots(figsize=(COLUMN, 0.155 * len(rows) + 0.62))
    for y, row in enumerate(rows.to_dict("records")):
        colour = SYSTEM_COLOURS[row["system"]]
        face = "white" if row["extrapolated"] else colour
        axes.plot(
            [low[y], high[y]], [y, y], color=colour, marker=SYSTEM_MARKERS[row["system"]], ms=4.5, mfc=face, mew=0.9,
            lw=0.9,
        )  # fmt: skip
    named = [f"{titles[row.system]}, {_gpus(row.gpus)}, batch {row.batch}" for row in rows.itertuples()]
    axes.set_yticks(range(len(rows)), named)
    for label, system in zip(axes.get_yticklabels(), rows["system"], strict=True):
        label.set_color(legible(SYSTEM_COLOURS[system]))
    axes.set(ylim=(len(rows) - 0.4, -0.6), xscale="log")
    axes.set_xlim(0.82 * low.min(), 1.22 * high.max())
    axes.tick_params(axis="y", length=0)
    if rows["extrapolated"].any():
        hollow = Line2D(
            [], [], color=GREY, marker="o", mfc="white", mew=0.9, ms=4.5, ls="", label="outside the evidence"
        )
        figure.legend(handles=[hollow], loc="outside lower right")
    return figure, axes
