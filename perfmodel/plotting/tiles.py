"""A drawing of one tile in a thread block: what lies where, and which stage follows which."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from perfmodel.plotting.canvas import SMALL_PT, arrow, box, figure_of, raster, sheet, words
from perfmodel.plotting.marks import ramp
from perfmodel.plotting.serving import MEMORY_COLOURS
from perfmodel.plotting.style import BLACK, GREY, PAGE

HEIGHT, BOTTOM = 4.5, 1.55  # inches: of the whole drawing; where the places end, above the order of events
TALL, TOP = 1.5, 3.72  # inches that the rows of a tile take, and where they end
# Left and right ends of what lies in the same memory, with its name.
PLACES = {
    "device memory": (0.1, 1.42),
    "registers": (1.7, 2.68),
    "shared memory": (2.98, 5.4),
    "Tensor Cores": (5.7, 6.9),
}
ROWS = {"registers": 0.9, "buffer 1": 0.53, "buffer 0": 0.16}  # of the order of events, and their heights
BUFFER_COLOURS, ACTIVATIONS = ramp(2), MEMORY_COLOURS["activations"]
FAINT = 0.18  # opacity of what is filled


def tile(table: pd.DataFrame, locations: Sequence[NDArray[np.int64]], tiles: NDArray[np.int64], warps: int) -> Figure:
    """What one thread block holds where while it multiplies tile t and prepares tile t + 1, and in which order.

    Parameters
    ----------
    table : DataFrame
        Indexed by what it is (``words, load, held, A, X, sums, C``): ``rows, columns, bytes``.
    locations : sequence of ndarray of int
        Of tile t and of tile t + 1: place of each word in the dense tile in shared memory, in the order of storage.
    tiles : ndarray of int
        Words of neighbouring tiles along k, of tile t first.
    warps : int
        Of a thread block; each multiplies as many rows.
    """
    axes = sheet(PAGE, HEIGHT)
    for name, (left, right) in PLACES.items():
        box(axes, left, BOTTOM, right - left, HEIGHT - BOTTOM - 0.06, GREY, facecolor="#F6F6F6", linewidth=0, gid=name)
        words(axes, left + 0.06, HEIGHT - 0.18, name, ha="left", weight="bold")
    _device_memory(axes, table, tiles)
    _registers(axes, table, warps)
    _shared_memory(axes, table, locations)
    _tensor_cores(axes, table, warps)
    _paths(axes, table)
    _order(axes)
    return figure_of(axes)


def _size(row: pd.Series) -> str:
    return f"{row['rows']:,} x {row['columns']:,}, {row['bytes']:,} B"


def _note(axes: Axes, x: float, y: float, text: str) -> None:
    """Small words that begin at x, around y."""
    words(axes, x, y, text, ha="left", size=SMALL_PT)


def _device_memory(axes: Axes, table: pd.DataFrame, tiles: NDArray[np.int64]) -> None:
    """Sparse words of a few tiles, each as long as it is, the activations and the result."""
    left, right = PLACES["device memory"]
    x = left + 0.06
    _note(axes, x, HEIGHT - 0.45, f"activations X, a tile\n{_size(table.loc['X'])}")
    _note(axes, x, TOP - 0.1, "weights: sparse words")
    for index, count in enumerate(tiles):
        y, name = TOP - 0.4 - 0.2 * index, "t" + f" + {index}" * (index > 0)
        _note(axes, x, y + 0.065, name)
        colour, width = BUFFER_COLOURS[index % 2], (right - left - 0.52) * count / tiles.max()
        box(axes, left + 0.42, y, width, 0.13, colour, facecolor=colour, gid="words")
    row, load = table.loc["words"], table.loc["load"]
    said = f"t + 1: {row['rows']:,} words,\n{row['bytes']:,} B; a thread\nloads {load['bytes']} B at a time"
    _note(axes, x, TOP - 1.33, said)
    _note(axes, x, BOTTOM + 0.22, f"result C, a tile\n{_size(table.loc['C'])}")


def _registers(axes: Axes, table: pd.DataFrame, warps: int) -> None:
    """Words on their way: loaded one step before they are scattered."""
    left, right = PLACES["registers"]
    row, height = table.loc["held"], TALL / warps
    for warp in range(warps):
        y = TOP - (warp + 1) * height
        _band(axes, left + 0.15, y, right - left - 0.3, height - 0.05, BUFFER_COLOURS[1], f"warp {warp}")
    said = f"{row['rows']} threads\nhold {row['columns']} words:\n{row['bytes']:,} B"
    _note(axes, left + 0.15, TOP - TALL - 0.21, said)


def _band(axes: Axes, x: float, y: float, width: float, height: float, colour: str, text: str) -> None:
    box(axes, x, y, width, height, colour, facecolor=(colour, FAINT), gid="band")
    words(axes, x + width / 2, y + height / 2, text, size=SMALL_PT)


def _shared_memory(axes: Axes, table: pd.DataFrame, locations: Sequence[NDArray[np.int64]]) -> None:
    """The two buffers: one half filled, one complete."""
    left = PLACES["shared memory"][0]
    for buffer, x, name, share in ((1, left + 0.14, "t + 1: half filled", 0.5), (0, left + 1.3, "t: complete", 1.0)):
        filled = locations[buffer][: int(share * len(locations[buffer]))]
        _buffer(axes, table, filled, x, BUFFER_COLOURS[buffer])
        _note(axes, x, TOP + 0.1, name)
    a, b = table.loc["A"], table.loc["X"]
    said = f"A {_size(a)}; X {_size(b)}\ntwo buffers: {2 * (a['bytes'] + b['bytes']):,} B"
    _note(axes, left + 0.14, TOP - TALL - 0.16, said)


def _buffer(axes: Axes, table: pd.DataFrame, filled: NDArray[np.int64], x: float, colour: str) -> None:
    a, b = table.loc["A"], table.loc["X"]
    dense = np.zeros(a["rows"] * a["columns"])
    dense[filled] = 1
    scale = TALL / a["rows"]
    raster(axes, dense.reshape(a["rows"], a["columns"]), x, TOP - TALL, scale, colour)
    width, height, at = scale * b["columns"], scale * b["rows"], x + scale * a["columns"] + 0.06
    box(axes, at, TOP - height, width, height, ACTIVATIONS, facecolor=(ACTIVATIONS, 0.35), gid="X")
    words(axes, at + width / 2, TOP - height / 2, "X", size=SMALL_PT)


def _tensor_cores(axes: Axes, table: pd.DataFrame, warps: int) -> None:
    """Each warp multiplies its rows of A with all of X, and keeps the sums."""
    left = PLACES["Tensor Cores"][0]
    sums = table.loc["sums"]
    rows, scale = sums["rows"] // warps, TALL / sums["rows"]
    for warp in range(warps):
        y, height = TOP - (warp + 1) * scale * rows, scale * rows - 0.05
        said = f"warp {warp}: rows\n{warp * rows} to {(warp + 1) * rows - 1}"
        _band(axes, left + 0.12, y, 0.78, height, BUFFER_COLOURS[0], said)
        box(axes, left + 0.95, y, scale * sums["columns"], height, BLACK, facecolor=(BLACK, 0.25), gid="sums")
    _note(axes, left + 0.12, TOP - TALL - 0.21, f"grey: sums in\nregisters, fp32\n{_size(sums)}")


def _paths(axes: Axes, table: pd.DataFrame) -> None:
    """What moves between the places, by the number of its stage."""
    device, registers, shared, cores = PLACES.values()
    middle, over, under = TOP - TALL / 2, TOP + 0.33, BOTTOM + 0.12
    a, x = (table.loc[name] for name in ("A", "X"))
    x_tile = shared[0] + 0.2 + TALL / a["rows"] * (a["columns"] + x["columns"] / 2)
    for number, start, end in (
        (1, (device[1], TOP - 0.53), (registers[0] + 0.15, TOP - 0.53)),
        (4, (registers[1] - 0.15, middle), (shared[0] + 0.14, middle)),
        (5, (shared[1], middle), (cores[0] + 0.12, middle)),
        (6, (cores[0] + 0.9, under), (device[1] - 0.02, under)),
    ):
        arrow(axes, start, end, linewidth=1.0, mutation_scale=7)
        _number(axes, (start[0] + end[0]) / 2, start[1], number)
    axes.plot([device[1], x_tile], [over, over], color=BLACK, linewidth=1.0)
    arrow(axes, (x_tile, over), (x_tile, TOP), linewidth=1.0, mutation_scale=7)
    _number(axes, (device[1] + registers[0]) / 2, over, 3)
    _note(axes, registers[0] + 0.15, over - 0.12, "cp.async")
    _note(axes, cores[0] + 0.12, over - 0.12, "ldmatrix, mma")
    _note(axes, shared[0] + 1.3, under + 0.1, "after the last tile")


def _number(axes: Axes, x: float, y: float, number: int) -> None:
    """The number of a stage in a disc."""
    look = {"boxstyle": "circle,pad=0.18", "facecolor": BLACK, "edgecolor": "white", "linewidth": 0.8}
    words(axes, x, y, str(number), size=SMALL_PT, color="white", weight="bold", bbox=look)


def _order(axes: Axes) -> None:
    """Which stage follows which in two steps; the buffers change roles, and no width is a time."""
    for name, y in ROWS.items():
        _note(axes, 0.1, y + 0.13, name)
    for step, x in enumerate((0.85, 3.9)):
        first, second, third = (f"t + {later}" if later else "t" for later in range(step, step + 3))
        this, other = f"buffer {step}", f"buffer {1 - step}"
        _stage(axes, x, 1.7, this, f"5 multiply tile {first}", step)
        _stage(axes, x, 1.7, other, f"2 clear A, 3 copy X of {second}", 1 - step)
        _stage(axes, x + 1.8, 1.14, other, f"4 scatter {second}", 1 - step)
        _stage(axes, x, 1.7, "registers", f"words of {second} arrive", 1 - step)
        _stage(axes, x + 1.8, 1.14, "registers", f"1 load {third}", step)
        for at in (x + 1.75, x + 2.99):
            axes.plot([at, at], [0.1, 1.22], color=BLACK, linewidth=1.2)
        words(axes, x + 0.85, 1.32, f"step {first}", size=SMALL_PT, weight="bold")
        words(axes, x + 1.75, 1.32, "barrier", size=SMALL_PT)


def _stage(axes: Axes, x: float, width: float, row: str, text: str, buffer: int) -> None:
    _band(axes, x, ROWS[row], width, 0.26, BUFFER_COLOURS[buffer], text)
