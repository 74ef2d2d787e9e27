"""The explorer in a real browser: numbers, widgets, panels."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path

import pytest

from lscd.explorer import frame, html, words
from lscd.explorer.state import PRESETS, State
from lscd.explorer.view import View, view
from tests.lscd.explorer.browser import TABS, Page
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


def test_page_shows_the_models_numbers(page: Page) -> None:
    state = PRESETS["opt-66b-two-gpus"].state
    page.open("?" + state.to_query(), panel="Kernels")
    for name, fact in facts(state).items():
        assert page.fact(name) == fact.value
    for row in view(state).kernels.itertuples():
        cells = page.tab.locator(f"[data-kernel={row.kernel}] td").all_inner_texts()
        assert cells[1] == f"{row.time_us:,.1f}"
        assert cells[2] == f"from {row.lo_us:,.0f}" if row.at_least else f"{row.lo_us:,.0f} – {row.hi_us:,.0f}"
        assert cells[5].split(",")[0] == row.standing
    needed = words.needs(view(state))
    page.tab.locator(".lscd-needs", has_text=needed).wait_for()


def test_page_follows_the_slider_the_boxes_and_the_keyboard(page: Page) -> None:
    page.open()
    page.tab.locator(".lscd-sparsity").get_by_role("slider").focus()
    page.tab.keyboard.press("ArrowLeft")
    page.wait_for(State(sparsity=0.79))
    page.enter("batch", "32")
    page.wait_for(State(sparsity=0.79, batch=32))
    page.tab.locator(".lscd-gpu select").select_option("h100")
    page.wait_for(State(sparsity=0.79, batch=32, gpu="h100"))
    page.tab.locator(".lscd-engine select").select_option("vllm")
    page.tab.locator(".lscd-format select").select_option("fp8: rounded")
    expected = State(sparsity=0.79, batch=32, gpu="h100", system="vllm+fp8")
    page.wait_for(expected)
    page.tab.locator(".lscd-model select").select_option("qwen3-30b-a3b")  # of other matrices
    page.wait_for(replace(expected, model="qwen3-30b-a3b"))
    page.tab.wait_for_url(re.compile("model=qwen3-30b-a3b"))
    page.tab.wait_for_url(re.compile("system=vllm%2Bfp8"))
    assert State.from_query(page.tab.url.split("?")[1]) == replace(expected, model="qwen3-30b-a3b")


def test_every_panel_opens_by_click_and_by_keyboard(page: Page) -> None:
    page.open()
    assert page.tab.get_by_role("tab").all_inner_texts() == list(TABS)
    found = view(State())
    expected = {one.name: html.panel(found, one.name, lambda chart: f"[[{chart.name}]]") for one in html.PANELS}
    for title, name in TABS.items():
        page.show(title)
        charts = expected.get(name, "").count("[[")
        assert page.tab.locator(".lscd-figures svg.marks").count() == charts
        assert page.tab.locator(".lscd-figures table").count() == expected.get(name, "").count("<table")
    page.tab.get_by_role("tab", name=list(TABS)[-1]).focus()
    for title in reversed(list(TABS)[:-1]):
        page.tab.keyboard.press("ArrowLeft")
        page.tab.locator(f"[data-panel={TABS[title]}]").wait_for()


@pytest.mark.parametrize("name", ["deepseek-h200", "experts-h200"])
def test_the_tables_of_operators_and_front_are_the_models(page: Page, name: str) -> None:
    state = PRESETS[name].state
    found = view(state)
    page.open("?" + state.to_query(), panel="Operators")
    for row in found.operators.itertuples():
        cells = page.tab.locator(f'[data-operator="{row.phase} {row.operator}"] td').all_inner_texts()
        assert cells == [row.phase, *words.operator_cells(row)]
    page.show("Latency")
    for row in found.tradeoff[found.tradeoff["front"]].itertuples():
        cells = page.tab.locator(f'[data-front="{row.system} {row.batch}"] td').all_inner_texts()
        assert cells == words.front_cells(row)
    assert page.tab.locator("[data-front]").count() == found.tradeoff["front"].sum()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("batch", "0", "batch must be a whole number"), ("gpus", "5", "cannot be shared by 5")],
)
def test_bad_values_are_explained_grey_out_the_last_answer_and_are_mended(
    page: Page, name: str, value: str, message: str
) -> None:
    page.open()
    before = page.fact("throughput")
    page.enter(name, value)
    page.tab.locator(".lscd-error", has_text=message).wait_for()
    assert page.tab.locator(".lscd-stale [data-fact=throughput] strong").inner_text() == before
    assert page.tab.locator(".lscd-stale [data-fact=worth]").count() == 1
    page.tab.locator(".lscd-stale .lscd-figures").wait_for()
    page.enter(name, "2")
    page.wait_for(replace(State(), **{name: 2}))
    assert page.tab.locator(".lscd-error").count() == 0
    page.tab.locator(".lscd-stale").first.wait_for(state="detached")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("?gpu=h10&batch=4", "did you mean h100"),
        ("?batch=4&pinned=batch%3Dmany", "batch must be a whole number, got 'many'"),
    ],
)
def test_a_broken_link_shows_the_defaults_with_a_message(page: Page, query: str, message: str) -> None:
    page.open(query)
    page.tab.locator(".lscd-error", has_text=message).wait_for()
    page.wait_for(State())


def test_data_and_pictures_can_be_saved(page: Page, tmp_path: Path) -> None:
    page.open()
    page.drawn("Sparsity")
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


def test_page_answers_every_key_press(page: Page) -> None:
    page.open()
    page.drawn("Sparsity")
    slider = page.tab.locator(".lscd-sparsity").get_by_role("slider")
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
    framed.locator("#lscd-first").wait_for(state="detached")
    framed.locator(".lscd-answer > p", has_text="H100").wait_for()
    assert (
        framed.locator("[data-fact=throughput] strong").inner_text()
        == facts(State(gpu="h100", batch=32))["throughput"].value
    )
    framed.locator(".lscd-sparsity").get_by_role("slider").focus()
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


def test_no_change_is_lost_while_the_page_is_busy(page: Page) -> None:
    page.open()
    page.tab.locator(".lscd-model select").select_option("qwen3-8b")
    page.tab.locator(".lscd-gpu select").select_option("l4")
    page.tab.locator(".lscd-engine select").select_option("vllm")
    page.enter("batch", "8")
    page.enter("gpus", "2")
    page.wait_for(State(model="qwen3-8b", gpu="l4", gpus=2, system="vllm+flash-llm", batch=8))


def test_charts_have_an_end_where_no_kernel_takes_any_sparsity(page: Page) -> None:
    page.open("?gpu=mi300x&system=vllm%2Btwo-four&sparsity=0.6")
    for chart in page.tab.locator(".lscd-figure svg.marks").all():
        assert 0 < chart.bounding_box()["height"] < 2000
