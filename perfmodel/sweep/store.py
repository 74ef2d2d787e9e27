"""Parquet files of a sweep: one for each finished chunk, joined at the end into one with a row group per chunk.

``results.parquet`` appears only when it is complete. Until then its chunks lie in ``results.parquet.parts``, each
written under another name, flushed to disk and then renamed: a chunk is there whole or not at all, whatever stops the
sweep. `plan.json` beside them says which sweep they belong to. The only module of the models, besides the catalogue,
that opens files, because a sweep is too large to hand over in memory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from perfmodel.sweep.table import METADATA_KEY, Plan, described

PARTS_SUFFIX = ".parts"
PLAN_FILE = "plan.json"
_CHUNK_NAME = "chunk-{:08d}.parquet"
_JOINED = ".joined.parquet"


def read_facts(path: str | Path) -> dict[str, Any]:
    """What a finished sweep file says of itself: spec, versions, catalogue, points, chunks, columns.

    Raises
    ------
    ValueError
        If the file is no Parquet file, not of a sweep, or has other columns than it says.
    """
    path = Path(path)
    if not path.is_file():
        unfinished = path.with_name(path.name + PARTS_SUFFIX).exists()
        raise ValueError(f"{path}: " + ("the sweep is not finished; run it again" if unfinished else "no such file"))
    try:
        schema = pq.read_schema(path)
        facts = json.loads((schema.metadata or {})[METADATA_KEY])
    except (OSError, pa.ArrowException, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged or no Parquet file ({error})") from error
    except KeyError:
        raise ValueError(f"{path} was not written by a sweep") from None
    if facts["columns"] != described(schema):
        raise ValueError(f"{path} has columns {described(schema)}, its sweep wrote {facts['columns']}")
    return dict(facts)


class Store:
    """Where the chunks of ``plan`` go; ``path`` is the final file.

    Raises
    ------
    ValueError
        If ``path`` or its parts hold anything but this very sweep; nothing is overwritten.
    """

    def __init__(self, path: str | Path, plan: Plan) -> None:
        self.path, self.plan = Path(path), plan
        self.parts = self.path.with_name(self.path.name + PARTS_SUFFIX)
        if not self.path.parent.is_dir():
            raise ValueError(f"{self.path}: no such directory {self.path.parent}")
        self.complete = self.path.exists()
        if self.complete:
            self._check(self.path)
        elif self.parts.exists():
            self._check_parts()

    def missing(self) -> list[int]:
        """Chunks that are not stored yet; those that are must open and belong to this sweep.

        Raises
        ------
        ValueError
            Names a chunk file that is damaged or foreign.
        """
        if self.complete:
            return []
        indices = range(self.plan.spec.grid.chunks)
        present = {file.name for file in self.parts.iterdir()} if self.parts.exists() else set()
        for index in indices:
            if _CHUNK_NAME.format(index) in present:
                self._check(self._chunk(index))
        return [index for index in indices if _CHUNK_NAME.format(index) not in present]

    def put(self, index: int, table: pa.Table) -> None:
        """Store one chunk; done twice, it leaves the same file.

        Raises
        ------
        ValueError
            If the columns are not those of the plan.
        OSError
            If the disk is full; the chunk is then not there.
        """
        if not table.schema.equals(self.plan.schema, check_metadata=True):
            raise ValueError(f"chunk {index} has other columns than this sweep: {table.schema.names}")
        self._open()
        sink = pa.BufferOutputStream()
        with self._writer(sink) as writer:
            writer.write_table(table, row_group_size=max(1, table.num_rows))
        _write_whole(self._chunk(index), sink.getvalue())

    def finish(self) -> int:
        """Join the chunks into the final file and drop them; returns its rows.

        Raises
        ------
        ValueError
            If a chunk is missing, or its pages do not match their checksums.
        """
        if self.complete:
            return int(pq.read_metadata(self.path).num_rows)
        missing = self.missing()
        if missing:
            raise ValueError(f"{self.parts}: chunk {missing[0]} is missing")
        partial = self.parts / _JOINED
        try:
            with self._writer(partial) as writer:
                for table in self.tables():
                    writer.write_table(table, row_group_size=max(1, table.num_rows))
            _flush(partial)
            partial.replace(self.path)
        finally:
            partial.unlink(missing_ok=True)
        self.complete = True
        for file in sorted(self.parts.iterdir()):
            file.unlink()
        self.parts.rmdir()
        return int(pq.read_metadata(self.path).num_rows)

    def tables(self) -> Iterator[pa.Table]:
        """Stored chunks in order, pages checked against their checksums."""
        for index in range(self.plan.spec.grid.chunks):
            file = self._chunk(index)
            try:
                table = pq.ParquetFile(file, page_checksum_verification=True).read()
            except (OSError, pa.ArrowException) as error:
                raise ValueError(f"{file} is damaged ({error}); delete it and run the sweep again") from error
            yield table

    def _chunk(self, index: int) -> Path:
        return self.parts / _CHUNK_NAME.format(index)

    def _writer(self, sink: object) -> pq.ParquetWriter:
        # LZ4 over split bytes reads three times as fast as Zstandard, at the same size.
        numbers = [field.name for field in self.plan.schema if pa.types.is_floating(field.type)]
        numbers = [name for name in numbers if name not in self.plan.spec.grid.axes]
        repeated = [name for name in self.plan.schema.names if name not in numbers]
        return pq.ParquetWriter(
            sink, self.plan.schema, compression="lz4", write_page_checksum=True,
            use_dictionary=repeated, use_byte_stream_split=numbers,
        )  # fmt: skip

    def _open(self) -> None:
        if not self.parts.exists():
            self.parts.mkdir()
        if not (self.parts / PLAN_FILE).exists():
            _write_whole(self.parts / PLAN_FILE, self.plan.identity.encode())

    def _check(self, file: Path) -> None:
        """Refuse a file that is no Parquet or was written by another sweep."""
        try:
            schema = pq.read_schema(file)
        except (OSError, pa.ArrowException) as error:
            remedy = "give another --out" if file == self.path else "delete it and run the sweep again"
            raise ValueError(f"{file} is damaged or no Parquet file ({error}); {remedy}") from error
        self._same_sweep(file, (schema.metadata or {}).get(METADATA_KEY, b"").decode())
        if not schema.equals(self.plan.schema):
            raise ValueError(f"{file} has other columns than this sweep: {schema.names}")

    def _check_parts(self) -> None:
        known = {_CHUNK_NAME.format(index) for index in range(self.plan.spec.grid.chunks)}
        for file in self.parts.iterdir():
            # Temporary files of a stopped sweep begin with a dot; they are written again from the start.
            if file.name not in known | {PLAN_FILE} and not file.name.startswith("."):
                raise ValueError(f"{file} does not belong to this sweep; give another --out")
        plan = self.parts / PLAN_FILE
        if plan.exists():
            self._same_sweep(plan, plan.read_text(encoding="utf-8"))

    def _same_sweep(self, file: Path, identity: str) -> None:
        if identity == self.plan.identity:
            return
        if not identity:
            raise ValueError(f"{file} was not written by a sweep; give another --out")
        try:
            theirs = json.loads(identity)
        except json.JSONDecodeError:
            raise ValueError(f"{file} is damaged; delete {file.parent} or give another --out") from None
        ours = json.loads(self.plan.identity)
        differ = [key for key in ours if theirs.get(key) != ours[key]]
        raise ValueError(f"{file} is of another sweep: other {', '.join(differ)}; give another --out")


def _write_whole(path: Path, data: bytes | pa.Buffer) -> None:
    """Write under a hidden name, flush, rename; on failure nothing stays."""
    partial = path.with_name(f".{path.name}")
    try:
        partial.write_bytes(data)
        _flush(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Wait until the file is on the disk, so that a renamed file is never an empty one after a power cut."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
