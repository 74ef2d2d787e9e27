"""A headless Chromium on a running explorer, and the reasons why there may be none."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lscd.explorer import html
from lscd.explorer.frame import start
from lscd.explorer.state import State
from lscd.explorer.view import NOTHING, Files
from tests.lscd.explorer.cases import facts

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
TABS = {panel.title: panel.name for panel in html.PANELS} | {"Compare": "compare"}
QUESTION = f"?{State().to_query()}"
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
        context.set_default_timeout(40_000)
        try:
            yield context
        finally:
            context.close()


@dataclass
class Page:
    """The open page and everything it complained about or asked for."""

    tab: Any
    address: str
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Listen."""
        self.tab.on("console", lambda m: self.complaints.append(m.text) if m.type == "error" else None)
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.on("request", lambda request: self.requests.append(request.url))

    def open(self, query: str = QUESTION, *, panel: str = "", more: bool = False) -> None:
        """Go to the page of a query and wait for its facts, for a panel if one is named."""
        self.tab.goto(self.address + query)
        self.tab.locator("#lscd-first").wait_for(state="detached")
        self.tab.locator("[data-fact=fits], .lscd-error").first.wait_for()
        if more:
            self.tab.locator(".lscd-more summary").click()
        if panel:
            self.show(panel)

    def show(self, panel: str) -> None:
        """Click the tab of a panel by its title, and wait for all its charts."""
        self.tab.get_by_role("tab", name=panel, exact=True).click()
        self.drawn(panel)

    def drawn(self, panel: str) -> None:
        """Wait for the charts of a panel."""
        self.tab.locator(f"[data-panel={TABS[panel]}], .lscd-hint").first.wait_for()
        for figure in self.tab.locator(".lscd-figures .lscd-figure:has(marimo-mime-renderer)").all():
            figure.locator("svg.marks").wait_for()

    def fact(self, name: str) -> str:
        """The value of a tile."""
        return str(self.tab.locator(f"[data-fact={name}] strong").inner_text())

    def enter(self, name: str, value: str) -> None:
        """Type a value into a box."""
        box = self.tab.locator(f".lscd-{name} input")
        box.fill(value)
        box.press("Enter")

    def wait_for(self, state: State, files: Files = NOTHING) -> None:
        """Wait until the page shows this state's throughput, as the models say it."""
        value = facts(state, files)["throughput"].value
        self.tab.locator("[data-fact=throughput] strong", has_text=re.compile(f"^{re.escape(value)}$")).wait_for()


@contextmanager
def opened(profile: Path) -> Iterator[Page]:
    """A page of a running explorer in Chromium."""
    with explorer() as address, chromium(profile) as context:
        yield Page(context.new_page(), address)
