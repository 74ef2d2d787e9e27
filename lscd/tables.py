"""CSV in, CSV out: rows checked before any work starts, errors that name the line."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from lscd.errors import InputError, note
from lscd.files import refuse_inputs
from perfmodel.catalog.records import LARGEST_SIZE

if TYPE_CHECKING:
    import pandas as pd

HEADER_LINES = 1
MISSPELT = 0.8  # similarity from which a column was meant to be another


@dataclass(frozen=True)
class Column:
    """A number column: its allowed range, whether it must be whole, and whether a cell may be empty."""

    low: float
    high: float
    whole: bool = False
    empty: bool = False

    def describe(self) -> str:
        """Allowed values in words."""
        kind = "a whole number" if self.whole else "a number"
        if self.high == LARGEST_SIZE:
            return f"{kind} of at least {self.low:g} (at most 2**40)"
        return f"{kind} in [{self.low:g}, {self.high:g}]"


SIZE = Column(1, LARGEST_SIZE, whole=True)
FRACTION = Column(0, 1)
SIZE_OR_EMPTY = Column(1, LARGEST_SIZE, whole=True, empty=True)
CACHE_BITS = Column(2, 16, empty=True)


def read_rows(
    files: tuple[Path, Path],
    numbers: Mapping[str, Column],
    names: Mapping[str, Callable[[str], object]],
    optional: Mapping[str, Column] | None = None,
    choices: Mapping[str, tuple[str, ...]] | None = None,
) -> pd.DataFrame:
    """Read a CSV whose columns are all of ``numbers`` and ``names``; further columns are kept, and named on stderr.

    Parameters
    ----------
    files : tuple of Path
        The file, whose first line holds the column names, and the one to be written, which no cell may name.
    numbers : mapping
        Number columns and what they allow.
    names : mapping
        Text columns and a function that raises `ValueError` for an unknown name.
    optional : mapping, optional
        Number columns that may be missing.
    choices : mapping, optional
        Text columns that may be missing, and what they may hold; an empty cell holds the first.

    Raises
    ------
    InputError
        Missing columns, a further column that reads like a misspelt one of ours and would be ignored, or the first
        broken row: file, line, column, value and what is allowed.
    """
    import pandas as pd

    path, target = files
    header, rows = _read_text(path)
    table = pd.DataFrame(rows, columns=header, dtype=object)
    missing = [column for column in (*names, *numbers) if column not in table]
    if missing:
        raise InputError(f"{path}: missing column{'s' * (len(missing) > 1)} {', '.join(missing)}")
    optional, choices = optional or {}, choices or {}
    known = {*names, *numbers, *optional, *choices}
    _refuse_misspelt(path, header, known)
    if table.empty:
        raise InputError(f"{path}: no rows below the header")
    for column, check in names.items():
        _check_names(path, table[column], check)
    for column, rule in {**numbers, **{name: rule for name, rule in optional.items() if name in table}}.items():
        table[column] = _to_numbers(path, table[column], rule)
    for column in set(choices) & set(header):
        table[column] = _to_choices(path, table[column], choices[column])
    refuse_inputs({"--output": target}, (value for column in names for value in table[column].unique()))
    if unread := [column for column in header if column not in known]:
        note(f"{path}: column{'s' * (len(unread) > 1)} {', '.join(unread)} kept as given, not read")
    return table


def beside(rows: pd.DataFrame, results: pd.DataFrame) -> pd.DataFrame:
    """``rows`` with ``results`` beside them, which replace columns of the same names."""
    import pandas as pd

    replaced = [name for name in results.columns if name in rows]
    return pd.concat([rows.drop(columns=replaced), results], axis=1)


def _to_choices(path: Path, values: pd.Series, allowed: tuple[str, ...]) -> pd.Series:
    chosen = values.replace("", allowed[0])
    good = chosen.isin(allowed)
    _refuse_others(path, values, good, f"are {', '.join(filter(None, allowed))}")
    return chosen


def _refuse_misspelt(path: Path, header: list[str], known: set[str]) -> None:
    for column in header:
        near = get_close_matches(column.lower(), known, n=1, cutoff=MISSPELT)
        if column not in known and near:
            raise InputError(f"{path}: unknown column {column!r}: did you mean {near[0]}? Rename it if it is your own")


def _read_text(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a CSV, all of one length; empty lines are allowed at the end only."""
    from perfmodel.catalog.files import text_of

    try:
        lines = [
            [cell.strip() for cell in line] for line in csv.reader(StringIO(text_of(path), newline=""), strict=True)
        ]
    except csv.Error as error:
        raise InputError(f"{path}: not a CSV: {error}") from None
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise InputError(f"{path}: the file is empty; the first line must name the columns")
    header, *rows = lines
    twice = {name for name in header if header.count(name) > 1}
    if twice:
        raise InputError(f"{path}: column {', '.join(sorted(twice))} stands twice")
    for row, cells in enumerate(rows):
        if len(cells) != len(header):
            raise InputError(f"{path}: line {_line(row)} has {len(cells)} fields, the header has {len(header)}")
    return header, rows


def _line(row: int) -> int:
    return row + HEADER_LINES + 1


def _check_names(path: Path, values: pd.Series, check: Callable[[str], object]) -> None:
    for value in values.unique():
        try:
            if not value:
                raise ValueError(f"{values.name} is empty")
            check(value)
        except ValueError as error:
            row = int((values == value).to_numpy().argmax())
            raise InputError(f"{path}: line {_line(row)}: {error}") from None


def _refuse_others(path: Path, values: pd.Series, good: pd.Series, allowed: str) -> None:
    """Refuse the first value that is not ``good``, with its line."""
    if not good.all():
        row = int((~good).to_numpy().argmax())
        raise InputError(f"{path}: line {_line(row)}: {values.name} is {values.iloc[row]!r}, allowed {allowed}")


def _to_numbers(path: Path, values: pd.Series, rule: Column) -> pd.Series:
    import pandas as pd

    numbers = pd.to_numeric(values, errors="coerce")
    good = (numbers >= rule.low) & (numbers <= rule.high) & (numbers < float("inf"))
    if rule.whole:
        good &= numbers % 1 == 0
    if rule.empty:
        good |= values == ""
    _refuse_others(path, values, good, f"is {rule.describe()}")
    return numbers.astype("int64" if rule.whole and not rule.empty else "float64")
