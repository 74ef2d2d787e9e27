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
UNKNOWN = 11.2  # where ways stand of which nobody has published the loss


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


def frontiers(tables: Mapping[str, pd.DataFrame], budgets: Sequence[float], loss: str) -> Figure:
    """Tokens per GPU-second against quality lost, a panel a GPU.

    ``tables``: `perfmodel.frontier.frontier` by the panel's title. Filled marks were retrained, or need no training;
    hollow ones are pruned in one shot. Bars: 90 % of the speed over dense, and least to most of the published losses.
    Grey steps: the fastest at each loss. Rings: the fastest within each of ``budgets``. Right of the line stand ways of
    which no loss is published. ``loss`` names the axis.
    """
    rows = (len(tables) + 1) // 2
    figure, panels = plt.subplots(rows, 2, figsize=(COLUMN_WIDTH, 2.7 * rows + 0.6), sharex=True, squeeze=False)
    for axes, (title, table) in zip(panels.flat, tables.items(), strict=False):
        _panel(axes, table, budgets)
        axes.set_title(title)
    for axes in panels[-1]:
        axes.set_xlabel(loss)
    for axes in panels[:, 0]:
        axes.set_ylabel("tokens per GPU-second")
    shown = {way for table in tables.values() for way in table.loc[table["tokens_per_gpu_s"].notna(), "way"]}
    handles = [
        Line2D([], [], color=colour, marker=mark, ls="none", ms=4.5, label=way)
        for way, (colour, mark) in MARKS.items()
        if way in shown
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=7.5)
    return figure


def _panel(axes: Axes, table: pd.DataFrame, budgets: Sequence[float]) -> None:
    fast = table[table["tokens_per_gpu_s"].notna()]
    for budget in budgets:
        axes.axvline(budget, color=GREY, lw=0.7, ls=":")
    _steps(axes, fast.dropna(subset=["loss"]))
    for row in fast.to_dict("records"):
        if np.isnan(row["loss"]):
            _mark(axes, row, UNKNOWN)
        elif row["loss"] <= RIGHT:
            _mark(axes, row, max(row["loss"], LEFT))
    _ring(axes, fast, budgets)
    axes.axvline(RIGHT + 0.4, color=GREY, lw=0.8)
    axes.set(xlim=(LEFT - 0.4, UNKNOWN + 0.8), ylim=(0, 1.08 * fast.loc[~(fast["loss"] > RIGHT), "high"].max()))
    axes.set_xticks([0, 1, 2, 4, 6, 8, 10, UNKNOWN], ["0", "1", "2", "4", "6", "8", "10", "?"])


def _mark(axes: Axes, row: dict[str, Any], x: float) -> None:
    colour, mark = MARKS[row["way"]]
    known = not np.isnan(row["loss"])
    hollow = not known or (row["retrained"] is not True and colour not in UNTRAINED)
    y = row["tokens_per_gpu_s"]
    axes.plot([x, x], [row["low"], row["high"]], color=colour, lw=0.8, alpha=0.35)
    if known:
        axes.plot([row["loss_low"], min(row["loss_high"], RIGHT)], [y, y], color=colour, lw=0.8, alpha=0.5)
    axes.plot(x, y, mark, color=colour, mfc="white" if hollow else colour, ms=4.2, mew=0.9, alpha=0.9)


def _steps(axes: Axes, known: pd.DataFrame) -> None:
    """The fastest at each loss, as steps."""
    known = known[known["loss"] <= RIGHT].sort_values("loss")
    if known.empty:
        return
    best = np.maximum.accumulate(known["tokens_per_gpu_s"].to_numpy())
    x = np.append(known["loss"].clip(lower=LEFT).to_numpy(), RIGHT)
    axes.step(x, np.append(best, best[-1]), where="post", color=GREY, lw=2.5, alpha=0.3, zorder=0)


def _ring(axes: Axes, fast: pd.DataFrame, budgets: Sequence[float]) -> None:
    for number, budget in enumerate(budgets):
        able = fast[fast["loss"] <= budget]
        if able.empty:
            continue
        row = able.loc[able["tokens_per_gpu_s"].idxmax()]
        axes.plot(
            max(row["loss"], LEFT), row["tokens_per_gpu_s"], "o", ms=11 + 4 * number, mfc="none", mec=BLACK, mew=0.8
        )


def pruning_reach(table: pd.DataFrame, kept: Mapping[str, str]) -> Figure:
    """How far zeros anywhere go in each model, a panel a metric.

    ``table``: ``model, metric, retrained, sparsity, low, high, beyond``; hollow in one shot, filled retrained, an arrow
    where the highest sparsity tried still keeps it. ``kept``: what counts as kept, by metric.
    """
    models = list(dict.fromkeys(table["model"]))[::-1]
    size = (COLUMN_WIDTH, 1.0 + 0.17 * len(models))
    figure, panels = plt.subplots(1, len(kept), figsize=size, sharey=True, squeeze=False)
    for axes, (metric, title) in zip(panels[0], kept.items(), strict=True):
        shown = table[table["metric"] == metric]
        for row in shown.itertuples():
            y = models.index(row.model) + (0.18 if row.retrained else -0.18)
            colour = GREEN if row.retrained else VERMILION
            axes.plot([row.low * 100, row.high * 100], [y, y], color=colour, lw=1, alpha=0.6)
            mark = ">" if row.beyond else "o"
            axes.plot(row.sparsity * 100, y, mark, color=colour, mfc=colour if row.retrained else "white", ms=4)
        for y, model in enumerate(models):
            if model not in set(shown["model"]):
                axes.text(2, y, "nothing published", fontsize=6.5, color=GREY, va="center")
        axes.set(title=title, xlabel="zeros anywhere [%]", xlim=(0, 100), ylim=(-0.8, len(models) - 0.2))
    panels[0][0].set_yticks(range(len(models)), models, fontsize=7)
    marks = [("one shot", VERMILION, "o", "white"), ("retrained", GREEN, "o", GREEN), ("at least", GREY, ">", GREY)]
    handles = [
        Line2D([], [], color=colour, marker=mark, mfc=face, ls="none", ms=4, label=label)
        for label, colour, mark, face in marks
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
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
    right.set(xscale="log", xlabel="perplexity", title="dense, layer-wise, uniform")
    right.set_xticks([5, 10, 20, 50, 100], ["5", "10", "20", "50", "100"])
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
