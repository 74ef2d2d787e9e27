"""The report as a PDF: the same exhibits as the page, their pictures as vectors, to print or to send."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import typst

from lscd.report.exhibit import Exhibit, Report
from perfmodel.catalog.specs import Source

DOCUMENT = Path(__file__).with_name("report.typ")
TOLD = ("name", "kind", "number", "label", "title", "finding", "evidence")
MOMENT = ("year", "month", "day", "hour", "minute", "second")
MAX_ROWS = 40  # of a table; longer ones stand in the CSV


def write_pdf(path: Path, report: Report, folder: Path) -> None:
    """Write ``report`` to ``path``; ``folder`` holds its pictures in ``figures/``."""
    (document,) = compiled(report, folder, format="pdf")
    path.write_bytes(document)


def compiled(report: Report, folder: Path, **how: Any) -> list[bytes]:
    """The document as files: one PDF, or a PNG a page; ``how`` as typst's compiler takes it.

    Every word goes as JSON, so that no character of it is markup. Fonts are Matplotlib's own, whatever the machine has.
    """
    data = folder / "report.json"
    data.write_text(json.dumps(_document(report)), encoding="utf-8")
    fonts = typst.Fonts(include_system_fonts=False, font_paths=[Path(mpl.get_data_path()) / "fonts" / "ttf"])
    made = typst.Compiler(DOCUMENT.read_bytes(), root=folder, font_paths=fonts).compile(**how)
    assert made is not None  # no file was named to write to
    data.unlink()
    return made if isinstance(made, list) else [made]


def _document(report: Report) -> dict[str, Any]:
    chapters = [
        {"title": chapter.title, "lead": chapter.lead, "exhibits": [_exhibit(e, report.numbers) for e in exhibits]}
        for chapter, exhibits in report.chapters
    ]
    answers = [
        {"question": question, "finding": exhibit.finding, "label": exhibit.label, "name": exhibit.name}
        for question, exhibit in report.answers
    ]
    return {
        "title": report.title,
        "lead": report.lead,
        "provenance": report.provenance.words,
        "made": {name: getattr(report.provenance.made, name) for name in MOMENT},  # else each run's PDF has its own
        "answers": answers,
        "chapters": chapters,
        "sources": [_source(report.numbers[key], source) for key, source in report.sources.items()],
    }


def _exhibit(exhibit: Exhibit, numbers: Mapping[str, int]) -> dict[str, Any]:
    told = {
        name: getattr(exhibit, name) for name in ("name", "kind", "number", "label", "title", "finding", "evidence")
    }
    told["sources"] = [numbers[key] for key in exhibit.sources]
    if exhibit.figure is not None:
        return told | {"inches": exhibit.inches}
    shown = exhibit.rows
    rows = [[str(cell) for cell in row] for row in shown.head(MAX_ROWS).itertuples(index=False, name=None)]
    return told | {"columns": list(map(str, shown.columns)), "rows": rows, "left_out": max(0, len(shown) - MAX_ROWS)}


def _source(number: int, source: Source) -> dict[str, Any]:
    return {"number": number} | {name: getattr(source, name) for name in ("title", "date", "licence", "url")}
