"""Is a table of kernel times what the models may build on?

Pure: a table comes in, what is wrong is named by row and column; `load`, which reads the file, adds its name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from perfmodel.catalog.records import LARGEST_SIZE
from perfmodel.catalog.specs import Activations, Cache, Launch

if TYPE_CHECKING:
    import pandas as pd

KERNEL_TIME_COLUMNS = (
    "gpu", "kernel", "m", "k", "n", "sparsity", "time_us", "time_err_us", "status", "cache", "launch",
    "split_k", "copies", "activations", "source", "note",
)  # fmt: skip
# Columns that a table may lack, or leave empty, and what holds then.
OPTIONAL_COLUMNS = {"cache": "cold", "launch": "stream", "split_k": math.nan, "copies": 1, "activations": "fp16"}
# What a table may tell of each row beside, which no model reads.
TOLD_COLUMNS = ("blocks_per_sm", "clock_mhz", "power_w", "throttle")
NAME_COLUMNS = ("gpu", "kernel", "status", "source")
CHOICES = {"cache": tuple(Cache), "launch": tuple(Launch), "activations": tuple(Activations)}
_SIZES = ("m", "k", "n", "copies")


def checked_kernel_times(table: pd.DataFrame) -> pd.DataFrame:
    """``table`` with its columns in order, the optional ones filled in, and its sizes whole numbers.

    Raises
    ------
    ValueError
        If the columns are not ``KERNEL_TIME_COLUMNS`` (of which `OPTIONAL_COLUMNS` may be missing) and perhaps
        `TOLD_COLUMNS`, which are dropped; a name is empty or no choice there is, a size or time is not positive, or a
        sparsity lies outside [0, 1]; the message names row, column and value. A time may be missing: its kernel failed.
    """
    table = table.assign(**{
        name: table[name].astype(object).where(table[name].notna(), value) if name in table else value
        for name, value in OPTIONAL_COLUMNS.items()
    })  # fmt: skip
    missing = [column for column in KERNEL_TIME_COLUMNS if column not in table]
    unknown = [column for column in table if column not in KERNEL_TIME_COLUMNS + TOLD_COLUMNS]
    if missing or unknown:
        raise ValueError(f"missing columns {missing}, unknown columns {unknown}")
    for column in NAME_COLUMNS:
        _check_names(table, column)
    for column, choices in CHOICES.items():
        _check_choices(table, column, choices)
    for column in _SIZES:
        _check_numbers(
            table, column, lambda size: (size > 0) & (size <= LARGEST_SIZE) & (size % 1 == 0),
            "a positive integer of at most 2**40",
        )  # fmt: skip
    _check_numbers(table, "sparsity", lambda share: (share >= 0) & (share <= 1), "a fraction from 0 to 1")
    _check_numbers(
        table, "time_us", lambda time: time.isna() | ((time > 0) & (time < math.inf)), "a positive time, or empty"
    )
    _check_numbers(
        table, "time_err_us", lambda error: error.isna() | ((error >= 0) & (error < math.inf)), "at least 0, or empty"
    )
    _check_numbers(
        table,
        "split_k",
        lambda ways: ways.isna() | ((ways >= 1) & (ways <= LARGEST_SIZE) & (ways % 1 == 0)),
        "a positive integer of at most 2**40, or empty",
    )
    return table[list(KERNEL_TIME_COLUMNS)].astype(dict.fromkeys(_SIZES, "int64") | {"split_k": "float64"})


def _check_names(table: pd.DataFrame, column: str) -> None:
    wrong = [name for name in table[column].unique() if not (isinstance(name, str) and name.strip())]
    if wrong:
        bad = table[column].isna() | table[column].isin(wrong)
        raise ValueError(f"row {int(bad.to_numpy().argmax()) + 1}: {column} is empty or no text")


def _check_choices(table: pd.DataFrame, column: str, choices: tuple[str, ...]) -> None:
    bad = ~table[column].isin(choices)
    if bad.any():
        row = int(bad.to_numpy().argmax())
        raise ValueError(f"row {row + 1}: {column} is {table[column].iloc[row]}, allowed are {', '.join(choices)}")


def _check_numbers(table: pd.DataFrame, column: str, accepts: Callable[[pd.Series], pd.Series], allowed: str) -> None:
    import pandas as pd

    numbers = pd.to_numeric(table[column], errors="coerce")
    # Text that is no number counts as bad even where a missing value is accepted.
    bad = ~accepts(numbers) | (numbers.isna() & table[column].notna())
    if bad.any():
        row = int(bad.to_numpy().argmax())
        raise ValueError(f"row {row + 1}: {column} is {table[column].iloc[row]}, allowed is {allowed}")
