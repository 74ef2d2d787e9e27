"""The page as HTML: verdict, tiles and panels of a view. Layout only; all content comes from `words` and `charts`.

Nothing here knows marimo: the live page and the static edition show the same strings, each with its own way to draw a
chart, which is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from lscd.explorer import charts, run_charts, words
from lscd.explorer.state import PRESETS, Address, parted
from lscd.explorer.view import View
from perfmodel.plotting import vega
from perfmodel.worth import SHORTEST_OUTPUT as LEAST_OUTPUT

WORDS = {"bound by", "weights", "phase"}  # heads of columns that hold words
Draw = Callable[[vega.Chart], str]


@dataclass(frozen=True)
class Panel:
    """A view of the answer: a stable name, a title, and what makes its figures."""

    name: str
    title: str
    figures: Callable[[View, Draw], list[str]]


def header(start: Address) -> str:
    """Heading, presets as links, and what is wrong with the link."""
    links = " ".join(f'<a href="?{escape(one.state.to_query())}">{escape(one.title)}</a>' for one in PRESETS.values())
    return (
        '<header class="lscd-head"><div class="lscd-h1" role="heading" aria-level="1">When does sparse pay?</div>'
        f'<nav aria-label="presets">{links}</nav>{message(start.remark)}</header>'
    )


def answer(view: View) -> str:
    """What was asked, and the verdict."""
    return (
        f'<section class="lscd-answer" aria-live="polite" aria-label="answer"><p>{escape(words.question(view))}</p>'
        f"{_verdict(words.verdict(view))}</section>"
    )


def tiles(view: View) -> str:
    """The other facts."""
    return f'<dl class="lscd-tiles">{"".join(map(_tile, words.numbers(view)))}</dl>'


def needs(view: View) -> str:
    """What would change the verdict; it takes a second, so it follows the rest."""
    said = words.needs(view)
    return f'<p class="lscd-needs">{escape(said)}</p>' if said else ""


def message(error: str) -> str:
    """What is wrong with a setting."""
    return f'<p class="lscd-error" role="alert">{escape(error)}</p>' if error else ""


def panel(view: View, name: str, draw: Draw) -> str:
    """The figures of a panel."""
    found = next(panel for panel in PANELS if panel.name == name).figures(view, draw)
    return f'<div class="lscd-figures" data-panel="{name}">{"".join(found)}</div>'


def comparison(pinned: View, view: View) -> str:
    """What two views share, where they differ, and the numbers of both."""
    rows = "".join(
        f'<tr data-row="{escape(row.name)}"><th scope="row">{escape(row.title)}</th><td>{escape(row.pinned)}</td>'
        f"<td>{escape(row.now)}</td><td>{escape(row.change)}</td></tr>"
        for row in words.compared(pinned, view)
    )
    table = _scrolled("comparison", ("", "A, pinned", "B, now", "B over A"), rows)
    copied = escape(words.markdown(pinned, view))
    label = 'role="region" aria-label="the table as Markdown, to copy"'
    box = f'<pre class="lscd-copy" tabindex="0" {label}>{copied}</pre>'
    return figure("comparison", "A beside B", table, "The same table as Markdown; a click marks it all, to copy:", box)


def figure(name: str, title: str, body: str, caption: str = "", more: str = "") -> str:
    """A titled figure; ``body`` and ``more`` are HTML, ``caption`` is text. Tables take the whole width."""
    said = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    wide = " lscd-wide" if "<table" in body else ""
    return f'<figure class="lscd-figure{wide}" data-figure="{name}">{_title(title)}{body}{said}{more}</figure>'


def _pays(view: View, draw: Draw) -> list[str]:
    return [
        _chart("speedups", "When sparse pays", charts.speedups(view), draw),
        _chart("kernels", f"Kernel times of {words.matrix(view)}", charts.kernel_times(view), draw),
    ]


def _kernels(view: View, draw: Draw) -> list[str]:
    return [_chart("roofline", "Kernels under the roof", charts.roofline(view), draw), _kernel_table(view)]


def _operators(view: View, draw: Draw) -> list[str]:
    return [
        _chart("breakdown", "Where the time goes", run_charts.breakdown(view), draw),
        _chart("operators", "Operators under the roof", run_charts.operators(view), draw),
        _operator_table(view),
    ]


def _latency(view: View, draw: Draw) -> list[str]:
    if view.state.output_len < LEAST_OUTPUT:
        return [figure("front", "Throughput against latency", "", "One token only: there is no rate for a user.")]
    return [_chart("tradeoff", "Throughput against latency", run_charts.tradeoff(view), draw), _front_table(view)]


def _memory(view: View, draw: Draw) -> list[str]:
    return [
        _chart("memory", "Memory of each GPU", run_charts.memory(view), draw),
        _chart("throughput", "Throughput over batch", run_charts.throughput(view), draw),
    ]


PANELS = (
    Panel("pays", "Sparsity", _pays),
    Panel("kernels", "Kernels", _kernels),
    Panel("operators", "Operators", _operators),
    Panel("latency", "Latency", _latency),
    Panel("memory", "Memory", _memory),
)


def _verdict(fact: words.Fact) -> str:
    return (
        f'<div class="lscd-verdict{_class(fact)}" data-fact="{fact.name}"><span>{escape(fact.title)}?</span> '
        f"<strong>{escape(fact.value)}</strong> <em>{escape(fact.note)}</em></div>"
    )


def _tile(fact: words.Fact) -> str:
    return (
        f'<div class="lscd-tile{_class(fact)}" data-fact="{fact.name}"><dt>{escape(fact.title)}</dt>'
        f"<dd><strong>{escape(fact.value)}</strong><span>{escape(fact.note)}</span></dd></div>"
    )


def _class(fact: words.Fact) -> str:
    return {True: " good", False: " bad", None: ""}[fact.good]


def _chart(name: str, title: str, chart: vega.Chart, draw: Draw) -> str:
    return figure(name, title, draw(chart), chart.spec["description"])


def _title(text: str) -> str:
    """A heading that marimo does not take into its floating outline."""
    return f'<div class="lscd-h2" role="heading" aria-level="2">{escape(text)}</div>'


def _scrolled(name: str, heads: Sequence[str], rows: str) -> str:
    """A table that scrolls by itself where it is too wide, by keyboard too."""
    cells = "".join(f'<th scope="col"{_side(head)}>{head}</th>' if head else "<td></td>" for head in heads)
    return (
        f'<div class="lscd-scroll" tabindex="0" role="region" aria-label="table: {name}">'
        f"<table><thead><tr>{cells}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _side(head: str) -> str:
    """Mark of a column of words, which begin at the left."""
    return " data-text" if head in WORDS else ""


def _beside(heads: Sequence[str], cells: Sequence[str]) -> str:
    """Cells of a row behind its head."""
    return "".join(f"<td{_side(head)}>{cell}</td>" for head, cell in zip(heads[1:], cells, strict=True))


def _kernel_table(view: View) -> str:
    rows = "".join(
        f'<tr data-kernel="{row.kernel}"><th scope="row">{row.rank} {escape(str(row.title))}{charts.marks(row)}</th>'
        f"<td>{row.n}</td><td>{row.time_us:,.1f}</td><td>{_interval(row)}</td>"
        f"<td>{row.speedup_vs_dense:.2f}x</td><td data-text>{row.bound}</td>"
        f"<td data-text>{row.standing}{f', {row.sparsity:.0%}' if row.sparsity else ''}</td></tr>"
        for row in view.kernels.itertuples()
    )
    heads = ("Kernel", "N", "us", "90 %", "vs dense", "bound by", "weights")
    left = "".join(f"<li>{escape(line)}</li>" for line in words.refusals(view))
    refused = f'<p>Left out:</p><ul class="lscd-refused">{left}</ul>' if left else ""
    caption = (
        "* outside the evidence the kernel was fitted on. † its pattern drops more weights than asked: no part. "
        f"{words.hidden(view)}"
    )
    title = f"Kernel times of {words.matrix(view)} in numbers"
    return figure("table", title, _scrolled("kernel times", heads, rows), caption, refused)


def _interval(row: Any) -> str:
    return f"from {row.lo_us:,.0f}" if row.at_least else f"{row.lo_us:,.0f} – {row.hi_us:,.0f}"


def _operator_table(view: View) -> str:
    heads = ("Operator", "phase", "GFLOP", "MB", "FLOP/B", "bound by", "ms", "share", "dense ms")
    rows = "".join(
        f'<tr data-operator="{row.phase} {row.operator}"><th scope="row">{escape(row.operator)}</th>'
        f"{_beside(heads, [row.phase, *words.operator_cells(row)])}</tr>"
        for row in view.operators.itertuples()
    )
    caption = (
        "On one GPU, one prefill of all prompts and one mean step of decoding; times add up to TTFT and TPOT. Bytes "
        "are those that cross the device memory, weights as they are stored."
    ) + ("" if view.run.memory.fits else " All of it if it did fit.")
    return figure("operator-table", "Operators in numbers", _scrolled("operators", heads, rows), caption)


def _front_table(view: View) -> str:
    load = "users" if view.state.served else "batch"
    heads = ("Weights read by", "weights", load, "tokens/s/user", "tokens/s/GPU", "90 %", "TTFT ms", "TPOT ms")
    rows = "".join(
        f'<tr data-front="{escape(row.system)} {row.batch}"><th scope="row">{escape(parted(row.system)[1])}</th>'
        f"{_beside(heads, words.front_cells(row))}</tr>"
        for row in view.tradeoff[view.tradeoff["front"]].sort_values("tokens_per_user_s").itertuples()
    )
    return figure("front", "The front in numbers", _scrolled("front", heads, rows), words.front(view))
