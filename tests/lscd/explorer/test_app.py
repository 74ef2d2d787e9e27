"""The explorer in a real browser."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from lscd.explorer import frame, words
from lscd.explorer.state import PRESETS, State
from lscd.explorer.view import View, view
from tests.lscd.explorer import browser as explorer_browser
from tests.lscd.explorer.cases import facts

WATCH_ANSWER = """() => {
    const said = () => document.querySelector('.lscd-answer > p')?.innerText ?? '';
    const before = said();
    let start;
    addEventListener('keydown', () => { start = performance.now(); }, {capture: true, once: true});
    window.answered = new Promise(done => {
        const watcher = new MutationObserver(() => {
            if (said() && said() !== before) { watcher.disconnect(); done(performance.now() - start); }
        });
        watcher.observe(document.body, {subtree: true, childList: true, characterData: true});
    });
}"""


def test_downloads_repeat_the_question(shown: View) -> None:
    for table in words.downloads(shown).values():
        assert (table["asked_model"] == "opt-66b").all()
        assert len(table)


@dataclass
class Page:
    """The open page and everything it complained about or asked for."""

    tab: Any
    address: str
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def open(self, query: str = "") -> None:
        self.tab.goto(self.address + query)
        self.tab.locator("[data-fact=fits], .lscd-error").first.wait_for()

    def fact(self, name: str) -> str:
        return str(self.tab.locator(f"[data-fact={name}] strong").inner_text())

    def enter(self, name: str, value: str) -> None:
        box = self.tab.locator(f".lscd-{name} input")
        box.fill(value)
        box.press("Enter")

    def wait_for(self, state: State) -> None:
        """Wait until the page shows this state's throughput, as the models say it."""
        value = facts(state)["throughput"].value
        self.tab.locator("[data-fact=throughput] strong", has_text=re.compile(f"^{re.escape(value)}$")).wait_for()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    reason = explorer_browser.missing("marimo")
    if reason:
        pytest.skip(reason)
    profile = tmp_path_factory.mktemp("profile")
    with explorer_browser.explorer() as address, explorer_browser.chromium(profile) as context:
        found = Page(context.new_page(), address)
        found.tab.on("console", lambda m: found.complaints.append(m.text) if m.type == "error" else None)
        found.tab.on("pageerror", lambda error: found.complaints.append(str(error)))
        found.tab.on("request", lambda request: found.requests.append(request.url))
        yield found


def test_page_shows_the_models_numbers(page: Page) -> None:
    state = PRESETS["opt-66b-two-gpus"]
    page.open("?" + state.to_query())
    for name, fact in facts(state).items():
        assert page.fact(name) == fact.value
    for row in view(state).kernels.itertuples():
        cells = page.tab.locator(f"[data-kernel={row.kernel}] td").all_inner_texts()
        assert cells[1] == f"{row.time_us:,.1f}"
        assert cells[2] == f"from {row.lo_us:,.0f}" if row.at_least else f"{row.lo_us:,.0f} – {row.hi_us:,.0f}"
        assert cells[5].split(",")[0] == row.standing
    page.tab.locator(".lscd-figure svg.marks").nth(4).wait_for()


def test_page_follows_the_slider_the_boxes_and_the_keyboard(page: Page) -> None:
    page.open()
    page.tab.get_by_role("slider").focus()
    page.tab.keyboard.press("ArrowLeft")
    page.wait_for(State(sparsity=0.79))
    page.enter("batch", "32")
    page.wait_for(State(sparsity=0.79, batch=32))
    page.tab.locator(".lscd-gpu select").select_option("h100")
    page.wait_for(State(sparsity=0.79, batch=32, gpu="h100"))
    page.tab.wait_for_url(re.compile("gpu=h100"))
    query = page.tab.url.split("?")[1]
    assert State.from_query(query) == State(sparsity=0.79, batch=32, gpu="h100")


def test_every_input_and_link_is_reached_by_tab(page: Page) -> None:
    page.open()
    page.tab.locator("body").click(position={"x": 2, "y": 2})
    reached = set()
    for _ in range(45):
        page.tab.keyboard.press("Tab")
        reached.add(
            page.tab.evaluate(
                """() => {let e = document.activeElement; let kind = e.tagName;
                while (e.shadowRoot && e.shadowRoot.activeElement) { e = e.shadowRoot.activeElement; }
                for (let n = e; n; n = n.parentElement || (n.getRootNode() && n.getRootNode().host)) {
                  const c = [...(n.classList || [])].find(c => c.startsWith('lscd-')); if (c) return c; }
                return kind;}"""
            )
        )
    wanted = {f"lscd-{name}" for name in vars(State())} | {"lscd-head", "lscd-scroll", "lscd-downloads"}
    assert wanted <= reached


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("batch", "0", "batch must be a whole number"), ("gpus", "5", "cannot be shared by 5")],
)
def test_bad_values_are_explained_and_mended(page: Page, name: str, value: str, message: str) -> None:
    page.open()
    page.enter(name, value)
    page.tab.locator(".lscd-error", has_text=message).wait_for()
    page.enter(name, "2")
    page.wait_for(replace(State(), **{name: 2}))
    assert page.tab.locator(".lscd-error").count() == 0


def test_a_broken_link_shows_the_defaults_with_a_message(page: Page) -> None:
    page.open("?gpu=h10&batch=4")
    page.tab.locator(".lscd-error", has_text="did you mean h100").wait_for()
    page.wait_for(State())


def test_data_and_pictures_can_be_saved(page: Page, tmp_path: Path) -> None:
    page.open()
    with page.tab.expect_download() as found:
        page.tab.get_by_text("lscd-kernels.csv").click()
    found.value.save_as(tmp_path / "kernels.csv")
    rows = list(csv.DictReader((tmp_path / "kernels.csv").read_text().splitlines()))
    expected = view(State()).kernels
    assert [row["kernel"] for row in rows] == list(expected["kernel"])
    assert [float(row["time_us"]) for row in rows] == pytest.approx(list(expected["time_us"]))
    for kind, magic in (("SVG", b"<svg"), ("PNG", b"\x89PNG")):
        figure = page.tab.locator("[data-figure=kernels]")
        figure.locator("summary").click()
        with page.tab.expect_download() as picture:
            figure.get_by_text(f"Save as {kind}").click()
        picture.value.save_as(tmp_path / kind)
        assert (tmp_path / kind).read_bytes().startswith(magic)


@pytest.mark.parametrize("width", [375, 1280])
def test_nothing_scrolls_sideways(page: Page, width: int, tmp_path: Path) -> None:
    page.tab.set_viewport_size({"width": width, "height": 900})
    page.open()
    page.tab.locator(".lscd-figure svg.marks").nth(4).wait_for()
    widths = page.tab.evaluate(
        "[document.documentElement, document.getElementById('App')].map(e => [e.scrollWidth, e.clientWidth])"
    )
    assert all(content <= window for content, window in widths)
    for box in page.tab.locator(".lscd-figure svg.marks").all():
        assert box.bounding_box()["width"] <= width
    assert len(page.tab.screenshot(path=tmp_path / f"{width}.png")) > 10_000
    page.tab.set_viewport_size({"width": 1280, "height": 900})


def test_page_answers_every_key_press(page: Page) -> None:
    page.open()
    page.tab.locator(".lscd-figure svg.marks").nth(4).wait_for()
    slider = page.tab.get_by_role("slider")
    for _ in range(8):
        slider.focus()
        page.tab.evaluate(WATCH_ANSWER)
        page.tab.keyboard.press("ArrowLeft")
        assert page.tab.evaluate("answered") > 0  # milliseconds until the question on the page has changed
    page.wait_for(State(sparsity=0.72))


def test_the_same_page_opens_in_a_notebooks_frame(page: Page) -> None:
    tab = page.tab.context.new_page()
    tab.set_content(frame.show("gpu=h100&batch=32")._repr_html_())
    framed = tab.frame_locator("iframe")
    framed.locator(".lscd-answer > p", has_text="H100").wait_for()
    assert (
        framed.locator("[data-fact=throughput] strong").inner_text()
        == facts(State(gpu="h100", batch=32))["throughput"].value
    )
    framed.get_by_role("slider").focus()
    tab.keyboard.press("ArrowLeft")
    framed.locator(
        "[data-fact=throughput] strong", has_text=facts(State(gpu="h100", batch=32, sparsity=0.79))["throughput"].value
    ).wait_for()
    tab.close()


def test_page_never_complained_and_asked_no_other_machine(page: Page) -> None:
    page.open()
    assert page.complaints == []
    foreign = [url for url in page.requests if not re.match(r"(http|ws)://(localhost|127\.0\.0\.1):|data:|blob:", url)]
    assert foreign == []
