"""Draws the tables of `lscd.explorer.view` as Vega-Lite specifications.

Vega-Lite is drawn by the browser: a picture costs the server under a millisecond, and the browser saves it as SVG or
PNG. The same object shows itself in the page, in marimo and in JupyterLab. Colour never stands alone: every mark is
also named on an axis, by a label or by its dash or shape.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lscd.explorer.view import View
from perfmodel.catalog import load_gpu
from perfmodel.plotting.style import BLACK, BLUE, GREEN, GREY, KERNEL_COLOURS, ORANGE, PURPLE, SKY, VERMILION
from perfmodel.systems import HOST
from perfmodel.units import GIGA, TERA

Spec = dict[str, Any]

MIME = "application/vnd.vegalite.v5+json"
SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"  # a name, not an address that anything loads
MEMORY_COLOURS = {"weights": BLUE, "KV cache": ORANGE, "activations": GREEN, "workspace": PURPLE, "reserve": GREY}
DASHES = {False: [1, 0], True: [4, 3]}
KERNEL_SCALE = {"domain": list(KERNEL_COLOURS), "range": list(KERNEL_COLOURS.values())}


@dataclass(frozen=True)
class Chart:
    """A picture with the sentence that a screen reader speaks in its place."""

    name: str
    spec: Spec

    def _mime_(self) -> tuple[str, str]:
        """How marimo shows it."""
        return MIME, json.dumps(self.spec)

    def _repr_mimebundle_(self, **_: Any) -> Spec:
        """How Jupyter shows it."""
        return {MIME: self.spec, "text/plain": self.spec["description"]}


def _chart(name: str, description: str, height: int, layers: list[Spec], **extra: Any) -> Chart:
    export = {"export": True, "source": False, "compiled": False, "editor": False}
    spec = {
        "$schema": SCHEMA,
        "description": description,
        "width": "container",
        "height": height,
        "background": "white",
        "padding": 4,
        "layer": layers,
        "config": {
            "font": "system-ui, sans-serif",
            "axis": {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "gridColor": "#e8e8e8"},
            "legend": {"labelFontSize": 12, "orient": "bottom", "title": None, "columns": 2, "labelLimit": 260},
            "text": {"fontSize": 12},
            "view": {"stroke": None},
        },
        "usermeta": {"embedOptions": {"renderer": "svg", "downloadFileName": f"lscd-{name}", "actions": export}},
        **extra,
    }
    return Chart(name, spec)


def _values(table: pd.DataFrame) -> Spec:
    """The rows of a table as Vega-Lite data; NaN becomes null."""
    return {"values": json.loads(table.to_json(orient="records", double_precision=15))}


def _axis(field: str, title: str, **extra: Any) -> Spec:
    return {"field": field, "type": "quantitative", "title": title, **extra}


def _log(title: str, field: str, domain: list[float]) -> Spec:
    """A logarithmic axis over ``domain``; marks outside are cut."""
    return _axis(field, title, scale={"type": "log", "domain": domain, "nice": False}, axis={"tickCount": 4})


def kernel_times(view: View) -> Chart:
    """Bars of predicted time with 90 % intervals, fastest on top; cut far beyond cuBLAS."""
    table = view.kernels.assign(label=_padded_labels(view))
    dense = float(table.loc[table["kernel"] == "cublas", "time_us"].iloc[0])
    top = 3.0 * dense
    table["shown_hi_us"] = table["hi_us"].clip(upper=top)
    table["note"] = [
        f"{row.time_us:,.0f} us{' →' if row.hi_us > top else ''}{' *' if row.extrapolated else ''}"
        for row in table.itertuples()
    ]
    table["text_at"] = table["shown_hi_us"]
    y = {"field": "label", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 170, "ticks": False}}
    scale = {"domain": [0, 1.3 * min(top, float(table["shown_hi_us"].max()))], "nice": False}
    x = _axis("time_us", "time [us] with 90 % interval", scale=scale)
    colour = {"field": "kernel", "type": "nominal", "scale": KERNEL_SCALE, "legend": None}
    tip = [_tip("title", "kernel"), _tip("time_us", "us", ",.1f"), _tip("lo_us", "90 % from", ",.1f")]
    tip += [_tip("hi_us", "to", ",.1f"), _tip("speedup_vs_dense", "x cuBLAS", ".2f"), _tip("bound", "bound by")]
    layers: list[Spec] = [
        {"mark": {"type": "bar", "clip": True, "opacity": 0.75}, "encoding": {"x": x, "color": colour, "tooltip": tip}},
        {
            "mark": {"type": "rule", "clip": True, "strokeWidth": 2, "color": BLACK},
            "encoding": {"x": _axis("lo_us", x["title"], scale=scale), "x2": {"field": "shown_hi_us"}},
        },
        {
            "mark": {"type": "text", "align": "left", "dx": 6, "color": BLACK},
            "encoding": {"x": _axis("text_at", x["title"], scale=scale), "text": {"field": "note"}},
        },
    ]
    fastest = table.iloc[0]
    words = (
        f"Kernel times: fastest is {fastest['title']} with {fastest['time_us']:,.1f} us, cuBLAS takes {dense:,.1f} us."
    )
    return _chart("kernels", words, 26 * len(table), layers, data=_values(table), encoding={"y": y})


def _padded_labels(view: View) -> list[str]:
    """Titles, with the N a kernel is padded to if that is not the asked one."""
    asked = int(view.kernels["n"].min())
    return [f"{row.title}, N {row.n}" if row.n != asked else row.title for row in view.kernels.itertuples()]


def roofline(view: View) -> Chart:
    """Where each kernel stands under the roof of DRAM and Tensor Cores."""
    peak = float(view.roof["flops_per_s"].max()) / TERA
    roof = view.roof.assign(tflops=view.roof["flops_per_s"] / TERA)
    points = view.kernels.assign(tflops=view.kernels["flops_per_s"] / TERA)
    domain = [float(roof["tflops"].min()) / 4, 2.5 * peak]
    points = points[points["tflops"] > domain[0]]
    x = _log("useful FLOP per DRAM byte", "intensity", [1, 2000])
    y = _log("dense-equivalent TFLOP/s", "tflops", domain)
    colour = {"field": "title", "type": "nominal", "legend": {"columns": 2}, "scale": _title_scale(points)}
    shape = {"field": "title", "type": "nominal", "legend": {"columns": 2}}
    tip = [_tip("title", "kernel"), _tip("tflops", "TFLOP/s", ",.1f"), _tip("intensity", "FLOP/B", ",.1f")]
    layers: list[Spec] = [
        {
            "data": _values(roof),
            "mark": {"type": "line", "color": GREY, "strokeWidth": 3},
            "encoding": {"x": x, "y": y},
        },
        {
            "data": _values(points),
            "mark": {"type": "point", "size": 90, "filled": True, "clip": True},
            "encoding": {"x": x, "y": y, "color": colour, "shape": shape, "tooltip": tip},
        },
    ]
    words = f"Roofline: Tensor Cores give at most {peak:,.0f} TFLOP/s; kernels stand at the marks, left of the corner is memory-bound."
    return _chart("roofline", words, 260, layers)


def _title_scale(points: pd.DataFrame) -> Spec:
    return {"domain": list(points["title"]), "range": [KERNEL_COLOURS.get(name, GREY) for name in points["kernel"]]}


def memory(view: View) -> Chart:
    """What each GPU holds, against its size."""
    size = load_gpu(view.state.gpu).dram.size_bytes / GIGA
    needed = float(view.memory["gigabytes"].sum())
    order = {part: i for i, part in enumerate(MEMORY_COLOURS)}
    table = view.memory.assign(order=view.memory["part"].map(order))
    x = _axis(
        "gigabytes", "GB on each GPU", stack="zero", scale={"domain": [0, 1.08 * max(size, needed)], "nice": False}
    )
    colour = {
        "field": "part",
        "type": "nominal",
        "scale": {"domain": list(MEMORY_COLOURS), "range": list(MEMORY_COLOURS.values())},
        "legend": {"columns": 3},
    }
    tip = [_tip("part", "part"), _tip("gigabytes", "GB", ",.1f")]
    limit = {"values": [{"size": size, "label": f"{size:,.0f} GB"}]}
    layers: list[Spec] = [
        {
            "data": _values(table),
            "mark": {"type": "bar", "stroke": "white", "strokeWidth": 1},
            "encoding": {"x": x, "color": colour, "order": {"field": "order"}, "tooltip": tip},
        },
        {
            "data": limit,
            "mark": {"type": "rule", "color": BLACK, "strokeWidth": 3},
            "encoding": {"x": {"field": "size", "type": "quantitative"}},
        },
        {
            "data": limit,
            "mark": {"type": "text", "align": "right", "dx": -6, "dy": -38, "color": BLACK},
            "encoding": {"x": {"field": "size", "type": "quantitative"}, "text": {"field": "label"}},
        },
    ]
    words = f"Memory: {needed:,.1f} GB needed of {size:,.1f} GB on each GPU."
    return _chart("memory", words, 90, layers)


def throughput(view: View) -> Chart:
    """Tokens per GPU-second over batch; hollow where it does not fit, a vertical line at the chosen batch."""
    table = view.throughput
    titles = list(table["title"].unique())
    colours = [VERMILION if name != HOST else BLACK for name in table["system"].unique()]
    scale = {"domain": titles, "range": colours}
    colour = {"field": "title", "type": "nominal", "scale": scale, "legend": {"columns": 1}}
    dash = {"field": "title", "type": "nominal", "scale": {"domain": titles, "range": [DASHES[False], DASHES[True]]}}
    ends = [1, max(1024.0, float(table["batch"].max()))]
    x = _axis("batch", "batch [sequences]", scale={"type": "log", "base": 2, "domain": ends})
    y = _axis("tokens_per_gpu_s", "tokens per GPU-second")
    tip = [_tip("title", "system"), _tip("batch", "batch"), _tip("tokens_per_gpu_s", "tokens/GPU-s", ",.0f")]
    fits = {"condition": {"test": "datum.fits", "value": 1}, "value": 0}
    layers: list[Spec] = [
        {"mark": {"type": "line", "opacity": 0.5}, "encoding": {"x": x, "y": y, "color": colour, "strokeDash": dash}},
        {
            "mark": {"type": "point", "size": 60, "filled": False, "fill": "white"},
            "encoding": {"x": x, "y": y, "color": colour, "tooltip": tip},
        },
        {
            "mark": {"type": "point", "size": 60, "filled": True},
            "encoding": {"x": x, "y": y, "color": colour, "opacity": fits, "tooltip": tip},
        },
        {
            "data": {"values": [{"batch": view.state.batch}]},
            "mark": {"type": "rule", "color": GREY, "strokeDash": [2, 3]},
            "encoding": {"x": x},
        },
    ]
    words = f"Throughput over batch; at {view.state.batch} it is {float(view.run.tokens_per_gpu_s):,.0f} tokens per GPU-second."
    return _chart("throughput", words, 260, layers, data=_values(table))


def speedups(view: View) -> Chart:
    """Speed-up of a layer over sparsity, over the ranges that published pruning supports."""
    one_shot, retrained = view.feasible
    bands = {
        "values": [
            {"from": 0.0, "to": one_shot, "range": "accuracy kept, one shot"},
            {"from": one_shot, "to": retrained, "range": "accuracy kept, retrained"},
        ]
    }
    table = view.speedups
    titles = list(table["title"].unique())
    kernels = [KERNEL_COLOURS.get(name, GREY) for name in table["kernel"].unique()]
    x = _axis("sparsity", "sparsity", scale={"domain": [0, 1]}, axis={"format": "%", "tickCount": 6})
    y = _axis("speedup", "layer time, cuBLAS / kernel", scale={"domain": [0, 3.5]})
    colour = {"field": "title", "type": "nominal", "scale": {"domain": titles, "range": kernels}}
    dash = {"field": "title", "type": "nominal", "scale": {"domain": titles, "range": _dashes(len(titles))}}
    tip = [_tip("title", "kernel"), _tip("sparsity", "sparsity", ".0%"), _tip("speedup", "speed-up", ".2f")]
    layers: list[Spec] = [
        {
            "data": bands,
            "mark": {"type": "rect", "opacity": 0.16},
            "encoding": {
                "x": {**x, "field": "from"},
                "x2": {"field": "to"},
                "fill": {
                    "field": "range",
                    "type": "nominal",
                    "scale": {"range": [GREEN, SKY]},
                    "legend": {"columns": 1},
                },
            },
        },
        {"data": {"values": [{"speedup": 1}]}, "mark": {"type": "rule", "color": GREY}, "encoding": {"y": y}},
        {
            "data": {"values": [{"sparsity": view.state.sparsity}]},
            "mark": {"type": "rule", "color": GREY, "strokeDash": [2, 3]},
            "encoding": {"x": x},
        },
        {
            "data": _values(table),
            "mark": {"type": "line", "clip": True},
            "encoding": {"x": x, "y": y, "color": colour, "strokeDash": dash, "tooltip": tip},
        },
    ]
    words = f"Speed-up over sparsity; published pruning keeps accuracy up to {one_shot:.0%}, with retraining {retrained:.0%}."
    scales = {"scale": {"fill": "independent", "color": "independent"}}
    return _chart("speedups", words, 260, layers, resolve=scales)


def _dashes(count: int) -> list[list[int]]:
    """Dash patterns for that many lines."""
    patterns = [[1, 0], [6, 2], [2, 2], [8, 3, 2, 3], [4, 4], [10, 3], [3, 6], [12, 2, 2, 2]]
    return [patterns[i % len(patterns)] for i in range(count)]


def _tip(field: str, title: str, form: str = "") -> Spec:
    kind = "quantitative" if form or field == "batch" else "nominal"
    return {"field": field, "type": kind, "title": title, **({"format": form} if form else {})}
