"""Figures of the pipeline simulator: the Gantt picture of a thread block, what is busy, what is waited for."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from perfmodel.plotting.style import BLACK, BLUE, COLUMN_WIDTH, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, YELLOW

ROW_TITLES = {
    "barrier": "barrier",
    "clear": "clear dense A tile",
    "load": "load from memory",
    "read": "shared memory\nto registers",
    "multiply": "Tensor Cores",
    "scatter": "scatter words\ninto A tile",
    "store": "store C",
}
BUFFER_COLOURS = (BLUE, ORANGE, GREEN, PURPLE)
WAIT_COLOURS = {
    "dram": BLUE,
    "l2": SKY,
    "shared-memory": ORANGE,
    "tensor-core": GREEN,
    "instruction-issue": YELLOW,
    "barrier": PURPLE,
    "tail": GREY,
    "reduction": BLACK,
    "launch": VERMILION,
}
SHORT_NAMES = {"load words": "words", "copy B": "B", "load A": "A", "tile complete": "", "A clear": ""}
TITLE_LETTERS = 16  # of a line below a group of bars
NAMED_SHARE = 0.035  # of the picture's width, from which a bar has room for its name


def gantt(table: pd.DataFrame, title: str, steps: tuple[int, int], clock_hz: float) -> Figure:
    """Stages of the blocks that share one SM during a few steps of their main loops.

    Parameters
    ----------
    table : DataFrame
        As `perfmodel.pipeline.timeline.timeline` gives it.
    title : str
        Above the picture.
    steps : (int, int)
        First and last step of the first block to show; its last ones where it has fewer.
    clock_hz : float
        SM clock, for the second time axis.
    """
    first_block = table["block"].min()
    own = table[table["block"] == first_block]
    missing = max(0, steps[1] - int(own["step"].max()))
    window = own[own["step"].between(steps[0] - missing, steps[1] - missing)]
    low, high = window["begin_cycles"].min(), window["end_cycles"].max()
    shown = table[(table["end_cycles"] > low) & (table["begin_cycles"] < high)]
    slots = sorted(shown["slot"].unique())
    rows = [row for row in ROW_TITLES if row in set(shown["row"])]
    figure, panels = plt.subplots(
        len(slots), 1, figsize=(11, 0.6 + len(slots) * (0.5 + 0.36 * len(rows))), sharex=True, squeeze=False
    )
    for axes, slot in zip(panels[:, 0], slots, strict=True):
        _draw_block(axes, shown[shown["slot"] == slot], rows, low, high - low)
        axes.set_ylabel(f"thread block {slot}")
    bottom, top = panels[-1, 0], panels[0, 0]
    bottom.set(xlim=(0, high - low), xlabel=f"SM clock cycles, from cycle {low:,.0f} of the kernel")
    scale = 1e6 / clock_hz
    above = top.secondary_xaxis("top", functions=(lambda c: c * scale, lambda t: t / scale))
    above.set_xlabel("microseconds")
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    buffers = sorted(shown["buffer"].unique())
    handles = [Patch(color=BUFFER_COLOURS[b % 4], label=f"buffer {b}") for b in buffers]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles) + 1)
    return figure


def _draw_block(axes: Axes, table: pd.DataFrame, rows: list[str], origin: float, width: float) -> None:
    heights = {row: len(rows) - 1 - index for index, row in enumerate(rows)}
    for entry in table.itertuples(index=False):
        begin, length = entry.begin_cycles - origin, entry.end_cycles - entry.begin_cycles
        colour = GREY if entry.row == "barrier" else BUFFER_COLOURS[int(entry.buffer) % 4]
        # Two loads of a step overlap in time; half the height each keeps both readable.
        half = 0.38 if entry.row == "load" else 0.76
        shift = 0.19 * (-1 if entry.stage == "copy B" else 1) if entry.row == "load" else 0.0
        y = heights[entry.row] + shift
        axes.barh(y, length, left=begin, height=half, color=colour, edgecolor="white", linewidth=0.5, alpha=0.9)
        middle = (max(begin, 0) + min(begin + length, width)) / 2
        name = SHORT_NAMES.get(entry.stage, entry.stage.replace("ldmatrix", "A, B"))
        if length > NAMED_SHARE * width and name:
            axes.text(middle, y, name, ha="center", va="center", fontsize=6.5, color="white", clip_on=True)
    axes.set_yticks(list(heights.values()), [ROW_TITLES[row] for row in heights], fontsize=7.5)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.grid(axis="y", visible=False)


def busy(table: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """How busy each resource is over the whole run.

    Parameters
    ----------
    table : DataFrame
        As `perfmodel.pipeline.timeline.busy_table` gives it.
    titles : mapping
        Resource -> its name, with the rate that its share is of.
    """
    resources = [name for name in titles if name in table]
    figure, axes = plt.subplots(figsize=(COLUMN_WIDTH, 3.4))
    width = 0.8 / len(table)
    colours = [BLACK, VERMILION, ORANGE, BLUE, GREEN, PURPLE, SKY]
    for index, (_, row) in enumerate(table.iterrows()):
        places = np.arange(len(resources)) + (index - (len(table) - 1) / 2) * width
        shares = [100 * row[name] for name in resources]
        bars = axes.bar(places, shares, width * 0.92, color=colours[index % len(colours)], label=row["case"])
        axes.bar_label(bars, fmt="%.0f", fontsize=7, padding=1)
    axes.set_xticks(range(len(resources)), [fill(titles[name], TITLE_LETTERS) for name in resources], fontsize=7)
    axes.set(ylabel="busy: share of the time [%]", ylim=(0, 105))
    axes.grid(axis="x", visible=False)
    figure.legend(loc="outside lower center", ncols=min(len(table), 3))
    return figure


def waits(table: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """What the critical path waits for, in microseconds, stacked.

    Parameters
    ----------
    table : DataFrame
        As `perfmodel.pipeline.timeline.stall_table` gives it.
    titles : mapping
        What is waited for -> words.
    """
    figure, axes = plt.subplots(figsize=(COLUMN_WIDTH, 1.4 + 0.42 * len(table)))
    left = np.zeros(len(table))
    for wait, colour in WAIT_COLOURS.items():
        part = (table[wait] * table["time_us"]).to_numpy()
        if part.max() > 0:
            axes.barh(table["case"], part, left=left, color=colour, label=titles[wait])
        left += part
    for y, total in enumerate(table["time_us"]):
        axes.text(total, y, f" {total:.0f} us", va="center", fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel="waits of the critical path [us]", xlim=(0, 1.12 * table["time_us"].max()))
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def agreement(table: pd.DataFrame) -> Figure:
    """Simulated over predicted time, one panel per GPU; ``table``: ``gpu, n, sparsity, ratio, within``.

    Framed where the simulated time is outside the prediction's interval.
    """
    gpus = list(dict.fromkeys(table["gpu"]))
    figure, panels = plt.subplots(1, len(gpus), figsize=(COLUMN_WIDTH, 2.7), sharey=True)
    image = None
    for axes, gpu in zip(panels, gpus, strict=True):
        rows = table[table["gpu"] == gpu]
        grid, inside = (rows.pivot_table(index="n", columns="sparsity", values=name) for name in ("ratio", "within"))
        image = axes.imshow(grid, cmap="PuOr", vmin=0.7, vmax=1.3, aspect="auto", origin="lower")
        for (row, column), ratio in np.ndenumerate(grid.to_numpy()):
            colour = "white" if abs(ratio - 1) > 0.2 else "black"
            axes.text(column, row, f"{ratio:.2f}", ha="center", va="center", fontsize=6.2, color=colour)
            if not inside.iloc[row, column]:
                corner = column - 0.45, row - 0.45
                axes.add_patch(Rectangle(corner, 0.9, 0.9, fill=False, edgecolor=BLACK, linewidth=1.6))
        axes.set_xticks(range(grid.shape[1]), [f"{100 * value:.0f}" for value in grid.columns], fontsize=7.5)
        axes.set_yticks(range(grid.shape[0]), grid.index)
        axes.set(title=gpu, xlabel="sparsity [%]")
        axes.grid(visible=False)
    panels[0].set_ylabel("tokens N")
    assert image is not None
    figure.colorbar(image, ax=panels, label="simulated / predicted", shrink=0.9)
    return figure
