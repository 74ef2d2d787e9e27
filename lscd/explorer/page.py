"""What marimo adds to `html`: widgets for a state, uploads, a pin, and what a page remembers between answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any
from urllib.parse import parse_qsl

import marimo as mo

from lscd.explorer import html, words
from lscd.explorer.state import (
    CARD,
    DENSE,
    LARGEST,
    LEAST_FACTOR,
    LIMITS,
    MOST_FACTOR,
    PINNED,
    Address,
    State,
    engine_names,
    format_names,
    joined,
    parted,
)
from lscd.explorer.view import NOTHING, Files, View, view
from perfmodel.catalog import gpu_names, load_model, model_from_text, model_names, sparsities_from_text
from perfmodel.catalog.altered import toml_of
from perfmodel.plotting import vega
from perfmodel.serving.contenders import change
from perfmodel.serving.systems import load_system
from perfmodel.serving.transformer import layer_matrices

LABELLED = {"model", "gpu", "engine", "format", "matrix", "served", "unmeasured"}  # by marimo
LENGTHS = ("batch", "input_len", "output_len")
LIMIT_STEPS = tuple(factor * 10**power for power in range(5) for factor in (1, 2, 5))
LARGEST_FILE = 500_000  # bytes; a census of a thousand matrices has a tenth
COMPARE = "compare"
TABS = {panel.title: panel.name for panel in html.PANELS} | {"Compare": COMPARE}


Pinned = tuple[State, Files]


@dataclass
class Memory:
    """What one page knows of before: the last good answer, and the formats and matrices chosen last."""

    start: Address
    last: View | None = None
    chosen: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """The choices that a link brings."""
        _, name = parted(self.start.state.system)
        self.chosen = {"format": name, "matrix": self.start.state.matrix}


def header(start: Address) -> mo.Html:
    """Of the page, for a link."""
    return mo.Html(html.header(start))


def model_box(start: State) -> Any:
    """The models of the catalogue."""
    return _dropdown("model", list(model_names()), start.model)


def setting_boxes(start: State) -> dict[str, Any]:
    """What every question has, beside the model. Numbers have no limits, so that a bad one is explained, not bent."""
    engine, _ = parted(start.system)
    engines = dict.fromkeys((*engine_names(), engine))
    found: dict[str, Any] = {
        "gpu": _dropdown("gpu", list(gpu_names()), start.gpu),
        "gpus": _number(start.gpus),
        "engine": _dropdown("engine", list(engines), engine),
        "sparsity": mo.ui.slider(0, 1, 0.01, value=start.sparsity, include_input=True, full_width=True),
    }
    return found | {name: _number(getattr(start, name)) for name in LENGTHS}


def _dropdown(name: str, options: Any, value: str) -> Any:
    return mo.ui.dropdown(options, value=value, label=words.LABELS[name], full_width=True)


def _switch(name: str, value: bool) -> Any:
    return mo.ui.switch(value, label=words.LABELS[name])


def _number(value: int) -> Any:
    return mo.ui.number(value=value, step=1, full_width=True)


def choice_boxes(memory: Memory, model: str, files: Files, unmeasured: bool) -> dict[str, Any]:
    """What follows from the model and the switch: formats and matrices, as chosen before where they are still there."""
    return {"format": _format_box(memory, unmeasured), "matrix": _matrix_box(memory, model, files)}


def _format_box(memory: Memory, unmeasured: bool) -> Any:
    """Kernels and formats by name and what becomes of the weights; one from a link stays."""
    names = dict.fromkeys((*format_names(unmeasured=unmeasured), memory.chosen["format"]))
    labels = {_format_label(name): name for name in names}
    return _dropdown("format", labels, _format_label(memory.chosen["format"]))


def _format_label(name: str) -> str:
    if name == DENSE:
        return DENSE
    system = load_system(f"vllm+{name}")
    pattern = f", {float(system.own_sparsity(0.5)):.0%}" if words.has_pattern(system.name) else ""
    return f"{name}: {change(system, 1.0)}{pattern}"


def _matrix_box(memory: Memory, model: str, files: Files) -> Any:
    """The matrices of a layer; the largest again where the model lacks the one chosen before."""
    shape = (files.model or load_model(model)).shape
    names = [LARGEST, *(matrix.name for matrix in layer_matrices(shape))]
    if memory.chosen["matrix"] not in names:
        memory.chosen["matrix"] = LARGEST
    return _dropdown("matrix", names, memory.chosen["matrix"])


def more_boxes(start: State) -> dict[str, Any]:
    """What-if factors on the card, limits, and switches."""
    factors = {
        name: mo.ui.slider(LEAST_FACTOR, MOST_FACTOR, 0.05, value=_near(getattr(start, name)), include_input=True,
                           full_width=True)
        for name in CARD
    }  # fmt: skip
    limits = {}
    for name in LIMITS:
        steps = sorted({*LIMIT_STEPS, getattr(start, name)})
        limits[name] = mo.ui.slider(steps=steps, value=getattr(start, name), show_value=True, full_width=True)
    return {**factors, **limits, **{name: _switch(name, getattr(start, name)) for name in ("served", "unmeasured")}}


def _near(factor: float) -> float:
    """The nearest that the slider can show."""
    return LEAST_FACTOR + round((factor - LEAST_FACTOR) / 0.05) * 0.05


def uploads() -> dict[str, Any]:
    """A model and a census of the reader's own."""
    return {
        "model_file": mo.ui.file([".json"], max_size=LARGEST_FILE),
        "zeros_file": mo.ui.file([".json", ".csv"], max_size=LARGEST_FILE),
    }


def panel_box() -> Any:
    """Which panel is shown."""
    return mo.ui.tabs(dict.fromkeys(TABS, ""))  # in one line that scrolls by itself on a phone


def region(label: str, element: Any) -> mo.Html:
    """What stands for itself, as a landmark."""
    return mo.Html(f'<section aria-label="{label}">{element.text}</section>')


def controls(boxes: Mapping[str, Any], label: str) -> mo.Html:
    """Inputs in a grid, each below its label."""
    return mo.Html(f'<section class="lscd-controls" aria-label="{label}">{_cells(boxes)}</section>')


def folded(title: str, boxes: Mapping[str, Any]) -> mo.Html:
    """Inputs that most questions leave as they are, behind their title."""
    return mo.Html(
        f'<details class="lscd-more"><summary>{escape(title)}</summary>'
        f'<section class="lscd-controls" aria-label="{escape(title)}">{_cells(boxes)}</section></details>'
    )


def _cells(boxes: Mapping[str, Any]) -> str:
    """Sliders, numbers and files with labels from here: of theirs, marimo puts the markup into aria-label."""
    return "".join(
        f'<div class="lscd-{name}" role="group" aria-label="{words.LABELS[name]}">'
        f'{"" if name in LABELLED else f"""<span aria-hidden="true">{words.LABELS[name]}</span>"""}{box}</div>'
        for name, box in boxes.items()
    )


def brought(values: Mapping[str, Any]) -> tuple[Files, str]:
    """What the uploads hold, and what is wrong with them."""
    found, errors = NOTHING, []
    for name in ("model_file", "zeros_file"):
        for file in values[name] or ():
            try:
                if name == "model_file":
                    found = replace(found, model=model_from_text(file.contents, file.name))
                else:
                    found = replace(found, zeros=sparsities_from_text(file.contents, file.name))
            except ValueError as error:
                errors.append(str(error))
    return found, "; ".join(errors)


def brought_words(files: Files, error: str) -> mo.Html:
    """What a reader brought, in a sentence."""
    said = []
    if files.model is not None:
        said.append(f"Your model {files.model.name} takes the place of the one chosen.")
    if files.zeros is not None:
        said.append(f"Each layer has the sparsity of {files.zeros.source}; the slider has no say.")
    if said:
        said.append("The address of this page does not hold it.")
    told = f'<p class="lscd-brought">{escape(" ".join(said))}</p>{html.message(error)}' if said or error else ""
    return region("your files", mo.Html(told))


def answer(memory: Memory, values: Mapping[str, Any], files: Files) -> tuple[View | None, str]:
    """View of the widgets' values, or what is wrong with them; the last good one is remembered."""
    try:
        if empty := [words.LABELS[name] for name, value in values.items() if value is None]:
            raise ValueError(f"{', '.join(empty)} must not be empty")
        own = {name: value for name, value in values.items() if name not in ("engine", "format")}
        memory.chosen = {"format": values["format"], "matrix": values["matrix"]}
        found = view(State(system=joined(values["engine"], values["format"]), **own), files)
    except ValueError as error:
        return None, str(error)
    memory.last = found
    return found, ""


def share(found: View, pinned: Pinned | None, address: Any) -> None:
    """Write the state into the browser's address, setting by setting where it changed; files stay here."""
    wanted = dict(parse_qsl(found.state.to_query()))
    if pinned is not None:
        wanted[PINNED] = pinned[0].to_query()
    for key, value in wanted.items():
        if address.get(key) != value:
            address.set(key, value)


def verdict(found: View | None, error: str, last: View | None) -> mo.Html:
    """The answer; or what is wrong with a setting, and the last good answer."""
    return mo.Html(html.message(error) + _shown(html.answer, found, last))


def facts(found: View | None, last: View | None) -> mo.Html:
    """The tiles; those of the last good answer where there is no other."""
    return region("numbers", mo.Html(_shown(html.tiles, found, last)))


def _shown(part: Callable[[View], str], found: View | None, last: View | None) -> str:
    """A part of the page for the answer found, or for the last good one, greyed out."""
    if found is not None:
        return part(found)
    return f'<div class="lscd-stale" aria-hidden="true">{part(last)}</div>' if last else ""


def figures(found: View | None, last: View | None, panel: str, pinned: Pinned | None) -> mo.Html:
    """The figures of a panel; those of the last good answer, greyed out, where there is no other."""

    def part(shown: View) -> str:
        return comparison(shown, pinned) if panel == COMPARE else html.panel(shown, panel, draw)

    return region("figures", mo.Html(_shown(part, found, last)))


def draw(chart: vega.Chart) -> str:
    """A chart as marimo shows it."""
    return str(mo.as_html(chart).text)


def comparison(found: View, pinned: Pinned | None) -> str:
    """A beside B, or how to get there."""
    if pinned is None:
        return '<p class="lscd-hint">Pin this answer as A, then change anything: B is what you see then.</p>'
    try:
        first = view(*pinned)
    except ValueError as error:
        return html.message(f"the pinned answer cannot be shown: {error}")
    return f'<div class="lscd-figures" data-panel="{COMPARE}">{html.comparison(first, found)}</div>'


def needs(found: View | None) -> mo.Html:
    """What would change the verdict."""
    return region("what would change it", mo.Html(html.needs(found) if found else ""))


def downloads(found: View | None, panel: str) -> mo.Html:
    """The tables of a panel as files, and the card where it is none of the catalogue."""
    if found is None:
        return mo.Html("")
    files = {name: (table.to_csv(index=False), "text/csv") for name, table in words.downloads(found, panel).items()}
    if any(factor != 1 for factor in found.state.factors.values()):
        files[f"{found.gpu.key}.toml"] = (toml_of(found.gpu), "application/toml")
    return mo.Html(
        f'<footer class="lscd-downloads"><p>Data: {"".join(_buttons(files))}</p><p>Pictures: the ⋯ button of a chart '
        "saves it as SVG or PNG. The address of this page is the link to share.</p></footer>"
    )


def _buttons(files: Mapping[str, tuple[str, str]]) -> Sequence[str]:
    return [
        mo.download(text.encode(), filename=name, mimetype=kind, label=name).text
        for name, (text, kind) in files.items()
    ]
