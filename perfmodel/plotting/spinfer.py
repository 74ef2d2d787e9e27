"""Figures of SpInfer's paper with our predictions in them: quartiles of speed-ups, many tokens, whole models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from perfmodel.plotting.kernels import stretches
from perfmodel.plotting.marks import ticks
from perfmodel.plotting.serving import RATES, SYSTEM_COLOURS, SYSTEM_MARKERS
from perfmodel.plotting.style import BLACK, COLUMN, GREY, KERNEL_COLOURS, KERNEL_MARKERS, PAGE, in_order

QUARTILES = ("q1", "median", "q3")
Colour = tuple[float, float, float, float]

DARKER, FILL = 0.72, 0.55  # shares of a colour in an edge, and of its opacity in a box: its median is seen
SPEEDUP_TICKS = (0.4, 0.6, 1, 1.5, 2.5)
GROUP = 0.86  # share of the room of one sparsity that its boxes fill
BATCHES = (8, 16, 32)
RATE = "tokens_per_gpu_s"


def quartiles(table: pd.DataFrame, titles: Mapping[str, str], gpus: Mapping[str, str]) -> Figure:
    """Speed-ups over cuBLAS on many shapes: published quartiles as filled boxes, predicted ones as hollow ones beside.

    Parameters
    ----------
    table : DataFrame
        ``gpu, kernel, n, sparsity, q1, median, q3`` as published and ``predicted_q1, predicted_median, predicted_q3``.
    titles, gpus : mapping
        Kernel and GPU names to what is written; a row of panels per GPU, a column per N.
    """
    tokens, kernels = sorted(table["n"].unique()), in_order(table["kernel"])
    size = (PAGE, 1.5 * len(gpus) + 0.6)
    figure, panels = plt.subplots(len(gpus), len(tokens), figsize=size, sharex=True, sharey=True, squeeze=False)
    cases = [(gpu, n) for gpu in gpus for n in tokens]
    for axes, (gpu, n) in zip(panels.flat, cases, strict=True):
        _quartile_panel(axes, table[(table["gpu"] == gpu) & (table["n"] == n)], kernels)
        axes.set_title(f"{gpus[gpu]}, N = {n}")
    sparsities, levels = sorted(table["sparsity"].unique()), table[["q1", "q3", "predicted_q1", "predicted_q3"]]
    first = panels[0, 0]
    first.set(xlim=(-0.5, len(sparsities) - 0.5), yscale="log")
    first.set_ylim(levels.min(axis=None) / 1.08, levels.max(axis=None) * 1.08)
    first.set_xticks(range(len(sparsities)), [f"{100 * value:.0f}" for value in sparsities])
    ticks(first.yaxis, SPEEDUP_TICKS)
    for axes in panels[-1]:
        axes.set_xlabel("sparsity [%]")
    for axes in panels[:, 0]:
        axes.set_ylabel("speed-up over cuBLAS")
    handles = [Patch(color=KERNEL_COLOURS[name], label=titles[name]) for name in kernels]
    title = "first quartile, median, third quartile; filled: published; hollow, right of it: model"
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), title=title)
    return figure


def _quartile_panel(axes: Axes, rows: pd.DataFrame, kernels: Sequence[str]) -> None:
    step = GROUP / len(kernels)
    for i, kernel in enumerate(kernels):
        mine, colour = rows[rows["kernel"] == kernel].sort_values("sparsity"), KERNEL_COLOURS[kernel]
        at = np.arange(len(mine)) + (i - (len(kernels) - 1) / 2) * step
        for which, shift, face in (("", -0.22, to_rgba(colour, FILL)), ("predicted_", 0.22, to_rgba("white"))):
            levels = [mine[f"{which}{name}"].to_numpy() for name in QUARTILES]
            _boxes(axes, at + shift * step, 0.38 * step, levels, face, darker(colour))
    axes.axhline(1, color=BLACK, lw=0.6, zorder=0.5)
    for border in np.arange(0.5, rows["sparsity"].nunique() - 1):
        axes.axvline(border, color=GREY, lw=0.5, ls=":")
    axes.grid(axis="x", visible=False)
    axes.tick_params(axis="x", length=0)


def _boxes(axes: Axes, at: np.ndarray, width: float, levels: Sequence[np.ndarray], face: Colour, edge: Colour) -> None:
    """First to third quartile as a box, the median as a line across it."""
    first, median, third = levels
    axes.bar(at, third - first, width, bottom=first, linewidth=0.6, facecolor=face, edgecolor=edge)
    axes.hlines(median, at - width / 2, at + width / 2, color=[edge], linewidth=1.4)


def darker(colour: str) -> Colour:
    """``colour`` for a thin edge, where a pale one would be lost on white."""
    red, green, blue = to_rgb(colour)
    return (DARKER * red, DARKER * green, DARKER * blue, 1.0)


def token_sweep(lines: pd.DataFrame, markers: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Speed-up over cuBLAS from few tokens to many, a panel a sparsity: model as line, published as marker.

    ``lines``: ``kernel, n, sparsity, speedup, extrapolated``; ``markers``: ``kernel, n, sparsity, speedup``.
    Extrapolated stretches are dotted.
    """
    sparsities = sorted(markers["sparsity"].unique())
    figure, panels = plt.subplots(1, len(sparsities), figsize=(COLUMN, 2.1), sharey=True, squeeze=False)
    for axes, sparsity in zip(panels[0], sparsities, strict=True):
        for kernel, seen in markers[markers["sparsity"] == sparsity].groupby("kernel", sort=False):
            colour, mine = KERNEL_COLOURS[str(kernel)], lines[lines["kernel"] == kernel]
            mine = mine[mine["sparsity"] == sparsity].sort_values("n")
            for dash, speedup in stretches(mine["speedup"], mine["extrapolated"]):
                axes.plot(mine["n"], speedup, dash, color=darker(colour))
            axes.plot(seen["n"], seen["speedup"], KERNEL_MARKERS[str(kernel)], color=colour, mec=BLACK, ms=4)
        axes.axhline(1, color=BLACK, lw=0.6, zorder=0.5)
        axes.set(title=f"{100 * sparsity:.0f} % sparsity", xlabel="tokens N", xscale="log")
        ticks(axes.xaxis, (8, 64, 512, 4096))
    top = 1.06 * max(lines["speedup"].max(), markers["speedup"].max())
    panels[0, 0].set(ylabel="speed-up over cuBLAS", ylim=(0, top))
    shown = list(dict.fromkeys(markers["kernel"]))
    handles = [
        Line2D(
            [], [], color=KERNEL_COLOURS[name], marker=KERNEL_MARKERS[name], mec=BLACK, ms=4, ls="", label=titles[name]
        )
        for name in shown
    ]
    model = Line2D([], [], color=GREY, ls=":" if lines["extrapolated"].all() else "-", label="model")
    figure.legend(handles=[*handles, model], loc="outside lower center", ncols=len(handles) + 1)
    return figure


def end_to_end(lines: pd.DataFrame, markers: pd.DataFrame, systems: Mapping[str, str]) -> Figure:
    """Tokens per GPU-second by batch: a row of panels per setup, a column per output length; model as line.

    Parameters
    ----------
    lines : DataFrame
        ``setup, output_len, system, batch, tokens_per_gpu_s`` predicted, only runs that fit; ``setup`` is written.
    markers : DataFrame
        The same columns, published.
    systems : mapping
        System name to legend text, in order.
    """
    setups, lengths = list(dict.fromkeys(markers["setup"])), sorted(markers["output_len"].unique())
    size = (PAGE, 0.83 * len(setups) + 0.7)
    figure, panels = plt.subplots(len(setups), len(lengths), figsize=size, sharex=True, sharey="row", squeeze=False)
    for row, setup in zip(panels, setups, strict=True):
        for axes, length in zip(row, lengths, strict=True):
            for system in systems:
                chosen = [
                    table[(table["setup"] == setup) & (table["output_len"] == length) & (table["system"] == system)]
                    for table in (lines, markers)
                ]
                _run_panel(axes, system, *chosen)
        rates = pd.concat([table.loc[table["setup"] == setup, RATE] for table in (lines, markers)])
        row[0].set(ylabel=setup, yscale="log", ylim=(0.85 * rates.min(), 1.18 * rates.max()))
        ticks(row[0].yaxis, RATES)
    for axes, length in zip(panels[0], lengths, strict=True):
        axes.set_title(f"{length} tokens")
    for axes in panels[-1]:
        axes.set_xlabel("batch")
    figure.supylabel("output tokens per GPU-second")
    handles = [
        Line2D([], [], color=SYSTEM_COLOURS[name], marker=SYSTEM_MARKERS[name], mec=BLACK, label=title)
        for name, title in systems.items()
    ]
    title = "line: model; marker: published"
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), title=title)
    return figure


def _run_panel(axes: Axes, system: str, line: pd.DataFrame, seen: pd.DataFrame) -> None:
    colour = SYSTEM_COLOURS[system]
    axes.plot(line["batch"], line[RATE], color=colour)
    axes.plot(seen["batch"], seen[RATE], SYSTEM_MARKERS[system], mec=BLACK, mfc=colour)
    axes.set_xscale("log", base=2)
    axes.set_xlim(0.85 * BATCHES[0], 1.18 * BATCHES[-1])
    ticks(axes.xaxis, BATCHES)
