"""A user's own table of times is checked row by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perfmodel.catalog import read_kernel_times
from perfmodel.catalog.checks import KERNEL_TIME_COLUMNS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"m": 0}, "row 2: m is 0, allowed is a positive integer"),
        ({"n": ""}, "row 2: n is nan, allowed is a positive integer"),
        ({"sparsity": 80}, "row 2: sparsity is 80.0, allowed is a fraction from 0 to 1"),
        ({"time_us": -1}, "row 2: time_us is -1.0, allowed is a positive time, or empty"),
        ({"time_us": "fast"}, "row 2: time_us is fast, allowed is a positive time, or empty"),
        ({"time_us": "nan "}, "row 2: time_us is nan , allowed is a positive time, or empty"),
        ({"time_us": "inf"}, "row 2: time_us is inf, allowed is a positive time, or empty"),
        ({"time_err_us": -1}, "row 2: time_err_us is -1.0, allowed is at least 0, or empty"),
        ({"m": 1e30}, "row 2: m is 1e+30, allowed is a positive integer of at most 2**40"),
        ({"m": 10**26}, f"row 2: m is {10**26}, allowed is a positive integer of at most 2**40"),
        ({"gpu": ""}, "row 2: gpu is empty or no text"),
        ({"kernel": " "}, "row 2: kernel is empty or no text"),
        ({"cache": "hot"}, "row 2: cache is hot, allowed are cold, warm"),
        ({"launch": "grid"}, "row 2: launch is grid, allowed are stream, graph"),
        ({"split_k": 0.5}, "row 2: split_k is 0.5, allowed is a positive integer of at most 2**40, or empty"),
        ({"copies": 0}, "row 2: copies is 0.0, allowed is a positive integer"),
        ({"speed": 1}, "missing columns [], unknown columns ['speed']"),
    ],
)
def test_a_users_own_times_are_checked(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    names = {"gpu": "h200", "kernel": "cublas", "status": "value", "source": "mine"}
    row = dict.fromkeys(KERNEL_TIME_COLUMNS, "") | names | {"m": 64, "k": 64, "n": 8, "sparsity": 0.5, "time_us": 3.5}
    path = tmp_path / "mine.csv"

    def write(*rows: dict[str, Any]) -> None:
        lines = [",".join(rows[-1])] + [",".join(str(row.get(key, "")) for key in rows[-1]) for row in rows]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    write(row, row | {"time_us": ""})
    read = read_kernel_times(path)
    assert read["time_us"].isna().tolist() == [False, True]
    assert read[["cache", "launch", "copies"]].iloc[0].tolist() == ["cold", "stream", 1]
    assert read["split_k"].isna().all()
    write(row | {"power_w": 412, "clock_mhz": ""})
    assert list(read_kernel_times(path)) == list(KERNEL_TIME_COLUMNS)
    write(row, row | change)
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 - the message is compared below, unescaped
        read_kernel_times(path)
    assert f"mine.csv: {message}" in str(refusal.value)
