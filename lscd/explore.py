"""`lscd explore`: the interactive page on this machine, or a static edition of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lscd.errors import InputError, note, refuse_idle

if TYPE_CHECKING:
    from lscd.explorer.state import State


def explore(
    context: typer.Context,
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 2718,
    preset: Annotated[
        list[str] | None,
        typer.Option(help="A preset's name, or settings like 'gpu=h100&batch=32'; with --export as often as you like."),
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
    export: Annotated[
        Path | None,
        typer.Option(
            help="Write a static edition into this new folder: for any file server, without Python.",
            file_okay=False,
            writable=True,
        ),
    ] = None,
) -> None:
    """Open the explorer: GPU, model, sparsity and batch as sliders; times, memory, throughput and cost live."""
    from lscd.explorer.server import serve
    from lscd.explorer.state import opening
    from lscd.explorer.state import preset as preset_state
    from lscd.explorer.view import view

    states = [preset_state(one) for one in preset or ()]
    if export is not None:
        refuse_idle(context, "with --export", "port", "browser")
        _export(export, states)
        return
    if len(states) > 1:
        raise InputError(f"--preset is given {len(states)} times, allowed is once without --export")
    for state in states:
        view(state)  # refuses numbers out of range before a page shows them
    start = states[0] if states else opening()
    serve(port, f"http://localhost:{port}/?{start.to_query()}", browser)


def _export(folder: Path, states: list[State]) -> None:
    """Write the static edition of some settings, or of the default ones."""
    from kernels_numba.checkpoints.folders import new_folder
    from lscd.explorer.static import default_states, picked, write
    from lscd.printing import progress
    from lscd.report.provenance import provenance

    picks = picked(states or default_states())
    with new_folder(folder) as partial, progress("answers", sum(len(pick.batches) for pick in picks)) as step:
        write(partial, picks, f"lscd {provenance().words}", step)
    note(f"open {folder / 'index.html'}, or serve it: python -m http.server -d {folder}")
