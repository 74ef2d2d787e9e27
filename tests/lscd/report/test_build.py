"""The report: complete, self-contained, the same every time, and never half-written."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import matplotlib.image
import pandas as pd
import pytest
from matplotlib.figure import Figure

from lscd.report import inside, own_kernels, pays
from lscd.report.build import CHAPTERS, Style, build, read_on
from lscd.report.exhibit import Chapter, Context, Exhibit, Report
from lscd.report.pdf import compiled, write_pdf
from lscd.report.provenance import ROOT
from perfmodel.pipeline import PREDICTED_BY
from perfmodel.plotting import style
from perfmodel.plotting.style import COLUMN, PAGE
from tests.figures import faults

FAULTS: dict[str, list[str]] = {}  # of every figure of the report, as its layout is final
FILLED: list[float] = []  # share of the height between head and foot that each page of the document uses
HEAD, FOOT = 22 / 297, 18 / 297  # margins of a page
POINTS = 72  # an inch


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole report for a paper, which has everything that one for the screen has."""

    def watched(figure: Figure, folder: Path, name: str) -> list[Path]:
        paths = style.save(figure, folder, name)
        figure.set_dpi(matplotlib.rcParams["savefig.dpi"])  # letters are a little wider where pixels are few
        FAULTS[name] = faults(figure)  # after it is saved: looking lays a figure out once more
        return paths

    def looked_at(path: Path, report: Report, folder: Path) -> None:
        FILLED.extend(filled(page) for page in compiled(report, folder, format="png", ppi=36))
        write_pdf(path, report, folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lscd.report.build.save", watched)
        patch.setattr("lscd.report.build.write_pdf", looked_at)
        return build(tmp_path_factory.mktemp("report"), style=Style.PAPER)


def filled(page: bytes) -> float:
    """How far down the page something stands."""
    ink = (matplotlib.image.imread(io.BytesIO(page))[..., :3] < 0.97).any(axis=(1, 2))
    body = ink[round(HEAD * len(ink)) : round((1 - FOOT) * len(ink))]
    return float(body.nonzero()[0].max() / len(body)) if body.any() else 0.0


def test_every_exhibit_has_picture_numbers_and_finding(report: Path) -> None:
    page = report.read_text()
    names = re.findall(r'<section id="([a-z0-9_]+)">', page)
    assert len(names) == sum(len(chapter.makers) for chapter in CHAPTERS)
    for name in names:
        table = pd.read_csv(report.parent / "figures" / f"{name}.csv")
        assert len(table)
    pictures = {path.stem for path in (report.parent / "figures").glob("*.png")}
    assert pictures == {path.stem for path in (report.parent / "figures").glob("*.svg")}
    assert {"roofline", "time_against_sparsity", "kernel_benchmark", "speedups", "storage"} <= pictures


def test_every_figure_can_be_printed(report: Path) -> None:
    """Its width is a paper's, its letters are 7 pt and none below 6, nothing is cut off."""
    assert {name: wrong for name, wrong in FAULTS.items() if wrong} == {}


def test_no_page_of_the_document_is_half_empty(report: Path) -> None:
    """But the last, which ends where the sources do."""
    assert len(FILLED) > len(CHAPTERS)
    assert {number: share for number, share in enumerate(FILLED[:-1], start=1) if share < 0.5} == {}


def test_a_paper_gets_every_figure_as_vectors_with_true_type(report: Path) -> None:
    drawn = {path.stem: path.read_bytes() for path in (report.parent / "figures").glob("*.pdf")}
    assert set(drawn) == set(FAULTS)
    for name, document in drawn.items():
        box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) [\d.]+ \]", document)
        assert box is not None, name
        assert float(box[1]) / POINTS in (pytest.approx(COLUMN), pytest.approx(PAGE)), name
        assert b"/FontFile2" in document, name
        assert b"/Type3" not in document, name


def test_figures_and_tables_count_from_one_and_are_called_the_same_everywhere(report: Path) -> None:
    page = report.read_text()
    headings = re.findall(r'<h3><a href="#(\w+)">(Figure|Table) (\d+)</a>', page)
    assert len(headings) == page.count("<section id=")
    for kind in ("Figure", "Table"):
        numbers = [int(number) for _, its, number in headings if its == kind]
        assert numbers == list(range(1, len(numbers) + 1))
    listed = re.findall(r'<li><a href="#(\w+)"><span>(Figure|Table) (\d+)</span>', page)
    assert listed == headings
    files = re.findall(r'<p class="files">(Figure|Table) (\d+): <a href="[^"]*" download="(\w+).csv"', page)
    assert [(name, kind, number) for kind, number, name in files] == headings
    captions = (report.parent / "figures" / "captions.tex").read_text()
    assert re.findall(r"^% (Figure) (\d+): (\w+)\.pdf", captions, flags=re.MULTILINE) == [
        (kind, number, name) for name, kind, number in headings if kind == "Figure"
    ]
    assert captions.isascii()


class Links(HTMLParser):
    """Where a page leads, and where it can be led to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src"):
                self.links.append(value or "")
            elif name == "id":
                self.anchors.append(value or "")


def broken(page: Path) -> list[str]:
    """Links that lead nowhere: to no anchor of the page, no file beside it, no address."""
    found = Links(page.read_text())
    assert len(found.anchors) == len(set(found.anchors))
    wrong = []
    for link in found.links:
        parts = urlsplit(link)
        if parts.scheme in ("data", "https"):
            continue
        file = page.parent / unquote(parts.path)
        if parts.scheme or not link or (not file.exists() if parts.path else parts.fragment not in found.anchors):
            wrong.append(link)
    return wrong


def test_every_link_leads_somewhere(report: Path) -> None:
    assert broken(report) == []
    page = report.read_text()
    for path in sorted((report.parent / "figures").glob("*.[ps]*g")):
        assert f'href="figures/{path.name}"' in page


def test_a_report_in_its_checkout_leads_to_what_explains_it_and_one_elsewhere_does_not(tmp_path: Path) -> None:
    links = [link for _, link in read_on(ROOT / "reports")]
    assert {"../README.md", "../docs/tutorial.md"} < set(links)
    assert [link for link in links if not (ROOT / "reports" / link).is_file()] == []
    assert len([link for link in links if link.endswith(".ipynb")]) == len(list((ROOT / "notebooks").glob("*.ipynb")))
    assert list(read_on(tmp_path)) == []


def test_page_needs_nothing_from_outside(report: Path) -> None:
    page = report.read_text()
    assert not re.search(r'<(?:script|link)\b|src="(?!data:)|@import|url\(', page)
    anchors = set(re.findall(r'href="#([^"]+)"', page))
    assert anchors <= set(re.findall(r'id="([^"]+)"', page))
    assert "nan" not in re.sub(r'"data:[^"]+"', "", page).lower()


# Exhibits that simulate grids of cases in threads; a small grid of each stands for them in a second process.
IN_THREADS = (inside.agreement, own_kernels.own_kernels)
AGAIN = """
import sys
from dataclasses import replace
from pathlib import Path
from lscd.report.build import CHAPTERS, build
from tests.lscd.report.test_build import IN_THREADS, small_grids
out = Path(sys.argv[1])
keep = [tuple(maker for maker in chapter.makers if maker not in IN_THREADS) for chapter in CHAPTERS]
build(out, tuple(replace(chapter, makers=makers) for chapter, makers in zip(CHAPTERS, keep, strict=True)))
(out / "grids.csv").write_text(small_grids())
"""


def small_grids() -> str:
    """A few cases of what `IN_THREADS` simulate."""
    compared = inside.compared(PREDICTED_BY, ("h200",), ((4096, 4096),), (8, 16), (0.5, 0.8))
    return compared.to_csv() + own_kernels.simulated_speedups(("h200",), (0.5, 0.8), (8,)).to_csv()


def sections(page: Path) -> dict[str, str]:
    """Each exhibit's part of the page by its name, but its number and its sources', which count those of all others."""
    found = re.findall(r'<section id="([a-z0-9_]+)">(.*?)</section>', page.read_text(), flags=re.DOTALL)
    counted = r"\[\d+\]|(?:Figure|Table) \d+|, <a href=\"figures/\w+.pdf\">PDF</a>"  # only a paper's has the last
    return {name: re.sub(counted, "", text) for name, text in found}


def test_same_input_gives_the_same_bytes_in_a_process_that_hashes_otherwise(report: Path, tmp_path: Path) -> None:
    """The order of sets and of threads shows nowhere."""
    command = [sys.executable, "-c", AGAIN, str(tmp_path)]
    folder = Path(__file__).parents[3]
    subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONHASHSEED": "7"}, check=True, capture_output=True)
    assert (tmp_path / "grids.csv").read_text() == small_grids()
    again, first = sections(tmp_path / "index.html"), sections(report)
    assert len(again) == len(first) - len(IN_THREADS)
    assert again == {name: first[name] for name in again}
    for path in sorted((tmp_path / "figures").iterdir()):
        assert (report.parent / "figures" / path.name).read_bytes() == path.read_bytes(), path.name


def test_two_builds_of_a_chapter_are_one_page_and_one_document(tmp_path: Path) -> None:
    """Not a byte of date, name or folder is in either."""
    pages = [build(tmp_path / name, (pays.CHAPTER,)) for name in ("one", "two")]
    for name in ("index.html", "report.pdf"):
        one, two = (page.with_name(name).read_bytes() for page in pages)
        assert one == two, name


def test_a_failing_exhibit_leaves_the_old_report(tmp_path: Path) -> None:
    def broken(context: Context) -> Exhibit:
        raise ValueError("no such evidence")

    (tmp_path / "index.html").write_text("old")
    with pytest.raises(ValueError, match="no such evidence"):
        build(tmp_path, (Chapter("x", "y", (broken,)),))
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]
    assert (tmp_path / "index.html").read_text() == "old"


def test_a_style_that_there_is_not_is_refused_before_the_work(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lscd", "report", "--style", "poster", "--out", str(tmp_path / "out")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == "lscd: --style is 'poster', allowed are screen, paper\n"
    assert not (tmp_path / "out").exists()
