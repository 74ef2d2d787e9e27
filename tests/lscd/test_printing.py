"""What commands print: sentences, tables, numbers."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from lscd.printing import digits, headline, json_rows, print_table, say, side_by_side


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (0.03456, "0.0346"), (9.996, "10.00"), (29.0, "29.0"), (112.4, "112"), (12345.6, "12346")],
)
def test_digits_have_no_exponent_and_keep_their_zeros(value: float, shown: str) -> None:
    assert digits(value) == shown


def test_table_aligns_numbers_right_and_words_left(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("kernel", "us"), [("cublas", "411.9"), ("int8", "7.0")], text=("kernel",))
    assert capsys.readouterr().out == "kernel     us\ncublas  411.9\nint8      7.0\n"
    print_table((), [("a", "bcd"), ("ef", "g")])
    assert capsys.readouterr().out == "a   bcd\nef  g\n"


def test_lists_of_two_lengths_stand_side_by_side() -> None:
    assert side_by_side({"a": "1", "b": "2"}, {"c": "3"}) == [("a", "1", "c", "3"), ("b", "2", "", "")]


def test_sentences_wrap_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words = "quant-llm-w5 is the fastest of them all"
    say(words)
    assert capsys.readouterr().out == f"{words}\n"
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    headline(words)
    out = capsys.readouterr().out
    assert out.replace("\x1b[1m", "").replace("\x1b[0m", "") == "quant-llm-w5 is the\nfastest of them all\n"


def test_rows_as_json_have_null_for_what_is_no_number() -> None:
    table = pd.DataFrame(
        {"name": ["a", None], "count": [1, 2], "s": [float("nan"), float("inf")], "fits": [True, False]}
    )
    rows = json.loads(json.dumps(json_rows(table), allow_nan=False))
    assert rows == [
        {"name": "a", "count": 1, "s": None, "fits": True},
        {"name": None, "count": 2, "s": None, "fits": False},
    ]
