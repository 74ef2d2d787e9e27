"""Of two passes the faster, with an error that knows of the other; tables that come back as they were."""

from __future__ import annotations

from pathlib import Path

from kernels_numba.bench.passes import faster, read_rows, write_rows

COLUMNS = ("name", "ms", "error", "note")


def test_the_faster_of_two_passes_counts(tmp_path: Path) -> None:
    now = [
        {"name": "a", "ms": 1.0, "error": 0.01},
        {"name": "b", "ms": 3.0, "error": 0.1},
        {"name": "c", "ms": 5.0, "error": 0.2},
    ]
    write_rows(
        tmp_path / "x.csv", COLUMNS, [{"name": "b", "ms": 2.0, "error": 0.7}, {"name": "a", "ms": 1.1, "error": 0.3}]
    )
    before = read_rows(tmp_path / "x.csv")
    assert before[0] == {"name": "b", "ms": "2.0", "error": "0.7", "note": ""}
    found = {
        row["name"]: (float(row["ms"]), row["error"])
        for row in faster(now, before, time="ms", error="error", same=("name",))
    }
    assert found == {"a": (1.0, 0.05), "b": (2.0, 0.7), "c": (5.0, 0.2)}
