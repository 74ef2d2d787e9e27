"""The explorer: its numbers are the models' numbers, its links hold the state, and a real browser can use it."""

from __future__ import annotations

import csv
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from lscd.cli import app
from lscd.explorer import charts, frame, words
from lscd.explorer.state import MATRICES, PRESETS, State, preset, system_names
from lscd.explorer.view import View, view
from perfmodel import predict
from perfmodel.analysis import crossover_sparsity
from perfmodel.catalog import gpu_names, load_gpu, load_model, model_names
from perfmodel.kernels import KERNELS
from perfmodel.serving.run import evaluate
from perfmodel.serving.transformer import layer_matrices
from tests import explorer_browser

DRAWINGS = (charts.kernel_times, charts.memory, charts.throughput, charts.speedups, charts.roofline)
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


@pytest.fixture(scope="module")
def shown() -> View:
    return view(PRESETS["opt-66b-two-gpus"])


def facts(state: State) -> dict[str, words.Fact]:
    return {fact.name: fact for fact in words.facts(view(state))}


# State and address


@settings(max_examples=50, deadline=None)
@given(
    model=st.sampled_from(model_names()),
    gpu=st.sampled_from(gpu_names()),
    system=st.sampled_from(system_names()),
    matrix=st.sampled_from(MATRICES),
    sparsity=st.floats(0, 1),
    batch=st.integers(1, 10**6),
)
def test_a_link_holds_the_whole_state(**settings_: Any) -> None:
    state = State(**settings_)
    assert State.from_query(state.to_query()) == state
    assert State.from_query("?" + state.to_query()) == state


def test_a_link_may_leave_out_settings_and_carry_a_bare_plus() -> None:
    assert State.from_query("") == State()
    assert State.from_query("system=fastertransformer+bitmap&batch=4") == State(
        system="fastertransformer+bitmap", batch=4
    )


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("gpu=h10", "did you mean h100"),
        ("model=opt", "unknown model"),
        ("system=flashllm", "did you mean flash-llm"),
        ("matrix=mlp", "did you mean mlp-in"),
        ("batch=many", "batch must be a whole number, got 'many'"),
        ("batch=1.5", "batch must be a whole number"),
        ("sparsity=", "sparsity must be a number, got ''"),
        ("sparsty=0.5", "unknown setting 'sparsty': did you mean sparsity"),
        ("gpu=/etc/passwd.toml", "unknown gpu"),
    ],
)
def test_broken_links_say_what_is_wrong(query: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        State.from_query(query)


def test_presets_are_names_or_queries() -> None:
    assert preset("too-big") == PRESETS["too-big"]
    assert preset("gpu=h100&batch=32") == State(gpu="h100", batch=32)
    with pytest.raises(ValueError, match="did you mean too-big"):
        preset("to-big")


# View: the same numbers as the models


@pytest.mark.parametrize("name", PRESETS)
def test_every_kernel_that_takes_this_n_has_its_own_prediction(name: str) -> None:
    found = view(PRESETS[name])
    state = found.state
    matrices = {matrix.name: matrix for matrix in layer_matrices(load_model(state.model).shape, state.gpus)}
    matrix = matrices[state.matrix]
    assert set(found.kernels["kernel"]) | set(found.refused) == set(KERNELS)
    for row in found.kernels.itertuples():
        p = predict(row.kernel, state.gpu, matrix.m, matrix.k, row.n, state.sparsity)
        assert (row.time_us, row.lo_us, row.hi_us) == pytest.approx(
            (float(p.time_s) * 1e6, float(p.lo_s) * 1e6, float(p.hi_s) * 1e6), rel=1e-12
        )
        assert row.n >= state.batch
        assert row.lo_us < row.time_us < row.hi_us
    for kernel in found.refused:
        assert np.isnan(KERNELS[kernel].padded_n(state.batch))


def test_no_kernel_stands_above_the_roof(shown: View) -> None:
    gpu = load_gpu(shown.state.gpu)
    roof = np.interp(shown.kernels["intensity"], shown.roof["intensity"], shown.roof["flops_per_s"])
    assert (shown.kernels["flops_per_s"] <= roof * 1.05).all()
    assert shown.roof["flops_per_s"].max() == gpu.peak.fp16_tensor
    assert shown.roof.loc[shown.roof["intensity"] == shown.ridge, "flops_per_s"].item() == pytest.approx(
        gpu.peak.fp16_tensor
    )


def test_the_throughput_curve_passes_through_the_chosen_run(shown: View) -> None:
    state = shown.state
    for system in (state.system, "fastertransformer"):
        curve = shown.throughput[shown.throughput["system"] == system].set_index("batch")
        run = evaluate(
            state.model, state.gpu, system, batch=state.batch, sparsity=state.sparsity, gpus=state.gpus,
            input_len=state.input_len, output_len=state.output_len,
        )  # fmt: skip
        assert curve.loc[state.batch, "tokens_per_gpu_s"] == pytest.approx(float(run.tokens_per_gpu_s))
        assert curve.loc[state.batch, "fits"] == bool(run.memory.fits)
    assert curve["fits"].is_monotonic_decreasing


def test_memory_adds_up_to_the_models_total(shown: View) -> None:
    assert shown.memory["gigabytes"].sum() * 1e9 == pytest.approx(float(shown.run.memory.total))


def test_the_crossover_is_where_the_drawn_curve_passes_one(shown: View) -> None:
    curve = shown.speedups[shown.speedups["kernel"] == "flash-llm"]
    assert np.interp(shown.crossover or np.nan, curve["sparsity"], curve["speedup"]) == pytest.approx(1.0, abs=0.01)
    assert shown.crossover == crossover_sparsity("flash-llm", "a100-80gb", "opt-66b", 64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 0}, "batch must be a whole number of at least 1"),
        ({"sparsity": 1.5}, "sparsity must lie in"),
        ({"gpus": 5}, "cannot be shared by 5 GPUs"),
        ({"output_len": 5000}, "positions, got 5064"),
        ({"input_len": -3}, "input_len must be"),
    ],
)
def test_values_out_of_range_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        view(replace(State(), **change))


# Words and charts


def test_the_verdict_follows_the_memory() -> None:
    assert facts(PRESETS["opt-66b-two-gpus"])["fits"].value == "✓ fits"
    too_big = facts(PRESETS["too-big"])
    assert too_big["fits"].value == "✗ does not fit"
    assert "if it did fit" in too_big["throughput"].note


@pytest.mark.parametrize(
    ("sparsity", "value"), [(0.4, "one-shot pruning"), (0.75, "needs retraining"), (0.97, "not shown")]
)
def test_the_accuracy_tile_follows_published_pruning(sparsity: float, value: str) -> None:
    assert facts(State(sparsity=sparsity))["accuracy"].value == value


def test_systems_without_a_sparse_kernel_have_no_crossover() -> None:
    assert facts(State(system="deepspeed"))["crossover"].value == "–"
    assert facts(State(gpu="v100"))["cost"].value


@pytest.mark.parametrize("name", PRESETS)
def test_charts_carry_the_tables_numbers_and_no_address(name: str) -> None:
    found = view(PRESETS[name])
    specs = {chart.name: chart.spec for chart in (draw(found) for draw in DRAWINGS)}
    assert {row["kernel"] for row in specs["kernels"]["data"]["values"]} == set(found.kernels["kernel"])
    drawn = {row["kernel"]: row["time_us"] for row in specs["kernels"]["data"]["values"]}
    assert drawn == pytest.approx(dict(zip(found.kernels["kernel"], found.kernels["time_us"], strict=True)))
    assert sum(row["gigabytes"] for row in specs["memory"]["layer"][0]["data"]["values"]) == pytest.approx(
        found.memory["gigabytes"].sum()
    )
    text = json.dumps(specs, allow_nan=False)
    assert "http" not in text


def test_a_chart_shows_itself_in_jupyter(shown: View) -> None:
    bundle = charts.memory(shown)._repr_mimebundle_()
    assert bundle[charts.MIME]["layer"]
    assert "GB needed" in bundle["text/plain"]


def test_downloads_repeat_the_question(shown: View) -> None:
    for table in words.downloads(shown).values():
        assert (table["asked_model"] == "opt-66b").all()
        assert len(table)


def test_bench_times_every_change_it_makes() -> None:
    """The goal itself is for `make bench`: a shared machine may be slow."""
    pytest.importorskip("marimo")
    from lscd.explorer import bench

    times_ms = bench.answer_times_ms(changes=3)
    assert times_ms.shape == (3, 2)
    assert (times_ms[:, 0] > 0).all()
    assert (times_ms[:, 0] <= times_ms[:, 1]).all()


def test_a_frame_refuses_an_unknown_preset() -> None:
    with pytest.raises(ValueError, match="did you mean opt-66b-two-gpus"):
        frame.show("opt-66b-two-gpu")


# Command


def test_bad_presets_and_taken_ports_are_explained() -> None:
    result = CliRunner().invoke(app, ["explore", "--preset", "gpu=h10"])
    assert "did you mean h100" in str(result.exception)
    result = CliRunner().invoke(app, ["explore", "--preset", "sparsity=nan"])
    assert "sparsity must lie in [0, 1], got nan" in str(result.exception)
    pytest.importorskip("marimo", reason="marimo is not installed; see make explorer-test")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = CliRunner().invoke(app, ["explore", "--no-browser", "--port", str(taken.getsockname()[1])])
    assert "is not free" in str(result.exception)


def test_without_marimo_the_command_says_what_to_install() -> None:
    code = "import sys; sys.modules['marimo'] = None; from lscd.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code, "explore", "--no-browser"], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 2
    assert "pip install 'lscd-lab[explore]'" in result.stderr


# A real browser


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
    reason = explorer_browser.missing()
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
        assert cells[2] == f"{row.lo_us:,.0f} – {row.hi_us:,.0f}"
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
