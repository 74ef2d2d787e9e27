"""Draws what `lscd.explorer.view` says of whole runs as Vega-Lite specifications; of kernels, `charts` does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lscd.explorer.charts import by_standing
from lscd.explorer.state import parted
from perfmodel.kernels import BASELINE
from perfmodel.plotting import vega
from perfmodel.plotting.style import BLACK, FOREST, GREY, IRIS, KERNEL_COLOURS, OTHERS, ROSE, TAN
from perfmodel.serving.systems import load_system
from perfmodel.units import GIGA, MILLI, TERA

if TYPE_CHECKING:
    from lscd.explorer.view import View

MEMORY_COLOURS = {"weights": IRIS, "KV cache": TAN, "activations": FOREST, "workspace": ROSE, "reserve": GREY}
REST = "the rest"
NAMED = 8  # operators with a colour of their own, those that take longest; the others are one
CHOSEN, DENSE = "chosen", "dense"
ROOM = (0.25, 0.06)  # of the axes, that a label takes
PHASE_SHAPES = {"prefill": "square", "decode": "circle"}


def memory(view: View) -> vega.Chart:
    """What each GPU holds, against its size."""
    size = view.gpu.dram.size_bytes / GIGA
    table = view.memory.assign(order=range(len(view.memory)))
    needed = float(table["gigabytes"].sum())
    domain = {"domain": [0, 1.08 * max(size, needed)], "nice": False}
    x = vega.axis("gigabytes", "GB on each GPU", stack="zero", scale=domain)
    colour = vega.named("part", {"domain": list(MEMORY_COLOURS), "range": list(MEMORY_COLOURS.values())}, columns=3)
    tip = [vega.tip("part", "part"), vega.tip("gigabytes", "GB", ",.1f")]
    limit = pd.DataFrame({"gigabytes": [size], "label": [f"{size:,.0f} GB"]})
    at = {"field": "gigabytes", "type": "quantitative"}
    text = {"type": "text", "align": "right", "dx": -6, "dy": -38, "color": BLACK}
    bar = {"type": "bar", "stroke": "white", "strokeWidth": 1, "height": 50}
    layers = [
        vega.layer(bar, table, x=x, color=colour, order={"field": "order"}, tooltip=tip),
        vega.layer({"type": "rule", "color": BLACK, "strokeWidth": 3}, limit, x=at),
        vega.layer(text, limit, x=at, text={"field": "label"}),
    ]
    words = f"{needed:,.1f} GB needed; the line is the size of the GPU, {size:,.1f} GB."
    return vega.chart("memory", words, 90, layers)


def throughput(view: View) -> vega.Chart:
    """Tokens per GPU-second over batch; hollow where it does not fit, a vertical line at the chosen batch."""
    table = view.throughput
    titles = list(table["title"].unique())
    colours = [KERNEL_COLOURS[BASELINE if name == view.engine else "flash-llm"] for name in table["system"].unique()]
    colour = vega.named("title", {"domain": titles, "range": colours}, columns=1)
    dash = vega.named("title", {"domain": titles, "range": list(vega.DASHES[: len(titles)])}, columns=1)
    x = vega.log("batch", "batch [sequences]", [1.0, float(table["batch"].max())])
    x["scale"]["base"] = 2
    top = 1.05 * float(table["tokens_per_gpu_s"].max())
    y = vega.axis("tokens_per_gpu_s", "tokens per GPU-second", scale={"domain": [0, top]})
    tip = [
        vega.tip("title", "system"),
        vega.tip("batch", "batch"),
        vega.tip("tokens_per_gpu_s", "tokens/GPU-s", ",.1f"),
    ]
    hollow = {"type": "point", "size": 60, "fill": "white", "opacity": 1}
    chosen = pd.DataFrame({"batch": [view.state.batch]})
    layers = [
        vega.layer({"type": "line", "opacity": 0.6}, x=x, y=y, color=colour, strokeDash=dash),
        vega.layer(hollow, x=x, y=y, color=colour, tooltip=tip),
        vega.layer({"type": "point", "size": 60, "filled": True, "opacity": 1}, x=x, y=y, color=colour, tooltip=tip),
        vega.layer(vega.MARKER_LINE, chosen, x=x),
    ]
    layers[2]["transform"] = [{"filter": "datum.fits"}]
    words = (
        f"At batch {view.state.batch}: {float(view.run.tokens_per_gpu_s):,.1f} tokens per GPU-second. Hollow: does "
        "not fit into memory."
    )
    return vega.chart("throughput", words, vega.HEIGHT, layers, data=vega.values(table))


def breakdown(view: View) -> vega.Chart:
    """Bars of the time by operator, of both phases, beside dense weights, which take 1."""
    table = _by_operator(view)
    names = [name for name in dict.fromkeys(table["operator"]) if name != REST] + [REST]
    colours = [*OTHERS[: len(names) - 1], GREY]
    colour = vega.named("operator", {"domain": names, "range": colours}, columns={"expr": "width < 300 ? 2 : 3"})
    x = vega.axis("relative", "time, that with dense weights = 1", stack="zero", scale={"nice": False})
    y = {"field": "bar", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 110, "ticks": False}}
    tip = [vega.tip("bar", "phase"), vega.tip("operator", "operator"), vega.tip("milliseconds", "ms", ",.3f")]
    tip += [vega.tip("share", "share", ".1%")]
    total = table.groupby("bar", sort=False)[["relative", "milliseconds"]].sum().reset_index()
    total["label"] = [f"{value:,.1f} ms" for value in total["milliseconds"]]
    text = {"type": "text", "align": "left", "dx": 4, "color": BLACK}
    bar = {"type": "bar", "stroke": "white", "strokeWidth": 1}
    layers = [
        vega.layer(bar, table, x=x, y=y, color=colour, order={"field": "order"}, tooltip=tip),
        vega.layer(text, total, x={"field": "relative", "type": "quantitative"}, y=y, text={"field": "label"}),
    ]
    x["scale"]["domain"] = [0, 1.35 * float(total["relative"].max())]
    largest = table[table["bar"] == table["bar"].iloc[-1]].sort_values("milliseconds").iloc[-1]
    words = (
        f"One prefill of all prompts and one mean step of decoding, of the system chosen and with dense weights. What "
        f"takes longest in {largest['bar']} is {largest['operator']}, {largest['share']:.0%} of it."
    )
    return vega.chart("breakdown", words, 32 * len(total), layers)


def _by_operator(view: View) -> pd.DataFrame:
    """Rows ``bar, operator, milliseconds, relative, share, order``; operators beyond the longest `NAMED` are one."""
    found = view.operators
    parts = {CHOSEN: "time_s"} if view.system == view.engine else {CHOSEN: "time_s", DENSE: "dense_time_s"}
    scale = found.groupby("phase")["dense_time_s"].sum()
    weight = found["dense_time_s"] / found["phase"].map(scale)
    longest = weight.groupby(found["operator"]).max().nlargest(NAMED).index
    names = found["operator"].where(found["operator"].isin(longest), REST)
    tables = []
    for phase in dict.fromkeys(found["phase"]):
        for part, column in parts.items():
            here = found["phase"] == phase
            seconds = found.loc[here, column].groupby(names[here], sort=False).sum()
            own = {"bar": f"{phase}, {part}" if len(parts) > 1 else phase, "operator": seconds.index}
            times = {"milliseconds": seconds.to_numpy() / MILLI, "relative": seconds.to_numpy() / scale[phase]}
            tables.append(pd.DataFrame({**own, **times, "share": seconds.to_numpy() / seconds.sum()}))
    table = pd.concat(tables, ignore_index=True)
    rank = {name: i for i, name in enumerate([*longest, REST])}
    return table.assign(order=table["operator"].map(rank))


def operators(view: View) -> vega.Chart:
    """A dot for each operator under the roof of DRAM and Tensor Cores, of both phases, chosen and dense."""
    points = _dots(view.operators)
    dense = _dots(view.dense_operators).head(0 if view.system == view.engine else len(view.dense_operators))
    roof = view.roof.assign(tflops=view.roof["flops_per_s"] / TERA)
    every = pd.concat([points, dense])
    left, right = every["intensity"].min() / 2, 3 * max(view.ridge, every["intensity"].max())
    x = vega.log("intensity", "FLOP per DRAM byte", [float(left), float(right)])
    lowest, top = every["tflops"].min() / 2, 2.5 * max(roof["tflops"].max(), every["tflops"].max())
    y = vega.log("tflops", "TFLOP/s", [float(lowest), float(top)])
    phases = {"domain": list(PHASE_SHAPES)}
    colour = vega.named("phase", {**phases, "range": [TAN, IRIS]}, columns=2)
    shape = vega.named("phase", {**phases, "range": list(PHASE_SHAPES.values())}, columns=2)
    tip = [vega.tip("operator", "operator"), vega.tip("phase", "phase"), vega.tip("tflops", "TFLOP/s", ",.1f")]
    tip += [vega.tip("intensity", "FLOP/B", ",.1f"), vega.tip("share", "share of its phase", ".1%")]
    tip += [vega.tip("bound", "bound by")]
    mark = {"type": "point", "filled": True, "stroke": BLACK, "strokeWidth": 0.5, "opacity": 0.8}
    name = {"field": "operator"}
    hollow = {"type": "point", "filled": False, "color": GREY, "strokeWidth": 1.5, "opacity": 1}
    size = {"field": "share", "type": "quantitative", "scale": {"range": [25, 400]}, "legend": None}
    label = {"type": "text", "dx": 8, "dy": -6, "align": "left", "fontSize": 10, "color": BLACK, "clip": True}
    layers = [
        vega.layer({"type": "line", "color": GREY, "strokeWidth": 3, "clip": True}, roof, x=x, y=y),
        vega.layer(hollow, dense, x=x, y=y, shape=shape, size=size, tooltip=tip),
        vega.layer(mark, points, x=x, y=y, color=colour, shape=shape, size=size, tooltip=tip),
        vega.layer(label, _apart(points.sort_values("share", ascending=False), x, y), x=x, y=y, text=name),
    ]
    beside = "; hollow with dense weights" if len(dense) else ""
    words = (
        f"A dot for each operator of {load_system(view.system).title}, larger where it takes more of its phase{beside}."
        f" The roof is that of FP16 Tensor Cores and of the memory; its corner is at {view.ridge:,.0f} FLOP per byte."
    )
    return vega.chart("operators", words, vega.HEIGHT + 40, layers)


def _dots(table: pd.DataFrame) -> pd.DataFrame:
    """Operators that multiply and take time, with the rate that they reach."""
    able = table[(table["flop"] > 0) & (table["bytes"] > 0) & (table["time_s"] > 0)]
    return able.assign(tflops=able["flop"] / able["time_s"] / TERA)


def _apart(points: pd.DataFrame, x: vega.Spec, y: vega.Spec) -> pd.DataFrame:
    """Points whose label has room on logarithmic axes: of those close together the one that comes first."""
    kept: list[int] = []
    places = [_share_of(axis, points[axis["field"]]) for axis in (x, y)]
    for i in range(len(points)):
        if all(any(abs(place[i] - place[j]) > room for place, room in zip(places, ROOM, strict=True)) for j in kept):
            kept.append(i)
    return points.iloc[kept]


def _share_of(axis: vega.Spec, values: pd.Series) -> np.ndarray:
    """Where values lie on a logarithmic axis, from 0 to 1."""
    low, high = axis["scale"]["domain"]
    return np.asarray(np.log(values / low) / np.log(high / low))


def tradeoff(view: View) -> vega.Chart:
    """Tokens/s of a GPU over tokens/s of a user: a line for each system over the batch, the Pareto front in black."""
    table = view.tradeoff.dropna(subset=["tokens_per_user_s", "tokens_per_gpu_s"])
    if table.empty:
        return vega.chart("tradeoff", "Nothing fits: there is nothing to draw.", 30, [])
    table = table.assign(standing=table["change"], ttft_ms=table["ttft_s"] / MILLI, tpot_ms=table["tpot_s"] / MILLI)
    front = table[table["front"]].sort_values("tokens_per_user_s")
    x = vega.log("tokens_per_user_s", "tokens/s of a user", _ends(table["tokens_per_user_s"]))
    y = vega.log("tokens_per_gpu_s", "tokens/s of a GPU", _ends(table["tokens_per_gpu_s"]))
    colour, shape = by_standing(table)
    load = "users" if view.state.served else "batch"
    tip = [vega.tip("title", "system"), vega.tip("standing", "weights"), vega.tip("batch", load)]
    tip += [
        vega.tip("tokens_per_user_s", "tokens/s/user", ",.1f"),
        vega.tip("tokens_per_gpu_s", "tokens/s/GPU", ",.0f"),
    ]
    tip += [vega.tip("ttft_ms", "TTFT ms", ",.0f"), vega.tip("tpot_ms", "TPOT ms", ",.1f")]
    path, by_batch = {"field": "system", "type": "nominal"}, {"field": "batch", "type": "quantitative"}
    pale = {"condition": {"test": "datum.keeps", "value": 0.9}, "value": 0.2}
    label = {"type": "text", "align": "right", "dx": -7, "dy": 9, "fontSize": 10, "color": BLACK, "clip": True}
    chosen = table[(table["system"] == view.system) & (table["batch"] == view.state.batch)]
    thin = {"type": "line", "strokeWidth": 1, "opacity": 0.35}
    dot = {"type": "point", "filled": True, "size": 35}
    ring = {"type": "point", "size": 220, "color": BLACK, "strokeWidth": 2, "filled": False, "aria": False}
    layers = [
        vega.layer(thin, x=x, y=y, detail=path, order=by_batch, color=colour),
        vega.layer(dot, x=x, y=y, color=colour, shape=shape, opacity=pale, tooltip=tip),
        vega.layer({"type": "line", "color": BLACK, "strokeWidth": 2}, front, x=x, y=y),
        vega.layer(label, _apart(_first_of_each(front), x, y), x=x, y=y, text={"field": "short"}),
        vega.layer(ring, chosen, x=x, y=y, tooltip=tip),
    ]
    words = (
        f"Every weight format of {load_system(view.engine).title}, from {load} {table['batch'].min()} at the lower "
        f"right to {table['batch'].max()}. Black line: the front of what somebody has measured and keeps both limits. "
        "Pale: breaks a limit. Ring: the system and batch chosen."
    )
    return vega.chart("tradeoff", words, vega.HEIGHT + 80, layers, data=vega.values(table))


def _ends(values: pd.Series) -> list[float]:
    return [float(values.min()) / 1.3, float(values.max()) * 1.3]


def _first_of_each(front: pd.DataFrame) -> pd.DataFrame:
    """A label for each system of the front, where it is first on it."""
    first = front.drop_duplicates("system")
    return first.assign(short=[parted(system)[1] for system in first["system"]])
