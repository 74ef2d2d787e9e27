"""How fast does the page answer in a browser? Key press to changed number and to last chart, and the first view.

Needs playwright and chromium (`make explorer-test`); without them it says so and nothing is timed.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import numpy as np

from lscd.explorer.bench import GOAL_ALL_MS, GOAL_FACTS_MS, told
from lscd.explorer.frame import start
from lscd.explorer.html import PANELS
from lscd.explorer.state import State

GOAL_FIRST_MS = 3000
VIEWS, PRESSES = 5, 12  # first views, and key presses in each panel
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FIRST = {  # what is waited for: facts, charts, and controls that answer
    "#lscd-first [data-fact=fits]": "visible",
    "#lscd-first img >> nth=1": "visible",
    "#lscd-first": "detached",
}
QUIET_MS = 600  # without a change of a chart, after which the last one has come
MOST_MS = 15_000

# Milliseconds from the next key press to the change of the question, and to the last change inside the panel.
WATCH = """([quiet, most]) => {
    const said = () => document.querySelector('.lscd-answer')?.textContent ?? '';
    const before = said();
    let pressed, number = 0, drawn = 0;
    const seen = [];
    const since = () => performance.now() - pressed;
    const watch = root => {
        if (seen.includes(root)) { return; }
        seen.push(root);
        watcher.observe(root, {subtree: true, childList: true, characterData: true, attributes: true});
        root.querySelectorAll('*').forEach(e => e.shadowRoot && watch(e.shadowRoot));
    };
    const inside = node => {
        let n = node;
        while (n && !n.classList?.contains('lscd-figures')) { n = n.parentNode ?? n.host; }
        return Boolean(n);
    };
    const brings = node => inside(node) || node.querySelector?.('.lscd-figures');
    const watcher = new MutationObserver(changes => {
        if (pressed === undefined) { return; }
        if (!number && said() && said() !== before) { number = since(); }
        for (const change of changes) {
            change.addedNodes.forEach(n => {
                if (n.shadowRoot) { watch(n.shadowRoot); }
                n.querySelectorAll?.('*').forEach(e => e.shadowRoot && watch(e.shadowRoot));
            });
            if (inside(change.target) || [...change.addedNodes].some(brings)) { drawn = since(); }
        }
    });
    watch(document.body);
    addEventListener('keydown', () => { pressed = performance.now(); }, {capture: true, once: true});
    window.answered = new Promise(done => {
        const ask = setInterval(() => {
            if (pressed === undefined) { return; }
            const settled = number && drawn && since() - Math.max(number, drawn) > quiet;
            if (settled || since() > most) {
                clearInterval(ask);
                watcher.disconnect();
                done([number || most, drawn || most]);
            }
        }, 20);
    });
}"""


def missing() -> str:
    """What keeps a browser from being timed; empty if nothing does."""
    lacking = [name for name in ("marimo", "playwright") if find_spec(name) is None]
    return ", ".join(lacking if CHROMIUM else [*lacking, "chromium"])


def first_views_ms(address: str, new_page: Callable[[], Any], views: int = VIEWS) -> np.ndarray:
    """Milliseconds until a fresh page shows its facts, its first charts, and its controls: (views, 3)."""
    rows = []
    for _ in range(views):
        tab = new_page()
        begin = time.perf_counter()
        tab.goto(address, wait_until="commit")
        seen = []
        for part, state in FIRST.items():
            tab.locator(part).wait_for(state=state)
            seen.append(1e3 * (time.perf_counter() - begin))
        rows.append(seen)
        tab.close()
    return np.array(rows)


def key_presses_ms(tab: Any, panel: str, presses: int = PRESSES) -> np.ndarray:
    """Milliseconds to the changed number and to the last chart of a panel, each step of the slider: (presses, 2)."""
    tab.get_by_role("tab", name=panel, exact=True).click()
    tab.locator(f"[data-panel={next(one.name for one in PANELS if one.title == panel)}] svg.marks").first.wait_for()
    slider = tab.locator(".lscd-sparsity").get_by_role("slider")
    rows = []
    for i in range(presses):
        slider.focus()
        tab.evaluate(WATCH, [QUIET_MS, MOST_MS])
        tab.keyboard.press("ArrowLeft" if i % 2 else "ArrowRight")
        rows.append(tab.evaluate("answered"))
    return np.array(rows)


@contextmanager
def browsing() -> Iterator[tuple[str, Callable[[], Any]]]:
    """Address of a running explorer, and what opens a fresh page."""
    from playwright.sync_api import sync_playwright

    server, address = start()
    try:
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
            yield address, lambda: chromium.new_page(viewport={"width": 1280, "height": 900})
            chromium.close()
    finally:
        server.kill()


def main() -> None:
    """Print median and worst beside the goals."""
    if lacking := missing():
        sys.stdout.write(f"explorer in a browser: not timed, not installed: {lacking}\n")
        return
    with browsing() as (address, new_page):
        first_views_ms(address, new_page, 1)  # compiles, reads the catalogue
        views = first_views_ms(address, new_page)
        for part, times in zip(("facts", "charts", "controls"), views.T, strict=True):
            sys.stdout.write(told(f"first view, {part}", times, GOAL_FIRST_MS))
        tab = new_page()
        tab.goto(f"{address}?{State().to_query()}")
        tab.locator("#lscd-first").wait_for(state="detached")
        for panel in PANELS:
            times = key_presses_ms(tab, panel.title)
            sys.stdout.write(told(f"{panel.title}, key to number", times[:, 0], GOAL_FACTS_MS))
            sys.stdout.write(told(f"{panel.title}, key to last chart", times[:, 1], GOAL_ALL_MS))


if __name__ == "__main__":
    main()
