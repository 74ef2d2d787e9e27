"""A drawing of Tiled-CSL: from a matrix to words, their order, and their bytes beside those of other formats."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from perfmodel.plotting.canvas import SMALL_PT, box, figure_of, raster, sheet, words
from perfmodel.plotting.style import BLACK, FORMAT_COLOURS, GREY, PAGE

HEIGHT, MARGIN, RIGHT = 4.72, 0.1, 1.95  # inches: of the drawing, at its side, where what is made of the matrix begins
SIDE, GRID = 1.6, 1.05  # of the matrix, and of the picture of a store
BAR, BARS_LEFT, LONGEST = 0.17, 1.3, 4.2  # inches: height of a bar, where bars begin, length of the longest
COLOUR = FORMAT_COLOURS["tiled-csl"]
# How full the colour of an array is: what it holds of the matrix, where that lies, and what is there for order's sake.
SHADES = {"values": 1.0, "col_idx": 0.45, "places": 0.45, "masks": 0.45}
LEAST = 0.15
NAMED_IN = 0.3  # inches from which a part of a bar has room for its name


def tiled_csl(
    matrix: NDArray[np.bool_],
    tile: tuple[int, int],
    offsets: NDArray[np.int32],
    vectors: pd.DataFrame,
    stores: Mapping[str, NDArray[np.int64]],
    sizes: pd.DataFrame,
) -> Figure:
    """A matrix and what an encoder made of it.

    Parameters
    ----------
    matrix : ndarray of bool
        True where a weight is not zero.
    tile : (int, int)
        Rows and columns of a tile.
    offsets : ndarray of int
        First vector of each tile, as stored.
    vectors : DataFrame
        Some words of the first tile: ``position, vector, row, column, value``.
    stores : mapping
        Title -> the bank that each lane of a warp stores to, lane by lane.
    sizes : DataFrame
        ``format, title, array, bytes`` of the first tile, arrays in the order of drawing.
    """
    axes = sheet(PAGE, HEIGHT)
    _matrix(axes, matrix, tile)
    _offsets(axes, offsets)
    _vectors(axes, vectors)
    said = "A warp stores a word\nof each lane at once.\nLanes that meet in a\nbank take turns."
    _note(axes, MARGIN, 1.58 + GRID / 2, said)
    for index, (title, banks) in enumerate(stores.items()):
        _store(axes, RIGHT + 0.12 + index * (GRID + 1.45), title, banks)
    _bars(axes, sizes)
    return figure_of(axes)


def _note(axes: Axes, x: float, y: float, text: str) -> None:
    words(axes, x, y, text, ha="left", size=SMALL_PT)


def _head(axes: Axes, x: float, y: float, text: str) -> None:
    words(axes, x, y, text, ha="left", weight="bold")


def _matrix(axes: Axes, matrix: NDArray[np.bool_], tile: tuple[int, int]) -> None:
    """The matrix, its tiles numbered as they are stored: row by row."""
    m, k = matrix.shape
    scale, bottom = SIDE / max(m, k), HEIGHT - 0.35 - SIDE
    _head(axes, MARGIN, HEIGHT - 0.15, f"A: {m} x {k}, {np.mean(~matrix):.0%} zeros")
    raster(axes, matrix, MARGIN, bottom, scale, GREY)
    down, across = m // tile[0], k // tile[1]
    height, width = scale * tile[0], scale * tile[1]
    for number in range(down * across):
        x, y = MARGIN + number % across * width, bottom + (down - 1 - number // across) * height
        box(axes, x, y, width, height, BLACK, zorder=4, linewidth=1.6 if number == 0 else 0.6, gid="tile")
        words(axes, x + width / 2, y + height / 2, str(number), bbox={"facecolor": "white", "pad": 1, "linewidth": 0})
    _note(axes, MARGIN, bottom - 0.14, f"tiles of {tile[0]} x {tile[1]}, row by row")


def _offsets(axes: Axes, offsets: NDArray[np.int32]) -> None:
    _head(axes, RIGHT, HEIGHT - 0.15, "tile_offsets: first vector of each tile, and one empty tile at the end")
    width, y = (PAGE - MARGIN - RIGHT) / len(offsets), HEIGHT - 0.5
    for index, offset in enumerate(offsets):
        box(axes, RIGHT + index * width, y, width, 0.2, COLOUR, facecolor=(COLOUR, LEAST), gid="offset")
        words(axes, RIGHT + (index + 0.5) * width, y + 0.1, f"{offset:,}")


def _vectors(axes: Axes, vectors: pd.DataFrame) -> None:
    """Words as boxes of two halves, a vector a line."""
    top = HEIGHT - 0.78
    _head(axes, RIGHT, top, "words of tile 0, four to a vector: place and value, 16 bits each")
    left, width = RIGHT + 0.75, (PAGE - MARGIN - RIGHT - 0.75) / 4
    for line, (vector, rows) in enumerate(vectors.groupby("vector")):
        y = top - 0.38 - 0.27 * line
        _note(axes, RIGHT, y + 0.1, f"vector {vector}")
        for index, word in enumerate(rows.itertuples(index=False)):
            _word(axes, left + index * width, y, width, f"{word.row}, {word.column}", float(word.value))
    _note(axes, RIGHT, y - 0.14, "place, here as row, column; grey: padding, a zero at a free place")


def _word(axes: Axes, x: float, y: float, width: float, place: str, value: float) -> None:
    colour = COLOUR if value else GREY
    box(axes, x, y, 0.55 * width, 0.2, colour, facecolor=(colour, SHADES["places"]), gid="place")
    box(axes, x + 0.55 * width, y, 0.4 * width, 0.2, colour, facecolor=(colour, LEAST), gid="value")
    words(axes, x + 0.275 * width, y + 0.1, place)
    words(axes, x + 0.75 * width, y + 0.1, f"{value:.2f}" if value else "0")


def _store(axes: Axes, x: float, title: str, banks: NDArray[np.int64]) -> None:
    """Which bank each lane stores to, a lane a row; a column of one dot is a bank without conflict."""
    y, cell = 1.68, GRID / len(banks)
    box(axes, x, y, GRID, GRID, GREY)
    axes.scatter(
        x + (banks + 0.5) * cell, y + GRID - (np.arange(len(banks)) + 0.5) * cell, s=4, color=COLOUR, linewidths=0
    )
    _note(axes, x + GRID + 0.07, y + GRID / 2, title)
    words(axes, x + GRID / 2, y - 0.08, "bank", size=SMALL_PT)
    words(axes, x - 0.08, y + GRID / 2, "lane", size=SMALL_PT, rotation=90)


def _bars(axes: Axes, sizes: pd.DataFrame) -> None:
    """Bytes of the first tile, a bar a format; what is too small for its name is named behind the bar."""
    top = 1.36
    _head(axes, MARGIN, top, "bytes of tile 0 in each format, array by array")
    scale = LONGEST / sizes.groupby("title")["bytes"].sum().max()
    for line, (title, rows) in enumerate(sizes.groupby("title", sort=False)):
        y, x, small = top - 0.34 - 0.235 * line, BARS_LEFT, []
        _note(axes, MARGIN, y + BAR / 2, str(title))
        colour = FORMAT_COLOURS[rows["format"].iloc[0]]
        for row in rows.itertuples(index=False):
            width = scale * row.bytes
            _part(axes, x, y, width, colour, str(row.array), int(row.bytes))
            x += width
            small += [f"{row.array} {row.bytes:,}"] * bool(width < NAMED_IN)
        rest = f" with {', '.join(small)}" if small else ""
        _note(axes, x + 0.06, y + BAR / 2, f"{rows['bytes'].sum():,} B{rest}")


def _part(axes: Axes, x: float, y: float, width: float, colour: str, name: str, size: int) -> None:
    shade = SHADES.get(name, LEAST)
    box(axes, x, y, width, BAR, colour, facecolor=(colour, shade), gid="array")
    if width >= NAMED_IN:
        text = f"{name} {size:,}" if width > 0.75 else name
        ink = "white" if shade == 1 and _dark(colour) else BLACK
        words(axes, x + width / 2, y + BAR / 2, text, size=SMALL_PT, color=ink)


def _dark(colour: str) -> bool:
    """Whether white words on it are read more easily than black ones."""
    return float(np.dot(to_rgb(colour), (0.3, 0.59, 0.11))) < 0.5
