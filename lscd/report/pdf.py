"""The report as a PDF: the same exhibits, one after the other, to print or to send."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import matplotlib as mpl
from fpdf import FPDF
from fpdf.enums import XPos, YPos
from PIL import Image

from lscd.report.exhibit import Chapter, Exhibit
from perfmodel.catalog.specs import Source

MARGIN_MM = 18
TEXT_MM, HEADING_MM = 5.0, 8.0
WIDEST = 36  # characters by which a column counts at most: longer cells wrap
MAX_ROWS = 40  # longer tables stand in the CSV
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # the same input gives the same bytes
SOFT, TEXT = (95, 98, 105), (25, 25, 28)


def write_pdf(
    path: Path,
    title: str,
    answers: Sequence[tuple[str, Exhibit]],
    chapters: Sequence[tuple[Chapter, list[Exhibit]]],
    sources: Mapping[str, Source],
    figures: Path,
) -> None:
    """Write the exhibits of ``chapters``, their pictures taken from ``figures``, to ``path``."""
    pdf = _document(title)
    _heading(pdf, title, 18)
    for question, exhibit in answers:
        _paragraph(pdf, question, style="B")
        _paragraph(pdf, exhibit.finding)
        pdf.ln(1.5)
    for chapter, exhibits in chapters:
        pdf.add_page()
        _heading(pdf, chapter.title, 15)
        _paragraph(pdf, chapter.lead, colour=SOFT)
        for exhibit in exhibits:
            _exhibit(pdf, exhibit, sources, figures)
    pdf.add_page()
    _heading(pdf, "Sources", 15)
    for number, source in enumerate(sources.values(), start=1):
        _paragraph(pdf, f"[{number}] {source.title} ({source.date}). {source.url}", size=8)
        pdf.ln(1)
    pdf.output(str(path))


def _document(title: str) -> FPDF:
    pdf = FPDF(format="A4")
    pdf.set_creation_date(EPOCH)
    pdf.set_title(title)
    pdf.set_margin(MARGIN_MM)
    pdf.set_auto_page_break(True, MARGIN_MM)
    fonts = Path(mpl.get_data_path()) / "fonts" / "ttf"
    pdf.add_font("DejaVu", "", fonts / "DejaVuSans.ttf")
    pdf.add_font("DejaVu", "B", fonts / "DejaVuSans-Bold.ttf")
    pdf.add_page()
    return pdf


def _heading(pdf: FPDF, text: str, size: int) -> None:
    pdf.set_font("DejaVu", "B", size)
    pdf.set_text_color(*TEXT)
    pdf.multi_cell(0, HEADING_MM, text, align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    pdf.ln(1.5)


def _paragraph(pdf: FPDF, text: str, *, style: str = "", size: int = 10, colour: tuple[int, int, int] = TEXT) -> None:
    pdf.set_font("DejaVu", style, size)
    pdf.set_text_color(*colour)
    pdf.multi_cell(0, TEXT_MM * size / 10, text, align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT)


def _exhibit(pdf: FPDF, exhibit: Exhibit, sources: Mapping[str, Source], figures: Path) -> None:
    picture = figures / f"{exhibit.name}.png"
    height = _picture_height(pdf, picture) if exhibit.figure is not None else 40.0
    if pdf.get_y() + height + 45 > pdf.h - MARGIN_MM:
        pdf.add_page()
    else:
        pdf.ln(5)
    _heading(pdf, exhibit.title, 12)
    _paragraph(pdf, exhibit.finding)
    pdf.ln(1.5)
    if exhibit.figure is not None:
        pdf.image(str(picture), w=pdf.epw, h=height, alt_text=exhibit.title)
    else:
        _table(pdf, exhibit)
    numbers = {key: number for number, key in enumerate(sources, start=1)}
    cited = " ".join(f"[{numbers[key]}]" for key in exhibit.sources)
    _paragraph(pdf, f"{exhibit.evidence} Sources: {cited}" if cited else exhibit.evidence, size=8, colour=SOFT)


def _picture_height(pdf: FPDF, picture: Path) -> float:
    with Image.open(picture) as image:
        return float(pdf.epw * image.height / image.width)


def _table(pdf: FPDF, exhibit: Exhibit) -> None:
    shown = exhibit.table if exhibit.shown is None else exhibit.shown
    pdf.set_font("DejaVu", "", 6.5)
    pdf.set_text_color(*TEXT)
    cells = [list(map(str, shown.columns)), *([str(cell) for cell in row] for row in shown.head(MAX_ROWS).to_numpy())]
    widths = tuple(min(max(len(row[i]) for row in cells), WIDEST) + 2 for i in range(len(cells[0])))
    with pdf.table(cells, col_widths=widths, line_height=4, borders_layout="HORIZONTAL_LINES"):
        pass
    if len(shown) > MAX_ROWS:
        _paragraph(pdf, f"{len(shown) - MAX_ROWS} more rows in {exhibit.name}.csv", size=8, colour=SOFT)
