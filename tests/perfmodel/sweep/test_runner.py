"""Running sweeps: the same bytes each time, whatever stops them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from perfmodel.sweep import read_facts, run
from perfmodel.sweep.store import Store
from perfmodel.sweep.table import chunk_table
from tests.perfmodel.sweep.cases import AXES, plan, small_chunks

ROOT = Path(__file__).resolve().parents[3]


RUNNER = CliRunner()


def test_two_runs_give_the_same_bytes_and_the_file_says_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_chunks(monkeypatch)
    made = plan()
    first, second = tmp_path / "a.parquet", tmp_path / "b.parquet"
    rows = run(made, first, threads=1)
    assert run(made, second, threads=3) == rows
    assert first.read_bytes() == second.read_bytes()
    facts = read_facts(first)
    assert facts["spec"]["axes"]["n"] == AXES["n"]
    assert facts["points"] == made.spec.grid.points
    assert facts["versions"]["numpy"] == np.__version__
    assert len(facts["catalogue"]) == 64
    file = pq.ParquetFile(first)
    assert file.num_row_groups == made.spec.grid.chunks > 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet", "b.parquet"]
    stamp = first.stat().st_mtime_ns
    assert run(made, first) == rows  # complete already: nothing is done again
    assert first.stat().st_mtime_ns == stamp


def test_parts_are_checked_before_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_chunks(monkeypatch)
    made, out = plan(), tmp_path / "out.parquet"
    with Store(out, made) as store:
        for index in (0, 1):
            store.put(index, chunk_table(made, index))
        assert store.missing() == list(range(2, made.spec.grid.chunks))
        with pytest.raises(ValueError, match="chunk 2 is missing"):
            store.finish()
    with pytest.raises(ValueError, match=r"another sweep: other .*spec"), Store(out, plan(axes=AXES | {"n": [8]})):
        pass
    chunk = store.parts / "chunk-00000001.parquet"
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:100])
    with pytest.raises(ValueError, match=r"chunk-00000001.parquet is damaged"):
        run(made, out)
    middle = whole.find(b"\x15", 60)  # inside the pages, so that only their checksum tells
    chunk.write_bytes(whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :])
    with pytest.raises(ValueError, match=r"chunk-00000001.parquet is damaged"):
        run(made, out)
    assert not out.exists()
    chunk.unlink()
    (store.parts / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"notes.txt does not belong to this sweep"):
        run(made, out)
    (store.parts / "notes.txt").unlink()
    run(made, out)
    run(made, tmp_path / "fresh.parquet")
    assert out.read_bytes() == (tmp_path / "fresh.parquet").read_bytes()
