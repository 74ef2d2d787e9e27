"""The leaderboard as readers see it: which comparisons are shown, and a line of words for each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from perfmodel.catalog import load_gpu
from perfmodel.evidence.leaderboard import DECIMALS, SHAPES, over_tokens, winners
from perfmodel.formats import check_sparsity

if TYPE_CHECKING:
    import pandas as pd

LEVELS = (0.0, 0.5, 0.7, 0.9)  # sparsities that are shown unless others are asked for
SHAPE_WORDS = "; ".join(f"{name}: {words}" for name, words in SHAPES.items())


def chosen(
    table: pd.DataFrame, gpus: Sequence[str] = (), sparsities: Sequence[float] = (), tokens: Sequence[int] = ()
) -> pd.DataFrame:
    """Rows of `leaderboard` on these GPUs, at these sparsities and N; all where none are named.

    Raises
    ------
    ValueError
        If a GPU is unknown or a sparsity no fraction; names it.
    """
    keys = [load_gpu(name).key for name in gpus]
    shares = [round(float(check_sparsity(value)), DECIMALS) for value in sparsities]
    asked: dict[str, Sequence[object]] = {"gpu": keys, "sparsity": shares, "n": tokens}
    for column, values in asked.items():
        table = table[table[column].isin(values)] if len(values) else table
    return table


def in_words(table: pd.DataFrame) -> pd.DataFrame:
    """Lines of `leaderboard`'s table for readers, neighbouring N joined; every cell a text."""
    import pandas as pd

    lines = [
        {
            "GPU": row.gpu,
            "shapes": row.shapes,
            "sparsity": f"{row.sparsity:.2f}",
            "N": _range(f"{row.n_from}", f"{row.n_to}"),
            "fastest": " = ".join(row.fastest),
            "x dense": _range(f"{row.speedup_from:.2f}", f"{row.speedup_to:.2f}"),
            "next": row.next or "-",
            "slower by": "-"
            if math.isnan(row.behind_from)
            else _range(f"{row.behind_from:.0%}", f"{row.behind_to:.0%}"),
            "products": str(row.products),
            "source": row.source,
            "called": called(row),
            "dense": row.dense,
        }
        for row in over_tokens(winners(table)).itertuples()
    ]
    return pd.DataFrame(lines)


def _range(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


def called(row: Any) -> str:
    """How a comparison's kernels were called, in words."""
    return f"{row.cache}, {row.launch}" + (f", {row.copies} copies" if row.copies > 1 else "")
