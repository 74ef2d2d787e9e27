"""Pages of `lscd reproduce`: a paper's claims and numbers beside ours, as Markdown, in one layout for all papers.

`python -m lscd.report.papers` writes `docs/papers` anew; a test says whether a page is up to date.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from perfmodel.catalog import load_sources
from perfmodel.catalog.papers import PaperExhibit
from perfmodel.papers import Judged, Verdict, judge, paper_names, predicted_numbers
from perfmodel.papers.judge import UNMODELLED

TEMPLATE = Path(__file__).with_name("paper.md.jinja")
ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "papers"
# Pictures of the report that the repository keeps, so that a page has them before a report is built.
KEPT = ("kernel_benchmark", "decoder_layer", "tile", "tiled_csl", "opt_30b_breakdown")
NOTHING = "–"
UNITS = {
    "kernel-time": "us", "layer-time": "us", "model-gb": "GB", "memory-gb": "GB a GPU", "run-rate": "tokens/s",
    "prompt-rate": "tokens/s", "intensity": "FLOP/byte", "size-ratio": "of FP16", "cache-ratio": "of FP16",
    "kernel-speedup": "x", "layer-speedup": "x", "run-speedup": "x", "tpot-speedup": "x", "traffic-gb": "GB",
    "break-even-sparsity": "of weights zero", "break-even-tokens": "tokens",
}  # fmt: skip


def answer(judged: Judged) -> str:
    """How many claims hold, and how far off we are where no fit helped."""
    counts = {verdict: judged.count(verdict) for verdict in Verdict}
    said = f"Of {len(judged.claims)} claims {counts[Verdict.REPRODUCED]} reproduced, {counts[Verdict.NOT]} not, "
    said += f"{counts[Verdict.CANNOT]} we cannot judge."
    held = judged.held_out
    if held.empty:
        return f"{said} None of its {len(judged.numbers)} numbers is both modelled here and held out."
    return (
        f"{said} {len(judged.numbers):,} published numbers, {len(judged.answered):,} of them modelled, {len(held):,} "
        f"of these held out: {held['error'].abs().mean():.1%} mean error, {held['error'].abs().median():.1%} median."
    )


def summary() -> str:
    """All papers in two sentences: verdicts, and how our predictions stand where no fit helped."""
    claims = [one for name in paper_names() for one in judge(name).claims]
    verdicts = Counter(one.verdict for one in claims)
    counted = sum(one.counted for one in claims if one.verdict is Verdict.REPRODUCED)
    tests = predicted_numbers()
    inside, error = tests["inside"].astype(bool).mean(), tests["error"].abs().mean()
    return (
        f"Of {len(claims)} claims of {len(paper_names())} papers {verdicts[Verdict.REPRODUCED]} are reproduced, "
        f"{counted} of these by counting bytes or operations; {verdicts[Verdict.NOT]} not, {verdicts[Verdict.CANNOT]} "
        f"cannot be judged. Of {len(tests)} numbers in the papers' own tables that we predict and no fit saw "
        f"{inside:.0%} lie inside our 90 % interval; the mean error is {error:.1%}."
    )


def listed() -> list[tuple[str, ...]]:
    """One row a paper: `LIST_COLUMNS`."""
    return [_line(judge(name)) for name in paper_names()]


LIST_COLUMNS = ("paper", "name", "reproduced", "not", "cannot judge", "numbers", "held out", "mean error", "venue")


def _line(judged: Judged) -> tuple[str, ...]:
    paper, held = judged.paper, judged.held_out["error"].abs()
    counts = (str(judged.count(verdict)) for verdict in Verdict)
    error = NOTHING if held.empty else f"{held.mean():.1%}"
    return paper.key, paper.short, *counts, f"{len(judged.numbers):,}", f"{len(held):,}", error, paper.venue


def exhibit_rows(judged: Judged, *, linked: bool = False) -> list[tuple[str, ...]]:
    """Of each figure or table of the paper: name, what it shows, what is ours, numbers, two errors, how or why not.

    What is ours is ``linked`` from `PAGES`, or named; the errors are those of all numbers and of those held out.
    """
    return [_exhibit_row(judged, exhibit, linked) for exhibit in judged.paper.exhibit]


def _exhibit_row(judged: Judged, exhibit: PaperExhibit, linked: bool) -> tuple[str, ...]:
    rows = judged.answered[judged.answered["exhibit"] == exhibit.name]
    names = [_linked(name) if linked else name for name in exhibit.ours]
    if exhibit.notebook:
        place = f"[notebook {exhibit.notebook[:2]}](../../notebooks/{exhibit.notebook}.ipynb)"
        names.append(place if linked else exhibit.notebook)
    held = rows[~rows["fitted"].astype(bool)]
    how = "; ".join(filter(None, (exhibit.command and f"`{exhibit.command}`", exhibit.why_not)))
    count = f"{len(rows):,}" if len(rows) else NOTHING
    return exhibit.name, exhibit.shows, ", ".join(names) or NOTHING, count, _mean(rows), _mean(held), how or NOTHING


def _mean(rows: pd.DataFrame) -> str:
    return NOTHING if rows.empty else f"{rows['error'].abs().mean():.1%}"


def number_rows(rows: pd.DataFrame) -> list[tuple[str, ...]]:
    """Numbers in words: what, published, ours with its interval, signed error, what else to know."""
    return [tuple(_number_cells(row)) for row in rows.itertuples()]


NUMBER_COLUMNS = ("what", "published", "ours (90 %)", "error", "")


def _number_cells(row: Any) -> Iterator[str]:
    unit = f" [{UNITS[row.quantity]}]" if row.quantity in UNITS else ""
    quantity = "" if row.quantity == UNMODELLED else row.quantity.replace("-", " ") + unit
    yield ": ".join(filter(None, (quantity, row.what))) or NOTHING
    yield _digits(row.published)
    if pd.isna(row.ours):
        yield from (NOTHING, NOTHING, row.note)
        return
    counted = pd.isna(row.low) or row.low == row.high
    yield _digits(row.ours) if counted else f"{_digits(row.ours)} ({_digits(row.low)} to {_digits(row.high)})"
    yield f"{row.error:+.1%}"
    doubt = "" if row.inside is None or row.inside else "outside"
    yield ", ".join(filter(None, (doubt, "fitted" if row.fitted else "", row.note)))


def _digits(value: float) -> str:
    """Three digits, never with an exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def summed_rows(judged: Judged) -> list[tuple[str, ...]]:
    """Evidence of ours that is the paper's, summed up by exhibit and by what was measured: `SUMMED_COLUMNS`."""
    rows = judged.evidence.assign(subject=judged.evidence["what"].str.split(", ").str[0])
    return [_summed(str(key[0]), str(key[1]), group) for key, group in rows.groupby(["exhibit", "subject"], sort=False)]


SUMMED_COLUMNS = ("exhibit", "what", "numbers", "held out", "mean error, fitted", "mean error, held out", "worst")


def _summed(exhibit: str, subject: str, rows: pd.DataFrame) -> tuple[str, ...]:
    fitted = rows["fitted"].astype(bool)
    held = rows[~fitted]
    worst = NOTHING if held.empty else f"{held.loc[held['error'].abs().idxmax(), 'error']:+.0%}"
    counts = f"{len(rows):,}", f"{len(held):,}"
    return exhibit, f"{subject}, {rows['quantity'].iloc[0]}", *counts, _mean(rows[fitted]), _mean(held), worst


def page(name: str) -> str:
    """Page of a paper in Markdown."""
    judged = judge(name)
    known = load_sources()
    used = [key for key in known if key in {*judged.paper.sources, *judged.numbers["source"]}]
    return _template().render(
        paper=judged.paper,
        answer=answer(judged),
        claims=judged.claims,
        exhibits=exhibit_rows(judged, linked=True),
        figures=_figures(judged),
        numbers=[(exhibit, number_rows(rows)) for exhibit, rows in judged.own.groupby("exhibit", sort=False)],
        summed=summed_rows(judged),
        sources={key: known[key] for key in used},
    )


def _linked(exhibit: str) -> str:
    """An exhibit of our report on a page: a link to its picture where the repository keeps it, else its name."""
    title = exhibit.replace("_", " ")
    return f"[{title}]({_place(exhibit)})" if exhibit in KEPT else title


def _place(exhibit: str) -> str:
    return f"../../reports/figures/{exhibit}.png"


def _figures(judged: Judged) -> list[dict[str, str]]:
    """Pictures of our report that show what the paper's do and that the repository keeps, once each."""
    names = dict.fromkeys(name for exhibit in judged.paper.exhibit for name in exhibit.ours)
    return [{"alt": name.replace("_", " "), "path": _place(name)} for name in names if name in KEPT]


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE.parent),
        autoescape=False,  # Markdown, of our own data
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["cell"] = lambda text: str(text).replace("|", "\\|").replace("\n", " ")
    return environment.get_template(TEMPLATE.name)


def index() -> str:
    """Page that lists all papers."""
    head = [
        "# Papers", "",
        "What the papers of the field claim, and what our models say to it: their numbers beside ours, a verdict for",
        "each claim. `lscd reproduce --list` prints this table, `lscd reproduce NAME` a page. All is computed.", "",
        f"**{summary()}** Numbers that are evidence here are counted below, and judged by `lscd validate`.", "",
        f"| {' | '.join(LIST_COLUMNS)} |", f"|{' --- |' * len(LIST_COLUMNS)}",
    ]  # fmt: skip
    rows = [f"| [{key}]({key}.md) | {' | '.join(cells)} |" for key, *cells in listed()]
    return "\n".join([*head, *rows]) + "\n"


if __name__ == "__main__":
    PAGES.mkdir(exist_ok=True)
    (PAGES / "index.md").write_text(index(), encoding="utf-8")
    for key in paper_names():
        (PAGES / f"{key}.md").write_text(page(key), encoding="utf-8")
