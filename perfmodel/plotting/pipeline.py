"""Figures of the pipeline simulator: the Gantt picture of a thread block, what is busy, what is waited for."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke

from perfmodel.plotting.marks import outside_cells, outside_key, ramp
from perfmodel.plotting.roofs import RESOURCE_COLOURS
from perfmodel.plotting.style import BLACK, COLUMN, GREY, PAGE

ROW_TITLES = {
    "barrier": "barrier",
    "clear": "clear dense A tile",
    "load": "load from memory",
    "read": "shared memory\nto registers",
    "multiply": "Tensor Cores",
    "scatter": "scatter words\ninto A tile",
    "store": "store C",
}
WAIT_COLOURS = {
    "dram": RESOURCE_COLOURS["memory"],
    "l2": RESOURCE_COLOURS["L2"],
    "shared-memory": RESOURCE_COLOURS["shared memory"],
    "tensor-core": RESOURCE_COLOURS["Tensor Cores"],
    "instruction-issue": RESOURCE_COLOURS["instructions"],
    "barrier": RESOURCE_COLOURS["population counts"],
    "tail": "#B8B8B8",
    "reduction": "#7A7A7A",
    "launch": "#3C3C3C",
}
SHORT_NAMES = {"load words": "words", "copy B": "B", "load A": "A", "tile complete": "", "A clear": ""}
TITLE_LETTERS = 17  # of a line beside a group of bars
LETTER_INCHES, ROOM_INCHES = 0.048, 0.06  # of the letters in bars, and around them
BARS_INCHES = 5.7  # of a page's width, right of the rows' names
GANTT_ROW, BUSY_ROW = 0.25, 0.1  # inches
SHADE_OF_BLACK = 0.55  # luminance above which letters are dark


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
        len(slots), 1, figsize=(PAGE, 0.9 + len(slots) * GANTT_ROW * (0.7 + len(rows))), sharex=True, squeeze=False
    )
    buffers = [int(buffer) for buffer in sorted(shown["buffer"].unique())]
    colours = dict(zip(buffers, ramp(len(buffers)), strict=True))
    for axes, slot in zip(panels[:, 0], slots, strict=True):
        _draw_block(axes, shown[shown["slot"] == slot], rows, colours, (low, high))
        axes.set_ylabel(f"thread block {slot}")
    bottom, top = panels[-1, 0], panels[0, 0]
    bottom.set(xlim=(0, high - low), xlabel=f"SM clock cycles, from cycle {low:,.0f} of the kernel")
    scale = 1e6 / clock_hz
    above = top.secondary_xaxis("top", functions=(lambda c: c * scale, lambda t: t / scale))
    above.set_xlabel("microseconds")
    figure.suptitle(title, x=0.01, ha="left")
    handles = [Patch(color=colour, label=f"buffer {buffer}") for buffer, colour in colours.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def _draw_block(
    axes: Axes, table: pd.DataFrame, rows: list[str], colours: Mapping[int, str], window: tuple[float, float]
) -> None:
    """The bars of one thread block, named where there is room."""
    heights = {row: len(rows) - 1 - index for index, row in enumerate(rows)}
    origin, width = window[0], window[1] - window[0]
    for entry in table.itertuples(index=False):
        begin, end = max(entry.begin_cycles - origin, 0), min(entry.end_cycles - origin, width)
        colour = GREY if entry.row == "barrier" else colours[int(entry.buffer)]
        # Two loads of a step overlap in time; half the height each keeps both readable.
        half = 0.44 if entry.row == "load" else 0.8
        shift = 0.22 * (-1 if entry.stage == "copy B" else 1) if entry.row == "load" else 0.0
        y = heights[entry.row] + shift
        axes.barh(y, end - begin, left=begin, height=half, color=colour, edgecolor="white", linewidth=0.5)
        name = SHORT_NAMES.get(entry.stage, entry.stage.replace("ldmatrix", "A, B"))
        if (end - begin) / width * BARS_INCHES > LETTER_INCHES * len(name) + ROOM_INCHES:
            _letters(axes, (begin + end) / 2, y, name, colour)
    axes.set_yticks(list(heights.values()), [ROW_TITLES[row] for row in heights])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.grid(axis="y", visible=False)


def _letters(axes: Axes, x: float, y: float, words: str, on: str) -> None:
    axes.text(x, y, words, ha="center", va="center_baseline", fontsize=6, color=readable_on(on))


def readable_on(colour: str) -> str:
    """Black on light colours, white on dark ones."""
    luminance = float(np.dot(to_rgb(colour), (0.3, 0.59, 0.11)))
    return BLACK if luminance > SHADE_OF_BLACK else "white"


def busy(table: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """How busy each resource is over the whole run, its cases from light to dark.

    Parameters
    ----------
    table : DataFrame
        As `perfmodel.pipeline.timeline.busy_table` gives it.
    titles : mapping
        Resource -> its name, with the rate that its share is of.
    """
    resources, cases = [name for name in titles if name in table], len(table)
    figure, axes = plt.subplots(figsize=(COLUMN, 0.7 + BUSY_ROW * (cases + 1) * len(resources)))
    height, colours = 1 / (cases + 1), ramp(cases)
    for index, (_, row) in enumerate(table.iterrows()):
        places = np.arange(len(resources)) + (index - (cases - 1) / 2) * height
        shares = [100 * row[name] for name in resources]
        bars = axes.barh(places, shares, height * 0.92, color=colours[index], label=row["case"])
        axes.bar_label(bars, fmt="%.0f", fontsize=6, padding=1.5)
    axes.set_yticks(range(len(resources)), [fill(titles[name], TITLE_LETTERS) for name in resources])
    axes.set(xlabel="busy: share of the time [%]", xlim=(0, 108), ylim=(len(resources) - 0.5, -0.5))
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside lower center", ncols=min(cases, 2))
    return figure


def waits(table: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """What the critical path waits for, in microseconds, stacked; in the longer parts, their share.

    Parameters
    ----------
    table : DataFrame
        As `perfmodel.pipeline.timeline.stall_table` gives it.
    titles : mapping
        What is waited for -> words.
    """
    figure, axes = plt.subplots(figsize=(PAGE, 0.9 + 0.25 * len(table)))
    left, longest = np.zeros(len(table)), 1.12 * table["time_us"].max()
    for wait, colour in WAIT_COLOURS.items():
        part = (table[wait] * table["time_us"]).to_numpy()
        if part.max() > 0:
            axes.barh(table["case"], part, 0.75, left=left, color=colour, edgecolor="white", lw=0.5, label=titles[wait])
        for y, length in enumerate(part):
            if length / longest * BARS_INCHES > 4 * LETTER_INCHES + ROOM_INCHES:
                _letters(axes, left[y] + length / 2, y, f"{table[wait].iloc[y]:.0%}", colour)
        left += part
    for y, total in enumerate(table["time_us"]):
        axes.text(total, y, f" {total:.0f} us", va="center_baseline")
    axes.invert_yaxis()
    axes.set(xlabel="waits of the critical path [us]", xlim=(0, longest))
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def agreement(table: pd.DataFrame) -> Figure:
    """Simulated over predicted time, a panel per GPU; ``table``: ``gpu, n, sparsity, ratio, within, extrapolated``.

    Framed where the simulated time is outside the prediction's interval, hatched where that is an extrapolation.
    """
    gpus = list(dict.fromkeys(table["gpu"]))
    figure, panels = plt.subplots(1, len(gpus), figsize=(PAGE, 1.75), sharey=True, squeeze=False)
    image = None
    for axes, gpu in zip(panels[0], gpus, strict=True):
        image = _ratios(axes, table[table["gpu"] == gpu])
        axes.set(title=gpu, xlabel="sparsity [%]")
    panels[0, 0].set_ylabel("tokens N")
    assert image is not None
    figure.colorbar(image, ax=panels, label="simulated / predicted", pad=0.01, extend="both")
    frame = Patch(facecolor="none", edgecolor=BLACK, lw=1.2, label="outside the 90 % interval")
    figure.legend(handles=[frame, outside_key("prediction outside the evidence")], loc="outside lower center", ncols=2)
    return figure


def _ratios(axes: Axes, rows: pd.DataFrame) -> AxesImage:
    grid, inside, guessed = (
        rows.pivot_table(index="n", columns="sparsity", values=name) for name in ("ratio", "within", "extrapolated")
    )
    image = axes.imshow(grid, cmap="PuOr", vmin=0.7, vmax=1.3, aspect="auto", origin="lower")
    outside_cells(axes, guessed > 0)
    for (row, column), ratio in np.ndenumerate(grid.to_numpy()):
        fill_colour = to_hex(tuple(image.to_rgba(ratio)))
        letters = readable_on(fill_colour)
        halo = [withStroke(linewidth=1.5, foreground=fill_colour)]
        axes.text(column, row, f"{ratio:.2f}", ha="center", va="center", fontsize=6, color=letters, path_effects=halo)
        if not inside.iloc[row, column]:
            corner = column - 0.46, row - 0.46
            axes.add_patch(Rectangle(corner, 0.92, 0.92, fill=False, edgecolor=BLACK, linewidth=1.2))
    axes.set_xticks(range(grid.shape[1]), [f"{100 * value:.0f}" for value in grid.columns])
    axes.set_yticks(range(grid.shape[0]), grid.index)
    axes.grid(visible=False)
    return image
