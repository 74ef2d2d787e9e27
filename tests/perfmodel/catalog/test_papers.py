"""Papers as records: every file is whole, and a broken one is refused by name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from perfmodel.catalog import data_directory, load_sources
from perfmodel.catalog.papers import NUMBER_COLUMNS, load_paper, load_paper_numbers, paper_names


@pytest.mark.parametrize("name", paper_names())
def test_every_paper_names_its_sources_and_its_exhibits(name: str) -> None:
    paper, numbers = load_paper(name), load_paper_numbers(name)
    assert set(paper.sources) | (set(numbers["source"]) - {""}) <= set(load_sources())
    for claim in paper.claim:
        assert claim.why_not or (numbers["claim"] == claim.key).any(), f"{claim.key} has neither number nor reason"


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(data_directory(), tmp_path / "data")
    monkeypatch.setenv("LSCD_DATA", str(tmp_path / "data"))
    return tmp_path / "data" / "papers"


def test_unknown_paper_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown paper 'flashllm'.*flash-llm"):
        load_paper("flashllm")


def test_a_claim_that_the_paper_does_not_list_is_refused(copied: Path) -> None:
    path = copied / "flash-llm.csv"
    path.write_text(path.read_text().replace("kernel-cublas,README", "other,README", 1))
    with pytest.raises(ValueError, match=r"flash-llm\.csv.*claim 'other' is none of the paper's"):
        load_paper_numbers("flash-llm")


def test_other_columns_are_refused(copied: Path) -> None:
    path = copied / "flash-llm.csv"
    path.write_text(path.read_text().replace("published", "value", 1))
    with pytest.raises(ValueError, match="needed are claim, exhibit, quantity"):
        load_paper_numbers("flash-llm")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (",3.6,0.05,true", ",,0.05,true", r"line 2: published is '', allowed is a number above 0"),
        (",3.6,0.05,true", ",nan,0.05,true", r"line 2: published is 'nan'"),
        (",3.6,0.05,true", ",3.6,-1,true", r"line 2: err is '-1', allowed is a number from 0 to what is published"),
        (",3.6,0.05,true", ",3.6,1e9,true", r"line 2: err is '1e9'"),
        (",3.6,0.05,true", ",3.6,0.05,yes", r"line 2: fitted is 'yes', allowed is true or false"),
    ],
)
def test_cells_that_are_no_numbers_are_refused(copied: Path, old: str, new: str, says: str) -> None:
    path = copied / "flash-llm.csv"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=says):
        load_paper_numbers("flash-llm")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('name = "Fig 7"', 'name = "Fig 9"', "exhibit 'Fig 9' stands twice"),
        ('key = "half"', 'key = "accuracy"', "claim 'accuracy' stands twice"),
        ('table = "parts"\n', "", "table and rows go together"),
    ],
)
def test_contradictions_are_refused(copied: Path, old: str, new: str, says: str) -> None:
    path = copied / "flash-llm.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=says):
        load_paper("flash-llm")


def test_columns_are_those_that_the_answers_read() -> None:
    assert len(set(NUMBER_COLUMNS)) == len(NUMBER_COLUMNS)
