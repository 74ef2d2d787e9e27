"""`lscd sweep`: many predictions into one Parquet file."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from lscd.errors import INTERRUPTED, InputError, shown
from lscd.printing import digits

if TYPE_CHECKING:
    from perfmodel.sweep import Plan
    from perfmodel.sweep.runner import Progress

MOST_THREADS = 256


def sweep(
    spec: Annotated[Path, typer.Argument(help="TOML file: target, axes, constraints; examples in data/sweeps.")],
    out: Annotated[
        Path,
        typer.Option(
            writable=True, dir_okay=False, help="Parquet file to write; run again, an interrupted sweep goes on."
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Allow more than 20 million points.")] = False,
    cluster: Annotated[str, typer.Option(help="Run on Dask workers: local, or tcp://HOST:PORT of a scheduler.")] = "",
    threads: Annotated[int, typer.Option(min=1, max=MOST_THREADS, help="Threads on this machine.")] = min(
        os.cpu_count() or 1, MOST_THREADS
    ),
) -> None:
    """Evaluate predict or e2e over the product of many axes into a Parquet file."""
    from perfmodel.catalog.files import parse
    from perfmodel.sweep import Plan, run

    asked = parse(spec)
    try:
        plan = Plan.of(asked)
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
    except MemoryError:
        raise InputError(f"out of memory with {threads} threads, give fewer; {_resume_hint(*chunks)}") from None
    except OSError as error:
        raise InputError(f"{error}; {_resume_hint(*chunks)}") from error
    size = digits(out.stat().st_size / 1e6, 1)
    print(f"{shown(str(out))}: {rows:,} rows of {plan.spec.grid.points:,} points, {size} MB")


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
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("sweep", total=points, rate="")

        def report(done: int, total: int) -> None:
            speed = bar.tasks[0].speed
            rate = "" if speed is None else f"{speed / 1e6:.2f} M points/s"
            bar.update(task, completed=points * done / total_chunks, rate=rate)

        yield report
