"""Foreign, hostile and damaged files are refused and kept; two processes never write the same sweep."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.sweep import Plan, read_facts, run
from perfmodel.sweep.seal import SealedSink
from perfmodel.sweep.store import Store, opened_results
from perfmodel.sweep.table import METADATA_KEY, chunk_table
from tests.perfmodel.sweep.cases import AXES, plan, small_chunks

DEEP = b"[" * 100_000


def sealed(path: Path, table: pa.Table, identity: bytes | None, role: str = "whole") -> None:
    """Parquet file with a right seal, that says what it wants of its sweep."""
    metadata = {} if identity is None else {METADATA_KEY: identity}
    with SealedSink(path, role) as sink:
        pq.write_table(table.replace_schema_metadata(metadata), sink)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


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
    for nothing in (b"", b"PAR1", b"PAR1 and then nothing", b"\xff" * 100, b"\0\0\0\0PAR1" * 20):
        out.write_bytes(nothing)
        with pytest.raises(ValueError, match="is damaged, or was not written by a sweep"):
            run(made, out)
    out.unlink()
    run(plan(axes=AXES | {"n": [8]}), out)
    with pytest.raises(ValueError, match=r"another sweep: other .*spec"):
        run(made, out)
    table = pq.read_table(out)
    sealed(out, table.drop_columns(["bound"]), table.schema.metadata[METADATA_KEY])
    with pytest.raises(ValueError, match="its sweep wrote"):
        read_facts(out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.parquet"]


WRONG_FACTS = [b"", b"[]", b"3", b"null", b"{}", b'"x"', b"\xff\xfe", DEEP, b'{"spec": ' + b'{"a":' * 50_000, b"1e999"]


@pytest.mark.parametrize("facts", WRONG_FACTS, ids=lambda facts: repr(facts[:12]))
def test_hostile_facts_are_refused_wherever_they_stand(tmp_path: Path, facts: bytes) -> None:
    made, out = plan(axes=AXES | {"kernel": "cublas"}), tmp_path / "out.parquet"
    sealed(out, pa.table({"x": [1]}), facts)
    for use in (lambda: read_facts(out), lambda: run(made, out)):
        with pytest.raises(ValueError, match=r"out\.parquet (was not written by|is damaged or not of) a sweep"):
            use()
    out.unlink()
    parts = tmp_path / "out.parquet.parts"
    parts.mkdir()
    (parts / "plan.json").write_bytes(facts)
    with pytest.raises(ValueError, match=r"plan\.json is damaged or not of a sweep"):
        run(made, out)
    assert list(contents(tmp_path)) == [str(parts / "plan.json")]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    key=st.sampled_from(
        [(), ("spec",), ("versions",), ("versions", "numpy"), ("catalogue",), ("points",), ("columns", "m")]
    ),
    value=JSON,
    drop=st.booleans(),
)
def test_any_facts_are_those_of_this_sweep_or_refused(
    tmp_path_factory: pytest.TempPathFactory, key: tuple[str, ...], value: Any, drop: bool
) -> None:
    made, folder = PLAN, tmp_path_factory.mktemp("facts")
    facts = json.loads(made.identity)
    if key:
        *path, last = key
        holder = facts
        for step in path:
            holder = holder[step]
        holder.pop(last) if drop else holder.update({last: value})
    else:
        facts = value
    out, parts = folder / "out.parquet", folder / "out.parquet.parts"
    sealed(out, pa.table({"x": [1]}), json.dumps(facts).encode())
    with pytest.raises(ValueError, match=r"out\.parquet (has columns|was not written by)"):
        read_facts(out)
    out.unlink()
    parts.mkdir()
    (parts / "plan.json").write_text(json.dumps(facts))
    if facts == json.loads(made.identity):
        return
    with pytest.raises(ValueError, match=r"plan\.json is (of another sweep|damaged or not of a sweep)"):
        run(made, out)


PLAN: Plan = plan(axes=AXES | {"kernel": "cublas", "n": 8})


def test_a_flipped_bit_anywhere_is_refused(tmp_path: Path) -> None:
    out, chunk = tmp_path / "out.parquet", tmp_path / "b.parquet.parts" / "chunk-00000000.parquet"
    run(PLAN, out)
    with Store(tmp_path / "b.parquet", PLAN) as store:
        store.put(0, chunk_table(PLAN, 0))
    chosen = random.Random(0)
    for file, use in ((out, lambda: read_facts(out)), (out, lambda: run(PLAN, out)),
                      (chunk, lambda: run(PLAN, tmp_path / "b.parquet"))):  # fmt: skip
        whole = file.read_bytes()
        bits = {*chosen.sample(range(8 * len(whole)), 150), *range(32), *range(8 * len(whole) - 96, 8 * len(whole))}
        for bit in bits:
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            file.write_bytes(damaged)
            with pytest.raises(ValueError, match="is damaged"):
                use()
            assert file.read_bytes() == damaged
        for size in (0, 1, 7, len(whole) // 2, len(whole) - 1):
            file.write_bytes(whole[:size])
            with pytest.raises(ValueError, match="is damaged"):
                use()
        file.write_bytes(whole)
    assert run(PLAN, tmp_path / "b.parquet") == run(PLAN, out) == pq.read_metadata(out).num_rows
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.parquet", "out.parquet"]


def test_pages_that_change_after_the_check_are_not_read(tmp_path: Path) -> None:
    """Parquet's own checksums hold between the check of the seal and the reading."""
    out = tmp_path / "out.parquet"
    run(PLAN, out)
    whole = out.read_bytes()
    start = pq.read_metadata(out).row_group(0).column(PLAN.schema.names.index("time_us")).data_page_offset
    with opened_results(out) as (_, rows), out.open("r+b") as file:
        file.seek(start + 80)
        file.write(bytes([whole[start + 80] ^ 1]))
        file.flush()
        with pytest.raises(OSError, match="CRC checksum"):
            rows.to_table()


def half_done(out: Path) -> Path:
    """A sweep of several chunks, two of them stored."""
    with Store(out, plan()) as store:
        for index in (0, 1):
            store.put(index, chunk_table(plan(), index))
    return store.parts


def renamed(parts: Path) -> None:
    (parts / "chunk-00000001.parquet").rename(parts / "chunk-00000002.parquet")


def linked(parts: Path) -> None:
    (parts / "chunk-00000002.parquet").symlink_to(parts / "chunk-00000001.parquet")


def of_another_schema(parts: Path) -> None:
    identity = pq.read_schema(parts / "chunk-00000001.parquet").metadata[METADATA_KEY]
    sealed(parts / "chunk-00000001.parquet", pa.table({"x": [1]}), identity, "chunk 1")


def a_linked_folder(parts: Path) -> None:
    parts.rename(parts.with_name("elsewhere"))
    parts.symlink_to(parts.with_name("elsewhere"))


def a_file(parts: Path) -> None:
    parts.rename(parts.with_name("elsewhere"))
    parts.write_text("mine")


HOSTILE_PARTS: list[tuple[Callable[[Path], object], str]] = [
    (renamed, r"chunk-00000002.parquet is damaged: its bytes are not those"),
    (linked, r"chunk-00000002.parquet is no regular file"),
    (of_another_schema, r"chunk-00000001.parquet has other columns"),
    (a_linked_folder, r"parts is no folder"),
    (a_file, r"parts is no folder"),
    (lambda parts: (parts / "chunk-00000003.parquet").mkdir(), r"chunk-00000003.parquet is no regular file"),
    (lambda parts: os.mkfifo(parts / "chunk-00000003.parquet"), r"chunk-00000003.parquet is no regular file"),
    (lambda parts: pq.write_table(pa.table({"x": [1]}), parts / "chunk-00000003.parquet"), r"3.parquet is damaged, or"),
    (lambda parts: (parts / "chunk-99999999.parquet").write_text(""), r"chunk-99999999.parquet does not belong"),
    (lambda parts: ((parts / "plan.json").unlink(), (parts / "plan.json").mkdir()), r"plan.json is no regular file"),
    (lambda parts: ((parts / "plan.json").unlink(), os.mkfifo(parts / "plan.json")), r"plan.json is no regular file"),
]


@pytest.mark.parametrize(("harm", "message"), HOSTILE_PARTS)
def test_hostile_parts_are_refused_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: Callable[[Path], object], message: str
) -> None:
    small_chunks(monkeypatch)
    harm(half_done(tmp_path / "out.parquet"))
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=message):
        run(plan(), tmp_path / "out.parquet")
    assert contents(tmp_path) == before
    assert not (tmp_path / "out.parquet").exists()


def test_what_stopped_processes_leave_is_cleaned_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_chunks(monkeypatch)
    out = tmp_path / "out.parquet"
    parts = half_done(out)
    (parts / ".writing-0123abcd").write_bytes(b"half")
    (parts / ".lock").write_bytes(b"")
    run(plan(), out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.parquet"]
    parts = half_done(tmp_path / "other.parquet")
    parts.rename(tmp_path / "out.parquet.parts")  # stopped between the last renaming and the tidying
    run(plan(), out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.parquet"]


def test_a_second_writer_is_refused_and_harms_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_chunks(monkeypatch)
    out = tmp_path / "out.parquet"
    with Store(out, plan()) as store:
        store.put(0, chunk_table(plan(), 0))
        before = contents(tmp_path)
        with pytest.raises(ValueError, match=r"out\.parquet is being written by another process"):
            run(plan(), out)
        assert contents(tmp_path) == before
    assert run(plan(), out) == pq.read_metadata(out).num_rows


def test_writers_at_once_are_one_writer_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_chunks(monkeypatch)
    made = plan(axes=AXES | {"gpu": "h100", "kernel": ["cublas", "sputnik"], "n": 8})
    rows = run(made, tmp_path / "whole.parquet")

    def said(out: Path) -> int | str:
        try:
            return run(made, out, threads=1)
        except ValueError as error:
            return str(error).partition(" is ")[2]

    with ThreadPoolExecutor(3) as pool:
        for attempt in range(15):
            out = tmp_path / f"{attempt}.parquet"
            answers = set(pool.map(said, [out] * 3))
            assert rows in answers
            assert answers <= {rows, "being written by another process; wait, or give another --out"}
            assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert len(list(tmp_path.iterdir())) == 16


def test_killed_at_any_point_nothing_is_lost_and_nothing_stays(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.perfmodel.sweep.killed", str(tmp_path), "7"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).resolve().parents[3])
    *stopped, finished = json.loads(done.stdout)
    assert len(stopped) >= 10
    assert {attempt["stopped"] for attempt in stopped} == {-signal.SIGKILL}
    assert {name for attempt in stopped for name in attempt["left"]} <= {"out.parquet", "out.parquet.parts"}
    assert finished["stopped"] == 0
    for attempt in (*stopped, finished):
        assert attempt["sound"], attempt
        assert (attempt["again"], attempt["after"], attempt["same"]) == (0, ["out.parquet"], True), attempt


@pytest.mark.parametrize("kind", ["loop", "folder", "fifo", "missing/out"])
def test_outputs_that_are_no_files_are_refused(tmp_path: Path, kind: str) -> None:
    out = tmp_path / kind
    if kind == "loop":
        out.symlink_to(out)
    elif kind == "folder":
        out.mkdir()
    elif kind == "fifo":
        os.mkfifo(out)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match=r"is no regular file|no such directory"):
        run(PLAN, out)
    assert sorted(tmp_path.iterdir()) == before


def test_a_link_leads_to_the_file_and_stays(tmp_path: Path) -> None:
    (tmp_path / "link.parquet").symlink_to(tmp_path / "real.parquet")
    run(PLAN, tmp_path / "link.parquet")
    assert (tmp_path / "link.parquet").is_symlink()
    assert read_facts(tmp_path / "link.parquet") == read_facts(tmp_path / "real.parquet")
    assert len(list(tmp_path.iterdir())) == 2
