"""`lscd sweep` and `lscd query`: many predictions into one Parquet file, and questions to it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lscd.errors import InputError, refuse_overwriting, written_whole
from lscd.printing import digits

if TYPE_CHECKING:
    import pyarrow as pa

    from perfmodel.sweep import Plan
    from perfmodel.sweep.runner import Progress

INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
SHOWN_ROWS = 40
TABLE_NAME = "results"


def sweep(
    spec: Annotated[Path, typer.Argument(help="TOML file: target, axes, constraints; examples in data/sweeps.")],
    out: Annotated[Path, typer.Option(help="Parquet file to write; run again, an interrupted sweep goes on.")],
    yes: Annotated[bool, typer.Option("--yes", help="Allow more than 20 million points.")] = False,
    cluster: Annotated[str, typer.Option(help="Run on Dask workers: local, or tcp://HOST:PORT of a scheduler.")] = "",
    threads: Annotated[int, typer.Option(min=1, help="Threads on this machine.")] = os.cpu_count() or 1,
) -> None:
    """Evaluate predict or e2e over the product of many axes into a Parquet file."""
    from perfmodel.sweep import Plan, run

    try:
        plan = Plan.of(_parsed(spec))
    except ValueError as error:
        raise InputError(f"{spec}: {error}") from None
    chunks = (0, plan.spec.grid.chunks)
    try:
        with _progress(plan) as report, _interrupts() as interrupted:

            def reported(done: int, total: int) -> None:
                nonlocal chunks
                chunks = (done, total)
                report(done, total)
                if interrupted():
                    raise KeyboardInterrupt

            rows = run(plan, out, yes=yes, threads=threads, cluster=cluster, progress=reported)
    except KeyboardInterrupt:
        typer.echo(f"lscd: stopped; {_resume_hint(*chunks)}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except OSError as error:
        raise InputError(f"{error}; {_resume_hint(*chunks)}") from error
    print(f"{out}: {rows:,} rows of {plan.spec.grid.points:,} points, {digits(out.stat().st_size / 1e6, 1)} MB")


def query(
    results: Annotated[Path, typer.Argument(help="Parquet file of `lscd sweep`.")],
    sql: Annotated[str, typer.Argument(help=f"SQL on the table `{TABLE_NAME}`; quote it for the shell.")],
    output: Annotated[Path | None, typer.Option(help="CSV to write the answer to, whole.")] = None,
) -> None:
    """Ask a sweep file a question in SQL (DuckDB)."""
    import pandas as pd

    if output is not None:
        refuse_overwriting(results, output)
    answer = _answer(results, sql)
    if output is not None:
        with written_whole(output) as partial:
            answer.to_pandas().to_csv(partial, index=False)
        print(f"{output}: {answer.num_rows:,} rows")
        return
    shown = answer.slice(0, SHOWN_ROWS).to_pandas()
    with pd.option_context("display.max_columns", None, "display.max_rows", None, "display.width", None):
        print(shown.to_string(index=False) if len(shown) else f"no rows; columns {', '.join(answer.column_names)}")
    if answer.num_rows > SHOWN_ROWS:
        print(f"... {answer.num_rows - SHOWN_ROWS:,} more rows; --output FILE.csv keeps all")


def _answer(results: Path, sql: str) -> pa.Table:
    import duckdb

    from perfmodel.sweep import read_facts

    facts = read_facts(results)
    with duckdb.connect() as connection:
        connection.from_parquet(str(results)).create_view(TABLE_NAME)
        try:
            kinds = [statement.type for statement in connection.extract_statements(sql)]
            if kinds != [duckdb.StatementType.SELECT]:
                raise InputError(f"a query is one SELECT ... FROM {TABLE_NAME}, got {sql!r}")
            return connection.sql(sql).to_arrow_table()
        except duckdb.Error as error:
            wrong, columns = str(error).splitlines()[0].rstrip("!"), ", ".join(facts["columns"])
            raise InputError(f"{wrong}; the table {TABLE_NAME} has {columns}") from None


def _parsed(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"not a TOML file: {error}") from None


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was ever pressed: Python swallows a `KeyboardInterrupt` that hits inside a finaliser."""
    pressed = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _resume_hint(done: int, total: int) -> str:
    return f"{done} of {total} chunks are stored, the same command goes on from there"


@contextmanager
def _progress(plan: Plan) -> Iterator[Progress]:
    """Bar with points done, points per second and time left, on stderr and only on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    points, total_chunks = plan.spec.grid.points, plan.spec.grid.chunks
    columns = (
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} points"), BarColumn(),
        TextColumn("{task.fields[rate]}"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("sweep", total=points, rate="")

        def report(done: int, total: int) -> None:
            speed = bar.tasks[0].speed
            rate = "" if speed is None else f"{speed / 1e6:.2f} M points/s"
            bar.update(task, completed=points * done / total_chunks, rate=rate)

        yield report
