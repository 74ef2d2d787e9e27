"""Figures of today's engines: predicted beside measured, under load too, and where sparse experts pay."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from perfmodel.plotting.style import BLUE, COLUMN_WIDTH, GREEN, GREY, INDIGO, KERNEL_COLOURS, ORANGE, WINE

ENGINE_MARKS = {
    "vllm": (BLUE, "o"),
    "tensorrt-llm": (GREEN, "s"),
    "sglang": (ORANGE, "^"),
    "deepspeed-mii": (GREY, "v"),
    "lmdeploy": (INDIGO, "D"),
    "gpt-fast": (WINE, "P"),
}
LINES = {"flash-llm": "-", "bitmap": "-", "two-four": "-", "int4": "--", "fp8-block": "--"}


def against_measured(tables: Mapping[str, pd.DataFrame], unit: str) -> Figure:
    """Predicted over measured times against the measured one, a panel a table, marks by engine.

    Tables: ``engine, measured, predicted`` in ``unit``, ``fitted``. Filled marks took part in a fit.
    """
    figure, panels = plt.subplots(1, len(tables), figsize=(COLUMN_WIDTH, 3.2), sharey=True, squeeze=False)
    for axes, (title, table) in zip(panels[0], tables.items(), strict=True):
        for engine, rows in table.groupby("engine", sort=False):
            colour, mark = ENGINE_MARKS[str(engine)]
            for fitted, part in rows.groupby("fitted"):
                axes.plot(
                    part["measured"], part["predicted"] / part["measured"], mark, ms=3.2, color=colour,
                    mfc=colour if fitted else "none", mew=0.8, alpha=0.8, ls="none",
                )  # fmt: skip
        axes.axhspan(0.85, 1.15, color=GREY, alpha=0.15, lw=0)
        axes.axhline(1, color="k", lw=1)
        axes.set(xscale="log", xlabel=f"measured [{unit} a token]", title=title, ylim=(0.4, 1.9))
    panels[0][0].set_ylabel("predicted / measured")
    shown = {str(name) for table in tables.values() for name in table["engine"]}
    names = [name for name in ENGINE_MARKS if name in shown]
    handles = [
        plt.Line2D([], [], color=ENGINE_MARKS[name][0], marker=ENGINE_MARKS[name][1], ls="none", mfc="none", label=name)
        for name in names
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def sparse_experts(table: pd.DataFrame, models: Mapping[str, str], kernels: Mapping[str, str]) -> Figure:
    """Speed-up of a layer's experts over dense 16-bit ones against the batch, a panel a model, a line a kernel.

    ``table``: ``model, kernel, n, each, speedup``. Solid lines prune, dashed ones round. Below the axis stand the
    tokens of one expert.
    """
    figure, panels = plt.subplots(1, len(models), figsize=(COLUMN_WIDTH, 3.3), sharey=True)
    for axes, (model, title) in zip(panels, models.items(), strict=True):
        rows = table[table["model"] == model]
        for kernel in kernels:
            line = rows[rows["kernel"] == kernel]
            axes.plot(line["n"], line["speedup"], LINES[kernel], color=KERNEL_COLOURS[kernel], lw=1.4)
        axes.axhline(1, color="k", lw=1)
        axes.set(xscale="log", xlabel="tokens in flight")
        _tokens_of_an_expert(axes, rows[rows["kernel"] == next(iter(kernels))])
        axes.set_title(title, fontsize=8, pad=16)
    panels[0].set(ylabel="speed-up over dense experts", ylim=(0, None))
    handles = [
        plt.Line2D([], [], color=KERNEL_COLOURS[kernel], ls=LINES[kernel], label=label)
        for kernel, label in kernels.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def _tokens_of_an_expert(axes: Axes, rows: pd.DataFrame) -> None:
    """A second scale on top: how many tokens each active expert has."""
    top = axes.secondary_xaxis(1.0)
    at = [float(n) for n in (1, 16, 256, 4096) if rows["n"].min() <= n <= rows["n"].max()]
    each = np.interp(at, rows["n"], rows["each"])
    top.set_xticks(at, [f"{value:.0f}" if value >= 10 else f"{value:.2g}" for value in each], minor=False)
    top.set_xticks([], minor=True)
    top.tick_params(labelsize=6, pad=1)
