"""Figures about matrix-product kernels: roofline, time against sparsity, the kernel benchmark, formats, errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

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
    FORMAT_COLOURS,
    GREY,
    KERNEL_COLOURS,
    KERNEL_MARKERS,
    ORANGE,
    VERMILION,
    WINE,
    in_order,
)

TOKEN_MARKERS = {8: "o", 16: "^", 32: "s", 64: "D"}
MODEL_SHIFT = 1.09  # models stand beside their markers, not on them
MODEL_HANDLE = Line2D([], [], color=GREY, marker="_", markersize=7, linestyle="none", label="model")


def roofline(roof: pd.DataFrame, points: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Achieved against attainable FLOP/s.

    Parameters
    ----------
    roof : DataFrame
        ``intensity`` [FLOP/B], ``flops_per_s``; the roof, in rising intensity.
    points : DataFrame
        ``kernel, n, intensity, flops_per_s`` (predicted) and ``published_flops_per_s`` (may be missing).
    titles : mapping
        Kernel name to legend text.
    """
    figure, axes = plt.subplots(figsize=(COLUMN_WIDTH, 4.2))
    axes.loglog(roof["intensity"], roof["flops_per_s"] / 1e12, color=GREY)
    for (kernel, n), group in points.groupby(["kernel", "n"]):
        colour, marker = KERNEL_COLOURS[kernel], TOKEN_MARKERS[n]
        axes.plot(group["intensity"], group["published_flops_per_s"] / 1e12, marker, mec=colour, mfc="white")
        axes.plot(group["intensity"] * MODEL_SHIFT, group["flops_per_s"] / 1e12, "_", color=colour, ms=7)
    kernels = [Patch(color=KERNEL_COLOURS[name], label=titles[name]) for name in points["kernel"].unique()]
    tokens = [
        Line2D([], [], color=GREY, marker=TOKEN_MARKERS[n], linestyle="none", label=f"N = {n}")
        for n in sorted(points["n"].unique())
    ]
    axes.legend(handles=[*kernels, *tokens, MODEL_HANDLE], loc="lower right", title="marker: published", ncols=2)
    axes.annotate(
        "DRAM roof", (12, roof_at(roof, 12)), xytext=(-6, 6), textcoords="offset points", rotation=34, ha="center"
    )
    axes.annotate("Tensor-Core roof", (300, roof_at(roof, 300)), xytext=(0, 5), textcoords="offset points", ha="center")
    axes.set(xlabel="useful FLOP per DRAM byte", ylabel="dense-equivalent TFLOP/s", xlim=(4, 700), ylim=(6, 500))
    return figure


def roof_at(roof: pd.DataFrame, at: float) -> float:
    """Height of the roof in TFLOP/s at one intensity."""
    return float(np.interp(at, roof["intensity"], roof["flops_per_s"])) / 1e12


def time_against_sparsity(
    lines: pd.DataFrame, markers: pd.DataFrame, titles: Mapping[str, str], top_us: float
) -> Figure:
    """Predicted time (line) over published time (marker), one colour per kernel.

    ``lines``: ``kernel, sparsity, time_us, extrapolated`` and, where some only bound the time, ``at_least``;
    ``markers``: ``kernel, sparsity, time_us``. Extrapolated stretches are dotted. Times above ``top_us`` are cut.
    """
    figure, axes = plt.subplots(figsize=(COLUMN_WIDTH, 4.3))
    for kernel, group in lines.groupby("kernel", sort=False):
        colour = KERNEL_COLOURS[str(kernel)]
        for dash, times in stretches(group["time_us"], group["extrapolated"]):
            axes.plot(group["sparsity"] * 100, times, dash, color=colour)
        seen = markers[markers["kernel"] == kernel]
        axes.plot(
            seen["sparsity"] * 100,
            seen["time_us"],
            KERNEL_MARKERS[str(kernel)],
            color=colour,
            mec=BLACK,
            mew=0.5,
            label=titles[str(kernel)] + (" (line: at least)" if bounds(group) else ""),
        )
    ends = lines["sparsity"].min() * 100 - 0.5, lines["sparsity"].max() * 100 + 0.5
    axes.set(xlabel="sparsity [%]", ylabel="time [us]", ylim=(0, top_us), xlim=ends)
    handles, _ = axes.get_legend_handles_labels()
    extra = [Line2D([], [], color=GREY, label="model"), Line2D([], [], color=GREY, ls=":", label="model, extrapolated")]
    figure.legend(handles=[*handles, *extra], loc="outside lower center", ncols=4, fontsize=8, columnspacing=1.2)
    return figure


def stretches(values: pd.Series, extrapolated: pd.Series) -> Iterator[tuple[str, pd.Series]]:
    """The parts of a line: a dash pattern and ``values`` where it holds, NaN elsewhere; solid and dotted parts meet."""
    inside = ~extrapolated
    if inside.any():
        yield "-", values.where(inside | inside.shift(1, fill_value=False) | inside.shift(-1, fill_value=False))
    if extrapolated.any():
        yield ":", values.where(extrapolated)


def bounds(rows: pd.DataFrame) -> bool:
    """Whether the model gives no more than a bound for ``rows`` of one kernel."""
    return "at_least" in rows and bool(rows["at_least"].any())


def kernel_benchmark(table: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """The paper's kernel figure: bars as published, a dash across each where the model puts it.

    ``table``: ``m, k, n, sparsity, kernel, tflops, predicted_tflops`` and, where some times are only bounded,
    ``at_least``; one panel per N, one group of bars per shape and sparsity.
    """
    kernels = in_order(table["kernel"])
    shapes = list(table[["m", "k"]].drop_duplicates().itertuples(index=False, name=None))
    sparsities = sorted(table["sparsity"].unique())
    tokens = sorted(table["n"].unique())
    figure, panels = plt.subplots(len(tokens), 1, figsize=(15, 3.1 * len(tokens)), sharex=True)
    width = 0.8 / len(kernels)
    for axes, n in zip(panels, tokens, strict=True):
        panel = table[table["n"] == n].set_index(["m", "k", "sparsity", "kernel"])
        for i, kernel in enumerate(kernels):
            positions, published, predicted = [], [], []
            for s, (m, k) in enumerate(shapes):
                for j, sparsity in enumerate(sparsities):
                    row = panel.loc[(m, k, sparsity, kernel)]
                    positions.append(s * (len(sparsities) + 0.6) + j + (i - (len(kernels) - 1) / 2) * width)
                    published.append(row["tflops"])
                    predicted.append(row["predicted_tflops"])
            axes.bar(positions, published, width * 0.92, color=KERNEL_COLOURS[kernel], alpha=0.45)
            axes.hlines(
                predicted,
                np.array(positions) - width / 2,
                np.array(positions) + width / 2,
                color=KERNEL_COLOURS[kernel],
                linewidth=2.2,
            )
        axes.set(ylabel="TFLOP/s", title=f"N = {n}")
        axes.grid(axis="x", visible=False)
    _label_groups(panels[-1], shapes, sparsities)
    at_most = {name: " (dash: at most)" for name in kernels if bounds(table[table["kernel"] == name])}
    handles = [
        Patch(color=KERNEL_COLOURS[name], alpha=0.45, label=titles[name] + at_most.get(name, "")) for name in kernels
    ]
    bar = Patch(color=GREY, alpha=0.45, label="bar: published")
    dash = Line2D([], [], color=GREY, linewidth=2.2, label="dash: model")
    figure.legend(handles=[*handles, bar, dash], loc="outside upper left", ncols=len(handles) + 2, fontsize=10)
    return figure


def _label_groups(axes: Axes, shapes: list[tuple[int, int]], sparsities: list[float]) -> None:
    """Sparsity under each group of bars, the shape under each group of sparsities."""
    step = len(sparsities) + 0.6
    ticks = [s * step + j for s in range(len(shapes)) for j in range(len(sparsities))]
    axes.set_xticks(ticks, [f"{value:.0%}" for _ in shapes for value in sparsities], fontsize=7.5)
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.7, ticks[-1] + 0.7)
    for s, (m, k) in enumerate(shapes):
        middle = s * step + (len(sparsities) - 1) / 2
        axes.annotate(
            f"M {m}\nK {k}",
            (middle, 0),
            xytext=(0, -18),
            textcoords="offset points",
            xycoords=("data", "axes fraction"),
            ha="center",
            va="top",
            fontsize=8.5,
        )


def storage(sizes: pd.DataFrame, reached: Mapping[str, float], titles: Mapping[str, str]) -> Figure:
    """Bits per weight of every format against sparsity, and how far models can be pruned.

    ``sizes``: ``format, sparsity, bits, depends_on_sparsity``; formats that do not depend on sparsity are dashed.
    ``reached``: sparsity to which each model named can be pruned.
    """
    figure, axes = plt.subplots(figsize=(COLUMN_WIDTH, 5.0))
    mark_reach(axes, reached)
    for order, (name, group) in enumerate(sizes[sizes["depends_on_sparsity"]].groupby("format", sort=False)):
        dash = (0, (6, 2)) if order % 3 == 0 else "-"  # so that lines that coincide stay visible
        axes.plot(
            group["sparsity"] * 100,
            group["bits"],
            ls=dash,
            color=FORMAT_COLOURS.get(str(name), WINE),
            label=titles[str(name)],
        )
    flat = sizes[~sizes["depends_on_sparsity"]].drop_duplicates("format").sort_values("bits")
    _label_levels(axes, flat, titles)
    axes.set(xlabel="sparsity [%]", ylabel="bits per weight", ylim=(0, 21), xlim=(0, 100))
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.14), ncols=3)
    return figure


def mark_reach(axes: Axes, reached: Mapping[str, float]) -> None:
    """Triangles above the sparsity (x axis in percent) to which each model named can be pruned."""
    left = dict(sorted(reached.items(), key=lambda item: item[1]))
    for row, (model, sparsity) in enumerate(left.items()):
        top = axes.get_xaxis_transform()
        axes.plot(sparsity * 100, 1.0, "v", color=BLACK, ms=5, transform=top, clip_on=False, zorder=5)
        place: dict[str, Any] = {
            "xytext": (0, 6 + 9 * (row % 2)),
            "textcoords": "offset points",
            "ha": "center",
            "fontsize": 7.5,
        }
        axes.annotate(model, (sparsity * 100, 1.0), xycoords=top, annotation_clip=False, **place)


def _label_levels(axes: Axes, flat: pd.DataFrame, titles: Mapping[str, str]) -> None:
    """Names of the flat formats at the right edge, pushed apart where they would overlap."""
    lowest = -1.0
    for row in flat.itertuples():
        axes.axhline(row.bits, color=GREY, ls=":", lw=1.1)
        height = max(float(row.bits), lowest + 0.75)
        lowest = height
        axes.annotate(
            titles[str(row.format)],
            (100, float(row.bits)),
            xytext=(101.5, height),
            annotation_clip=False,
            va="center",
            fontsize=8,
            color=GREY,
        )


def predicted_against_measured(joined: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Log-log scatter of prediction over evidence with +-10 % and +-20 % bands; hollow = fitted, filled = held out."""
    figure, axes = plt.subplots(figsize=(COLUMN_WIDTH, 4.6))
    low, high = joined["time_us"].min() * 0.8, joined["time_us"].max() * 1.25
    line = np.array([low, high])
    for band, shade in ((0.2, "#f2f2f2"), (0.1, "#e4e4e4")):
        axes.fill_between(line, line * (1 - band), line * (1 + band), color=shade, zorder=0)
    axes.plot(line, line, color=GREY, lw=1)
    for kernel, group in joined.groupby("kernel", sort=False):
        colour = KERNEL_COLOURS[str(kernel)]
        for fitted, rows in group.groupby("fitted"):
            axes.plot(
                rows["time_us"],
                rows["predicted_us"],
                KERNEL_MARKERS[str(kernel)],
                markersize=4,
                markeredgecolor=colour,
                markerfacecolor="white" if fitted else colour,
                markeredgewidth=0.8,
            )
    handles = [
        Line2D([], [], color=KERNEL_COLOURS[name], marker=KERNEL_MARKERS[name], linestyle="none", label=titles[name])
        for name in joined["kernel"].unique()
    ]
    split = [
        Line2D([], [], color=GREY, marker="o", linestyle="none", label="held out"),
        Line2D([], [], color=GREY, marker="o", markerfacecolor="white", linestyle="none", label="fitted"),
        Patch(color="#e4e4e4", label="within 10 %"),
        Patch(color="#f2f2f2", label="within 20 %"),
    ]
    axes.legend(handles=[*handles, *split], loc="upper left", ncols=2)
    axes.set(xscale="log", yscale="log", xlabel="published time [us]", ylabel="predicted time [us]")
    axes.set(xlim=(low, high), ylim=(low, high))
    return figure


def speedups(table: pd.DataFrame) -> Figure:
    """Mean speed-up of Flash-LLM by baseline and sparsity: the paper's headline, its bars, and the model.

    ``table``: ``baseline, sparsity, headline, figure, model``.
    """
    baselines = list(dict.fromkeys(table["baseline"]))
    figure, panels = plt.subplots(1, len(baselines), figsize=(COLUMN_WIDTH, 2.8), sharey=True)
    for axes, baseline in zip(panels, baselines, strict=True):
        rows = table[table["baseline"] == baseline]
        places = np.arange(len(rows))
        for offset, column, colour in ((-0.27, "headline", ORANGE), (0, "figure", BLUE), (0.27, "model", VERMILION)):
            bars = axes.bar(places + offset, rows[column], 0.25, color=colour)
            axes.bar_label(bars, fmt="%.1f", fontsize=6.6, padding=1)
        axes.set_xticks(places, [f"{value:.0%}" for value in rows["sparsity"]])
        axes.set(title=f"over {baseline}", xlabel="sparsity")
        axes.axhline(1, color=GREY, lw=0.8)
        axes.grid(axis="x", visible=False)
    panels[0].set_ylabel("speed-up")
    labels = (("headline", ORANGE), ("mean of the paper's bars", BLUE), ("mean of the model", VERMILION))
    figure.legend(
        handles=[Patch(color=colour, label=label) for label, colour in labels], loc="outside lower center", ncols=3
    )
    return figure
