"""`lscd accuracy`: what is published of a model, in words and JSON."""

from __future__ import annotations

import json

import pytest

from perfmodel.evidence.accuracy import feasible, variants
from tests.lscd.commands import run

Capture = pytest.CaptureFixture[str]


def test_the_first_line_is_how_far_zeros_go(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    code, out, _ = run(monkeypatch, capsys, "accuracy", "--model", "llama-2-7b")
    one_shot, retrained = (feasible("llama-2-7b", retrained=trained) for trained in (False, True))
    assert one_shot is not None
    assert retrained is not None
    assert code == 0
    first, *table = out.splitlines()
    assert first.startswith(
        f"llama-2-7b, zeros anywhere: in one shot up to {one_shot.words}; retrained up to {retrained.words}."
    )
    several = feasible("llama-2-7b", sources=2)
    assert several is not None
    assert table[0].endswith(f"in one shot: {several.words}.")
    assert len(table) == 2 + len(variants("llama-2-7b")) + 1


def test_nothing_published_is_an_answer(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    code, out, _ = run(monkeypatch, capsys, "accuracy", "--model", "gpt-oss-20b")
    assert (code, out.strip()) == (0, "Nothing published of zeros in gpt-oss-20b.")
    _, out, _ = run(monkeypatch, capsys, "accuracy", "--model", "opt-66b")
    assert "--metric wikitext2-perplexity has results too." in out


def test_json_has_the_same(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    _, out, _ = run(monkeypatch, capsys, "accuracy", "--model", "llama-3.1-8b", "--tolerance", "5", "--json")
    found = json.loads(out)
    limit = feasible("llama-3.1-8b", tolerance=5.0)
    assert limit is not None
    assert found["zeros_anywhere"]["one shot"]["sparsity"] == limit.sparsity
    assert found["zeros_anywhere"]["retrained"] is None
    assert len(found["published"]) == len(variants("llama-3.1-8b"))
    assert (found["model"], found["metric"], found["tolerance"]) == ("llama-3.1-8b", "points", 5.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metric", "perplexty"], "unknown metric 'perplexty'"),
        (["--tolerance", "-1"], "--tolerance is -1, allowed is 0 to 1000"),
        (["--tolerance", "nan"], "--tolerance is nan, allowed is 0 to 1000"),
        (["--tolerance", "inf"], "--tolerance is inf, allowed is 0 to 1000"),
        (["--metric", ""], "unknown metric ''"),
    ],
)
def test_bad_input_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, options: list[str], message: str
) -> None:
    code, out, err = run(monkeypatch, capsys, "accuracy", "--model", "opt-30b", *options)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_without_a_model_it_says_what_to_type(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    code, _, err = run(monkeypatch, capsys, "accuracy")
    assert code == 2
    assert "--model" in err
