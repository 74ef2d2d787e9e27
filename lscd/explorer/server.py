"""The server of the page: marimo behind the door and the first view, for browsers of this machine."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path
from socket import AF_INET, IPPROTO_TCP, SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET, socket
from typing import Any

from lscd.explorer.door import KEPT_S, LONGEST_LINE, Door
from lscd.explorer.first import First
from perfmodel.catalog.files import data_directory

ADDRESS = "127.0.0.1"  # the page is for its owner; nothing listens on the network
OPEN_TO = f"it listens on {ADDRESS} only and asks for no token: whoever works on this machine can open it"
MOST_CONNECTIONS = 500  # a browser opens up to seven a page


def serve(port: int, page: str, browser: bool) -> None:
    """Serve until interrupted.

    Raises
    ------
    ValueError
        If marimo is not installed, or the port is taken; the message says what to type.
    """
    try:
        import uvicorn

        server = uvicorn.Server(_config(uvicorn))
    except ImportError:
        raise ValueError("the explorer needs marimo: pip install 'lscd-lab[explore]', or make explore") from None
    with _listening(port) as listening:
        print(f"explorer: {page}\n{OPEN_TO}\nstop it with Ctrl+C", flush=True)
        if browser:
            import webbrowser

            webbrowser.open(page)
        try:
            with suppress(KeyboardInterrupt):  # which ends it as announced
                server.run(sockets=[listening])
        except SystemExit as end:
            os._exit(int(end.code or 0))
    os._exit(0)  # nothing is left to save, and threads of open pages would be waited for without end


def _config(uvicorn: Any) -> Any:
    """Settings of the server: marimo behind the door, bounded in every message that it reads."""
    import marimo

    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of every write to a page that is gone
    app = Path(__file__).resolve().parent / "app.py"
    pages = marimo.create_asgi_app(quiet=True, session_ttl=KEPT_S).with_app(path="/", root=str(app)).build()
    hidden = [app.parent, app.parents[2], data_directory(), Path.cwd(), Path(os.path.expanduser("~"))]
    door = Door(pages, hidden)
    return uvicorn.Config(
        First(door, door.clean),
        http="h11",  # the one whose requests are bounded
        h11_max_incomplete_event_size=LONGEST_LINE,
        ws_max_size=LONGEST_LINE,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=1,
        log_level="critical",
    )


def _listening(port: int) -> socket:
    found = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP)  # named, or asyncio lets every small answer wait 40 ms
    found.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
    try:
        found.bind((ADDRESS, port))
        found.listen()
    except OSError as error:
        found.close()
        raise ValueError(f"port {port} is not free ({error.strerror}); choose another with --port") from None
    return found
