"""A running explorer, and clients of it that are no browsers: polite, hostile, rude."""

from __future__ import annotations

import http.client
import re
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

NO_MARIMO = "marimo is not installed; see make explorer-test"
START_S = 60


@dataclass
class Explorer:
    """A server of its own."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def said(self) -> str:
        """All that it printed so far."""
        return self.log.read_text()

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, str], str]:
        """Status, headers and text of an answer; ``marimo_session_id="a"`` is a header."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, named)
            found = connection.getresponse()
            return found.status, {k.lower(): v for k, v in found.getheaders()}, found.read().decode("utf-8", "replace")

    def page(self, session: str = "", query: str = "", **how: Any) -> Any:
        """A websocket as the page has one, of a session of its own if none is named."""
        from websockets.sync.client import connect

        asked = f"{query}&session_id={session or uuid4()}"
        return connect(f"ws://localhost:{self.port}/ws?{asked}", max_size=None, open_timeout=60, **how)

    def drop(self, request: str, after_s: float, read: int = 0) -> None:
        """Send a piece of a request, perhaps hear the begin of the answer, and tear the connection."""
        with socket.create_connection(("127.0.0.1", self.port)) as line:
            line.sendall(request.encode("latin-1"))
            if read:
                line.recv(read)
            time.sleep(after_s)
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, no farewell


@contextmanager
def running(log: Path) -> Iterator[Explorer]:
    """`lscd explore` on a free port; what it prints goes to ``log``."""
    pytest.importorskip("marimo", reason=NO_MARIMO)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "lscd", "explore", "--port", str(port), "--no-browser"]
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT) as process:
        found = Explorer(process, port, log)
        try:
            _wait(found)
            yield found
        finally:
            process.kill()


def _wait(explorer: Explorer) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and explorer.process.poll() is None:
        try:
            assert explorer.ask("GET", "/health")[0] == 200
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"the explorer did not start: {explorer.said}")


def shown(page: Any, mark: str, within_s: float = 40) -> str:
    """What the socket of a page brings, as HTML, until a reader has seen ``mark``."""
    end, found = time.monotonic() + within_s, ""
    while mark not in unescape(found):
        message = page.recv(timeout=end - time.monotonic())
        text = message if isinstance(message, str) else message.decode()
        found += re.sub(r"\\u([0-9a-f]{4})", lambda code: chr(int(code[1], 16)), text)
    return found
