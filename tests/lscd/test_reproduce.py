"""`lscd reproduce`: list, page, CSV and JSON say the same; bad input is a sentence."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from perfmodel.papers import judge, paper_names
from tests.lscd.commands import run


def test_list_has_a_line_a_paper(capsys, monkeypatch) -> None:
    code, out, _ = run(monkeypatch, capsys, "reproduce", "--list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == list(paper_names())
    _, out, _ = run(monkeypatch, capsys, "reproduce", "--list", "--json")
    rows = json.loads(out)
    assert [row["paper"] for row in rows] == list(paper_names())
    assert all(isinstance(row["numbers"], int) for row in rows)
    assert all(row["mean error"] is None or 0 <= row["mean error"] < 1 for row in rows)


def test_page_json_and_csv_agree(capsys, monkeypatch, tmp_path: Path) -> None:
    _, out, _ = run(monkeypatch, capsys, "reproduce", "flash-llm")
    assert "REPRODUCED: It is 1.4, 1.7 and 2.1 times as fast as dense cuBLAS." in out
    _, printed, _ = run(monkeypatch, capsys, "reproduce", "flash-llm", "--json")
    answer = json.loads(printed)
    run(monkeypatch, capsys, "reproduce", "flash-llm", "--output", str(tmp_path / "numbers.csv"))
    with (tmp_path / "numbers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(answer["numbers"]) == len(judge("flash-llm").numbers)
    assert float(rows[0]["ours"]) == pytest.approx(answer["numbers"][0]["ours"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give the name of a paper, or --list"),
        (["flash-llm", "--list"], "give the name of a paper, or --list"),
        (["flashllm"], "unknown paper 'flashllm'"),
        (["flash-llm", "--output", "x.txt"], "--output is x.txt, its name must end in .csv or .md"),
        (["--list", "--output", "x.csv"], "--output does nothing with --list"),
        (["flash-llm", "--json", "--output", "x.csv"], "--json does nothing with --output"),
    ],
)
def test_bad_input_is_a_sentence(capsys, monkeypatch, tmp_path: Path, arguments: list[str], says: str) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = run(monkeypatch, capsys, "reproduce", *arguments)
    assert code == 2
    assert says in err
    assert not list(tmp_path.iterdir())
