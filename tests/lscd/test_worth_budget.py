"""`lscd worth --accuracy-budget`: the fastest of the published ways within a budget of quality."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from lscd.worth_budget import budget_answer
from perfmodel.evidence.accuracy import results
from perfmodel.frontier import PRUNING, best, frontier
from tests.lscd.commands import run

Capture = pytest.CaptureFixture[str]
QUESTION = ["worth", "--model", "llama-3.1-8b", "--gpu", "h100"]


def test_one_batch_lists_every_way(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    code, out, _ = run(monkeypatch, capsys, *QUESTION, "--accuracy-budget", "1", "--batch", "16")
    table = frontier("llama-3.1-8b", "h100", batch=16)
    found = best(table, 1.0)
    assert found is not None
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == budget_answer({16: table}, "h100", 1.0, "points")
    assert lines[0].startswith(f"Within 1 point of llama-3.1-8b on h100, batch 16: {found.row['way']} is ")
    assert len(lines) == 2 + len(table)
    assert sum("not published in points" in line for line in lines) == (table["gap"] == "not published in points").sum()


def test_several_batches_have_a_line_each(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    _, out, _ = run(monkeypatch, capsys, *QUESTION, "--accuracy-budget", "4", "--batch", "1,16,64")
    assert [line.split()[0] for line in out.splitlines()[2:5]] == ["1", "16", "64"]
    assert "2:4 FP8 retrained" in out  # within four points something pruned is published, of Llama 3


def test_json_has_bests_and_ways(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    _, out, _ = run(monkeypatch, capsys, *QUESTION, "--accuracy-budget", "4", "--batch", "16", "--json")
    found: dict[str, Any] = json.loads(out)
    at = found["batches"][0]
    table = frontier("llama-3.1-8b", "h100", batch=16)
    kept, pruned = best(table, 4.0), best(table, 4.0, PRUNING)
    assert kept is not None
    assert pruned is not None
    assert at["best"]["way"] == kept.row["way"]
    assert at["best_pruned"]["way"] == pruned.row["way"]
    assert at["best"]["loss"] <= 4.0
    assert len(at["ways"]) == len(table)
    assert "NaN" not in out


def test_a_metric_of_its_own_is_counted_in_its_unit(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    asked = [
        "worth",
        "--model",
        "opt-30b",
        "--gpu",
        "h100",
        "--batch",
        "16",
        "--accuracy-metric",
        "wikitext2-perplexity",
    ]
    _, out, _ = run(monkeypatch, capsys, *asked, "--accuracy-budget", "2")
    assert out.startswith("Within 2 % of perplexity of opt-30b on h100, batch 16: INT4 weights is ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--accuracy-budget", "-1"], "--accuracy-budget is -1, allowed is 0 to 100 points"),
        (["--accuracy-budget", "nan"], "--accuracy-budget is nan, allowed is 0 to 100"),
        (["--accuracy-budget", "1", "--sparsity", "0.5"], "give no --sparsity and no --kernels with it"),
        (["--accuracy-budget", "1", "--kernels", "fp8"], "give no --sparsity and no --kernels with it"),
        (["--accuracy-budget", "1", "--accuracy-metric", "mmluu"], "unknown metric 'mmluu'"),
        (["--accuracy-budget", "1", "--gpus", "3"], "cannot be shared by 3 GPUs"),
        (["--accuracy-budget", "1", "--gpus", "0"], "gpus must be a whole number of at least 1, got 0"),
        (["--accuracy-metric", "mmlu"], "--sparsity"),
        (["--sparsity", "0.5", "--accuracy-metric", "mmlu"], "give both"),
    ],
)
def test_bad_input_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, options: list[str], message: str
) -> None:
    code, out, err = run(monkeypatch, capsys, *QUESTION, *options)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_a_model_without_results_is_told_so(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    asked = ["worth", "--gpu", "h100", "--accuracy-budget", "1", "--model"]
    code, _, err = run(monkeypatch, capsys, *asked, "gpt-oss-20b")
    assert code == 2
    assert "nothing is published of gpt-oss-20b or its family in points" in err
    only = "falcon-7b"
    assert results(only).empty
    code, _, err = run(monkeypatch, capsys, *asked, only)
    assert code == 2
    assert re.search(r"--accuracy-metric wikitext2-perplexity has results", err)


def test_gpus_asked_for_are_those_taken(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    asked = ["worth", "--model", "llama-2-70b", "--gpu", "h100", "--batch", "16", "--accuracy-budget", "1"]
    _, few, _ = run(monkeypatch, capsys, *asked)
    assert "x dense" in few.splitlines()[0]
    _, one, _ = run(monkeypatch, capsys, *asked, "--gpus", "1")
    assert "where dense does not fit" in one.splitlines()[0]


def test_relatives_refuse_nothing(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    asked = ["worth", "--model", "opt-6.7b", "--gpu", "h100", "--gpus", "8", "--batch", "16", "--accuracy-budget", "10"]
    code, out, _ = run(monkeypatch, capsys, *asked)
    assert code == 0
    assert "cannot be shared by 8 GPUs" in out


def test_a_published_result_is_not_denied_because_it_does_not_run(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    asked = ["worth", "--model", "llama-2-70b", "--gpu", "rtx-2080-super", "--batch", "16", "--accuracy-budget", "1"]
    _, out, _ = run(monkeypatch, capsys, *asked)
    assert "Of what prunes zeros anywhere 50% would keep it" in out
    assert "too large for 8 GPUs" in out.splitlines()[0]
    assert "-0.0" not in out
