"""What is left over 2:4 once columns may change places: by sparsity, height of a strip and kind of mask."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from perfmodel.plotting.style import BLACK, BLUE, COLUMN_WIDTH, GREEN, GREY, INDIGO, ORANGE, SKY, VERMILION, WINE

# (rows of a strip, column of the table) -> words, colour, marker
SEARCHES = {
    (32, "left_natural"): ("columns as they stand", GREY, "x"),
    (64, "left_bank"): ("64 rows, bank rule", SKY, "s"),
    (64, "left_any"): ("64 rows, any order", BLUE, "D"),
    (32, "left_bank"): ("32 rows, bank rule", VERMILION, "o"),
    (32, "left_any"): ("32 rows, any order", WINE, "^"),
}
BOUND_COLOURS = {(32, True): VERMILION, (32, False): WINE, (64, True): SKY, (64, False): BLUE}
KINDS = {  # (source, mask) -> words, colour, marker
    ("synthetic", "blocks"): ("blocks of 8 x 8", BLACK, "s"),
    ("MiniLM", "magnitude"): ("MiniLM, by matrix", VERMILION, "o"),
    ("SmolLM2, 4 bits", "magnitude"): ("SmolLM2, by matrix", ORANGE, "D"),
    ("synthetic", "columns"): ("heavy and light columns", GREEN, "v"),
    ("MiniLM", "rows by Wanda"): ("MiniLM, by row, Wanda", INDIGO, "^"),
    ("SmolLM2, 4 bits", "rows by magnitude"): ("SmolLM2, by row", SKY, "P"),
    ("synthetic", "random"): ("random", GREY, "x"),
}


def column_orders(table: pd.DataFrame, bounds: Mapping[tuple[int, bool], float]) -> Figure:
    """Weights left over after the search for random masks, and strips that need tails for all kinds.

    ``table``: that of `lscd.study.orders`; ``bounds``: for rows of a strip, and whether the bank rule holds, the
    sparsity at which one fitting order is to be expected: vertical lines. Markers are counts; lines only join them.
    """
    figure, (left, strips) = plt.subplots(1, 2, figsize=(COLUMN_WIDTH, 3.6))
    random = table[table["mask"] == "random"].sort_values("sparsity")
    for (rows, column), (words, colour, marker) in SEARCHES.items():
        _line(left, random[random["strip_rows"] == rows], column, words, colour, marker)
    for key, sparsity in bounds.items():
        left.axvline(100 * sparsity, color=BOUND_COLOURS[key], ls="--" if key[1] else ":", lw=1)
    left.plot([], [], "k--", lw=1, label="one fitting order expected")
    left.set(title="weights left over, random masks", ylabel="percent of those kept", xlim=(49, 86), ylim=(-0.4, 19.5))
    for (source, mask), (words, colour, marker) in KINDS.items():
        rows = table[(table["source_of_mask"] == source) & (table["mask"] == mask) & (table["strip_rows"] == 32)]
        _line(strips, rows.sort_values("sparsity"), "over_any", words, colour, marker)
    strips.set(title="strips with any, 32 rows", ylabel="percent of strips", xlim=(49, 96), ylim=(-2, 103))
    for axes in (left, strips):
        axes.set_xlabel("sparsity [%]")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, fontsize=6.5)
    return figure


def _line(axes: Axes, rows: pd.DataFrame, column: str, words: str, colour: str, marker: str) -> None:
    axes.plot(100 * rows["sparsity"], 100 * rows[column], marker=marker, ms=3.5, lw=0.9, color=colour, label=words)
