"""The report: complete, self-contained, the same every time, and never half-written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from lscd.report import inside, own_kernels, pays
from lscd.report.build import CHAPTERS, build
from lscd.report.exhibit import Chapter, Context, Exhibit
from perfmodel.pipeline import PREDICTED_BY


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("report"))


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
    """Each exhibit's part of the page by its name, but the numbers of its sources, which count those of all others."""
    found = re.findall(r'<section id="([a-z0-9_]+)">(.*?)</section>', page.read_text(), flags=re.DOTALL)
    return {name: re.sub(r"\[\d+\]", "[]", text) for name, text in found}


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
