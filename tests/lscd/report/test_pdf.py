"""The document: any text comes through as text, tables break or are cut with a pointer, pictures are vectors."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import typst

from lscd.report.exhibit import Chapter, Context, Exhibit, Report
from lscd.report.pdf import DOCUMENT, MAX_ROWS, _document, write_pdf
from lscd.report.provenance import Provenance
from perfmodel.catalog import load_sources
from perfmodel.plotting.style import COLUMN, PAGE, house_style, save

HOSTILE = '#panic("no") $x$ *a* _b_ @c <d> [e] `f` // g /* h \\u{41} "i" = j ~ \\ %& 2^k'
SOURCE = "flash-llm-fig9"


def maker(context: Context) -> Exhibit:
    raise NotImplementedError


def report(*exhibits: Exhibit) -> Report:
    chapter = Chapter(f"Chapter {HOSTILE}", HOSTILE, (maker,) * len(exhibits))
    source = {SOURCE: load_sources()[SOURCE]}
    return Report(HOSTILE, HOSTILE, [(chapter, list(exhibits))], source, Provenance("1", "abc"))


def exhibit(name: str, number: int, rows: int = 3, inches: float | None = None, folder: Path | None = None) -> Exhibit:
    figure = None
    if inches is not None:
        with house_style():
            figure, axes = plt.subplots(figsize=(inches, 2.0))
            axes.plot([1, 2], [3, 4])
        assert folder is not None
        save(figure, folder, name)
        plt.close(figure)
    table = pd.DataFrame({HOSTILE: [f"{HOSTILE} {row}" for row in range(rows)], "b": range(rows)})
    return Exhibit(name, HOSTILE, HOSTILE, HOSTILE, (SOURCE,), table, figure, None, number)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "figures").mkdir()
    return tmp_path


def test_no_text_is_read_as_markup(folder: Path) -> None:
    """A word of it that were markup would fail the document, or lose its characters."""
    figures = folder / "figures"
    pictures = [exhibit("narrow", 1, inches=COLUMN, folder=figures), exhibit("broad", 2, inches=PAGE, folder=figures)]
    write_pdf(folder / "report.pdf", report(*pictures, exhibit("rows", 1)), folder)
    document = (folder / "report.pdf").read_bytes()
    assert document.startswith(b"%PDF")
    assert b"/Subtype /Image" not in document  # pictures are lines and letters, no pixels
    assert not (folder / "report.json").exists()


def test_headings_and_numbers_are_those_given(folder: Path) -> None:
    (folder / "report.json").write_text(json.dumps(_document(report(exhibit("rows", 7)))))
    headings, figures = (
        json.loads(typst.Compiler(DOCUMENT.read_bytes(), root=folder).query(kind)) for kind in ("heading", "figure")
    )
    assert f"Chapter {HOSTILE}" in [heading["body"].get("text") for heading in headings]
    assert [(figure["label"], figure["supplement"]["text"]) for figure in figures] == [("<rows>", "Table")]


def test_long_tables_are_cut_with_a_pointer() -> None:
    told = _document(report(exhibit("long", 1, rows=MAX_ROWS + 5), exhibit("short", 2)))["chapters"][0]["exhibits"]
    assert [len(one["rows"]) for one in told] == [MAX_ROWS, 3]
    assert [one["left_out"] for one in told] == [5, 0]


def test_the_same_report_gives_the_same_bytes(folder: Path) -> None:
    made = report(exhibit("rows", 1))
    for name in ("one", "two"):
        write_pdf(folder / name, made, folder)
    assert (folder / "one").read_bytes() == (folder / "two").read_bytes()
