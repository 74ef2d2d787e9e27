"""`lscd explore`: the interactive page on this machine."""

from __future__ import annotations

from typing import Annotated

import typer


def explore(
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 2718,
    preset: Annotated[str, typer.Option(help="A preset's name, or settings like 'gpu=h100&batch=32'.")] = "",
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
) -> None:
    """Open the explorer: GPU, model, sparsity and batch as sliders; times, memory, throughput and cost live."""
    from lscd.explorer.server import serve
    from lscd.explorer.state import PRESETS
    from lscd.explorer.state import preset as preset_state

    state = preset_state(preset or next(iter(PRESETS)))
    if preset:
        from lscd.explorer.view import view

        view(state)  # refuses numbers out of range before a page shows them
    serve(port, f"http://localhost:{port}/?{state.to_query()}", browser)
