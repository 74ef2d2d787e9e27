"""The explorer in a real browser: a pinned answer, another card, one's own files, switches and limits."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lscd.cli import app
from lscd.explorer import words
from lscd.explorer.state import State, linked
from lscd.explorer.view import Files, view
from perfmodel.catalog import model_from_text, sparsities_from_text
from tests.lscd.explorer.browser import Page
from tests.lscd.explorer.cases import CENSUS, CONFIG


def test_a_pinned_answer_stands_beside_the_next_and_in_the_address(page: Page) -> None:
    page.open(panel="Compare")
    assert "Pin this answer as A" in page.tab.locator(".lscd-hint").inner_text()
    page.tab.get_by_role("button", name="Pin this answer as A").click()
    page.tab.locator("[data-panel=compare]").wait_for()
    page.enter("batch", "32")
    page.wait_for(State(batch=32))
    page.tab.locator("[data-row=batch]").wait_for()
    first, second = view(State()), view(State(batch=32))
    for row in words.compared(first, second):
        cells = page.tab.locator(f"[data-row={row.name}] td").all_inner_texts()
        assert cells == [row.pinned, row.now, row.change]
    assert page.tab.locator(".lscd-copy").inner_text() == words.markdown(first, second)
    page.tab.wait_for_url(re.compile("pinned=.*"))
    page.tab.wait_for_url(re.compile("[?&]batch=32"))
    address = page.tab.url.split("?")[1]
    page.open("?" + address, panel="Compare")
    assert page.tab.locator(".lscd-copy").inner_text() == words.markdown(first, second)


def test_the_address_of_a_pinned_answer_is_read_back(page: Page) -> None:
    page.open(f"?batch=4&pinned={'batch%3D64%26gpu%3Dh100'}", panel="Compare")
    expected = words.compared(view(State(batch=64, gpu="h100")), view(State(batch=4)))
    assert page.tab.locator("[data-row=gpu] td").all_inner_texts() == [expected[0].pinned, expected[0].now, ""]
    assert linked({"batch": "4", "pinned": "batch=64&gpu=h100"}).pinned == State(batch=64, gpu="h100")


def saved(page: Page, folder: Path, name: str, mark: str) -> Path:
    """A download once it says ``mark``: files follow the figures."""
    for _ in range(40):
        with page.tab.expect_download() as found:
            page.tab.get_by_text(name).click()
        found.value.save_as(folder / name)
        if f"what-if: {mark}" in (folder / name).read_text():
            return folder / name
        page.tab.wait_for_timeout(250)
    raise AssertionError(f"{name} never said {mark}")


def test_a_card_of_more_bandwidth_changes_the_numbers_and_is_a_file_of_the_command(page: Page, tmp_path: Path) -> None:
    page.open(more=True)
    assert page.tab.get_by_text(".toml").count() == 0
    page.enter("bandwidth", "2")
    state = State(bandwidth=2.0)
    page.wait_for(state)
    page.tab.locator(".lscd-price").get_by_role("slider").focus()
    page.tab.keyboard.press("ArrowRight")
    found = view(State(bandwidth=2.0, price=1.05))
    page.tab.locator("[data-fact=cost] strong", has_text=words.facts(found)[4].value).wait_for()
    card = saved(page, tmp_path, "a100-80gb-like.toml", "low_usd_per_hour")
    how = ["--gpu", str(card), "--batch", "16", "--system", "flash-llm", "--sparsity", "0.8", "--json"]
    said = json.loads(CliRunner().invoke(app, ["e2e", "--model", "opt-30b", *how]).stdout)
    assert page.fact("throughput") == f"{said['tokens_per_gpu_s']:,.1f}"
    low, high = said["usd_per_million_tokens"]
    assert page.fact("cost") == f"${low:,.2f} – {high:,.2f}"


def test_a_model_and_a_census_of_ones_own_are_shown(page: Page, tmp_path: Path) -> None:
    files = {"model_file": "config.json", "zeros_file": "census.csv"}
    (tmp_path / "config.json").write_text(CONFIG)
    (tmp_path / "census.csv").write_text(CENSUS)
    page.open(more=True)
    page.tab.locator(".lscd-model_file input[type=file]").set_input_files(tmp_path / files["model_file"])
    model = model_from_text(CONFIG.encode(), "config.json")
    page.wait_for(State(), Files(model))
    page.tab.locator(".lscd-answer > p", has_text=model.name).wait_for()
    page.tab.locator(".lscd-zeros_file input[type=file]").set_input_files(tmp_path / files["zeros_file"])
    page.wait_for(State(), Files(model, sparsities_from_text(CENSUS.encode(), "census.csv")))
    page.tab.locator(".lscd-brought", has_text="the slider has no say").wait_for()


def test_a_file_that_is_no_model_is_explained(page: Page, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": ')
    page.open(more=True)
    page.tab.locator(".lscd-model_file input[type=file]").set_input_files(tmp_path / "config.json")
    page.tab.locator(".lscd-error", has_text="config.json").wait_for()
    page.wait_for(State())


def test_kernels_that_nobody_measured_appear_with_the_switch(page: Page) -> None:
    page.open(panel="Kernels", more=True)
    hidden = view(State()).hidden
    assert (
        f"{len(hidden)} kernels that nobody has measured are not shown"
        in page.tab.locator("[data-figure=table] figcaption").inner_text()
    )
    options = page.tab.locator(".lscd-format select option")
    assert not [name for name in options.all_inner_texts() if name.startswith("lscd-")]
    page.tab.locator(".lscd-unmeasured").get_by_role("switch").focus()
    page.tab.keyboard.press("Space")
    page.tab.locator("[data-kernel=lscd-bitmap]").wait_for()
    shown = [row.get_attribute("data-kernel") for row in page.tab.locator("[data-kernel]").all()]
    assert shown == list(view(State(unmeasured=True)).kernels["kernel"])
    assert [name for name in options.all_inner_texts() if name.startswith("lscd-bitmap:")]


def test_limits_and_load_move_the_front(page: Page) -> None:
    state = State("llama-3.1-8b", "h100", system="vllm+fp8", sparsity=0.5, tpot_ms=10, served=True)
    before = replace(state, tpot_ms=20, served=False)
    page.open("?" + before.to_query(), panel="Latency", more=True)
    page.tab.locator(".lscd-tpot_ms").get_by_role("slider").focus()
    page.tab.keyboard.press("ArrowLeft")
    page.tab.locator("[data-figure=front] figcaption", has_text="TPOT up to 10 ms").wait_for()
    page.tab.locator(".lscd-served").get_by_role("switch").click()
    page.tab.locator("[data-figure=front] figcaption", has_text="a loaded server by its users").wait_for()
    front = view(state).tradeoff.query("front").sort_values("tokens_per_user_s")
    shown = [row.get_attribute("data-front") for row in page.tab.locator("[data-front]").all()]
    assert shown == [f"{row.system} {row.batch}" for row in front.itertuples()]


@pytest.mark.parametrize("name", ["bandwidth", "l2"])
def test_a_factor_out_of_range_is_explained(page: Page, name: str) -> None:
    page.open(f"?{name}=5")
    page.tab.locator(".lscd-error", has_text=f"{name} must lie in [0.25, 4], got 5").wait_for()
