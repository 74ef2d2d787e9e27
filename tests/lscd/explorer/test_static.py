"""The static edition says what the models say, is whole, and works in a browser from a plain file server."""

from __future__ import annotations

import functools
import gzip
import http.server
import itertools
import json
import re
import signal
import subprocess
import sys
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lscd.explorer import html, static
from lscd.explorer.state import PRESETS, State
from lscd.explorer.view import view
from perfmodel.plotting import vega
from tests.lscd.commands import run
from tests.lscd.explorer import browser

ROOT = Path(__file__).parents[3]
HOME = PRESETS["llama-8b-at-home"].state
SERVED = State("qwen3-0.6b", "h100", 1, "vllm+two-four", sparsity=0.6, batch=4, input_len=256, output_len=128)
SPARSITIES, BATCHES = (0.4, 0.6), (1, 4)


def small(states: list[State]) -> list[static.Pick]:
    return static.picked(states, SPARSITIES, BATCHES)


@pytest.fixture(scope="module")
def edition(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("edition")
    static.write(folder, small([HOME, SERVED]), "a test's <numbers>", lambda name: None)
    return folder


def unpacked(path: Path) -> dict[str, Any]:
    found = re.fullmatch(r'lscdAnswers\("([\w.-]+)","([\w+/=]+)"\)\n', path.read_text(encoding="ascii"))
    assert found
    assert found[1] == path.stem
    return json.loads(gzip.decompress(b64decode(found[2])))


def filled(part: Any, tables: list[Any]) -> Any:
    """A chart with the tables that it names, as the page's script makes it."""
    if isinstance(part, list):
        return [filled(one, tables) for one in part]
    if not isinstance(part, dict):
        return part
    if static.TABLE in part:
        table = tables[part[static.TABLE]]
        return {"values": [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]}
    return {key: filled(value, tables) for key, value in part.items()}


def assert_near(found: Any, wanted: Any) -> None:
    """Equal, numbers of charts to as many digits as are kept."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for key, value in wanted.items():
            assert_near(found[key], value)
    elif isinstance(wanted, list):
        for one, other in zip(found, wanted, strict=True):
            assert_near(one, other)
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, rel=1e-5)
    else:
        assert found == wanted


def parts_of(state: State) -> dict[str, str]:
    """The live page's HTML for a state; of charts the place alone."""
    found = view(state)

    def draw(chart: vega.Chart) -> str:
        return f"[{chart.name}]"

    panels = {panel.name: html.panel(found, panel.name, draw) for panel in html.PANELS}
    return {"answer": html.answer(found), "tiles": html.tiles(found), "needs": html.needs(found)} | panels


@pytest.mark.parametrize("pick", small([HOME, SERVED]), ids=lambda pick: pick.name)
def test_every_answer_is_that_of_the_live_page(edition: Path, pick: static.Pick) -> None:
    for batch in pick.batches:
        stored = unpacked(edition / "answers" / f"{pick.name}-batch-{batch}.js")
        for at, sparsity in enumerate(pick.sparsities):
            state = replace(pick.state, sparsity=sparsity, batch=batch)
            for name, text in parts_of(state).items():
                assert (
                    re.sub(r'<div class="lscd-chart" data-chart="(\w+)"[^>]*></div>', r"[\1]", stored[name][at]) == text
                )
            drawn: dict[str, vega.Spec] = {}
            for panel in html.PANELS:
                html.panel(view(state), panel.name, lambda chart, drawn=drawn: drawn.setdefault(chart.name, chart.spec))
            assert set(drawn) == {name for name, specs in stored["charts"].items() if specs[at] is not None}
            for name, spec in drawn.items():
                assert_near(filled(stored["charts"][name][at], stored["tables"]), spec)


def test_the_edition_is_whole_and_small(edition: Path) -> None:
    page = (edition / "index.html").read_text(encoding="utf-8")
    named = set(re.findall(r'(?:src|href)="([^":]+)"', page))
    assert {path.name for path in edition.iterdir()} == named | {"index.html", "answers"}
    listed = json.loads(re.search(r'id="edition">(.*)</script>', page)[1])  # type: ignore[index]
    wanted = {f"{one['name']}-batch-{batch}.js" for one in listed for batch in one["batches"]}
    assert {path.name for path in (edition / "answers").iterdir()} == wanted
    assert [(one["name"], one["sparsities"]) for one in listed] == [
        ("llama-8b-at-home", [0.4, 0.5, 0.6]),
        ("qwen3-0.6b-on-1-h100-vllm-two-four-256-128", [0.4, 0.6]),
    ]
    assert "10 answers to 2 settings" in page
    assert "a test&#x27;s &lt;numbers&gt;" in page
    assert "<!--" not in page
    first = [edition / name for name in named] + [max((edition / "answers").iterdir(), key=lambda p: p.stat().st_size)]
    assert sum(path.stat().st_size for path in first) < 1_000_000


def test_each_question_is_one_that_a_command_takes(edition: Path) -> None:
    for pick in small([*static.default_states(), State(bandwidth=2.0, unmeasured=True)]):
        query = "&".join(f"{name}={value}" for name, value in static._asked(pick.state).items())
        assert State.from_query(query) == pick.state


def test_the_default_edition_fits_its_memory_and_shows_a_verdict() -> None:
    picks = static.picked(static.default_states())
    assert len({pick.name for pick in picks}) == len({pick.title for pick in picks}) == len(picks)
    assert {pick.state for pick in picks} >= {preset.state for preset in PRESETS.values()}
    assert all(view(state).run.memory.fits and view(state).refusal is None for state in static.TODAY)


def test_the_command_writes_an_edition_and_keeps_what_is_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    whole = static.picked
    monkeypatch.setattr(static, "picked", lambda states: whole(states, (), BATCHES))
    folder = tmp_path / "edition"
    asked = ["explore", "--export", str(folder), "--preset", "llama-8b-at-home"]
    code, _, err = run(monkeypatch, capsys, *asked)
    assert (code, err.count("\n")) == (0, 1), err
    assert "python -m http.server" in err
    files = sorted(path.name for path in (folder / "answers").iterdir())
    assert files == ["llama-8b-at-home-batch-1.js", "llama-8b-at-home-batch-4.js"]
    before = (folder / "index.html").stat().st_mtime_ns
    code, out, err = run(monkeypatch, capsys, *asked)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "exists and is not empty" in err
    assert (folder / "index.html").stat().st_mtime_ns == before
    assert [path.name for path in tmp_path.iterdir()] == ["edition"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--export", "new", "--port", "3000"], "--port does nothing with --export; leave out"),
        (["--export", "new", "--no-browser"], "--browser does nothing with --export"),
        (["--export", "new", "--preset", "gpu=h10"], "did you mean h100"),
        (["--export", "new", "--preset", "gpus=5"], "cannot be shared by 5"),
        (["--export", "new", "--preset", "too-big", "--preset", "too-big"], "too-big is asked for twice"),
        (["--export", "absent/new", "--preset", "too-big"], "no such directory"),
        (["--export", "file"], "--export"),
        (["--preset", "too-big", "--preset", "opt-30b-one-gpu"], "--preset is given 2 times, allowed is once without"),
    ],
)
def test_bad_requests_are_refused_in_a_sentence(
    options: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    code, out, err = run(monkeypatch, capsys, "explore", *options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("fault", ["no charts' code", "stopped"])
def test_an_export_that_fails_leaves_nothing(
    fault: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    if fault == "stopped":
        monkeypatch.setattr(static, "answers", raising(KeyboardInterrupt()))
        monkeypatch.setattr(static.os, "cpu_count", lambda: 1)
    else:
        monkeypatch.setitem(sys.modules, "vl_convert", None)
    code, _, err = run(monkeypatch, capsys, "explore", "--export", str(tmp_path / "new"), "--preset", "too-big")
    assert code == (130 if fault == "stopped" else 2)
    assert fault == "stopped" or "pip install 'lscd-lab[explore]'" in err
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_is_ended_ends_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lscd", "explore", "--export", str(tmp_path / "new"), "--preset", "too-big"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 120
    while not list(tmp_path.glob(".lscd-*/answers")) and time.monotonic() < end:
        time.sleep(0.1)
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any) -> None:
        raise error

    return fail


def test_the_docs_link_what_make_docs_writes() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    written = re.search(r"lscd explore --export site/(\S+) ((?:--preset \S+ ?)+)", makefile)
    assert written
    assert set(re.findall(r"--preset (\S+)", written[2])) <= set(PRESETS)
    assert f'href="{written[1]}/index.html"' in (ROOT / "docs" / "explorer.md").read_text(encoding="utf-8")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Address of a plain file server."""
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


class Reader:
    """A tab on the edition, with all that it complained of and asked for."""

    def __init__(self, tab: Any, address: str) -> None:
        self.tab, self.address = tab, address
        self.complaints: list[str] = []
        self.requests: list[str] = []
        tab.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        tab.on("request", lambda request: self.requests.append(request.url))

    def open(self, link: str = "") -> None:
        self.tab.goto("about:blank")
        self.tab.goto(f"{self.address}index.html{link}")
        self.tab.locator("#tiles [data-fact]").first.wait_for()

    def press(self, name: str, key: str) -> None:
        self.tab.locator(f"#{name}").focus()
        self.tab.keyboard.press(key)

    def shows(self, state: State) -> None:
        """All facts and the question on the page become those of ``state``."""
        from lscd.explorer import words

        found = view(state)
        self.tab.locator(".lscd-answer > p", has_text=re.compile(f"^{re.escape(words.question(found))}$")).wait_for()
        for fact in words.facts(found):
            assert self.tab.locator(f"[data-fact={fact.name}] strong").inner_text() == fact.value
            assert fact.note in self.tab.locator(f"[data-fact={fact.name}]").inner_text()


@pytest.fixture(scope="module")
def reader(edition: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    if reason := browser.missing():
        pytest.skip(reason)
    with served(edition) as address, browser.chromium(tmp_path_factory.mktemp("profile")) as context:
        yield Reader(context.new_page(), address)


def test_sliders_and_the_choice_follow_the_keyboard(reader: Reader) -> None:
    reader.open()
    reader.shows(HOME)
    reader.press("sparsity", "ArrowRight")
    reader.shows(replace(HOME, sparsity=0.6))
    reader.press("batch", "ArrowRight")
    reader.shows(replace(HOME, sparsity=0.6, batch=4))
    assert reader.tab.locator("#sparsity-shown").inner_text() == "60%"
    assert reader.tab.locator("#batch").get_attribute("aria-valuetext") == "4"
    reader.press("pick", "ArrowDown")
    reader.shows(SERVED)
    reader.press("sparsity", "Home")
    reader.shows(replace(SERVED, sparsity=0.4))
    live = reader.tab.locator("#live").inner_text().split("'")[1]
    assert State.from_query(live) == replace(SERVED, sparsity=0.4)


def test_an_answer_that_is_there_takes_no_request(reader: Reader) -> None:
    reader.open()
    reader.tab.locator("#batch").focus()
    reader.tab.locator('head script[src$="batch-4.js"]').wait_for(state="attached")
    reader.tab.wait_for_load_state("networkidle")
    before = len(reader.requests)
    reader.press("batch", "ArrowRight")
    reader.press("sparsity", "ArrowLeft")
    reader.shows(replace(HOME, sparsity=0.4, batch=4))
    assert len(reader.requests) == before


def test_tabs_follow_the_keyboard_and_draw_their_charts(reader: Reader) -> None:
    reader.open()
    first = reader.tab.locator("[role=tab][aria-selected=true]")
    first.focus()
    for panel in [*html.PANELS[1:], html.PANELS[0]]:
        reader.tab.keyboard.press("ArrowRight")
        selected = reader.tab.locator("[role=tab][aria-selected=true]")
        assert selected.inner_text() == panel.title
        assert selected.evaluate("tab => tab === document.activeElement")
        places = reader.tab.locator(f"[data-panel={panel.name}] .lscd-chart")
        charts = re.findall(r"\[(\w+)\]", parts_of(HOME)[panel.name])
        assert [places.nth(i).get_attribute("data-chart") for i in range(places.count())] == charts
        for i in range(places.count()):
            places.nth(i).locator("svg.marks").wait_for()
    reader.tab.keyboard.press("End")
    assert reader.tab.locator("[role=tab][aria-selected=true]").inner_text() == html.PANELS[-1].title


def test_a_link_opens_what_it_names(reader: Reader) -> None:
    name = small([SERVED])[0].name
    reader.open(f"#pick={name}&sparsity=0.4&batch=1&panel=memory")
    reader.shows(replace(SERVED, sparsity=0.4, batch=1))
    assert reader.tab.locator("[role=tab][aria-selected=true]").get_attribute("data-panel") == "memory"
    reader.open("#pick=<nothing>&sparsity=x&batch=7")
    reader.shows(HOME)


def test_a_file_that_is_missing_is_said_and_asked_for_again(reader: Reader) -> None:
    reader.open()
    reader.tab.route("**/*batch-4.js", lambda route: route.abort())
    reader.press("batch", "ArrowRight")
    reader.tab.locator(".lscd-error", has_text="batch-4.js cannot be loaded").wait_for()
    reader.tab.unroute("**/*batch-4.js")
    reader.press("sparsity", "ArrowRight")
    reader.shows(replace(HOME, sparsity=0.6, batch=4))
    assert reader.tab.locator(".lscd-error").count() == 0
    reader.complaints = [text for text in reader.complaints if "ERR_FAILED" not in text]  # of the request refused here


def test_answers_do_without_the_charts_code(reader: Reader) -> None:
    reader.tab.route("**/vega.js", lambda route: route.abort())
    reader.open()
    reader.tab.locator(".lscd-error", has_text="there are no charts").wait_for()
    reader.shows(HOME)
    reader.tab.unroute("**/vega.js")
    reader.complaints = [text for text in reader.complaints if "ERR_FAILED" not in text]  # of the request refused here


@pytest.mark.parametrize("width", [375, 1280])
def test_nothing_scrolls_sideways_on_any_panel(reader: Reader, width: int) -> None:
    reader.tab.set_viewport_size({"width": width, "height": 900})
    for panel in html.PANELS:
        reader.open(f"#panel={panel.name}")
        reader.tab.locator("#panel svg.marks").first.wait_for()
        content, window = reader.tab.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert content <= window


def test_the_page_opens_as_a_file_too(reader: Reader, edition: Path) -> None:
    tab = Reader(reader.tab.context.new_page(), f"{edition.as_uri()}/")
    tab.open()
    tab.press("sparsity", "ArrowRight")
    tab.shows(replace(HOME, sparsity=0.6))
    tab.tab.locator("#panel svg.marks").first.wait_for()
    assert tab.complaints == []
    tab.tab.close()


def test_accessibility(reader: Reader) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    for pick, panel in itertools.product(small([HOME, SERVED]), html.PANELS):
        reader.open(f"#pick={pick.name}&panel={panel.name}")
        for chart in reader.tab.locator(".lscd-chart").all():
            chart.locator("summary").wait_for()
        assert [one["id"] for one in axe.Axe().run(reader.tab).response["violations"]] == []


def test_the_page_never_complained_and_asked_no_other_machine(reader: Reader) -> None:
    reader.open()
    reader.tab.locator("#panel svg.marks").first.wait_for()
    assert reader.complaints == []
    assert [url for url in reader.requests if not url.startswith((reader.address, "data:", "blob:"))] == []
