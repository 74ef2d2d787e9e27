"""The explorer for everybody: by keyboard, on a phone, and as axe reads it."""

from __future__ import annotations

from typing import Any

import pytest

from lscd.explorer.words import LABELS
from tests.lscd.explorer.browser import QUESTION, TABS, Page

WIDTHS = (1280, 375)

# What axe finds in marimo's own widgets, and cannot be told otherwise from here.
MARIMOS_OWN = {
    "aria-allowed-role": "the button of an upload has role=presentation",
    "presentation-role-conflict": "the same button takes the focus",
    "label": "the hidden input of an upload has no label; its button says Upload, its group says of what",
    "summary-name": "the menu of a chart is a summary with three dots",
}
WIDGETS = ("marimo-file", "marimo-mime-renderer")  # that these may be found in

FOCUSED = """() => {
    const found = [];
    let e = document.activeElement;
    while (e.shadowRoot && e.shadowRoot.activeElement) { e = e.shadowRoot.activeElement; }
    found.push(e.getAttribute('role') ?? e.tagName);
    for (let n = e; n; n = n.parentElement || (n.getRootNode() && n.getRootNode().host)) {
        found.push(...[...(n.classList || [])].filter(c => c.startsWith('lscd-')));
    }
    return found;
}"""


def test_tab_reaches_every_input_link_and_table(page: Page) -> None:
    page.open(panel="Kernels", more=True)
    page.tab.locator("body").click(position={"x": 2, "y": 2})
    reached: set[str] = set()
    for _ in range(60):
        page.tab.keyboard.press("Tab")
        reached |= set(page.tab.evaluate(FOCUSED))
    assert {f"lscd-{name}" for name in LABELS} <= reached
    assert page.tab.get_by_role("tab", selected=True).inner_text() == "Kernels", "focus alone opens no panel"
    assert {"lscd-head", "lscd-scroll", "lscd-downloads", "tab", "slider", "switch", "SUMMARY"} <= reached


@pytest.fixture(scope="module", params=WIDTHS)
def wide(page: Page, request: pytest.FixtureRequest) -> Any:
    """The page with all inputs unfolded and an answer pinned, in a window of a width."""
    page.tab.set_viewport_size({"width": request.param, "height": 900})
    page.open("?pinned=batch%3D4", more=True)
    yield page, request.param
    page.tab.set_viewport_size({"width": 1280, "height": 900})


@pytest.mark.parametrize("panel", TABS)
def test_a_panel_fits_its_window(wide: tuple[Page, int], panel: str) -> None:
    page, width = wide
    page.show(panel)
    sizes = "[document.documentElement, document.getElementById('App')].map(e => [e.scrollWidth, e.clientWidth])"
    assert all(content <= window for content, window in page.tab.evaluate(sizes))
    for figure in page.tab.locator(".lscd-figures .lscd-figure").all():
        frame = figure.bounding_box()
        assert frame["x"] >= 0
        assert frame["x"] + frame["width"] <= width
        for part in figure.locator("svg.marks, svg.marks .role-legend, svg.marks .role-axis").all():
            box = part.bounding_box()
            if box is not None:  # an axis without marks has none
                assert frame["x"] - 1 <= box["x"]
                assert box["x"] + box["width"] <= frame["x"] + frame["width"] + 1


@pytest.mark.parametrize("width", WIDTHS)
def test_the_first_view_is_for_everybody_too(page: Page, width: int) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="see make explorer-test").Axe()
    tab = page.tab.context.new_page()
    tab.set_viewport_size({"width": width, "height": 900})
    tab.route("**/assets/**", lambda route: route.abort())  # so that it stays
    tab.goto(page.address + QUESTION)
    assert tab.evaluate("(e => e.scrollWidth <= e.clientWidth)(document.getElementById('lscd-first'))")
    found = axe.run(tab, "#lscd-first").response["violations"]
    assert [(rule["id"], [node["target"] for node in rule["nodes"]]) for rule in found] == []
    tab.close()


@pytest.mark.parametrize("panel", TABS)
def test_axe_finds_nothing_of_ours(wide: tuple[Page, int], panel: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="see make explorer-test").Axe()
    page, _ = wide
    page.show(panel)
    found = axe.run(page.tab).response["violations"]
    places = {(rule["id"], str(node["target"])) for rule in found for node in rule["nodes"]}
    ours = {
        (rule, place)
        for rule, place in places
        if rule not in MARIMOS_OWN or not any(widget in place for widget in WIDGETS)
    }
    assert ours == set()
    assert {rule for rule, _ in places} <= set(MARIMOS_OWN)
