"""A headless Chromium on a running explorer, and the reasons why there may be none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lscd.explorer.frame import start

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def missing(*packages: str) -> str:
    """What keeps browser tests that need ``packages`` too from running; empty if nothing does."""
    lacking = [name for name in (*packages, "playwright") if find_spec(name) is None]
    if CHROMIUM is None:
        lacking.append("chromium (Debian package of that name)")
    return f"not installed: {', '.join(lacking)}; see make explorer-test" if lacking else ""


@contextmanager
def explorer() -> Iterator[str]:
    """Address of a running `lscd explore`."""
    server, address = start()
    with server:
        try:
            yield address
        finally:
            server.terminate()


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
