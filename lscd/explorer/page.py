"""The parts of the page: widgets for a state, and HTML for a view. Layout only; all content comes from `words`."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any
from urllib.parse import parse_qsl

import marimo as mo

from lscd.explorer import charts, words
from lscd.explorer.state import MATRICES, PRESETS, State, system_names
from lscd.explorer.view import View, view
from perfmodel.catalog import gpu_names, model_names
from perfmodel.plotting import vega
from perfmodel.serving.contenders import change
from perfmodel.serving.systems import load_system

LABELS = {
    "model": "Model",
    "gpu": "GPU",
    "gpus": "Number of GPUs",
    "system": "System or format",
    "sparsity": "Sparsity",
    "batch": "Batch [sequences]",
    "input_len": "Prompt [tokens]",
    "output_len": "Output [tokens]",
    "matrix": "Matrix of the kernel times",
}
NUMBERS = ("gpus", "batch", "input_len", "output_len")
NAMES = {"model": model_names, "gpu": gpu_names, "matrix": lambda: MATRICES}
FINDINGS = (
    ("kernels", "Kernel times", charts.kernel_times),
    ("memory", "Memory of each GPU", charts.memory),
    ("throughput", "Throughput over batch", charts.throughput),
    ("speedups", "When sparse pays", charts.speedups),
    ("roofline", "Roofline position", charts.roofline),
)


def widgets(start: State) -> dict[str, Any]:
    """One input per setting. Numbers have no limits here, so that a bad one is explained instead of bent."""
    found: dict[str, Any] = {
        name: mo.ui.dropdown(list(known()), value=getattr(start, name), full_width=True)
        for name, known in NAMES.items()
    }
    systems = {name: label for label, name in system_labels(start).items()}
    found["system"] = mo.ui.dropdown(system_labels(start), value=systems[start.system], full_width=True)
    for name in NUMBERS:
        found[name] = mo.ui.number(value=getattr(start, name), step=1, full_width=True)
    found["sparsity"] = mo.ui.slider(0, 1, 0.01, value=start.sparsity, include_input=True, full_width=True)
    return found


def system_labels(start: State) -> dict[str, str]:
    """Systems by what the list shows: the name, and what becomes of the weights; with one that only a link names."""
    names = dict.fromkeys((*system_names(), start.system))
    return {f"{name}: {_fate(name)}": name for name in names}


def _fate(name: str) -> str:
    system = load_system(name)
    pattern = f", {float(system.own_sparsity(0.5)):.0%}" if words.has_pattern(name) else ""
    return f"{change(system, 1.0)}{pattern}"


def answer(values: Mapping[str, Any]) -> tuple[View | None, str]:
    """View of the widgets' values, or what is wrong with them."""
    try:
        empty = [name for name, value in values.items() if value is None]
        if empty:
            raise ValueError(f"{', '.join(empty)} must not be empty")
        return view(State(**values)), ""
    except ValueError as error:
        return None, str(error)


def share(state: State, address: Any) -> None:
    """Write the state into the browser's address, setting by setting where it changed."""
    for key, value in parse_qsl(state.to_query()):
        if address.get(key) != value:
            address.set(key, value)


def controls(inputs: Any, link_error: str) -> mo.Html:
    """Heading, presets as links, widgets."""
    presets = " ".join(f'<a href="?{escape(state.to_query())}">{name}</a>' for name, state in PRESETS.items())
    cells = "".join(  # with labels of its own: marimo puts the markup of its labels into aria-label
        f'<div class="lscd-{name}" role="group" aria-label="{label}">'
        f'<span aria-hidden="true">{label}</span>{inputs[name]}</div>'
        for name, label in LABELS.items()
    )
    warning = f'<p class="lscd-error" role="alert">{escape(link_error)}</p>' if link_error else ""
    return mo.Html(
        '<header class="lscd-head"><div class="lscd-h1" role="heading" aria-level="1">When does sparse pay?</div>'
        f'<nav aria-label="presets">Presets: {presets}</nav>{warning}</header>'
        f'<section class="lscd-controls" aria-label="question">{cells}</section>'
    )


def facts(result: View | None, error: str) -> mo.Html:
    """What was asked and the facts; or the message."""
    if result is None:
        return mo.Html(f'<p class="lscd-error" role="alert">{escape(error)}</p>')
    tiles = "".join(map(_tile, words.facts(result)))
    return mo.Html(
        f'<section class="lscd-answer" aria-live="polite"><p>{escape(words.question(result))}</p>'
        f'<dl class="lscd-tiles">{tiles}</dl></section>'
    )


def figures(result: View | None) -> mo.Html:
    """Charts, and the table of kernel times."""
    if result is None:
        return mo.Html("")
    found = [_figure(name, title, draw(result)) for name, title, draw in FINDINGS]
    found.insert(1, _table(result))
    return mo.Html(f'<div class="lscd-figures">{"".join(found)}</div>')


def downloads(result: View | None) -> mo.Html:
    """The tables as files."""
    if result is None:
        return mo.Html("")
    buttons = "".join(
        mo.download(table.to_csv(index=False).encode(), filename=name, mimetype="text/csv", label=name).text
        for name, table in words.downloads(result).items()
    )
    return mo.Html(
        f'<footer class="lscd-downloads"><p>Data: {buttons}</p><p>Pictures: the ⋯ button of a chart saves it as SVG or '
        "PNG. The address of this page is the link to share.</p></footer>"
    )


def _tile(fact: words.Fact) -> str:
    verdict = {True: " good", False: " bad", None: ""}[fact.good]
    return (
        f'<div class="lscd-tile{verdict}" data-fact="{fact.name}"><dt>{escape(fact.title)}</dt>'
        f"<dd><strong>{escape(fact.value)}</strong><span>{escape(fact.note)}</span></dd></div>"
    )


def _figure(name: str, title: str, chart: vega.Chart) -> str:
    words_ = escape(chart.spec["description"])
    return (
        f'<figure class="lscd-figure" data-figure="{name}">{_title(title)}'
        f"{mo.as_html(chart).text}<figcaption>{words_}</figcaption></figure>"
    )


def _title(text: str) -> str:
    """A heading that marimo does not take into its floating outline."""
    return f'<div class="lscd-h2" role="heading" aria-level="2">{text}</div>'


def _interval(row: Any) -> str:
    return f"from {row.lo_us:,.0f}" if row.at_least else f"{row.lo_us:,.0f} – {row.hi_us:,.0f}"


def _table(result: View) -> str:
    rows = "".join(
        f'<tr data-kernel="{row.kernel}"><th scope="row">{row.rank} {escape(str(row.title))}{charts.marks(row)}</th>'
        f"<td>{row.n}</td><td>{row.time_us:,.1f}</td><td>{_interval(row)}</td>"
        f"<td>{row.speedup_vs_dense:.2f}x</td><td>{row.bound}</td>"
        f"<td>{row.standing}{f', {row.sparsity:.0%}' if row.sparsity else ''}</td></tr>"
        for row in result.kernels.itertuples()
    )
    columns = ("Kernel", "N", "us", "90 %", "vs dense", "bound by", "weights")
    heads = "".join(f'<th scope="col">{head}</th>' for head in columns)
    left = "".join(f"<li>{escape(line)}</li>" for line in words.refusals(result))
    refused = f'Left out:<ul class="lscd-refused">{left}</ul>' if left else ""
    return (
        f'<figure class="lscd-figure" data-figure="table">{_title("Kernel times in numbers")}'
        f'<div class="lscd-scroll" tabindex="0" role="region" aria-label="table of kernel times">'
        f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
        "<figcaption>* outside the evidence the kernel was fitted on. † its pattern drops more weights than asked: no "
        f"part. {refused}</figcaption></figure>"
    )
