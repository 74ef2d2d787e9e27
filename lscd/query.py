"""`lscd query`: questions to a sweep file in SQL, which can read that file's rows and nothing else."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lscd.errors import INTERRUPTED, InputError, shown, written_whole

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection
    from pyarrow.dataset import Dataset

STOPPED = (KeyboardInterrupt, SystemExit)  # by Ctrl-C, or by a signal that ends a process
PATIENCE_S = 0.5  # that a query gets to stop by itself
SHOWN_ROWS = 40
LONGEST_REASON = 300  # characters repeated of a query, or of what DuckDB found wrong
TABLE_NAME = "results"
CONFINED: dict[str, Any] = {
    "enable_external_access": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,  # or a table could be any variable of this program
    "temp_directory": "",  # what does not fit into memory is refused, so that nothing is left on the disk
    "memory_limit": "60%",
    "lock_configuration": True,
}


def query(
    results: Annotated[Path, typer.Argument(help="Parquet file of `lscd sweep`.")],
    sql: Annotated[str, typer.Argument(help=f"SQL on the table `{TABLE_NAME}`; quote it for the shell.")],
    output: Annotated[
        Path | None, typer.Option(writable=True, dir_okay=False, help="CSV to write the answer to, whole.")
    ] = None,
) -> None:
    """Ask a sweep file a question in SQL (DuckDB); it can read that file and nothing else."""
    from perfmodel.sweep.store import opened_results

    try:
        with opened_results(results) as (facts, rows), confined(rows) as connection, in_words(facts["columns"]):
            if output is None:
                print(_beside(connection, lambda: _shown(answer(connection, sql))))
                return
            with written_whole(output) as partial:
                count = _beside(connection, lambda: _write(answer(connection, sql), partial))
    except STOPPED as stop:
        print("lscd: stopped", file=sys.stderr, flush=True)
        code = stop.code if isinstance(stop, SystemExit) and isinstance(stop.code, int) else INTERRUPTED
        os._exit(code)  # a function within one row hears of no stop, and would hold up the end
    print(f"{shown(str(output))}: {count:,} rows")


@contextmanager
def confined(rows: Dataset) -> Iterator[DuckDBPyConnection]:
    """Database whose SQL reaches the table of these ``rows``, and no file, network, extension, setting or variable."""
    import duckdb

    connection = duckdb.connect(config=CONFINED)
    connection.register(TABLE_NAME, rows)
    try:
        yield connection
    finally:
        if not isinstance(sys.exception(), STOPPED):  # DuckDB refuses to close what is still at work
            connection.close()


def answer(connection: DuckDBPyConnection, sql: str) -> pa.RecordBatchReader:
    """Answer of one ``SELECT`` in pieces, computed as they are read.

    Raises
    ------
    InputError
        If it is anything but one ``SELECT``.
    """
    import duckdb
    import pyarrow as pa

    try:
        sql.encode()
    except UnicodeEncodeError:
        raise InputError(f"a query is text in UTF-8, got {sql[:LONGEST_REASON]!r}") from None
    kinds = [statement.type for statement in connection.extract_statements(sql)]
    if kinds != [duckdb.StatementType.SELECT]:
        raise InputError(f"a query is one SELECT ... FROM {TABLE_NAME}, got {sql[:LONGEST_REASON]!r}")
    return pa.RecordBatchReader.from_stream(connection.sql(sql))


def _beside(connection: DuckDBPyConnection, work: Callable[[], Any]) -> Any:
    """``work()``, done in another thread: this one stays free to hear Ctrl-C, and stops the query then."""
    done: list[Any] = []
    failed: list[BaseException] = []

    def worked() -> None:
        try:
            done.append(work())
        except BaseException as error:
            failed.append(error)

    thread = Thread(target=worked, daemon=True)
    thread.start()
    try:
        thread.join()
    except STOPPED:
        connection.interrupt()
        thread.join(PATIENCE_S)
        raise
    if failed:
        raise failed[0]
    return done[0]


@contextmanager
def in_words(columns: Iterable[str]) -> Iterator[None]:
    """Turn what goes wrong with a query into a sentence."""
    import duckdb
    import pyarrow as pa

    try:
        yield
    except (MemoryError, duckdb.OutOfMemoryException):
        raise InputError("the answer takes more memory than there is; aggregate, or choose rows and columns") from None
    except (duckdb.Error, pa.ArrowException) as error:
        wrong = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip("!.")[:LONGEST_REASON]
        raise InputError(f"{wrong}; the table {TABLE_NAME} has {', '.join(columns)}") from None


def _shown(reader: pa.RecordBatchReader) -> str:
    """The first rows as a table, and how many more there are."""
    import pandas as pd
    import pyarrow as pa

    kept, rows = [], 0
    for batch in reader:
        kept += [batch.slice(0, max(0, SHOWN_ROWS - rows))] if rows < SHOWN_ROWS else []
        rows += batch.num_rows
    if not rows:
        return f"no rows; columns {', '.join(reader.schema.names)}"
    shown = pa.Table.from_batches(kept, reader.schema).to_pandas()
    with pd.option_context("display.max_columns", None, "display.max_rows", None, "display.width", None):
        table = shown.to_string(index=False)
    if rows > SHOWN_ROWS:
        table += f"\n... {rows - SHOWN_ROWS:,} more rows; --output FILE.csv keeps all"
    return table


def _write(reader: pa.RecordBatchReader, path: Path) -> int:
    """Write the answer as CSV, piece by piece; returns its rows."""
    rows = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        reader.schema.empty_table().to_pandas().to_csv(file, index=False)
        for batch in reader:
            batch.to_pandas(integer_object_nulls=True).to_csv(file, index=False, header=False)
            rows += batch.num_rows
    return rows
