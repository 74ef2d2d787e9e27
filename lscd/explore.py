"""`lscd explore`: the interactive page on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lscd.errors import InputError

ADDRESS = "127.0.0.1"  # the page is for its owner; nothing listens on the network


def explore(
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 2718,
    preset: Annotated[str, typer.Option(help="A preset's name, or settings like 'gpu=h100&batch=32'.")] = "",
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
) -> None:
    """Open the explorer: GPU, model, sparsity and batch as sliders; times, memory, throughput and cost live."""
    from lscd.explorer.state import PRESETS
    from lscd.explorer.state import preset as preset_state

    state = preset_state(preset) if preset else next(iter(PRESETS.values()))
    if preset:
        from lscd.explorer.view import view

        view(state)  # refuses numbers out of range before a page shows them
    serve(port, f"http://localhost:{port}/?{state.to_query()}", browser)


def serve(port: int, page: str, browser: bool) -> None:
    """Serve until interrupted.

    Raises
    ------
    InputError
        If marimo is not installed, or the port is taken; the message says what to type.
    """
    try:
        import marimo
        import uvicorn
    except ImportError:
        raise InputError("the explorer needs marimo: pip install 'lscd-lab[explore]', or make explore") from None
    _check_port(port)
    app = Path(__file__).parent / "explorer" / "app.py"
    server = marimo.create_asgi_app(quiet=True).with_app(path="/", root=str(app)).build()
    print(f"explorer: {page}\nstop it with Ctrl+C", flush=True)
    if browser:
        import webbrowser

        webbrowser.open(page)
    uvicorn.run(server, host=ADDRESS, port=port, log_level="warning")


def _check_port(port: int) -> None:
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except OSError as error:
            raise InputError(f"port {port} is not free ({error.strerror}); choose another with --port") from None
