"""Rows of CPU kernels: the products that were announced, on as many threads as were asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kernels_numba.bench import cpu, cpu_times
from kernels_numba.bench.cpu_times import COLUMNS, DENSE, PRODUCT, Grid, main, measured, products, time_grid
from kernels_numba.bench.passes import read_rows
from kernels_numba.bench.threads import lines_of

SMALL = Grid(((64, 96),), (0.5, 0.9), (1, 5), 1)


def test_what_is_timed_is_what_was_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels that read zeros too once, at no sparsity."""
    monkeypatch.setattr(cpu, "STEADY_S", 0.0001)
    announced, rows = list(products(SMALL)), list(time_grid(SMALL))
    size = ("kernel", "m", "k", "n", "sparsity")
    assert [{name: row[name] for name in size} for row in rows] == announced
    assert len({tuple(row.values()) for row in announced}) == len(announced)
    assert {row["sparsity"] for row in announced if row["kernel"] in DENSE} == {0.0}
    assert {(row["n"], row["sparsity"]) for row in announced if row["kernel"] == "cpu-bitmap"} == {
        (n, zeros) for n in (1, 5) for zeros in (0.5, 0.9)
    }
    assert all(row["time_us"] > 0 and row["time_err_us"] >= 0 for row in rows)


def test_two_passes_are_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(threads: int, grid: Grid) -> Iterator[dict[str, Any]]:
        yield next(products(SMALL)) | {"time_us": times.pop(), "time_err_us": 0.5}

    times = [3.0, 7.0]
    monkeypatch.setattr(cpu_times, "measured", fake)
    file = tmp_path / "rows.csv"
    words = ["--output", str(file), "--gpu", "here", "--source", "mine", "--threads", "1"]
    assert (main(words), main([*words, "--again"])) == (0, 0)
    (row,) = read_rows(file)
    assert tuple(row) == COLUMNS
    assert (row["gpu"], row["time_us"], row["time_err_us"], row["cache"]) == ("here@1", "3.0", "2.0", "warm")
    assert row["status"] == "rough", "an error of 67 %"
    assert list(tmp_path.iterdir()) == [file]


def test_another_process_times_the_grid_that_it_is_given() -> None:
    tiny = Grid(((32, 48),), (0.5,), (2,), 1)
    rows = list(measured(1, tiny))
    assert [{name: row[name] for name in PRODUCT} for row in rows] == list(products(tiny))


def test_a_process_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match=r"measuring with 1 threads failed: .*unrecognized arguments: --nonsense"):
        list(lines_of("kernels_numba.bench.cpu_times", 1, "--nonsense"))
