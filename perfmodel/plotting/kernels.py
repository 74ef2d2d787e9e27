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
from matplotlib.patheffects import withStroke

from perfmodel.plotting.marks import OUTSIDE, label_ends, outside_key, ticks
from perfmodel.plotting.style import BLACK, COLUMN, FORMAT_COLOURS, GREY, KERNEL_COLOURS, KERNEL_MARKERS, PAGE

PALE = 0.2  # of an interval
GROUP_GAP = 0.6  # between the shapes of the benchmark, in steps of sparsity
REACH_FOOT = 0.14  # of a picture's height, where no format is so small
ERROR_BANDS = ((0.2, "#f2f2f2"), (0.1, "#e4e4e4"))
MODEL_AND_PUBLISHED = (
    Line2D([], [], color=GREY, label="line: model"),
    Line2D([], [], color=GREY, marker="o", linestyle="none", mec=BLACK, mew=0.4, label="marker: published"),
)
MODEL_SHIFT = 1.12  # models stand beside their markers, not on them
RATES = (10, 20, 50, 100, 200, 312)  # TFLOP/s on the axis of the roofline


def roofline(roof: pd.DataFrame, points: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Achieved against attainable FLOP/s; dashed, the share of the roof that the dense kernel reaches on average.

    Parameters
    ----------
    roof : DataFrame
        ``intensity`` [FLOP/B], ``flops_per_s``; the roof, in rising intensity.
    points : DataFrame
        ``kernel, n, intensity, flops_per_s`` (predicted) and ``published_flops_per_s`` (may be missing).
    titles : mapping
        Kernel name to its words.
    """
    figure, axes = plt.subplots(figsize=(COLUMN, 2.7))
    axes.loglog(roof["intensity"], roof["flops_per_s"] / 1e12, color=GREY)
    tokens = points["n"].max()
    for (kernel, n), group in points.groupby(["kernel", "n"]):
        name = f"{short(titles[str(kernel)])}, N = {n}" if n == tokens else f"N = {n}"
        _roofline_group(axes, str(kernel), group)
        lowest = group[["published_flops_per_s", "flops_per_s"]].min().min() / 1e12
        at = group["intensity"].mean()
        if kernel == "cublas":
            place: dict[str, Any] = {"xy": (at, roof_at(roof, at)), "xytext": (-1, 3), "ha": "right", "va": "bottom"}
        else:
            place = {"xy": (at, lowest), "xytext": (3, -4), "ha": "left", "va": "top"}
        axes.annotate(name, textcoords="offset points", color=KERNEL_COLOURS[str(kernel)], **place)
    dense = points[points["kernel"] == "cublas"]
    share = (dense["published_flops_per_s"] / 1e12 / roof_at(roof, dense["intensity"])).mean()
    axes.plot(roof["intensity"], share * roof["flops_per_s"] / 1e12, color=BLACK, ls=(0, (4, 2)), lw=0.8)
    ridge = roof.loc[roof["flops_per_s"].idxmax(), "intensity"]
    axes.set(xlabel="useful FLOP per DRAM byte", ylabel="dense-equivalent TFLOP/s", xlim=(4.8, 320), ylim=(8, 400))
    ticks(axes.xaxis, (8, 16, 32, 64, round(ridge)))
    ticks(axes.yaxis, RATES)
    below: dict[str, Any] = {"xytext": (0, -2), "textcoords": "offset points", "va": "top"}
    _along_roof(axes, 70, 1.1 * roof_at(roof, 70), "DRAM roof", color=GREY, va="bottom")
    flat = share * roof["flops_per_s"].max() / 1e12
    axes.annotate(f"{share:.0%} of it", (1, flat), xycoords=("axes fraction", "data"), ha="right", **below)
    figure.legend(handles=MODEL_AND_PUBLISHED, loc="outside lower center", ncols=2)
    return figure


def _along_roof(axes: Axes, x: float, y: float, words: str, **given: Any) -> None:
    """Words from a point on, parallel to the sloping roof."""
    axes.text(
        x, y, words, rotation=np.degrees(np.arctan2(y, x)), transform_rotates_text=True, rotation_mode="anchor", **given
    )


def _roofline_group(axes: Axes, kernel: str, group: pd.DataFrame) -> None:
    """Published rates as markers; beside them, from lowest to highest, what the model says."""
    colour, at, published = KERNEL_COLOURS[kernel], group["intensity"], group["published_flops_per_s"] / 1e12
    axes.plot(at, published, KERNEL_MARKERS[kernel], ms=3, mec=colour, mfc="white")
    modelled = group["flops_per_s"] / 1e12
    axes.vlines(at.mean() * MODEL_SHIFT, modelled.min(), modelled.max(), color=colour, lw=1.6)


def roof_at(roof: pd.DataFrame, at: float | pd.Series) -> Any:
    """Height of the roof in TFLOP/s at one intensity."""
    return np.interp(at, roof["intensity"], roof["flops_per_s"]) / 1e12


def time_against_sparsity(
    lines: pd.DataFrame, markers: pd.DataFrame, titles: Mapping[str, str], top_us: float
) -> Figure:
    """Predicted time (line, and its interval as a band) over published time (marker), one colour per kernel.

    ``lines``: ``kernel, sparsity, time_us, low_us, high_us, extrapolated, at_least``; ``markers``: ``kernel, sparsity,
    time_us``. Extrapolated stretches are dotted, their bands hatched; a bound has no band. Times above ``top_us`` are
    cut.
    """
    figure, axes = plt.subplots(figsize=(COLUMN, 2.7))
    ends = lines["sparsity"].min() * 100 - 0.5, lines["sparsity"].max() * 100 + 0.5
    axes.set(xlabel="sparsity [%]", ylabel="time [us]", ylim=(0, top_us), xlim=ends)
    for kernel, group in lines.groupby("kernel", sort=False):
        _time_line(axes, str(kernel), short(titles[str(kernel)]), group)
        seen = markers[markers["kernel"] == kernel]
        axes.plot(seen["sparsity"] * 100, seen["time_us"], KERNEL_MARKERS[str(kernel)], zorder=3, **look(str(kernel)))
    label_ends(axes)
    interval = Patch(color=GREY, alpha=PALE, lw=0, label="90 % interval of the model")
    figure.legend(handles=[*MODEL_AND_PUBLISHED, interval, outside_key()], loc="outside lower center", ncols=2)
    return figure


def _time_line(axes: Axes, kernel: str, name: str, group: pd.DataFrame) -> None:
    """One kernel's line with its band, and its name at the end of it."""
    colour, at = KERNEL_COLOURS[kernel], group["sparsity"] * 100
    bound = bool(group["at_least"].any())
    for dash, times in stretches(group["time_us"], group["extrapolated"]):
        axes.plot(at, times, dash, color=colour)
    # Drawn by nothing: the whole line, whose end has the name.
    axes.plot(at, group["time_us"], color=colour, lw=0, label=f"{name},\nat least" if bound else name)
    if not bound:
        band(axes, at, group, colour)


def band(axes: Axes, at: pd.Series, rows: pd.DataFrame, colour: str) -> None:
    """Between ``low_us`` and ``high_us``: shaded, and hatched where ``extrapolated``."""
    for dash, low in stretches(rows["low_us"], rows["extrapolated"]):
        drawn: dict[str, Any] = {"color": colour, "alpha": PALE, "lw": 0} if dash == "-" else OUTSIDE
        axes.fill_between(at, low, rows["high_us"], zorder=0.8, **drawn)


def look(kernel: str) -> dict[str, Any]:
    """How a measurement of a kernel is drawn, everywhere."""
    return {"color": KERNEL_COLOURS[kernel], "mec": BLACK, "mew": 0.4}


def short(title: str) -> str:
    """A kernel's name without what its title says in brackets."""
    return title.split(" (")[0]


def stretches(values: pd.Series, extrapolated: pd.Series) -> Iterator[tuple[str, pd.Series]]:
    """The parts of a line: a dash pattern and ``values`` where it holds, NaN elsewhere; solid and dotted parts meet."""
    inside = ~extrapolated
    if inside.any():
        yield "-", values.where(inside | inside.shift(1, fill_value=False) | inside.shift(-1, fill_value=False))
    if extrapolated.any():
        yield ":", values.where(extrapolated)


def last_has(dash: str, extrapolated: pd.Series) -> bool:
    """Whether a line ends in the stretch of this dash pattern, which then has the line's name."""
    return (dash == ":") == bool(extrapolated.iloc[-1])


def kernel_benchmark(table: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """The paper's kernel figure, a panel per N: markers as published, a line through each shape's by the model.

    ``table``: ``m, k, n, sparsity, kernel, tflops, predicted_tflops, at_least``; rates that are no more than bounds are
    dotted.
    """
    shapes = list(table[["m", "k"]].drop_duplicates().itertuples(index=False, name=None))
    sparsities, tokens = sorted(table["sparsity"].unique()), sorted(table["n"].unique())
    size = PAGE, 0.75 + (2.5 if len(tokens) == 1 else 1.75) * len(tokens)
    figure, panels = plt.subplots(len(tokens), 1, figsize=size, sharex=True, squeeze=False)
    for axes, n in zip(panels[:, 0], tokens, strict=True):
        axes.set(yscale="log", ylabel="TFLOP/s", title=f"N = {n}")
        _benchmark_panel(axes, table[table["n"] == n], shapes, sparsities, titles)
        axes.margins(y=0.06)
        axes.tick_params(axis="x", length=0)
        axes.grid(axis="x", visible=False)
        ticks(axes.yaxis, (0.3, 1, 3, 10, 30, 100))
        label_ends(axes)
    _label_groups(panels[-1, 0], shapes, sparsities)
    figure.legend(handles=MODEL_AND_PUBLISHED, loc="outside upper right", ncols=2)
    return figure


def _benchmark_panel(
    axes: Axes,
    panel: pd.DataFrame,
    shapes: list[tuple[int, int]],
    sparsities: list[float],
    titles: Mapping[str, str],
) -> None:
    """A line and its markers for each kernel and shape; the kernel's name at the last shape."""
    for s, shape in enumerate(shapes):
        at = s * (len(sparsities) + GROUP_GAP) + np.arange(len(sparsities))
        if s % 2 == 0:
            axes.axvspan(at[0] - 0.5 - GROUP_GAP / 2, at[-1] + 0.5 + GROUP_GAP / 2, color="#f4f4f4", zorder=0, lw=0)
        rows = panel[(panel["m"] == shape[0]) & (panel["k"] == shape[1])]
        for kernel, group in rows.sort_values("sparsity").groupby("kernel"):
            bound = bool(group["at_least"].any())
            name = short(titles[str(kernel)]) + (",\nat most" if bound else "")
            axes.plot(
                at,
                group["predicted_tflops"],
                ":" if bound else "-",
                color=KERNEL_COLOURS[str(kernel)],
                label=name if shape == shapes[-1] else None,
            )
            axes.plot(at, group["tflops"], KERNEL_MARKERS[str(kernel)], zorder=3, **look(str(kernel)))


def _label_groups(axes: Axes, shapes: list[tuple[int, int]], sparsities: list[float]) -> None:
    """Sparsity under each group of markers, the shape under each group of sparsities."""
    step = len(sparsities) + GROUP_GAP
    places = [s * step + j for s in range(len(shapes)) for j in range(len(sparsities))]
    axes.set_xticks(places, [f"{100 * value:.0f}" for _ in shapes for value in sparsities], fontsize=6)
    axes.set_xlim(-0.5 - GROUP_GAP / 2, places[-1] + 0.5 + GROUP_GAP / 2)
    for s, (m, k) in enumerate(shapes):
        middle = s * step + (len(sparsities) - 1) / 2
        axes.annotate(
            f"{m}\n{k}",
            (middle, 0),
            xytext=(0, -11),
            textcoords="offset points",
            xycoords=("data", "axes fraction"),
            ha="center",
            va="top",
            fontsize=6.5,
        )
    for words, below in (("sparsity [%]", 6), ("M\nK", 11)):
        axes.annotate(
            words,
            (0, 0),
            xycoords="axes fraction",
            xytext=(-4, -below),
            textcoords="offset points",
            ha="right",
            va="center" if below < 10 else "top",
            fontsize=6.5,
        )
    axes.set_xlabel(" ", labelpad=16)  # room for M and K


def storage(sizes: pd.DataFrame, reached: Mapping[str, float], titles: Mapping[str, str]) -> Figure:
    """Bits per weight of every format against sparsity, and how far models can be pruned.

    ``sizes``: ``format, sparsity, bits, depends_on_sparsity``; formats that do not depend on sparsity are dotted.
    ``reached``: sparsity to which each model named can be pruned.
    """
    figure, axes = plt.subplots(figsize=(PAGE, 3.3))
    axes.set(xlabel="sparsity [%]", ylabel="bits per weight", ylim=(0, 20), xlim=(0, 100))
    ticks(axes.yaxis, range(0, 20, 4))
    for name, group in coinciding(sizes[sizes["depends_on_sparsity"]], titles):
        _size_line(axes, name, group)
    flat = sizes[~sizes["depends_on_sparsity"]].drop_duplicates("format")
    levels = [
        axes.plot((0, 100), (row.bits, row.bits), ":", color=GREY, lw=0.8, label=titles[str(row.format)])[0]
        for row in flat.itertuples()
    ]
    label_ends(axes, levels)
    mark_reach(axes, reached)
    return figure


def coinciding(sizes: pd.DataFrame, titles: Mapping[str, str]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each line of `storage` with the names of the formats on it: those that differ by less than a line's width."""
    left = dict(list(sizes.groupby("format", sort=False)))
    while left:
        first, group = left.popitem()
        same = [name for name, other in left.items() if np.abs(other["bits"].array - group["bits"].array).max() < 0.3]
        names = [first, *same]
        yield " =\n".join(titles[str(name)] for name in names), pd.concat([group, *(left.pop(name) for name in same)])


def _size_line(axes: Axes, name: str, group: pd.DataFrame) -> None:
    """The line, in dashes of all colours where several formats share it, and its name along its upper end."""
    formats = list(group.groupby("format", sort=False))
    for order, (fmt, rows) in enumerate(formats):
        dash = (3 * order, (3, 3 * (len(formats) - 1))) if len(formats) > 1 else "-"
        axes.plot(rows["sparsity"] * 100, rows["bits"], ls=dash, color=FORMAT_COLOURS.get(str(fmt), GREY))
    x, y = formats[0][1]["sparsity"].to_numpy() * 100, formats[0][1]["bits"].to_numpy()
    start = int(np.argmax(y < axes.get_ylim()[1] - 1 - name.count("\n")))
    beyond = int(np.argmax(x >= min(x[start] + 20, 100)))  # the chord: a curve that levels off stays below it
    axes.text(
        x[start] + 0.5,
        y[start] + 0.1,
        name,
        va="bottom",
        rotation=np.degrees(np.arctan2(y[beyond] - y[start], x[beyond] - x[start])),
        transform_rotates_text=True,
        rotation_mode="anchor",
        color=FORMAT_COLOURS.get(str(formats[0][0]), GREY),
        path_effects=[withStroke(linewidth=2, foreground="white")],
    )


def mark_reach(axes: Axes, reached: Mapping[str, float]) -> None:
    """Triangles at the sparsity (x axis in percent) to which each model named can be pruned, a row each at the foot."""
    for row, (model, sparsity) in enumerate(sorted(reached.items(), key=lambda item: item[1])):
        y = REACH_FOOT * (row + 0.5) / len(reached)
        axes.plot(sparsity * 100, y, ">", color=BLACK, transform=axes.get_xaxis_transform(), zorder=5)
        axes.annotate(
            model,
            (sparsity * 100, y),
            xycoords=axes.get_xaxis_transform(),
            xytext=(-4, 0),
            textcoords="offset points",
            ha="right",
            va="center",
        )


def predicted_against_measured(joined: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Error of the prediction over the published time, a panel a kernel; hollow = fitted, filled = held out.

    ``joined``: ``kernel, time_us, error, fitted``; the grey bands are +-10 and +-20 %.
    """
    kernels = list(dict.fromkeys(joined["kernel"]))
    figure, panels = plt.subplots(1, len(kernels), figsize=(PAGE, 2.1), sharex=True, sharey=True, squeeze=False)
    top = 110 * joined["error"].abs().max()
    for axes, kernel in zip(panels[0], kernels, strict=True):
        colour, marker = KERNEL_COLOURS[kernel], KERNEL_MARKERS[kernel]
        for share, shade in ERROR_BANDS:
            axes.axhspan(-100 * share, 100 * share, color=shade, zorder=0, lw=0)
        axes.axhline(0, color=GREY, lw=0.8)
        for fitted, rows in joined[joined["kernel"] == kernel].groupby("fitted"):
            fill = "white" if fitted else colour
            axes.plot(
                rows["time_us"], 100 * rows["error"], marker, ms=3, mec=colour, mfc=fill, zorder=2 if fitted else 3
            )
        axes.set(xscale="log", xlabel="published time [us]", ylim=(-top, top), title=short(titles[kernel]))
        ticks(axes.xaxis, (10, 100, 1000))
    panels[0, 0].set_ylabel("error of the predicted time [%]")
    held = Line2D([], [], color=GREY, marker="o", linestyle="none", label="held out")
    fitted_too = Line2D([], [], color=GREY, marker="o", mfc="white", linestyle="none", label="fitted")
    shades = [Patch(color=shade, label=f"within {share:.0%}") for share, shade in reversed(ERROR_BANDS)]
    figure.legend(handles=[held, fitted_too, *shades], loc="outside lower center", ncols=4)
    return figure


def speedups(table: pd.DataFrame) -> Figure:
    """Mean speed-up of Flash-LLM by baseline and sparsity: the paper's headline, its bars, and the model as a line.

    ``table``: ``baseline, sparsity, headline, figure, model``.
    """
    baselines = list(dict.fromkeys(table["baseline"]))
    figure, panels = plt.subplots(1, len(baselines), figsize=(COLUMN, 2.0), sharey=True)
    colour, marker = KERNEL_COLOURS["flash-llm"], KERNEL_MARKERS["flash-llm"]
    for axes, baseline in zip(panels, baselines, strict=True):
        rows = table[table["baseline"] == baseline]
        at = 100 * rows["sparsity"]
        axes.plot(at, rows["model"], color=colour)
        axes.plot(at, rows["figure"], marker, **look("flash-llm"))
        for x, row in zip(at, rows.itertuples(), strict=True):
            highest = x, max(row.headline, row.figure, row.model)
            axes.annotate(f"{row.headline:.1f}x", highest, xytext=(0, 4), textcoords="offset points", ha="center")
        axes.axhline(1, color=GREY, lw=0.8)
        axes.set(title=f"over {baseline}", xlabel="sparsity [%]", xticks=at, xlim=(at.min() - 5, at.max() + 5))
    top = table[["headline", "figure", "model"]].to_numpy().max()
    panels[0].set(ylabel="speed-up of Flash-LLM", ylim=(0, 1.2 * top))
    handles = [
        Line2D([], [], ls="none", marker=marker, label="mean of the paper's bars", **look("flash-llm")),
        Line2D([], [], color=colour, label="mean of the model"),
        Line2D([], [], ls="none", label="number: its headline"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure
