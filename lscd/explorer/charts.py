"""Draws what `lscd.explorer.view` says of kernels as Vega-Lite specifications; of whole runs, `run_charts` does.

Colour never stands alone: every mark is also named on an axis, by a label or by its dash or shape.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lscd.explorer.view import View
from perfmodel.kernels import BASELINE, VARIANTS
from perfmodel.kernels.rivals import STANDINGS
from perfmodel.plotting import vega
from perfmodel.plotting.style import BLACK, FOREST, GREY, IRIS, KERNEL_COLOURS, MIST, ROSE, TAN
from perfmodel.units import TERA

# What becomes of the weights: a colour and a shape each, so that neither stands alone.
STANDING_COLOURS = dict(zip(STANDINGS, (BLACK, IRIS, TAN, ROSE, GREY), strict=True))
STANDING_SHAPES = dict(zip(STANDINGS, ("circle", "square", "triangle-up", "diamond", "cross"), strict=True))
KERNEL_AXIS = {"labelLimit": 160, "labelFontSize": 11, "ticks": False}
PALE_UNLESS_MEASURED = {"condition": {"test": "datum.measured", "value": 0.75}, "value": 0.25}
TOP_SPEEDUP = 3.5
NOTHING_SHADED = "Nothing is shaded: no result is published of pruning this model or its family. "
NARROW = "width < 200"  # pixels between the axes: a phone
CUT = 2.0  # bars end at this multiple of the dense time; slower kernels are told by their label
ROOFLINE_PX = 300  # of the axis, on a phone less
NUMBER_PX = (15, 11)  # of a kernel's number


def kernel_times(view: View) -> vega.Chart:
    """Bars of predicted time with 90 % intervals, fastest on top; cut at `CUT` times the dense time."""
    dense = float(view.kernels.loc[view.kernels["kernel"] == BASELINE, "time_us"].iloc[0])
    table = _cut_bars(view.kernels, CUT * dense)
    # Room for the labels right of the bars.
    scale = {"domain": [0, 1.9 * table["to_us"].max()], "nice": False}
    x = vega.axis(
        "shown_us", "time [us]", scale=scale, axis={"tickCount": 5, "labelSeparation": 8, "labelOverlap": True}
    )
    y = {"field": "label", "type": "nominal", "sort": None, "title": None, "axis": KERNEL_AXIS}
    colour, shape = ({**channel, "legend": None} for channel in by_standing(table))  # said in words below
    tip = [vega.tip("title", "kernel"), vega.tip("standing", "weights"), vega.tip("sparsity", "sparsity", ".0%")]
    tip += [vega.tip("time_us", "us", ",.1f"), vega.tip("lo_us", "90 % from", ",.1f")]
    tip += [
        vega.tip("hi_us", "to", ",.1f"),
        vega.tip("speedup_vs_dense", "x cuBLAS", ".2f"),
        vega.tip("bound", "bound by"),
    ]
    rule = {"type": "rule", "strokeWidth": 2, "color": BLACK}
    # Right of its bar, or at the end of a bar that is cut.
    text = {
        "type": "text",
        "align": {"expr": "datum.cut ? 'right' : 'left'"},
        "dx": {"expr": "datum.cut ? -4 : 6"},
        "color": BLACK,
        "text": {"expr": f"{NARROW} ? datum.short : datum.note"},
    }
    layers = [
        vega.layer("bar", x=x, color=colour, opacity=PALE_UNLESS_MEASURED, tooltip=tip),
        vega.layer(rule, x={**x, "field": "from_us"}, x2={"field": "to_us"}),
        vega.layer(text, x={**x, "field": "to_us"}),
        vega.layer(
            {"type": "point", "size": 45, "filled": True, "opacity": 1}, x={"value": 0}, color=colour, shape=shape
        ),
    ]
    known = table[table["competes"]]
    best = known.iloc[0]
    rivals = known[known["kernel"] != best["kernel"]]
    ties = rivals["title"][rivals["lo_us"] <= best["hi_us"]]
    tie = f", a tie with {', '.join(ties)}" if len(ties) else ""
    words = (
        f"Fastest of those that somebody has measured is {best['title']} ({best['standing']}) with "
        f"{best['time_us']:,.1f} us{tie}; cuBLAS takes {dense:,.1f} us. Black circle: lossless. Blue square: rounded. "
        "Orange triangle: pruned. Pink diamond: both. Pale: never measured. Line: 90 % interval. → bar cut. * "
        "outside the evidence the kernel was fitted on. † its pattern drops more weights than asked: takes no part."
    )
    return vega.chart("kernels", words, 26 * len(table), layers, data=vega.values(table), encoding={"y": y})


def _cut_bars(kernels: pd.DataFrame, top: float) -> pd.DataFrame:
    """Where bars, intervals and labels stand if nothing may pass ``top`` [us]."""
    return kernels.assign(
        label=_padded_titles(kernels),
        shown_us=kernels["time_us"].clip(upper=top),
        from_us=kernels["lo_us"].clip(upper=top),
        to_us=kernels["hi_us"].fillna(kernels["time_us"]).clip(upper=top),
        cut=kernels["time_us"] > top,
        short=[_time_note(row, top) for row in kernels.itertuples()],
        note=[f"{_time_note(row, top)}, {row.standing}" for row in kernels.itertuples()],
    )


def _padded_titles(table: pd.DataFrame) -> list[str]:
    """Ranks and titles, with the N a kernel is padded to if that is not the asked one."""
    asked = int(table["n"].min())
    padded = [f", N {row.n}" if row.n != asked else "" for row in table.itertuples()]
    return [f"{row.rank} {row.title}{n}" for row, n in zip(table.itertuples(), padded, strict=True)]


def _time_note(row: Any, top: float) -> str:
    if row.at_least:
        return f"≥ {row.time_us:,.0f} us"
    return f"{row.time_us:,.0f} {'→' if row.hi_us > top else 'us'}{marks(row)}"


def marks(row: Any) -> str:
    """``*`` outside the evidence, ``†`` where the kernel's pattern drops more weights than asked."""
    more = row.measured and not row.at_least and not row.competes and row.kernel not in VARIANTS
    return f"{' *' if row.extrapolated else ''}{' †' if more else ''}"


def roofline(view: View) -> vega.Chart:
    """Where each kernel stands under the roof of DRAM and Tensor Cores."""
    roof = view.roof.assign(tflops=view.roof["flops_per_s"] / TERA)
    points = view.kernels.assign(tflops=view.kernels["flops_per_s"] / TERA)
    peak = float(roof["tflops"].max())
    left, right = points["intensity"].min() / 2, 3 * max(view.ridge, points["intensity"].max())
    lowest = max(points["tflops"].min(), np.interp(left, roof["intensity"], roof["tflops"]) / 20) / 1.5
    points = points[points["tflops"] > lowest]
    across = float(left), float(right)
    up = float(lowest), 2.5 * max(peak, float(points["tflops"].max()))
    x = vega.log("intensity", "useful FLOP per DRAM byte", list(across))
    y = vega.log("tflops", "dense-equivalent TFLOP/s", list(up))
    told = points[_apart(points["intensity"], across, ROOFLINE_PX, points["tflops"], up, vega.HEIGHT)]
    colour, shape = by_standing(points)
    tip = [vega.tip("title", "kernel"), vega.tip("standing", "weights"), vega.tip("tflops", "TFLOP/s", ",.1f")]
    tip += [vega.tip("intensity", "FLOP/B", ",.1f")]
    mark = {"type": "point", "size": 90, "filled": True, "stroke": BLACK, "strokeWidth": 0.5}
    number = {"type": "text", "dx": 9, "dy": 5, "fontSize": 10, "color": BLACK}
    layers = [
        vega.layer({"type": "line", "color": GREY, "strokeWidth": 3, "clip": True}, roof, x=x, y=y),
        vega.layer(mark, points, x=x, y=y, color=colour, shape=shape, opacity=PALE_UNLESS_MEASURED, tooltip=tip),
        vega.layer(number, told, x=x, y=y, text={"field": "rank", "type": "nominal"}),
    ]
    words = (
        f"FP16 Tensor Cores give at most {peak:,.0f} TFLOP/s; those of fewer bits or of 2:4 may stand higher. Kernels "
        f"left of the corner, at {view.ridge:,.0f} FLOP per byte, are bound by memory. Numbers as in the kernel times"
        f"{', where there is room' * (len(told) < len(points))}."
    )
    return vega.chart("roofline", words, vega.HEIGHT, layers)


def _apart(
    x: pd.Series, x_ends: tuple[float, float], width: float, y: pd.Series, y_ends: tuple[float, float], height: float
) -> np.ndarray:
    """Which numbers at points of a log-log chart leave each other readable; of two too close, the first's."""
    across = width * np.log(np.asarray(x) / x_ends[0]) / np.log(x_ends[1] / x_ends[0])
    up = height * np.log(np.asarray(y) / y_ends[0]) / np.log(y_ends[1] / y_ends[0])
    kept: list[int] = []
    for i in range(len(across)):
        if all(abs(across[i] - across[j]) >= NUMBER_PX[0] or abs(up[i] - up[j]) >= NUMBER_PX[1] for j in kept):
            kept.append(i)
    return np.isin(np.arange(len(across)), kept)


def speedups(view: View) -> vega.Chart:
    """Speed-up of a layer over sparsity, over the ranges that published pruning supports."""
    bands = _reach_bands(view)
    curves, patterns, whole = (view.speedups[view.speedups["kind"] == kind] for kind in ("curve", "pattern", "whole"))
    titles = list(curves["title"].unique())
    kernels = [KERNEL_COLOURS[name] for name in curves["kernel"].unique()]
    x = vega.axis("sparsity", "sparsity", scale={"domain": [0, 1]}, axis={"format": "%", "tickCount": 6})
    y = vega.axis("speedup", "layer time, cuBLAS / kernel", scale={"domain": [0, TOP_SPEEDUP]})
    colour = vega.named("title", {"domain": titles, "range": kernels})
    dash = vega.named("title", {"domain": titles, "range": list(vega.DASHES[: len(titles)])})
    tip = [vega.tip("title", "kernel"), vega.tip("sparsity", "sparsity", ".0%"), vega.tip("speedup", "speed-up", ".2f")]
    rival, name = whole.assign(at=1.0), {"field": "title"}
    label = {"type": "text", "fontSize": 10, "color": BLACK, "clip": True}
    diamond = {"type": "point", "size": 70, "filled": True, "color": BLACK, "shape": "diamond", "clip": True}
    fill = {"field": "label", "type": "nominal", "scale": {"range": [FOREST, MIST]}, "legend": None, "sort": None}
    start = {**x, "field": "from"}
    text = {"type": "text", "align": "left", "dx": 4, "dy": 9, "color": BLACK}
    layers = [
        vega.layer({"type": "rect", "opacity": 0.16}, bands, x=start, x2={"field": "to"}, fill=fill),
        vega.layer(text, bands, x=start, y={**y, "field": "at"}, text={"field": "label"}),
        vega.layer({"type": "rule", "color": GREY}, pd.DataFrame({"speedup": [1.0]}), y=y),
        vega.layer(vega.MARKER_LINE, pd.DataFrame({"sparsity": [view.state.sparsity]}), x=x),
        vega.layer({"type": "line", "clip": True}, curves, x=x, y=y, color=colour, strokeDash=dash, tooltip=tip),
        vega.layer({"type": "rule", "color": IRIS, "strokeWidth": 2}, rival, y=y, tooltip=tip),
        vega.layer({**label, "align": "right", "dy": -8, "color": IRIS}, rival, x={**x, "field": "at"}, y=y, text=name),
        vega.layer(diamond, patterns, x=x, y=y, tooltip=tip),
        vega.layer({**label, "align": "left", "dx": 7}, _pattern_labels(patterns), x=x, y=y, text=name),
    ]
    shaded = "; ".join(f"{way}, {limit.words}" for way, limit in view.reach.items())
    words = (
        f"A kernel pays above the line at 1, and is worth it above the violet one: {whole['title'].iloc[0]}, the "
        "fastest that keeps all weights. Diamonds: kernels of a pattern, which take its sparsity and no other. "
        + (f"Shaded: zeros with which quality is published to be kept: {shaded}. " if shaded else NOTHING_SHADED)
        + "Dashed upright: the chosen sparsity."
    )
    return vega.chart("speedups", words, vega.HEIGHT, layers)


def _reach_bands(view: View) -> pd.DataFrame:
    """Ranges of sparsity ``from, to, label`` in which published pruning keeps this model; none if nobody says."""
    start, rows = 0.0, []
    for way, limit in view.reach.items():
        if limit.sparsity > start:
            rows.append((start, limit.sparsity, way, TOP_SPEEDUP))
            start = limit.sparsity
    return pd.DataFrame(rows, columns=["from", "to", "label", "at"])


def _pattern_labels(patterns: pd.DataFrame) -> pd.DataFrame:
    """One label a kernel, at its largest sparsity; kernels of one place share it."""
    last = patterns.groupby("kernel", sort=False).tail(1)
    places = last.groupby(["sparsity", last["speedup"].round(1)], sort=False)
    return pd.DataFrame(
        [{**group.iloc[0], "title": ", ".join(group["title"])} for _, group in places], columns=patterns.columns
    )


def by_standing(table: pd.DataFrame) -> tuple[vega.Spec, vega.Spec]:
    """Colour and shape by what becomes of the weights, with one legend."""
    there = [name for name in STANDINGS if name in set(table["standing"])]
    colours, shapes = ([chosen[name] for name in there] for chosen in (STANDING_COLOURS, STANDING_SHAPES))
    domain = {"domain": there}
    columns = {"expr": f"{NARROW} ? 1 : 2"}
    colour = vega.named("standing", {**domain, "range": colours}, columns)
    return colour, vega.named("standing", {**domain, "range": shapes}, columns)
