"""A headless Chromium on a running explorer, and the reasons why there may be none."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
START_S = 60


def missing() -> str:
    """What keeps the browser tests from running; empty if nothing does."""
    lacking = [name for name in ("marimo", "playwright") if find_spec(name) is None]
    if CHROMIUM is None:
        lacking.append("chromium (Debian package of that name)")
    return f"not installed: {', '.join(lacking)}; see make explorer-test" if lacking else ""


@contextmanager
def explorer() -> Iterator[str]:
    """Address of a running `lscd explore`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "lscd", "explore", "--port", str(port), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        address = f"http://localhost:{port}/"
        try:
            _wait(address, server)
            yield address
        finally:
            server.terminate()


def _wait(address: str, server: subprocess.Popen[str]) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.1)
    server.kill()
    raise RuntimeError(f"the explorer did not start: {server.communicate()[0]}")


@contextmanager
def chromium(profile: Path) -> Iterator[Any]:
    """A Playwright browser context with a fresh profile."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=CHROMIUM, args=list(FLAGS), viewport={"width": 1280, "height": 900}
        )
        context.set_default_timeout(20_000)
        try:
            yield context
        finally:
            context.close()
