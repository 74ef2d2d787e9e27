"""Pages of papers: up to date, one layout, every link leads somewhere."""

from __future__ import annotations

import re

import pytest

from lscd.report.papers import KEPT, PAGES, ROOT, index, page
from perfmodel.papers import judge, load_paper, paper_names

HEADINGS = ["Claims", "Setting", "Figures and tables", "Number by number", "Sources"]
LINK = re.compile(r"\]\((\.\./[^)]+)\)")


@pytest.mark.parametrize("name", paper_names())
def test_page_is_up_to_date_and_whole(name: str) -> None:
    text = page(name)
    assert (PAGES / f"{name}.md").read_text(encoding="utf-8") == text
    assert re.findall(r"^## (.*)$", text, flags=re.MULTILINE) == HEADINGS
    assert text.count("| **") == len(judge(name).claims)
    for link in LINK.findall(text):
        assert (PAGES / link).resolve().is_relative_to(ROOT)
        assert (PAGES / link).is_file(), link


def test_pictures_on_pages_are_kept_in_the_repository() -> None:
    exempt = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    for name in KEPT:
        assert f"!reports/figures/{name}.png" in exempt
        assert any(name in exhibit.ours for paper in map(load_paper, paper_names()) for exhibit in paper.exhibit)


def test_index_is_up_to_date() -> None:
    assert (PAGES / "index.md").read_text(encoding="utf-8") == index()
