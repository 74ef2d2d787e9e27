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
from matplotlib.ticker import NullLocator

from perfmodel.plotting.kernels import stretches
from perfmodel.plotting.serving import PALE, SYSTEM_COLOURS, SYSTEM_MARKERS
from perfmodel.plotting.style import BLACK, COLUMN_WIDTH, GREY, KERNEL_COLOURS, KERNEL_MARKERS

QUARTILES = ("q1", "median", "q3")
Colour = tuple[float, float, float, float]

DARKER = 0.72
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
        Kernel and GPU names to what is written; a panel per GPU and N, one below the other.
    """
    tokens, kernels = sorted(table["n"].unique()), [name for name in KERNEL_COLOURS if name in set(table["kernel"])]
    size = (COLUMN_WIDTH, 1.1 * len(gpus) * len(tokens) + 0.7)
    figure, panels = plt.subplots(len(gpus) * len(tokens), 1, figsize=size, sharex=True, sharey=True, squeeze=False)
    cases = [(gpu, n) for gpu in gpus for n in tokens]
    for axes, (gpu, n) in zip(panels[:, 0], cases, strict=True):
        _quartile_panel(axes, table[(table["gpu"] == gpu) & (table["n"] == n)], kernels)
        axes.set_title(f"{gpus[gpu]}, N = {n}", fontsize=8.5, pad=2)
    sparsities, levels = sorted(table["sparsity"].unique()), table[["q1", "q3", "predicted_q1", "predicted_q3"]]
    last = panels[-1, 0]
    last.set(xlabel="sparsity", xlim=(-0.5, len(sparsities) - 0.5), yscale="log")
    last.set_ylim(levels.min(axis=None) / 1.08, levels.max(axis=None) * 1.08)
    last.set_xticks(range(len(sparsities)), [f"{value:.0%}" for value in sparsities])
    last.set_yticks(SPEEDUP_TICKS, [f"{value:g}" for value in SPEEDUP_TICKS])
    last.yaxis.set_minor_locator(NullLocator())
    figure.supylabel("speed-up over cuBLAS", fontsize=9)
    handles = [Patch(color=KERNEL_COLOURS[name], label=titles[name]) for name in kernels]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=len(handles),
        title="first quartile, median, third quartile; filled: published; hollow, right of it: model",
    )
    return figure


def _quartile_panel(axes: Axes, rows: pd.DataFrame, kernels: Sequence[str]) -> None:
    step = GROUP / len(kernels)
    for i, kernel in enumerate(kernels):
        mine, colour = rows[rows["kernel"] == kernel].sort_values("sparsity"), KERNEL_COLOURS[kernel]
        at = np.arange(len(mine)) + (i - (len(kernels) - 1) / 2) * step
        for which, shift, face in (("", -0.21, to_rgba(colour, PALE)), ("predicted_", 0.21, to_rgba("white"))):
            levels = [mine[f"{which}{name}"].to_numpy() for name in QUARTILES]
            _boxes(axes, at + shift * step, 0.36 * step, levels, face, darker(colour))
    axes.axhline(1, color=GREY, lw=0.8, zorder=0.5)
    for border in np.arange(0.5, rows["sparsity"].nunique() - 1):
        axes.axvline(border, color=GREY, lw=0.5, ls=":")
    axes.grid(axis="x", visible=False)


def _boxes(axes: Axes, at: np.ndarray, width: float, levels: Sequence[np.ndarray], face: Colour, edge: Colour) -> None:
    """First to third quartile as a box, the median as a line across it."""
    first, median, third = levels
    axes.bar(at, third - first, width, bottom=first, linewidth=0.9, facecolor=face, edgecolor=edge)
    axes.hlines(median, at - width / 2, at + width / 2, color=[edge], linewidth=1.9)


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
    figure, panels = plt.subplots(1, len(sparsities), figsize=(COLUMN_WIDTH, 3.1), sharey=True)
    for axes, sparsity in zip(panels, sparsities, strict=True):
        for kernel, seen in markers[markers["sparsity"] == sparsity].groupby("kernel", sort=False):
            colour, mine = KERNEL_COLOURS[str(kernel)], lines[lines["kernel"] == kernel]
            mine = mine[mine["sparsity"] == sparsity].sort_values("n")
            for dash, speedup in stretches(mine["speedup"], mine["extrapolated"]):
                axes.plot(mine["n"], speedup, dash, color=colour)
            marker = KERNEL_MARKERS[str(kernel)]
            axes.plot(seen["n"], seen["speedup"], marker, color=colour, mec=BLACK, mew=0.5, label=titles[str(kernel)])
        axes.axhline(1, color=GREY, lw=0.8, zorder=0.5)
        ticks = [2**i for i in range(3, 13)]
        axes.set(title=f"{sparsity:.0%} sparsity", xlabel="tokens N", xscale="log")
        axes.set_xticks(ticks, [str(n) if i % 2 else "" for i, n in enumerate(ticks, start=1)])
        axes.xaxis.set_minor_locator(NullLocator())
    panels[0].set(ylabel="speed-up over cuBLAS", ylim=(0, 1.06 * max(lines["speedup"].max(), markers["speedup"].max())))
    handles, _ = panels[0].get_legend_handles_labels()
    model = [Line2D([], [], color=GREY, ls=":" if lines["extrapolated"].all() else "-", label="model")]
    figure.legend(handles=[*handles, *model], loc="outside lower center", ncols=len(handles) + 1)
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
    size = (COLUMN_WIDTH, 1.05 * len(setups) + 0.9)
    figure, panels = plt.subplots(len(setups), len(lengths), figsize=size, sharex=True, sharey="row", squeeze=False)
    for row, setup in zip(panels, setups, strict=True):
        for axes, length in zip(row, lengths, strict=True):
            for system in systems:
                chosen = [
                    table[(table["setup"] == setup) & (table["output_len"] == length) & (table["system"] == system)]
                    for table in (lines, markers)
                ]
                _run_panel(axes, system, *chosen)
        row[0].set_ylabel(setup, fontsize=7.5)
        row[0].set_ylim(0, 1.1 * max(table.loc[table["setup"] == setup, RATE].max() for table in (lines, markers)))
    for axes, length in zip(panels[0], lengths, strict=True):
        axes.set_title(f"{length} tokens", fontsize=8.5)
    for axes in panels[-1]:
        axes.set_xlabel("batch")
    figure.supylabel("output tokens per GPU-second", fontsize=9)
    handles = [
        Line2D([], [], color=SYSTEM_COLOURS[name], marker=SYSTEM_MARKERS[name], mec=BLACK, mew=0.5, label=title)
        for name, title in systems.items()
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=len(handles), title="line: model; marker: published"
    )
    return figure


def _run_panel(axes: Axes, system: str, line: pd.DataFrame, seen: pd.DataFrame) -> None:
    colour = SYSTEM_COLOURS[system]
    axes.plot(line["batch"], line[RATE], color=colour, lw=1.4)
    axes.plot(seen["batch"], seen[RATE], SYSTEM_MARKERS[system], mec=BLACK, mew=0.5, mfc=colour, ms=4.5)
    axes.set_xscale("log", base=2)
    axes.set_xticks(BATCHES, [str(batch) for batch in BATCHES])
    axes.set_xlim(0.85 * BATCHES[0], 1.18 * BATCHES[-1])
    axes.tick_params(labelsize=7)
