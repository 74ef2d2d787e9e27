"""Drawings of what is computed: a decoder layer to scale, and where the time of a whole model goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from perfmodel.plotting.canvas import LINE_IN, SMALL_PT, arrow, box, figure_of, sheet, words
from perfmodel.plotting.serving import MEMORY_COLOURS, PART_COLOURS
from perfmodel.plotting.style import BLACK, GREY, PAGE

MARGIN, GAP, BELOW = 0.32, 0.17, 0.3  # inches: at the sides, between neighbours, for names of the activations
PIECE = 256  # rows and columns of the corner that the magnifier shows
COLOURS = {
    "weights": MEMORY_COLOURS["weights"],
    "kv-cache": MEMORY_COLOURS["kv_cache"],
    "activations": MEMORY_COLOURS["activations"],
}
PALE = 0.35  # share of a colour within the outline of what is predicted, the rest white
ALONE: dict[str, Any] = {"hatch": "/////"}  # bars beside which nothing is published
FILL = 0.22  # opacity of an area
PUBLISHED: dict[str, Any] = {"marker": "D", "color": BLACK, "mfc": "white", "ms": 4, "ls": "none", "zorder": 4}


def decoder_layer(table: pd.DataFrame, heading: str) -> Figure:
    """One decoder layer from left to right, all areas to one scale, a corner of its last weights magnified.

    Parameters
    ----------
    table : DataFrame
        In the order of the flow: ``kind`` (weights, kv-cache, activations), ``title, copies, rows, columns`` and
        ``bytes``, and the ``share`` of the layer's weights.
    heading : str
        Which layer of which model this is.
    """
    areas = table[table["kind"] != "activations"]
    scale = (PAGE - 2 * MARGIN - GAP * (len(table) - 1)) / areas["columns"].sum()
    tallest = scale * (areas["copies"] * areas["rows"]).max()
    axes = sheet(PAGE, BELOW + tallest + 6.3 * LINE_IN)
    x, middle = MARGIN, BELOW + scale * table["rows"].iloc[0] / 2
    for index, row in enumerate(table.to_dict("records")):
        if index:
            arrow(axes, (x - GAP, middle), (x, middle), mutation_scale=4)
        draw = _stream if row["kind"] == "activations" else _area
        x = draw(axes, row, x, scale) + GAP
    last = table.iloc[-2]
    _magnified(axes, last, x - GAP - GAP - scale * last["columns"], scale, int(table["columns"].iloc[-1]))
    total = areas.groupby("kind")["bytes"].sum() / 1e6
    notes = (
        f"weights {total['weights']:,.0f} MB, percentages are shares of it; KV cache {total['kv-cache']:,.0f} MB; "
        "lines: activations, thinner than drawn; all areas to one scale"
    )
    top = axes.get_ylim()[1] - 0.08
    words(axes, MARGIN, top, heading, ha="left", va="top", weight="bold")
    words(axes, MARGIN, top - 1.1 * LINE_IN, notes, ha="left", va="top")
    return figure_of(axes)


def _area(axes: Axes, row: dict[str, Any], x: float, scale: float) -> float:
    """Weights, or keys above values, with their name and size on top; returns where they end."""
    width, height = scale * row["columns"], scale * row["rows"]
    colour = COLOURS[row["kind"]]
    for copy in range(row["copies"]):
        box(axes, x, BELOW + copy * height, width, height, colour, facecolor=(colour, FILL), gid=row["title"])
        if row["kind"] == "kv-cache":
            words(axes, x + width / 2, BELOW + (copy + 0.5) * height, ("values", "keys")[copy])
    copies = f"{row['copies']} x " if row["copies"] > 1 else ""
    share = "" if np.isnan(row["share"]) else f", {row['share']:.0%}"
    text = f"{row['title']}\n{copies}{row['rows']:,} x {row['columns']:,}\n{row['bytes'] / 1e6:,.0f} MB{share}"
    words(axes, x + width / 2, BELOW + row["copies"] * height + 0.04, text, va="bottom")
    return float(x + width)


def _stream(axes: Axes, row: dict[str, Any], x: float, scale: float) -> float:
    """Activations of a few tokens: to scale they are thinner than any line, so a line stands for them."""
    width, height, colour = scale * row["columns"], scale * row["rows"], COLOURS["activations"]
    box(axes, x, BELOW, width, height, colour, facecolor=colour, linewidth=1.0, gid="activations")
    text = f"{row['rows']:,}\nx {row['columns']:,}"
    words(axes, x + width / 2, BELOW - 0.03, text, va="top", size=SMALL_PT)
    return float(x + width)


def _magnified(axes: Axes, of: pd.Series, left: float, scale: float, tokens: int) -> None:
    """The upper left corner of these weights beside as many rows of their activations, both in proportion."""
    side, corner = 1.05, (left, BELOW + scale * of["rows"])
    thin = side * tokens / PIECE
    x, y = min(left + 0.2 + thin, PAGE - side - 1.1), corner[1] + 4.6 * LINE_IN
    box(axes, x, y, side, side, COLOURS["weights"], facecolor=(COLOURS["weights"], FILL), gid="corner")
    box(axes, x - 0.06 - thin, y, thin, side, COLOURS["activations"], facecolor=COLOURS["activations"], gid="piece")
    for end in (x, x + side):
        axes.plot(*zip(corner, (end, y), strict=True), color=COLOURS["weights"], linewidth=0.5, linestyle=":")
    said = f"a corner of {of['title']},\n{PIECE} x {PIECE} weights,\n{side / (PIECE * scale):.0f} times larger"
    words(axes, x + side / 2, y + side / 2, said)
    words(
        axes,
        x + side + 0.08,
        y + side / 2,
        f"left of it as\nmany rows of\nits activations:\n{tokens} columns",
        ha="left",
    )


def breakdown(table: pd.DataFrame, whole: str) -> Figure:
    """Milliseconds of a decoding step by part: published filled, predicted outlined below it, or alone and hatched.

    Parameters
    ----------
    table : DataFrame
        A row a part, the part ``whole`` among them: ``panel, label`` of its run, ``part, published_ms`` (NaN where
        nobody published it), ``err_ms`` (half-width of what was read) and ``predicted_ms``.
    whole : str
        What the whole run is called.
    """
    runs = table.groupby(["panel", "label"], sort=False).ngroups
    panels = dict(list(table.groupby("panel", sort=False)))
    counts = [group["label"].nunique() for group in panels.values()]
    size = (PAGE, 0.27 * runs + 0.25 * len(panels) + 0.75)
    figure, grid = plt.subplots(len(panels), 1, figsize=size, height_ratios=counts, sharex=True, squeeze=False)
    grid[-1, 0].set_xlabel("GPU-milliseconds per decoding step (time of the run / output tokens of a sequence)")
    grid[-1, 0].set_xlim(0, 1.22 * table["predicted_ms"].max())
    for axes, (panel, group) in zip(grid[:, 0], panels.items(), strict=True):
        _panel(axes, panel, group, whole)
    keys = _keys(table.loc[table["part"] != whole, "part"].unique())
    figure.legend(handles=keys, loc="outside lower center", ncols=4)
    return figure


def _panel(axes: Axes, title: str, rows: pd.DataFrame, whole: str) -> None:
    """A bar, or two, for each run of a panel, the first on top."""
    labels = list(dict.fromkeys(rows["label"]))[::-1]
    for at, label in enumerate(labels):
        _run(axes, at, rows[rows["label"] == label].set_index("part"), whole)
    axes.set_yticks(range(len(labels)), labels)
    axes.set(title=title, ylim=(-0.5, len(labels) - 0.5))
    axes.grid(visible=False, axis="y")


def _run(axes: Axes, at: float, parts: pd.DataFrame, whole: str) -> None:
    """The bars of one run, at height ``at``."""
    pieces, total = parts.drop(index=whole), parts.loc[whole]
    predicted = f"{total['predicted_ms']:.1f}"
    if pieces["published_ms"].notna().any():
        _stack(axes, at + 0.2, 0.36, pieces["published_ms"], f"{total['published_ms']:.1f}", filled=True)
        _stack(axes, at - 0.2, 0.36, pieces["predicted_ms"], predicted)
        return
    said = f"{predicted}, published {total['published_ms']:.1f}"
    _stack(axes, at, 0.6, pieces["predicted_ms"], said, right=total["published_ms"] + total["err_ms"], **ALONE)
    axes.errorbar(total["published_ms"], at, xerr=total["err_ms"], **PUBLISHED)


def _stack(
    axes: Axes,
    at: float,
    height: float,
    pieces: pd.Series,
    total: str,
    *,
    filled: bool = False,
    right: float = 0.0,
    **look: Any,
) -> None:
    """One bar of ``pieces`` by part, the share of the first written in it, the total behind it and ``right``."""
    left = 0.0
    for part, length in pieces.dropna().items():
        axes.barh(at, length, height, left=left, **_look(str(part), filled=filled), **look)
        left += length
    plain = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"}
    axes.text(0.4, at, f"{pieces.iloc[0] / left:.0%}", bbox=plain, va="center", fontsize=SMALL_PT)
    behind: dict[str, Any] = {"xytext": (5, 0), "textcoords": "offset points", "va": "center", "fontsize": SMALL_PT}
    axes.annotate(total, (max(left, right), at), **behind)


def _look(part: str, *, filled: bool) -> dict[str, Any]:
    """How a part is drawn; the pale colour is opaque, or an SVG would draw its hatching as pale."""
    colour = PART_COLOURS[part]
    pale = tuple(PALE * channel + 1 - PALE for channel in to_rgb(colour))
    outlined = {"facecolor": pale, "edgecolor": GREY, "linewidth": 0.5}
    return {"facecolor": colour, "linewidth": 0} if filled else outlined


def _keys(parts: Sequence[str]) -> list[Any]:
    first = parts[0]
    return [
        *(Patch(label=part, **_look(part, filled=True)) for part in parts),
        Patch(label="filled: published", **_look(first, filled=True)),
        Patch(label="outlined: model", **_look(first, filled=False)),
        Patch(label="hatched: predicted only", **_look(first, filled=False), **ALONE),
        Line2D([], [], label="whole run, published", **PUBLISHED),
    ]
