"""The explorer inside a notebook: the same page, from a server of its own, in a frame."""

from __future__ import annotations

import atexit
import socket
import subprocess
import sys
import time
import urllib.request
from typing import TYPE_CHECKING

from lscd.explorer.state import State
from lscd.explorer.state import preset as preset_state

if TYPE_CHECKING:
    from IPython.display import IFrame

START_S = 60


def show(preset: str = "", *, height: int = 900) -> IFrame:
    """The page in a cell of Jupyter; its server ends with the kernel.

    Parameters
    ----------
    preset
        A preset's name, or settings such as ``"gpu=h100&batch=32"``.
    height
        Of the frame, in pixels.

    Raises
    ------
    ValueError
        An unknown preset or setting.
    RuntimeError
        The server did not start, for example because marimo is not installed; the message says what it said.
    """
    from IPython.display import IFrame

    state = preset_state(preset) if preset else State()
    server, address = start()
    atexit.register(server.terminate)
    return IFrame(f"{address}?{state.to_query()}", "100%", height)


def start() -> tuple[subprocess.Popen[str], str]:
    """A running explorer on a free port, and its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "lscd", "explore", "--port", str(port), "--no-browser"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    address = f"http://localhost:{port}/"
    end = time.monotonic() + START_S
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
        except OSError:
            time.sleep(0.1)
        else:
            return server, address
    server.kill()
    raise RuntimeError(f"the explorer did not start: {server.communicate()[0]}")
