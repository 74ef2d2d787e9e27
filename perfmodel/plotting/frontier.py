"""Figures of quality against speed: the frontier of a model by GPU, how far models can be pruned, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from textwrap import fill
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from perfmodel.plotting.marks import legible, ramp, ticks
from perfmodel.plotting.style import BLACK, COLUMN, GREY, KERNEL_COLOURS, KERNEL_MARKERS, PAGE


class Mark(NamedTuple):
    """How a way is drawn, and what becomes of the weights in it."""

    colour: str
    marker: str
    change: str


def _of(kernel: str, change: str) -> Mark:
    return Mark(KERNEL_COLOURS[kernel], KERNEL_MARKERS[kernel], change)


MARKS = {  # those of the kernel that multiplies; black where that is the dense one
    "dense": _of("cublas", "dense"),
    "smaller dense model": Mark(BLACK, "D", "smaller"),
    "layers dropped": Mark(BLACK, "v", "layers dropped"),
    "FP8": _of("fp8", "rounded"),
    "INT8 W8A8": _of("int8-w8a8", "rounded"),
    "INT8 weights": _of("int8", "rounded"),
    "INT4 weights": _of("int4", "rounded"),
    "NVFP4": _of("nvfp4", "rounded"),
    "FP6 weights": _of("quant-llm-w6", "rounded"),
    "FP5 weights": _of("quant-llm-w5", "rounded"),
    "zeros anywhere": _of("flash-llm", "pruned"),
    "4:8": Mark(KERNEL_COLOURS["flash-llm"], "H", "pruned"),
    "2:4": _of("two-four", "pruned"),
    "6:8": _of("six-eight", "pruned"),
    "2:4 FP8": _of("two-four-fp8", "pruned and rounded"),
    "2:4 INT8": _of("two-four-int8", "pruned and rounded"),
}
ANYWHERE = MARKS["zeros anywhere"].colour
UNTRAINED = ("dense", "rounded", "smaller")  # what nobody trains anew: filled
GROUPS = {"dense": "16-bit weights", "smaller": "16-bit weights", "layers dropped": "16-bit weights"}
SEVERAL = ("zeros anywhere", "layers dropped", "smaller dense model")  # ways of which a mark must say how much
LOSSES = {"points": "points of accuracy lost", "wikitext2-perplexity": "rise of perplexity on WikiText-2 [%]"}
LEFT, RIGHT = -1.5, 10.0  # losses drawn
UNKNOWN = 1.12  # of the largest loss drawn: where ways stand of which nobody has published it
SMALL = 6  # points: the least that paper takes
# Where a name may stand beside its mark, in points: right and left of it, above and below, near and far.
PLACES = [
    (dx * reach, (reach if above else -reach) * rise)
    for reach in (4.5, 7.0, 10.0, 14.0)
    for dx, rise in ((1, 0.7), (-1, 0.7), (0, 1.2), (1, 0))
    for above in (True, False)
]
PERPLEXITIES = (5, 10, 20, 50, 100, 200)


def change_of(way: str) -> str:
    """What becomes of the weights in a way."""
    return MARKS[way].change


def frontiers(tables: Mapping[str, pd.DataFrame], budgets: Sequence[float], loss: str, right: float = RIGHT) -> Figure:
    """Tokens per GPU-second against quality lost, a panel a GPU.

    ``tables``: `perfmodel.frontier.frontier` by the panel's title. Filled marks were retrained, or need no training;
    hollow ones are pruned in one shot. Bars: 90 % of the speed over dense, dotted where the kernel is outside its
    evidence, and least to most of the published losses. Grey steps: the fastest at each loss. Rings, with the way's
    name: the fastest within each of ``budgets``. Losses beyond ``right`` are not drawn; right of the line stand, in
    grey, ways of which no loss is published. ``loss`` names the axis.
    """
    rows = (len(tables) + 1) // 2
    figure, panels = plt.subplots(rows, 2, figsize=(PAGE, 1.42 * rows + 0.95), sharex=True, squeeze=False)
    named = [_panel(axes, table, budgets, right) for axes, table in zip(panels.flat, tables.values(), strict=False)]
    for axes, title in zip(panels.flat, tables, strict=False):
        axes.set_title(title)
    for axes in panels.flat[len(tables) :]:
        axes.set_axis_off()
    for axes in panels[-1]:
        axes.set_xlabel(f"{loss} (?: not published)")
    for axes in panels[:, 0]:
        axes.set_ylabel("tokens per GPU-second")
    drawn = {way for table in tables.values() for way in table.loc[~(table["loss"] > right), "way"]}
    handles = list(_key(drawn))
    key = figure.legend(handles=handles, loc="outside lower center", ncols=len(handles) // _lines(drawn))
    for text in key.get_texts()[:: _lines(drawn)]:
        text.set_fontweight("bold")
    figure.draw_without_rendering()  # names are placed where nothing is drawn, which the layout decides
    for axes, names in zip(panels.flat, named, strict=False):
        _write(axes, names)
    return figure


def _grouped(drawn: set[str]) -> list[tuple[str, list[str]]]:
    """Ways that are drawn, by what becomes of the weights."""
    ways = [way for way in MARKS if way in drawn]
    return [
        (name, list(group)) for name, group in groupby(ways, lambda way: GROUPS.get(change_of(way), change_of(way)))
    ]


def _lines(drawn: set[str]) -> int:
    """Lines of the key: a heading and at most four ways below it."""
    return 1 + min(4, max(len(ways) for _, ways in _grouped(drawn)))


def _key(drawn: set[str]) -> Iterator[Line2D]:
    """Entries of the key column by column, each group under its heading, short columns filled with blanks."""
    height = _lines(drawn) - 1
    for heading, ways in _grouped(drawn):
        for start in range(0, len(ways), height):
            yield Line2D([], [], ls="none", label=heading if not start else " ")
            column = ways[start : start + height]
            for way in column:
                yield Line2D([], [], color=MARKS[way].colour, marker=MARKS[way].marker, mec=BLACK, ls="none", label=way)
            yield from (Line2D([], [], ls="none", label=" ") for _ in range(height - len(column)))


Name = tuple[str, tuple[float, float], str]  # what is written, at which mark, in which colour


def _panel(axes: Axes, table: pd.DataFrame, budgets: Sequence[float], right: float) -> list[Name]:
    """Draw one GPU; names that have to be written once the layout stands, the most telling first."""
    fast = table[table["tokens_per_gpu_s"].notna()]
    drawn = fast[~(fast["loss"] > right)]
    for budget in budgets:
        axes.axvline(budget, color=GREY, lw=0.7, ls=":")
    _steps(axes, drawn.dropna(subset=["loss"]), right)
    for row in drawn.to_dict("records"):
        _mark(axes, row, right)
    axes.axvline(1.04 * right, color=GREY, lw=0.8)
    axes.set(xlim=(LEFT - 0.04 * right, UNKNOWN * right + 0.08 * right))
    if drawn.empty:
        _say_why(axes, table)
    else:
        axes.set_ylim(0, 1.08 * drawn["high"].max())
    marked = [0.0, *budgets, *(right * share for share in (0.4, 0.6, 0.8, 1.0))]
    axes.set_xticks([*marked, UNKNOWN * right], [*(f"{tick:g}" for tick in marked), "?"])
    names = [*_ring(axes, drawn, budgets), *_amounts(drawn)]
    return list(dict.fromkeys(names))


def _say_why(axes: Axes, table: pd.DataFrame) -> None:
    """In place of marks: what keeps each way from having a speed here."""
    reasons = table.loc[table["tokens_per_gpu_s"].isna(), "gap"].unique()
    words = "\n".join(["nothing to draw:", *reasons])
    axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", va="center", backgroundcolor="white")
    axes.set_yticks([])


def _mark(axes: Axes, row: dict[str, Any], right: float) -> None:
    colour, marker, change = MARKS[row["way"]]
    known = not np.isnan(row["loss"])
    x, y = max(row["loss"], LEFT) if known else UNKNOWN * right, row["tokens_per_gpu_s"]
    hollow = known and row["retrained"] is not True and change not in UNTRAINED
    dash = ":" if row["extrapolated"] else "-"
    axes.plot([x, x], [row["low"], row["high"]], dash, color=legible(colour), lw=0.8, alpha=0.6)
    if known:
        axes.plot([row["loss_low"], min(row["loss_high"], right)], [y, y], color=legible(colour), lw=0.8, alpha=0.6)
    face = "lightgrey" if not known else "white" if hollow else colour
    edge = BLACK if known and not hollow else legible(colour)
    axes.plot(x, y, marker, color=edge, mfc=face, ms=4.5, mew=0.5 if edge == BLACK else 0.9)


def _amounts(drawn: pd.DataFrame) -> Iterator[Name]:
    """How many zeros or layers, or which model: at the mark that loses least of each."""
    several = drawn[drawn["way"].isin(SEVERAL)].dropna(subset=["loss"])
    for _, rows in several.groupby(["way", "sparsity", "tokens_per_gpu_s"], dropna=False):
        row = rows.loc[rows["loss"].idxmin()]
        share = f"{100 * row['sparsity']:.0f} %"
        name = {"smaller dense model": row["model"], "layers dropped": f"{share} of layers"}.get(row["way"], share)
        yield name, (max(row["loss"], LEFT), row["tokens_per_gpu_s"]), MARKS[row["way"]].colour


def _write(axes: Axes, names: Sequence[Name]) -> None:
    """Write each name beside its mark, at the first of `PLACES` where it hides nothing, or least."""
    marks = [line for line in axes.lines if line.get_marker() != "None"]
    taken = [_around(axes, np.asarray(line.get_xydata())[0], line.get_markersize() / 2 + 1) for line in marks]
    for text, place, colour in names:
        name = axes.annotate(text, place, (0, 0), textcoords="offset points", fontsize=SMALL, color=legible(colour))
        hidden = [_hidden(_put(name, shift), taken, axes.bbox) for shift in PLACES]
        taken.append(_put(name, PLACES[int(np.argmin(hidden))]))


def _put(name: Annotation, shift: tuple[float, float]) -> Bbox:
    """Move a name beside its mark, the nearer edge ``shift`` points from it; where it is then, in pixels."""
    dx, dy = shift
    name.set(x=dx, y=dy, ha="left" if dx > 0 else "right" if dx < 0 else "center")
    name.set(va="bottom" if dy > 0 else "top" if dy < 0 else "center")
    return name.get_window_extent()


def _hidden(box: Bbox, taken: Sequence[Bbox], within: Bbox) -> float:
    """How much of what is taken a name covers, and of itself lies outside the panel."""
    return sum(_common(box, other) for other in taken) + box.width * box.height - _common(box, within)


def _around(axes: Axes, place: Any, half_pt: float) -> Bbox:
    """What a mark covers, in pixels."""
    centre, half = axes.transData.transform(place), half_pt * axes.figure.dpi / 72
    return Bbox([centre - half, centre + half])


def _common(one: Bbox, other: Bbox) -> float:
    """Area that two boxes share."""
    both = Bbox.intersection(one, other)
    return 0.0 if both is None else float(both.width * both.height)


def _steps(axes: Axes, known: pd.DataFrame, right: float) -> None:
    """The fastest at each loss, as steps."""
    known = known.sort_values("loss")
    if known.empty:
        return
    best = np.maximum.accumulate(known["tokens_per_gpu_s"].to_numpy())
    x = np.append(known["loss"].clip(lower=LEFT).to_numpy(), right)
    axes.step(x, np.append(best, best[-1]), where="post", color=GREY, lw=2.5, alpha=0.3, zorder=0)


def _ring(axes: Axes, fast: pd.DataFrame, budgets: Sequence[float]) -> Iterator[Name]:
    """Around the fastest within each budget; of equally fast ones the one that loses least."""
    for number, budget in enumerate(budgets):
        able = fast[fast["loss"] <= budget].sort_values(["tokens_per_gpu_s", "loss"], ascending=[False, True])
        for row in able.iloc[:1].to_dict("records"):
            place = (max(row["loss"], LEFT), row["tokens_per_gpu_s"])
            axes.plot(*place, "o", ms=9 + 4 * number, mfc="none", mec=BLACK, mew=0.8)
            if row["way"] not in SEVERAL:
                yield row["way"], place, MARKS[row["way"]].colour


def pruning_reach(table: pd.DataFrame, kept: Mapping[str, str]) -> Figure:
    """How far zeros anywhere go in each model, a panel a metric.

    ``table``: ``model, family, metric, retrained, sparsity, low, high, beyond, sources``; hollow in one shot, filled
    retrained, small where one source alone has results, an arrow where the highest sparsity tried still keeps it.
    ``kept``: what counts as kept, by metric.
    """
    models = list(dict.fromkeys(table["model"]))[::-1]
    families = table.drop_duplicates("model").set_index("model")["family"].reindex(models)
    size = (COLUMN, 0.75 + 0.128 * len(models))
    figure, panels = plt.subplots(1, len(kept), figsize=size, sharey=True, squeeze=False)
    for axes, (metric, title) in zip(panels[0], kept.items(), strict=True):
        shown = table[table["metric"] == metric]
        both = shown["model"][shown["model"].duplicated()]
        for row in shown.itertuples():
            apart = 0.2 if (both == row.model).any() else 0.0
            y = models.index(row.model) + (apart if row.retrained else -apart)
            axes.plot([row.low * 100, row.high * 100], [y, y], color=ANYWHERE, lw=0.8, alpha=0.6)
            marker, face = ">" if row.beyond else "o", ANYWHERE if row.retrained else "white"
            axes.plot(
                row.sparsity * 100, y, marker, color=ANYWHERE, mfc=face, mew=0.8, ms=4.6 if row.sources > 1 else 3
            )
        for y, model in enumerate(models):
            if model not in set(shown["model"]):
                axes.text(3, y, "not published", fontsize=SMALL, color=GREY, va="center")
        for border in np.flatnonzero(families.to_numpy()[1:] != families.to_numpy()[:-1]):
            axes.axhline(border + 0.5, color=GREY, lw=0.5)
        axes.set(title=fill(title, 17), xlabel="zeros anywhere [%]", xlim=(0, 100), ylim=(-0.8, len(models) - 0.2))
        axes.set_xticks([0, 50, 100])
        axes.tick_params(axis="y", length=0)
    panels[0][0].set_yticks(range(len(models)), models)
    marks = [
        ("one shot", "o", "white", 4.6), ("retrained", "o", ANYWHERE, 4.6), ("one source", "o", "white", 3),
        ("at least", ">", "white", 4.6),
    ]  # fmt: skip
    handles = [
        Line2D([], [], color=ANYWHERE, marker=mark, mfc=face, ls="none", ms=size, mew=0.8, label=label)
        for label, mark, face, size in marks
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, columnspacing=0.8, handletextpad=0.1)
    return figure


def layer_wise(profiles: pd.DataFrame, compared: pd.DataFrame) -> Figure:
    """Published profiles row by row: zeros by depth, the perplexity they keep, and the time they take.

    ``profiles``: `perfmodel.layer_wise.by_layer`. ``compared``: `perfmodel.layer_wise.compare`. Profiles of a model
    stand together, the sparsest last. Depth is a step a layer above and below the profile's mean. Where no kernel has a
    time, the panel of times says so.
    """
    rows = compared.drop_duplicates("profile").sort_values(["model", "sparsity", "profile"]).reset_index(drop=True)
    levels = sorted(rows["sparsity"].round(2).unique())
    shades = dict(zip(levels, ramp(len(levels)), strict=True))
    figure, (depth, kept, time) = plt.subplots(
        1, 3, figsize=(PAGE, 0.27 * len(rows) + 0.75), sharey=True, width_ratios=(1.2, 1.3, 0.8)
    )
    for y, row in enumerate(rows.itertuples()):
        colour = shades[round(row.sparsity, 2)]
        _profile(depth, profiles.loc[profiles["profile"] == row.profile, "sparsity"], y, row.sparsity, colour)
        _perplexity(kept, row, y, colour)
        change = 100 * (compared["step_layer_wise_s"] / compared["step_uniform_s"] - 1)
        change = change[compared["profile"] == row.profile]
        time.plot(
            [change.min(), change.max()], [y, y], "|-", color=colour, ms=5, mew=1.2, lw=2.5, solid_capstyle="butt"
        )
    kept.set(xscale="log", xlabel="perplexity", title="perplexity kept")
    kept.set_xlim(0.8 * rows["dense"].min(), 1.3 * rows["uniform"].max())
    ticks(kept.xaxis, PERPLEXITIES)
    depth.set(xlabel="depth [%]", title=f"zeros by depth (a row: {2 * HALF:.0f} points)", xlim=(0, 100))
    time.set(xlabel="over uniform [%]", title="time of a step")
    time.axvline(0, color=BLACK, lw=0.6)
    if compared["step_uniform_s"].isna().all():
        time.text(
            0.5, 0.5, "no measured\nkernel", transform=time.transAxes, ha="center", va="center", backgroundcolor="white"
        )
        time.set_xticks([])
    depth.set_yticks(range(len(rows)), rows["profile"])
    depth.set_ylim(len(rows) - 0.4, -0.6)
    for axes in (depth, kept, time):
        axes.tick_params(axis="y", length=0)
    keys = [("dense", "s", BLACK), ("layer-wise", "o", GREY), ("uniform", "o", "white")]
    handles = [
        Line2D([], [], color=GREY, marker=mark, mfc=face, mew=0.9, ls="none", label=name) for name, mark, face in keys
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


HALF = 25.0  # points of sparsity from the middle of a row to its edge


def _profile(axes: Axes, sparsity: pd.Series, y: int, mean: float, colour: str) -> None:
    """Zeros of each layer as steps about their mean, more zeros upwards."""
    height = y - 0.5 * 100 * (sparsity.to_numpy() - mean) / HALF
    edges = np.linspace(0, 100, len(height) + 1)
    axes.stairs(height, edges, baseline=y, fill=True, color=colour, alpha=0.55, lw=0)
    axes.stairs(height, edges, baseline=None, color=colour, lw=0.8)


def _perplexity(axes: Axes, row: Any, y: int, colour: str) -> None:
    """Dense, layer-wise and uniform on one line, or that nobody says."""
    if np.isnan(row.layer_wise):
        axes.annotate(
            "not published", (0.02, y), xycoords=("axes fraction", "data"), fontsize=SMALL, color=GREY, va="center"
        )
        return
    axes.plot([row.layer_wise, row.uniform], [y, y], color=GREY, lw=0.8)
    axes.plot(row.dense, y, "s", color=BLACK)
    axes.plot(row.uniform, y, "o", color=colour, mfc="white", mew=0.9, ms=4.5)
    axes.plot(row.layer_wise, y, "o", color=colour, mew=0.9, ms=4.5)
