"""The static edition: answers of `view` worked out beforehand, on a page that needs no Python and no network.

Python for browsers (Pyodide with NumPy, SciPy and pandas) would be some 40 MB, loaded and started before the first
number. Each answer is one of `view` in the live page's own words and charts; nothing is interpolated, so sliders stand
only where there is one.
"""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
import shutil
import signal
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

from lscd.explorer import html
from lscd.explorer.state import PRESETS, State
from lscd.explorer.view import view
from perfmodel.catalog import load_gpu, load_model
from perfmodel.plotting import vega
from perfmodel.serving.systems import load_system

SPARSITIES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
BATCHES = (1, 4, 16, 64, 256)
ASSETS = Path(__file__).with_name("static")
COPIED = (*(ASSETS / name for name in ("page.js", "page.css", "LICENCES.txt")), ASSETS.with_name("explorer.css"))
CHARTS = "vega.js"
ANSWERS = "answers"
DIGITS = 6  # of numbers that charts draw; those in words and tables are whole
TABLE = "lscd-table"  # stands in a chart for a table that charts of a file share
ROOM_PX = 60  # of a chart beyond its axes
ASKED = ("model", "gpu", "gpus", "system", "sparsity", "batch", "input_len", "output_len")  # said though it be default
TODAY = tuple(
    State(model, gpu, gpus, f"vllm+{weights}", sparsity=0.5, batch=16, input_len=1024, output_len=256)
    for model, gpu, gpus, weights in (
        ("llama-3.1-8b", "h100", 1, "two-four"),
        ("llama-3.1-8b", "a100-80gb", 1, "int4"),
        ("llama-3.1-70b", "b200", 1, "fp8"),
        ("qwen3-30b-a3b", "h100", 1, "fp8"),
    )
)


@dataclass(frozen=True)
class Pick:
    """Settings that the page offers, and the sparsities and batches at which it has the answer, in rising order."""

    state: State
    sparsities: tuple[float, ...]
    batches: tuple[int, ...]

    @property
    def name(self) -> str:
        """As links and files call it: a preset's name, or what it consists of."""
        known = {preset.state: name for name, preset in PRESETS.items()}
        s = self.state
        made = f"{s.model}-on-{s.gpus}-{s.gpu}-{s.system}-{s.input_len}-{s.output_len}"
        return known.get(s, made.replace("+", "-"))

    @property
    def title(self) -> str:
        """What tells it from the others."""
        s = self.state
        card = load_gpu(s.gpu).name.removeprefix("NVIDIA ")
        system = load_system(s.system).title
        return f"{load_model(s.model).name}, {s.gpus} x {card}, {system}, {s.input_len} + {s.output_len}"

    def states(self, batch: int) -> list[State]:
        """Its questions at a batch, by sparsity."""
        return [replace(self.state, sparsity=sparsity, batch=batch) for sparsity in self.sparsities]


def default_states() -> list[State]:
    """The presets, and a few of today's models on today's GPUs."""
    return [*(preset.state for preset in PRESETS.values()), *TODAY]


def picked(
    states: Iterable[State], sparsities: Sequence[float] = SPARSITIES, batches: Sequence[int] = BATCHES
) -> list[Pick]:
    """What the page is to offer: each state over the sparsities and batches given, and its own.

    Raises
    ------
    ValueError
        If the models refuse a setting, or two differ in nothing that the page names.
    """
    found = [
        Pick(state, tuple(sorted({*sparsities, state.sparsity})), tuple(sorted({*batches, state.batch})))
        for state in states
    ]
    for pick in found:
        view(pick.state)
    names = [pick.name for pick in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{twice[0]} is asked for twice: model, GPUs, system and lengths must differ")
    return found


def write(folder: Path, picks: Sequence[Pick], made_by: str, step: Callable[[str], None]) -> None:
    """Write the page into an empty ``folder``.

    Parameters
    ----------
    folder
        An empty one.
    picks
        Settings to offer, each over its sparsities and batches.
    made_by
        What the page says that its numbers are from.
    step
        Called with the name of each file of answers that is written.

    Raises
    ------
    ValueError
        If the package that holds the charts' code is missing.
    """
    (folder / CHARTS).write_text(_chart_code(), encoding="utf-8")
    for source in COPIED:
        shutil.copyfile(source, folder / source.name)
    (folder / "index.html").write_text(_page(picks, made_by), encoding="utf-8")
    (folder / ANSWERS).mkdir()
    for name, text in _worked_out([(pick, batch) for pick in picks for batch in pick.batches]):
        (folder / ANSWERS / f"{name}.js").write_text(text, encoding="ascii")
        step(name)


def answers(pick: Pick, batch: int) -> dict[str, Any]:
    """All that the page shows of a pick at a batch, lists by sparsity; charts by name, their tables each once."""
    shelf: dict[str, int] = {}
    shown = [_shown(state) for state in pick.states(batch)]
    parts = {name: [one[name] for one in shown] for name in shown[0] if name != "charts"}
    names = dict.fromkeys(name for one in shown for name in one["charts"])
    charts = {name: [_filed(one["charts"].get(name), shelf) for one in shown] for name in names}
    return parts | {"charts": charts, "tables": [json.loads(table) for table in shelf]}


def packed(name: str, content: Any) -> str:
    """A script that hands ``content`` to the page, gzipped; a script is what a page opened as a file may load too."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    return f'lscdAnswers("{name}","{b64encode(gzip.compress(text, mtime=0)).decode("ascii")}")\n'


def _shown(state: State) -> dict[str, Any]:
    """The parts of the page for a state, and its charts by name."""
    found = view(state)
    charts: dict[str, vega.Spec] = {}

    def draw(chart: vega.Chart) -> str:
        charts[chart.name] = chart.spec
        return f'<div class="lscd-chart" data-chart="{chart.name}" style="min-height:{_room(chart.spec)}px"></div>'

    parts = {"answer": html.answer(found), "needs": html.needs(found), "tiles": html.tiles(found)}
    panels = {panel.name: html.panel(found, panel.name, draw) for panel in html.PANELS}
    return parts | panels | {"charts": charts}


def _room(spec: vega.Spec) -> int:
    """Pixels to keep for a chart until it is drawn, so that nothing below jumps."""
    height = spec.get("height")
    return ROOM_PX + (int(height) if isinstance(height, int | float) else vega.HEIGHT)


def _filed(part: Any, shelf: dict[str, int]) -> Any:
    """A chart with the number on the ``shelf`` in place of each table."""
    if isinstance(part, list):
        return [_filed(one, shelf) for one in part]
    if not isinstance(part, dict):
        return part
    if set(part) == {"values"} and all(isinstance(row, dict) for row in part["values"]):
        table = json.dumps(_table(part["values"]), ensure_ascii=False)
        return {TABLE: shelf.setdefault(table, len(shelf))}
    return {key: _filed(value, shelf) for key, value in part.items()}


def _table(rows: Sequence[Any]) -> dict[str, Any]:
    """Rows as columns' names and values."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return {"columns": columns, "rows": [[_short(row.get(name)) for name in columns] for row in rows]}


def _short(value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _worked_out(tasks: Sequence[tuple[Pick, int]]) -> Iterator[tuple[str, str]]:
    """Name and text of each task's file, on all cores of this machine."""
    jobs = min(os.cpu_count() or 1, len(tasks))
    if jobs < 2:
        yield from map(_file, tasks)
        return
    others = multiprocessing.active_children()
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _leave_interrupts) as pool:
        try:
            yield from pool.map(_file, tasks)
        except BaseException:  # nobody will read what is being worked out
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                if process not in others:
                    process.terminate()
            raise


def _leave_interrupts() -> None:
    """Ctrl+C reaches all processes of a terminal; it is the first that ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _file(task: tuple[Pick, int]) -> tuple[str, str]:
    pick, batch = task
    name = f"{pick.name}-batch-{batch}"
    return name, packed(name, answers(pick, batch))


def _page(picks: Sequence[Pick], made_by: str) -> str:
    """The page without answers: what there is to choose, in HTML and for its script."""
    listed = [
        vars(pick) | {"state": vars(pick.state), "name": pick.name, "asked": _asked(pick.state)} for pick in picks
    ]
    filled = {
        "OPTIONS": "".join(f'<option value="{pick.name}">{escape(pick.title)}</option>' for pick in picks),
        "TABS": "".join(map(_tab, html.PANELS)),
        "COUNT": str(sum(len(pick.sparsities) * len(pick.batches) for pick in picks)),
        "SETTINGS": f"{len(picks)} setting{'s' * (len(picks) > 1)}",
        "MADE_BY": escape(made_by),
        "EDITION": json.dumps(listed).replace("<", "\\u003c"),
    }
    page = (ASSETS / "page.html").read_text(encoding="utf-8")
    for name, text in filled.items():
        page = page.replace(f"<!--{name}-->", text)
    return page


def _asked(state: State) -> dict[str, Any]:
    """Settings that a command must name to ask the same."""
    return {name: value for name, value in vars(state).items() if name in ASKED or value != getattr(State, name)}


def _tab(panel: html.Panel) -> str:
    ids = f'id="tab-{panel.name}" data-panel="{panel.name}"'
    return f'<button type="button" role="tab" {ids} aria-controls="panel">{escape(panel.title)}</button>'


def _chart_code() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, from the wheel of vl-convert."""
    try:
        from vl_convert import javascript_bundle
    except ImportError:
        raise ValueError("--export needs vl-convert: pip install 'lscd-lab[explore]', or make explore") from None
    return str(javascript_bundle("window.vegaEmbed = vegaEmbed;"))
