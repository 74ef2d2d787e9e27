"""Rows of times that are measured in several passes, because a shared machine has slow minutes."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def faster(rows: Sequence[Row], before: Sequence[Row], *, time: str, error: str, same: Sequence[str]) -> list[Row]:
    """``rows``, each replaced by that of an earlier pass where it was faster there.

    In a slow minute a whole pass is slow and its spread small, so the error is at least half the difference of both.

    Parameters
    ----------
    time, error : columns of the time and of its error.
    same : columns that tell what was timed.
    """
    earlier = {_key(row, same): row for row in before}
    return [_faster(row, earlier.get(_key(row, same), row), time, error) for row in rows]


def _key(row: Row, same: Sequence[str]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in same)


def _faster(one: Row, other: Row, time: str, error: str) -> Row:
    best, slower = sorted((one, other), key=lambda row: float(row[time]))
    apart = (float(slower[time]) - float(best[time])) / 2
    return best | {error: round(max(apart, float(best[error])), 4)}


def read_rows(path: Path) -> list[Row]:
    """Rows of a table, as text."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, columns: Sequence[str], rows: Sequence[Row]) -> None:
    """Write the table; a row's missing columns stay empty."""
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
