"""`lscd e2e --operators`: the operators of a run, one table for its prompts and one for a step of decoding."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lscd.printing import digits, print_table, say
from perfmodel.units import GIGA, MILLI, TERA

if TYPE_CHECKING:
    import pandas as pd

    from perfmodel.serving.systems import System

DIGITS = 5  # of TTFT and TPOT; operators have as many decimals, so that they add up to the eye
NONE = "-"
TOTALS = {"prefill": "TTFT", "decode": "TPOT"}
WHAT = {
    "prefill": "Prefill, until every sequence has its first token",
    "decode": "Decoding, a mean step: a token for every sequence",
}
DRAFTED = " (its share of a pass that checks a draft)"


def operator_table_of(
    asked: tuple[str, str, System], how: dict[str, Any], dense: str | None, unchanged: dict[str, Any]
) -> pd.DataFrame:
    """Operators of model, GPU and system, beside those of the dense system and what it was asked where there is one."""
    from perfmodel.serving.operators import beside, operator_table

    own = operator_table(*asked, **how).astype({"count": float})  # with a draft it is no whole number
    return own if dense is None else beside(own, operator_table(*asked[:2], dense, **unchanged))


def print_operators(table: pd.DataFrame, dense: str | None, *, drafted: bool) -> None:
    """Print both phases, each with a last line that adds up to TTFT or TPOT."""
    for phase, rows in table.groupby("phase", sort=False):
        say("")
        say(f"{WHAT[str(phase)]}{DRAFTED * (drafted and phase == 'decode')}, on one GPU")
        header = ["operator", "count", "GFLOP", "GB", "FLOP/byte", "TFLOP/s", "bound", "ms", "share"]
        header += [] if dense is None else [f"{dense} ms", "times as fast"]
        total = {**_total(rows), "operator": TOTALS[str(phase)]}
        decimals = _decimals(total["time_s"] / MILLI)
        cells = [_cells(row, decimals) for row in (*rows.to_dict("records"), total)]
        print_table(header, cells, text=("operator", "bound"))


def _total(rows: pd.DataFrame) -> dict[str, Any]:
    summed = rows.select_dtypes("number").sum()
    total = {**summed, "count": math.nan, "bound": NONE}
    total |= {"intensity": math.nan, "flops_per_s": summed["flop"] / summed["time_s"]}
    return total | ({"speedup": summed["dense_time_s"] / summed["time_s"]} if "dense_time_s" in summed else {})


def _cells(row: dict[str, Any], decimals: int) -> list[str]:
    counted = (row["flop"] / GIGA, row["bytes"] / GIGA, row["intensity"], row["flops_per_s"] / TERA)
    count = f"{row['count']:.3g}" if row["count"] > 0 else NONE
    cells = [row["operator"], count, *map(_number, counted), str(row["bound"])]
    cells += [f"{row['time_s'] / MILLI:.{decimals}f}", f"{row['share']:.1%}"]
    if "dense_time_s" not in row:
        return cells
    return [*cells, f"{row['dense_time_s'] / MILLI:.{decimals}f}", _number(row["speedup"])]


def _number(value: float) -> str:
    """With three digits; nothing for what is not there."""
    return digits(value) if value > 0 else NONE


def _decimals(total: float) -> int:
    return max(DIGITS - 1 - math.floor(math.log10(total)), 0)
