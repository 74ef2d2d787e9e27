"""What is left over 2:4 once columns may change places: by sparsity, height of a strip and kind of mask."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from perfmodel.plotting.marks import ramp
from perfmodel.plotting.style import BLACK, GREY, IRIS, PAGE, TAN

SHORT, TALL = ramp(2)  # strips of 32 rows and of 64
# (rows of a strip, column of the table) -> words, colour, marker; from the most left over to the least
SEARCHES = {
    (32, "left_natural"): ("columns as they stand", GREY, "x"),
    (64, "left_bank"): ("64 rows, bank rule", TALL, "o"),
    (64, "left_any"): ("64 rows, any order", TALL, "D"),
    (32, "left_bank"): ("32 rows, bank rule", SHORT, "o"),
    (32, "left_any"): ("32 rows, any order", SHORT, "D"),
}
BOUND_COLOURS = {32: SHORT, 64: TALL}
KINDS = {  # (source, mask) -> words, colour, marker; hollow: pruned by rows
    ("MiniLM", "magnitude"): ("MiniLM, by matrix", IRIS, "o"),
    ("SmolLM2, 4 bits", "magnitude"): ("SmolLM2, by matrix", TAN, "D"),
    ("synthetic", "blocks"): ("blocks of 8 x 8", BLACK, "s"),
    ("synthetic", "random"): ("random", GREY, "x"),
    ("SmolLM2, 4 bits", "rows by magnitude"): ("SmolLM2, by row", TAN, "D"),
    ("MiniLM", "rows by Wanda"): ("MiniLM, by row, Wanda", IRIS, "o"),
    ("synthetic", "columns"): ("heavy and light columns", BLACK, "v"),
}


def column_orders(table: pd.DataFrame, bounds: Mapping[tuple[int, bool], float]) -> Figure:
    """Weights left over after the search for random masks, and strips that need tails for all kinds.

    ``table``: that of `lscd.study.orders`; ``bounds``: for rows of a strip, and whether the bank rule holds, the
    sparsity at which one fitting order is to be expected: vertical lines. Markers are counts; lines only join them.
    """
    figure, (left, strips) = plt.subplots(1, 2, figsize=(PAGE, 2.3))
    random = table[table["mask"] == "random"].sort_values("sparsity")
    for (rows, column), look in SEARCHES.items():
        _line(left, random[random["strip_rows"] == rows], column, *look)
    for (rows, bank_rule), sparsity in bounds.items():
        left.axvline(100 * sparsity, color=BOUND_COLOURS[rows], ls="--" if bank_rule else ":", lw=0.9, ymax=0.42)
    left.plot([], [], color=GREY, ls="--", lw=0.9, label="one order expected, bank rule")
    left.plot([], [], color=GREY, ls=":", lw=0.9, label="one order expected, any order")
    left.set(title="weights left over, random masks", ylabel="percent of those kept", xlim=(49, 86), ylim=(-0.6, 28))
    of_strips = table[table["strip_rows"] == 32].sort_values("sparsity")
    for (source, mask), look in KINDS.items():
        rows = of_strips[(of_strips["source_of_mask"] == source) & (of_strips["mask"] == mask)]
        _line(strips, rows, "over_any", *look, hollow="row" in mask)
    strips.set(title="strips with any left over, 32 rows", ylabel="percent of strips", xlim=(49, 97), ylim=(-2, 103))
    for axes in (left, strips):
        axes.set_xlabel("sparsity [%]")
        axes.legend(loc="upper right")
    return figure


def _line(
    axes: Axes, rows: pd.DataFrame, column: str, words: str, colour: str, marker: str, *, hollow: bool = False
) -> None:
    face = "white" if hollow else colour
    axes.plot(
        100 * rows["sparsity"], 100 * rows[column], marker=marker, ms=3, mew=0.8, mfc=face, lw=0.7, color=colour,
        label=words,
    )  # fmt: skip
