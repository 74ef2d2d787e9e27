"""Foreign and damaged outputs are refused and kept."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perfmodel.sweep import read_facts, run
from tests.perfmodel.sweep.cases import AXES, plan, small_chunks


def test_foreign_and_damaged_outputs_are_refused_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_chunks(monkeypatch)
    made, out = plan(), tmp_path / "out.parquet"
    pq.write_table(pa.table({"x": [1]}), out)
    foreign = out.read_bytes()
    with pytest.raises(ValueError, match="not written by a sweep"):
        run(made, out)
    with pytest.raises(ValueError, match="not written by a sweep"):
        read_facts(out)
    assert out.read_bytes() == foreign
    out.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(ValueError, match="damaged or no Parquet file"):
        run(made, out)
    out.unlink()
    run(plan(axes=AXES | {"n": [8]}), out)
    with pytest.raises(ValueError, match=r"another sweep: other .*spec"):
        run(made, out)
    facts = read_facts(out)
    table = pq.read_table(out)
    pq.write_table(table.drop_columns(["bound"]), out)
    with pytest.raises(ValueError, match="its sweep wrote"):
        read_facts(out)
    assert "bound" in facts["columns"]
