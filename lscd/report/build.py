"""Builds the report: runs every exhibit, saves picture and CSV, and writes one self-contained page."""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path

import jinja2
import matplotlib as mpl
import matplotlib.pyplot as plt
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from kernels_numba.files import nearest, writable
from lscd.report import accuracy, beyond, drawings, inside, kernels, pays, rivals, serving, spinfer, today, trust
from lscd.report.exhibit import Chapter, Context, Exhibit
from lscd.report.pdf import write_pdf
from perfmodel.catalog.specs import Source
from perfmodel.plotting.style import house_style, save

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
    trust.CHAPTER,
)
TITLE = "Load sparse, compute dense: when, where and by how much does it pay?"
TEMPLATE = Path(__file__).with_name("template.html")
CSV_DIGITS = "%.6g"


def build(out: Path, chapters: tuple[Chapter, ...] = CHAPTERS) -> Path:
    """Write ``index.html``, ``report.pdf`` and ``figures/`` into ``out``; returns the page.

    Everything is made in a temporary folder first and moved when complete, so a failed run leaves the old report.
    """
    mpl.use("Agg")
    context = Context()
    with tempfile.TemporaryDirectory(dir=nearest(out), prefix=".building-") as scratch, house_style():
        figures = Path(scratch) / "figures"
        figures.mkdir()
        made = _make(chapters, context, figures)
        used = {key for _, exhibits in made for exhibit in exhibits for key in exhibit.sources}
        sources = {key: source for key, source in context.sources.items() if key in used}
        page, document = Path(scratch) / "index.html", Path(scratch) / "report.pdf"
        page.write_text(_render(made, context, sources, figures), encoding="utf-8")
        write_pdf(document, TITLE, _answers(made), made, sources, figures)
        out.mkdir(parents=True, exist_ok=True)
        _replace(figures, out / "figures")
        document.replace(out / "report.pdf")
        page.replace(out / "index.html")
    return out / "index.html"


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


def _make(chapters: tuple[Chapter, ...], context: Context, figures: Path) -> list[tuple[Chapter, list[Exhibit]]]:
    progress = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), transient=False
    )
    made = []
    with progress:
        bar = progress.add_task("evidence", total=sum(len(chapter.makers) for chapter in chapters))
        for chapter in chapters:
            exhibits = []
            for maker in chapter.makers:
                progress.update(bar, description=maker.__name__.replace("_", " "))
                exhibits.append(_save(maker(context), figures))
                progress.advance(bar)
            made.append((chapter, exhibits))
        progress.update(bar, description="report")
    return made


def _save(exhibit: Exhibit, folder: Path) -> Exhibit:
    exhibit.table.to_csv(folder / f"{exhibit.name}.csv", index=False, float_format=CSV_DIGITS)
    if exhibit.figure is not None:
        save(exhibit.figure, folder, exhibit.name)
        plt.close(exhibit.figure)
    return exhibit


def _replace(new: Path, old: Path) -> None:
    """Move the files of ``new`` to ``old``, beside what else is there."""
    old.mkdir(exist_ok=True)
    for file in sorted(new.iterdir()):
        file.replace(old / file.name)


def _render(
    made: list[tuple[Chapter, list[Exhibit]]], context: Context, sources: dict[str, Source], figures: Path
) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["image"] = lambda exhibit: _data_url(figures / f"{exhibit.name}.svg")
    environment.filters["csv"] = lambda exhibit: _data_url(figures / f"{exhibit.name}.csv")
    environment.filters["rows"] = lambda table: table.itertuples(index=False, name=None)
    numbers = {key: number for number, key in enumerate(sources, start=1)}
    page = environment.get_template(TEMPLATE.name)
    return page.render(
        title=TITLE, chapters=made, answers=_answers(made), sources=sources, numbers=numbers, fitted=context.calibration
    )


def _answers(made: list[tuple[Chapter, list[Exhibit]]]) -> list[tuple[str, Exhibit]]:
    """Each chapter's question and the exhibit that answers it."""
    found = []
    for chapter, exhibits in made:
        for maker, exhibit in zip(chapter.makers, exhibits, strict=True):
            if maker.__name__ == chapter.headline:
                found.append((chapter.question, exhibit))
    return found


def _data_url(path: Path) -> str:
    kinds = {".svg": "image/svg+xml", ".csv": "text/csv"}
    return f"data:{kinds[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"
