"""Parquet files of a sweep: one for each finished chunk, joined at the end into one with a row group per chunk.

``results.parquet`` appears only when it is complete. Until then its chunks lie in ``results.parquet.parts``, each
written under another name, sealed, flushed to disk and then renamed: a chunk is there whole or not at all, whatever
stops the sweep. `plan.json` beside them says which sweep they belong to, a lock that one process at a time writes
there. With the modules of the lock and the seal the only ones of the models, besides the catalogue, that open files,
because a sweep is too large to hand over in memory.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from perfmodel.sweep.lock import FolderLock
from perfmodel.sweep.seal import SealedSink, unsealed
from perfmodel.sweep.table import METADATA_KEY, Facts, Plan, described, parsed_facts

PARTS_SUFFIX = ".parts"
PLAN_FILE = "plan.json"
LARGEST_PLAN_BYTES = 1 << 28
_CHUNK_NAME = "chunk-{:08d}.parquet"
_WRITING = ".writing-"
_WHOLE = "whole"


def read_facts(path: str | Path) -> Facts:
    """What a finished sweep file says of itself: spec, versions, catalogue, points, chunks, columns.

    Raises
    ------
    ValueError
        If any bit of the file is not as it was written, or it is not of a sweep.
    """
    with opened_results(path) as (facts, _):
        return facts


@contextmanager
def opened_results(path: str | Path) -> Iterator[tuple[Facts, ds.Dataset]]:
    """Facts of a finished sweep file and its rows, to be read in pieces, by column and range, while it is open.

    Raises
    ------
    ValueError
        As `read_facts`; where a page changes after that, reading it raises an ``OSError``.
    """
    path = Path(path)
    if not path.is_file():
        unfinished = path.with_name(path.name + PARTS_SUFFIX).exists()
        remedy = "the sweep is not finished; run it again" if unfinished else "no such file, or no regular one"
        raise ValueError(f"{path}: {remedy}")
    with unsealed(path, _WHOLE) as file:
        schema, identity = _schema_of(path, file)
        try:
            facts = parsed_facts(identity)
        except ValueError as error:
            raise ValueError(f"{path} was not written by a sweep: {error}") from None
        if facts["columns"] != described(schema):
            raise ValueError(f"{path} has columns {described(schema)}, its sweep wrote {facts['columns']}")
        checked = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
        fragment = ds.ParquetFileFormat(default_fragment_scan_options=checked).make_fragment(file)
        yield facts, ds.FileSystemDataset([fragment], schema, fragment.format)


class Store:
    """Where the chunks of ``plan`` go, this process's own while the block runs; ``path`` is the final file.

    Raises
    ------
    ValueError
        If ``path`` or its parts hold anything but this very sweep, or another process writes there; nothing is
        overwritten.
    """

    def __init__(self, path: str | Path, plan: Plan) -> None:
        self.path, self.plan = Path(os.path.realpath(path)), plan
        self.parts = self.path.with_name(self.path.name + PARTS_SUFFIX)
        self.complete = False
        self._lock: FolderLock | None = None
        self._names = {_CHUNK_NAME.format(index) for index in range(plan.spec.grid.chunks)}
        if not self.path.parent.is_dir():
            raise ValueError(f"{self.path}: no such directory {self.path.parent}")

    def __enter__(self) -> Store:
        if os.path.lexists(self.parts) or not os.path.lexists(self.path):
            self._lock = self._locked()
        try:
            self._check_parts()
            if os.path.lexists(self.path):
                self._check(self.path, _WHOLE)
                self.complete = True
        except BaseException:
            self._let_go()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        if self._lock is not None:
            self._tidy()
            self._let_go()

    def missing(self) -> list[int]:
        """Chunks that are not stored yet; those that are must be whole and belong to this sweep.

        Raises
        ------
        ValueError
            Names a chunk file that is damaged or foreign.
        """
        if self.complete:
            return []
        missing = []
        for index in range(self.plan.spec.grid.chunks):
            if os.path.lexists(self._chunk(index)):
                self._check(self._chunk(index), _role(index))
            else:
                missing.append(index)
        return missing

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
        plan = self.parts / PLAN_FILE
        if not plan.exists():
            with self._whole(plan) as partial:
                partial.write_bytes(self.plan.identity.encode())
        self._write(self._chunk(index), _role(index), [table])

    def finish(self) -> int:
        """Join the chunks into the final file; returns its rows.

        Raises
        ------
        ValueError
            If a chunk is missing or damaged.
        """
        if not self.complete:
            self._write(self.path, _WHOLE, self._tables())
            self.complete = True
        return int(pq.read_metadata(pa.OSFile(os.fsencode(self.path))).num_rows)

    def _tables(self) -> Iterator[pa.Table]:
        """Stored chunks in order."""
        for index in range(self.plan.spec.grid.chunks):
            chunk = self._chunk(index)
            if not chunk.exists():
                raise ValueError(f"{self.parts}: chunk {index} is missing")
            with self._opened(chunk, _role(index)) as file:
                table = pq.ParquetFile(file, page_checksum_verification=True).read()
            yield table

    def _chunk(self, index: int) -> Path:
        return self.parts / _CHUNK_NAME.format(index)

    def _write(self, path: Path, role: str, tables: Iterable[pa.Table]) -> None:
        # LZ4 over split bytes reads three times as fast as Zstandard, at the same size.
        numbers = [field.name for field in self.plan.schema if pa.types.is_floating(field.type)]
        numbers = [name for name in numbers if name not in self.plan.spec.grid.axes]
        repeated = [name for name in self.plan.schema.names if name not in numbers]
        how = {"compression": "lz4", "write_page_checksum": True, "use_dictionary": repeated}
        with (
            self._whole(path) as partial,
            SealedSink(partial, role) as sink,
            pq.ParquetWriter(sink, self.plan.schema, use_byte_stream_split=numbers, **how) as writer,
        ):
            for table in tables:
                writer.write_table(table, row_group_size=max(1, table.num_rows))

    @contextmanager
    def _whole(self, path: Path) -> Iterator[Path]:
        """Another name among the parts, which becomes ``path`` if all goes well; on failure nothing stays."""
        partial = self.parts / f"{_WRITING}{secrets.token_hex(4)}"
        try:
            yield partial
            _flush(partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def _locked(self) -> FolderLock:
        if os.path.lexists(self.parts) and (self.parts.is_symlink() or not self.parts.is_dir()):
            raise ValueError(f"{self.parts} is no folder, and the parts of the sweep go there; give another --out")
        try:
            return FolderLock(self.parts)
        except BlockingIOError:
            raise ValueError(f"{self.path} is being written by another process; wait, or give another --out") from None

    def _let_go(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _tidy(self) -> None:
        """Leave of the parts what the next run needs: the chunks of an unfinished sweep, or nothing."""
        ours = [file for file in sorted(self.parts.iterdir()) if file.name in self._names | {PLAN_FILE}]
        if self.complete or [file.name for file in ours] == [PLAN_FILE]:
            for file in ours:  # the plan goes last
                file.unlink()

    def _check_parts(self) -> None:
        """Refuse parts that are not of this sweep; drop what a stopped process was writing."""
        for file in self.parts.iterdir() if self._lock else ():
            if file.name.startswith(_WRITING):
                file.unlink()
            elif file.name not in self._names | {PLAN_FILE} and not file.name.startswith("."):
                raise ValueError(f"{file} does not belong to this sweep; give another --out")
        plan = self.parts / PLAN_FILE
        if os.path.lexists(plan):
            self._same_sweep(_regular(plan), _read(plan))

    def _check(self, file: Path, role: str) -> None:
        """Refuse a file that is damaged or was written by another sweep."""
        with self._opened(file, role) as opened:
            schema, identity = _schema_of(file, opened)
        self._same_sweep(file, identity)
        if not schema.equals(self.plan.schema):
            raise ValueError(f"{file} has other columns than this sweep: {schema.names}")

    @contextmanager
    def _opened(self, file: Path, role: str) -> Iterator[pa.NativeFile]:
        remedy = "give another --out" if file == self.path else "delete it and run the sweep again"
        try:
            with unsealed(_regular(file), role) as opened:
                yield opened
        except (ValueError, pa.ArrowException) as error:
            raise ValueError(f"{error}; {remedy}") from error

    def _same_sweep(self, file: Path, identity: bytes) -> None:
        if identity == self.plan.identity.encode():
            return
        try:
            theirs = parsed_facts(identity)
        except ValueError as error:
            raise ValueError(f"{file} is damaged or not of a sweep ({error}); give another --out") from None
        ours = parsed_facts(self.plan.identity.encode())
        differ = [key for key, value in ours.items() if theirs.get(key) != value]
        raise ValueError(f"{file} is of another sweep: other {', '.join(differ)}; give another --out")


def _role(index: int) -> str:
    return f"chunk {index}"


def _regular(file: Path) -> Path:
    if file.is_symlink() or not file.is_file():
        raise ValueError(f"{file} is no regular file")
    return file


def _flush(path: Path) -> None:
    """Wait until the file is on the disk, so that a renamed file is never an empty one after a power cut."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _read(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(LARGEST_PLAN_BYTES)


def _schema_of(path: Path, file: pa.NativeFile) -> tuple[pa.Schema, bytes]:
    """Columns of an opened Parquet file, and what it says of its sweep: nothing if it is of none."""
    try:
        schema = pq.read_schema(file)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path} is damaged or no Parquet file ({error})") from error
    return schema, (schema.metadata or {}).get(METADATA_KEY, b"")
