"""The report: complete, self-contained, the same every time, and never half-written."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from lscd.report.build import CHAPTERS, build
from lscd.report.exhibit import Chapter, Context, Exhibit


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


def test_same_input_gives_the_same_bytes(report: Path, tmp_path: Path) -> None:
    again = build(tmp_path)
    assert again.read_bytes() == report.read_bytes()
    for path in sorted((report.parent / "figures").iterdir()):
        assert (tmp_path / "figures" / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_failing_exhibit_leaves_the_old_report(tmp_path: Path) -> None:
    def broken(context: Context) -> Exhibit:
        raise ValueError("no such evidence")

    (tmp_path / "index.html").write_text("old")
    with pytest.raises(ValueError, match="no such evidence"):
        build(tmp_path, (Chapter("x", "y", (broken,)),))
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]
    assert (tmp_path / "index.html").read_text() == "old"
