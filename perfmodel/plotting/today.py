"""Figures of today's engines: predicted beside measured, under load too, and where sparse experts pay."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from perfmodel.plotting.marks import label_ends, ticks
from perfmodel.plotting.style import BLACK, GREY, KERNEL_COLOURS, PAGE

ENGINE_NAMES = {
    "vllm": "vLLM",
    "tensorrt-llm": "TensorRT-LLM",
    "sglang": "SGLang",
    "deepspeed-mii": "DeepSpeed-MII",
    "lmdeploy": "LMDeploy",
    "gpt-fast": "gpt-fast",
}
LOADS = ("o", "^", "s", "D")  # a marker a table
WITHIN = 0.15  # of the measured time: the grey band
LINES = {"flash-llm": "-", "bitmap": "-", "two-four": "-", "int4": "--", "fp8-block": "--"}
RATIOS = (0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3)
DECADES = (1, 3, 10, 30, 100, 300, 1000)


def against_measured(tables: Mapping[str, pd.DataFrame], unit: str) -> Figure:
    """Predicted over measured times against the measured one, a panel an engine, a marker a table.

    Tables: ``engine, measured, predicted`` in ``unit``, ``fitted``. Filled marks took part in a fit.
    """
    every = pd.concat(tables.values(), keys=tables.keys(), names=["load"]).reset_index("load")
    every["ratio"] = every["predicted"] / every["measured"]
    engines = [name for name in ENGINE_NAMES if name in set(every["engine"])]
    lines = -(-len(engines) // 3)
    figure, panels = plt.subplots(lines, 3, figsize=(PAGE, 1.3 * lines + 0.6), sharex=True, sharey=True, squeeze=False)
    marker = dict(zip(tables, LOADS, strict=False))
    for axes, engine in zip(panels.flat, engines, strict=False):
        rows = every[every["engine"] == engine]
        axes.axhspan(1 - WITHIN, 1 + WITHIN, color=GREY, alpha=0.2, lw=0)
        axes.axhline(1, color=BLACK, lw=0.8)
        for (load, fitted), part in rows.groupby(["load", "fitted"]):
            face = BLACK if fitted else "none"
            axes.plot(part["measured"], part["ratio"], marker[load], color=BLACK, mfc=face, ms=2.6, alpha=0.6)
        axes.set_title(f"{ENGINE_NAMES[engine]}: {(~rows['fitted']).sum()} runs no fit saw")
    for axes in panels.flat[len(engines) :]:
        axes.set_visible(False)
    first = panels[0, 0]
    first.set(xscale="log", yscale="log", ylim=(every["ratio"].min() / 1.08, every["ratio"].max() * 1.08))
    ticks(first.xaxis, DECADES)
    ticks(first.yaxis, RATIOS)
    for axes in panels[-1]:
        axes.set_xlabel(f"measured [{unit} a token]")
    for axes in panels[:, 0]:
        axes.set_ylabel("predicted / measured")
    handles = [Line2D([], [], color=BLACK, marker=marker[load], mfc="none", ls="", label=load) for load in tables]
    handles.append(Line2D([], [], color=BLACK, marker="o", ls="", label="filled: fitted"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def sparse_experts(table: pd.DataFrame, models: Mapping[str, str], kernels: Mapping[str, str]) -> Figure:
    """Speed-up of a layer's experts over dense 16-bit ones against the batch, a panel a model, a line a kernel.

    ``table``: ``model, kernel, n, each, speedup``. Solid lines prune, dashed ones round. Above each panel stand the
    tokens of one expert.
    """
    figure, panels = plt.subplots(1, len(models), figsize=(PAGE, 2.5), sharey=True, squeeze=False)
    for axes, (model, title) in zip(panels[0], models.items(), strict=True):
        rows = table[table["model"] == model]
        for kernel, label in kernels.items():
            line = rows[rows["kernel"] == kernel]
            axes.plot(line["n"], line["speedup"], LINES[kernel], color=KERNEL_COLOURS[kernel], label=label)
        axes.axhline(1, color=BLACK, lw=0.8)
        axes.set(xscale="log", xlabel="tokens in flight", xlim=(rows["n"].min(), rows["n"].max()))
        ticks(axes.xaxis, (1, 16, 256, 4096))
        _tokens_of_an_expert(axes, rows[rows["kernel"] == next(iter(kernels))])
        axes.set_title(title)
        label_ends(axes)
    panels[0, 0].set(ylabel="speed-up over dense experts", ylim=(0, None))
    figure.supxlabel("solid: pruned; dashed: rounded")
    return figure


def _tokens_of_an_expert(axes: Axes, rows: pd.DataFrame) -> None:
    """A second scale on top: how many tokens each active expert has."""
    top = axes.secondary_xaxis(1.0)
    at = [float(n) for n in (1, 16, 256, 4096) if rows["n"].min() <= n <= rows["n"].max()]
    each = np.interp(at, rows["n"], rows["each"])
    top.set_xticks(at, [f"{value:.0f}" if value >= 10 else f"{value:.2g}" for value in each], minor=False)
    top.set_xticks([], minor=True)
    top.set_xlabel("tokens of one expert")
