"""Figures of quality against speed: the frontier of a model by GPU, how far models can be pruned, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from perfmodel.plotting.style import (
    BLACK,
    BLUE,
    COLUMN_WIDTH,
    GREEN,
    GREY,
    INDIGO,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    WINE,
)

MARKS = {  # colour by what becomes of the weights, mark by way
    "dense": (BLACK, "s"),
    "FP8": (BLUE, "o"),
    "INT8 W8A8": (BLUE, "s"),
    "INT8 weights": (BLUE, "P"),
    "INT4 weights": (BLUE, "^"),
    "NVFP4": (BLUE, "D"),
    "FP6 weights": (BLUE, "p"),
    "FP5 weights": (BLUE, "h"),
    "zeros anywhere": (VERMILION, "o"),
    "4:8": (VERMILION, "d"),
    "2:4": (VERMILION, ">"),
    "6:8": (VERMILION, "<"),
    "2:4 FP8": (PURPLE, ">"),
    "2:4 INT8": (PURPLE, "<"),
    "layers dropped": (ORANGE, "v"),
    "smaller dense model": (GREEN, "s"),
}
UNTRAINED = (BLACK, BLUE, GREEN)  # colours of what nobody trains anew: filled
LOSSES = {"points": "points of accuracy lost", "wikitext2-perplexity": "rise of perplexity on WikiText-2 [%]"}
PROFILE_COLOURS = (VERMILION, BLUE, GREEN, PURPLE, ORANGE, SKY, WINE, INDIGO, BLACK)
LEFT, RIGHT = -1.5, 10.0  # losses drawn
UNKNOWN = 1.12  # of the largest loss drawn: where ways stand of which nobody has published it


_CHANGES = {
    BLACK: "dense",
    BLUE: "rounded",
    VERMILION: "pruned",
    PURPLE: "pruned and rounded",
    ORANGE: "layers dropped",
    GREEN: "smaller",
}


def change_of(way: str) -> str:
    """What becomes of the weights in a way, as `MARKS` colours it."""
    return _CHANGES[MARKS[way][0]]


def frontiers(tables: Mapping[str, pd.DataFrame], budgets: Sequence[float], loss: str, right: float = RIGHT) -> Figure:
    """Tokens per GPU-second against quality lost, a panel a GPU.

    ``tables``: `perfmodel.frontier.frontier` by the panel's title. Filled marks were retrained, or need no training;
    hollow ones are pruned in one shot. Bars: 90 % of the speed over dense, and least to most of the published losses.
    Grey steps: the fastest at each loss. Rings: the fastest within each of ``budgets``. Losses beyond ``right`` are not
    drawn; right of the line stand, in grey, ways of which no loss is published. ``loss`` names the axis.
    """
    rows = (len(tables) + 1) // 2
    figure, panels = plt.subplots(rows, 2, figsize=(COLUMN_WIDTH, 2.7 * rows + 0.6), sharex=True, squeeze=False)
    for axes, (title, table) in zip(panels.flat, tables.items(), strict=False):
        _panel(axes, table, budgets, right)
        axes.set_title(title)
    for axes in panels[-1]:
        axes.set_xlabel(loss)
    for axes in panels[:, 0]:
        axes.set_ylabel("tokens per GPU-second")
    drawn = {way for table in tables.values() for way in table.loc[~(table["loss"] > right), "way"]}
    handles = [
        Line2D([], [], color=colour, marker=mark, ls="none", ms=4.5, label=way)
        for way, (colour, mark) in MARKS.items()
        if way in drawn
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=7.5)
    return figure


def _panel(axes: Axes, table: pd.DataFrame, budgets: Sequence[float], right: float) -> None:
    fast = table[table["tokens_per_gpu_s"].notna()]
    drawn = fast[~(fast["loss"] > right)]
    for budget in budgets:
        axes.axvline(budget, color=GREY, lw=0.7, ls=":")
    _steps(axes, drawn.dropna(subset=["loss"]), right)
    for row in drawn.to_dict("records"):
        _mark(axes, row, right)
    _name(axes, drawn)
    _ring(axes, drawn, budgets)
    axes.axvline(1.04 * right, color=GREY, lw=0.8)
    axes.set(xlim=(LEFT - 0.04 * right, UNKNOWN * right + 0.08 * right), ylim=(0, 1.08 * drawn["high"].max()))
    ticks = [0.0, *budgets, *(right * share for share in (0.4, 0.6, 0.8, 1.0))]
    axes.set_xticks([*ticks, UNKNOWN * right], [*(f"{tick:g}" for tick in ticks), "?"])


def _mark(axes: Axes, row: dict[str, Any], right: float) -> None:
    colour, mark = MARKS[row["way"]]
    known = not np.isnan(row["loss"])
    x, y = max(row["loss"], LEFT) if known else UNKNOWN * right, row["tokens_per_gpu_s"]
    hollow = known and row["retrained"] is not True and colour not in UNTRAINED
    axes.plot([x, x], [row["low"], row["high"]], color=colour, lw=0.8, alpha=0.35)
    if known:
        axes.plot([row["loss_low"], min(row["loss_high"], right)], [y, y], color=colour, lw=0.8, alpha=0.5)
    face = "lightgrey" if not known else "white" if hollow else colour
    axes.plot(x, y, mark, color=colour, mfc=face, ms=4.2, mew=0.9, alpha=0.9)


def _name(axes: Axes, drawn: pd.DataFrame) -> None:
    """How many zeros or layers, or which model: at the mark that loses least of each."""
    several = drawn[drawn["way"].isin(["zeros anywhere", "layers dropped", "smaller dense model"])].dropna(
        subset=["loss"]
    )
    for _, rows in several.groupby(["way", "sparsity", "tokens_per_gpu_s"], dropna=False):
        row = rows.loc[rows["loss"].idxmin()]
        name = row["model"] if row["way"] == "smaller dense model" else f"{row['sparsity']:.0%}"
        place = (max(row["loss"], LEFT), row["tokens_per_gpu_s"])
        axes.annotate(name, place, xytext=(4, 3), textcoords="offset points", fontsize=5.5, color=MARKS[row["way"]][0])


def _steps(axes: Axes, known: pd.DataFrame, right: float) -> None:
    """The fastest at each loss, as steps."""
    known = known.sort_values("loss")
    if known.empty:
        return
    best = np.maximum.accumulate(known["tokens_per_gpu_s"].to_numpy())
    x = np.append(known["loss"].clip(lower=LEFT).to_numpy(), right)
    axes.step(x, np.append(best, best[-1]), where="post", color=GREY, lw=2.5, alpha=0.3, zorder=0)


def _ring(axes: Axes, fast: pd.DataFrame, budgets: Sequence[float]) -> None:
    """Around the fastest within each budget; of equally fast ones the one that loses least."""
    for number, budget in enumerate(budgets):
        able = fast[fast["loss"] <= budget].sort_values(["tokens_per_gpu_s", "loss"], ascending=[False, True])
        for row in able.iloc[:1].to_dict("records"):
            place = (max(row["loss"], LEFT), row["tokens_per_gpu_s"])
            axes.plot(*place, "o", ms=11 + 4 * number, mfc="none", mec=BLACK, mew=0.8)


def pruning_reach(table: pd.DataFrame, kept: Mapping[str, str]) -> Figure:
    """How far zeros anywhere go in each model, a panel a metric.

    ``table``: ``model, family, metric, retrained, sparsity, low, high, beyond, sources``; hollow in one shot, filled
    retrained, small where one source alone has results, an arrow where the highest sparsity tried still keeps it.
    ``kept``: what counts as kept, by metric.
    """
    models = list(dict.fromkeys(table["model"]))[::-1]
    families = table.drop_duplicates("model").set_index("model")["family"].reindex(models)
    size = (COLUMN_WIDTH, 1.0 + 0.17 * len(models))
    figure, panels = plt.subplots(1, len(kept), figsize=size, sharey=True, squeeze=False)
    for axes, (metric, title) in zip(panels[0], kept.items(), strict=True):
        shown = table[table["metric"] == metric]
        for row in shown.itertuples():
            y = models.index(row.model) + (0.12 if row.retrained else -0.12)
            colour = GREEN if row.retrained else VERMILION
            axes.plot([row.low * 100, row.high * 100], [y, y], color=colour, lw=1, alpha=0.6)
            mark, face = ">" if row.beyond else "o", colour if row.retrained else "white"
            axes.plot(row.sparsity * 100, y, mark, color=colour, mfc=face, ms=4.6 if row.sources > 1 else 3)
        for y, model in enumerate(models):
            if model not in set(shown["model"]):
                axes.text(2, y, "not published", fontsize=6.5, color=GREY, va="center")
        for border in np.flatnonzero(families.to_numpy()[1:] != families.to_numpy()[:-1]):
            axes.axhline(border + 0.5, color=GREY, lw=0.8)
        axes.set(title=title, xlabel="zeros anywhere [%]", xlim=(0, 100), ylim=(-0.8, len(models) - 0.2))
    panels[0][0].set_yticks(range(len(models)), models, fontsize=7)
    marks = [
        ("one shot", VERMILION, "o", "white", 4.6),
        ("retrained", GREEN, "o", GREEN, 4.6),
        ("one source alone", GREY, "o", "white", 3),
        ("at least", GREY, ">", GREY, 4.6),
    ]
    handles = [
        Line2D([], [], color=colour, marker=mark, mfc=face, ls="none", ms=size, label=label)
        for label, colour, mark, face, size in marks
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def layer_wise(profiles: pd.DataFrame, compared: pd.DataFrame) -> Figure:
    """Sparsity by depth of published profiles, the perplexity they keep, and the time they take.

    ``profiles``: `perfmodel.layer_wise.by_layer`. ``compared``: `perfmodel.layer_wise.compare`.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(COLUMN_WIDTH, 3.8), width_ratios=(1, 1.25))
    names = profiles["profile"].unique()
    colours = dict(zip(names, PROFILE_COLOURS, strict=False))
    for name, rows in profiles.groupby("profile", sort=False):
        depth = (rows["layer"] + 0.5) / len(rows) * 100
        left.plot(depth, rows["sparsity"] * 100, color=colours[name], lw=1.3, label=name)
    left.set(xlabel="depth [%]", ylabel="zeros in a layer [%]", ylim=(20, 100), title="profiles, by depth")
    known = compared.dropna(subset=["layer_wise"]).drop_duplicates("profile").iloc[::-1]
    for place, row in enumerate(known.itertuples()):
        right.plot([row.layer_wise, row.uniform], [place, place], color=GREY, lw=1)
        right.plot(row.dense, place, "s", color=BLACK, ms=4)
        right.plot(row.uniform, place, "o", color=colours[row.profile], mfc="white", ms=5)
        right.plot(row.layer_wise, place, "o", color=colours[row.profile], ms=5)
        right.text(_right_edge(known), place, _time_words(compared, row.profile), fontsize=6.5, va="center")
    right.set(xscale="log", xlabel="perplexity", title="perplexity and time")
    right.set_xticks([5, 10, 20, 50, 100], ["5", "10", "20", "50", "100"])
    keys = [("dense", "s", BLACK), ("layer-wise", "o", GREY), ("uniform", "o", "white")]
    shapes = [
        Line2D([], [], color=GREY, marker=mark, mfc=face, ls="none", ms=4.5, label=name) for name, mark, face in keys
    ]
    right.legend(handles=shapes, loc="lower left", ncols=3, fontsize=6.5, bbox_to_anchor=(0.0, -0.02))
    right.minorticks_off()
    right.set_xlim(4, _right_edge(known) * 4.5)
    right.set_yticks(range(len(known)), known["profile"], fontsize=7)
    right.set_ylim(-0.6, len(known) - 0.4)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=6.5)
    return figure


def _right_edge(known: pd.DataFrame) -> float:
    """Perplexity right of the last mark."""
    return float(1.25 * known["uniform"].max())


def _time_words(compared: pd.DataFrame, profile: str) -> str:
    rows = compared[compared["profile"] == profile]
    change = 100 * (rows["step_layer_wise_s"] / rows["step_uniform_s"] - 1)
    low, high = change.min().round(1) + 0.0, change.max().round(1) + 0.0  # no minus zero
    return f"time {low:+.1f} to {high:+.1f} %"
