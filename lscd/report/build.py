"""Builds the report: runs every exhibit, saves picture and CSV, and writes one self-contained page."""

from __future__ import annotations

import base64
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

import jinja2
import matplotlib as mpl
import matplotlib.pyplot as plt
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from kernels_numba.files import nearest, writable
from lscd.report import (
    accuracy,
    beyond,
    claims,
    drawings,
    fitted,
    inside,
    kernels,
    pays,
    rivals,
    serving,
    spinfer,
    today,
    trust,
)
from lscd.report.captions import captions
from lscd.report.exhibit import Chapter, Context, Exhibit, Report
from lscd.report.pdf import write_pdf
from lscd.report.provenance import ROOT, Provenance, provenance
from perfmodel.plotting.style import COLUMN, house_style, save, save_for_paper

CHAPTERS: tuple[Chapter, ...] = (
    rivals.CHAPTER,
    kernels.CHAPTER,
    pays.CHAPTER,
    accuracy.CHAPTER,
    serving.CHAPTER,
    today.CHAPTER,
    spinfer.CHAPTER,
    drawings.CHAPTER,
    inside.CHAPTER,
    beyond.CHAPTER,
    claims.CHAPTER,
    trust.CHAPTER,
    fitted.CHAPTER,
)
TITLE = "Load sparse, compute dense: when, where and by how much does it pay?"
LEAD = (
    "Flash-LLM keeps pruned weights in a compact form and expands them on the chip, for Tensor Cores that multiply "
    "dense tiles. Dense means cuBLAS; N counts the tokens in flight. Every prediction stands beside evidence, with its "
    "error: lines and dashes are models, markers and bars are published or measured."
)
TEMPLATE = Path(__file__).with_name("template.html")
CSV_DIGITS = "%.6g"
READ_ON = ("README.md", "docs/tutorial.md", "docs/questions.md", "notebooks/*.ipynb")  # beside a report in a checkout


class Style(StrEnum):
    """What a report is made for: to be read, or to give its figures to a paper as well."""

    SCREEN = "screen"
    PAPER = "paper"


def build(out: Path, chapters: tuple[Chapter, ...] = CHAPTERS, style: Style = Style.SCREEN) -> Path:
    """Write ``index.html``, ``report.pdf`` and ``figures/`` into ``out``; returns the page.

    Everything is made in a temporary folder first and moved when complete, so a failed run leaves the old report.
    """
    mpl.use("Agg")
    context, origin = Context(), provenance()  # of the code that runs, whatever is committed meanwhile
    with tempfile.TemporaryDirectory(dir=nearest(out), prefix=".building-") as scratch, house_style():
        folder = Path(scratch)
        figures = folder / "figures"
        figures.mkdir()
        report = _report(_make(chapters, context, figures, style), context, origin)
        if style is Style.PAPER:
            words = captions(report.exhibits, report.provenance.words)
            (figures / "captions.tex").write_text(words, encoding="utf-8")
        (folder / "index.html").write_text(_render(report, figures, out), encoding="utf-8")
        write_pdf(folder / "report.pdf", report, folder)
        out.mkdir(parents=True, exist_ok=True)
        _replace(figures, out / "figures")
        for name in ("report.pdf", "index.html"):
            (folder / name).replace(out / name)
    return out / "index.html"


def _report(made: list[tuple[Chapter, list[Exhibit]]], context: Context, origin: Provenance) -> Report:
    used = {key for _, exhibits in made for exhibit in exhibits for key in exhibit.sources}
    sources = {key: source for key, source in context.sources.items() if key in used}
    return Report(TITLE, LEAD, made, sources, origin)


def refuse_foreign(out: Path) -> None:
    """Refuse a folder whose pages are of another's making, or which cannot be written: worth asking before the work."""
    if not out.is_dir():
        return
    page, document, figures = out / "index.html", out / "report.pdf", out / "figures"
    for path in (page, document, figures / "figure.svg" if figures.exists() else page):
        writable(path)
    ours = page.is_file() and TITLE in page.read_text(encoding="utf-8", errors="replace")
    if not ours and (page.exists() or document.exists()):
        raise ValueError(f"{out} has a page that is no report of ours; give another folder as --out")


def _make(
    chapters: tuple[Chapter, ...], context: Context, figures: Path, style: Style
) -> list[tuple[Chapter, list[Exhibit]]]:
    progress = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), transient=False
    )
    made, counts = [], Counter[str]()
    with progress:
        bar = progress.add_task("evidence", total=sum(len(chapter.makers) for chapter in chapters))
        for chapter in chapters:
            exhibits = []
            for maker in chapter.makers:
                progress.update(bar, description=maker.__name__.replace("_", " "))
                exhibit = maker(context)
                counts[exhibit.kind] += 1
                exhibits.append(_save(replace(exhibit, number=counts[exhibit.kind]), figures, style))
                progress.advance(bar)
            made.append((chapter, exhibits))
        progress.update(bar, description="report")
    return made


def _save(exhibit: Exhibit, folder: Path, style: Style) -> Exhibit:
    exhibit.table.to_csv(folder / f"{exhibit.name}.csv", index=False, float_format=CSV_DIGITS)
    if exhibit.figure is not None:
        save(exhibit.figure, folder, exhibit.name)
        if style is Style.PAPER:
            save_for_paper(exhibit.figure, folder, exhibit.name)
        plt.close(exhibit.figure)
    return exhibit


def _replace(new: Path, old: Path) -> None:
    """Move the files of ``new`` to ``old``, beside what else is there."""
    old.mkdir(exist_ok=True)
    for file in sorted(new.iterdir()):
        file.replace(old / file.name)


def _render(report: Report, figures: Path, out: Path) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["image"] = lambda exhibit: _data_url(figures / f"{exhibit.name}.svg")
    environment.filters["csv"] = lambda exhibit: _data_url(figures / f"{exhibit.name}.csv")
    environment.filters["files"] = lambda exhibit: sorted(path.name for path in figures.glob(f"{exhibit.name}.*"))
    environment.filters["width"] = lambda exhibit: "column" if exhibit.inches == COLUMN else "page"
    page = environment.get_template(TEMPLATE.name)
    return page.render(report=report, read_on=list(read_on(out)))


def read_on(out: Path) -> Iterator[tuple[str, str]]:
    """Links from a report within its checkout to what explains it, with their titles; none from elsewhere."""
    if not out.resolve().is_relative_to(ROOT):
        return
    for pattern in READ_ON:
        for path in sorted(ROOT.glob(pattern)):
            yield path.stem.replace("_", " "), os.path.relpath(path, out.resolve())


def _data_url(path: Path) -> str:
    kinds = {".svg": "image/svg+xml", ".csv": "text/csv"}
    return f"data:{kinds[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"
