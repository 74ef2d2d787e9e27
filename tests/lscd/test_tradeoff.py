"""`lscd tradeoff`: the sentence, the table of the front, all rows as JSON, refusals."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest

from lscd.tradeoff import answer
from perfmodel.serving.tradeoff import tradeoff
from tests.lscd.commands import run

ASKED = ("tradeoff", "--model", "llama-3.1-8b", "--gpu", "h100")
INF = math.inf


class Shell:
    """``lscd tradeoff`` typed once and again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.fixtures = monkeypatch, capsys

    def out(self, *options: str) -> str:
        """What it prints."""
        code, out, err = run(*self.fixtures, *ASKED, *options)
        assert (code, err) == (0, "")
        return out

    def refusal(self, *options: str) -> str:
        """The one sentence on stderr."""
        code, out, err = run(*self.fixtures, *ASKED, *options)
        assert (code, out) == (2, "")
        assert len(err.strip().splitlines()) == 1
        return err


@pytest.fixture
def lscd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(monkeypatch, capsys)


@pytest.mark.parametrize(
    ("options", "how"),
    [
        (("--batch", "1,64", "--sparsity", "0.6"), {"batches": [1, 64], "sparsity": 0.6}),
        (("--users", "1:4", "--tpot", "5"), {"batches": [1, 2, 4], "served": True, "tpot_s": 0.005}),
        (("--systems", "vllm,vllm+df11", "--batch", "4096"), {"batches": [4096], "systems": ["vllm", "vllm+df11"]}),
    ],
)
def test_json_has_every_row(lscd: Shell, options: tuple[str, ...], how: dict[str, object]) -> None:
    answer = json.loads(lscd.out(*options, "--json"))
    table = tradeoff("llama-3.1-8b", "h100", **how)  # type: ignore[arg-type]
    assert answer["left_out"] == table.attrs["left_out"]
    assert answer["load"] == ("users" if "served" in how else "batch")
    assert answer["tpot_s"] == how.get("tpot_s")
    found = pd.DataFrame(answer["rows"])
    assert list(found) == list(table)
    assert found["system"].tolist() == table["system"].tolist()
    for row, expected in zip(answer["rows"], table.to_dict("records"), strict=True):
        nothing = {name for name, value in expected.items() if isinstance(value, float) and not math.isfinite(value)}
        assert {name for name, value in row.items() if value is None} == nothing
        assert all(row[name] == expected[name] for name in set(expected) - nothing)


def test_the_table_is_the_front_and_the_first_line_names_it(lscd: Shell) -> None:
    lines = lscd.out("--batch", "1:64", "--sparsity", "0.6", "--tpot", "20").splitlines()
    table = tradeoff("llama-3.1-8b", "h100", batches=[2**i for i in range(7)], sparsity=0.6, tpot_s=0.02)
    front = table[table["front"]]
    assert lines[0].startswith("On the front with TPOT at most 20 ms, from the quickest for a user: ")
    assert all(f"{name} (" in lines[0] for name in front["system"].unique())
    start = next(i for i, line in enumerate(lines) if line.startswith("system"))
    rows = lines[start + 1 : start + 1 + len(front)]
    assert sorted(row.split()[0] for row in rows) == sorted(front["system"])
    assert not lines[start + 1 + len(front)].startswith("vllm")
    rates = [f"{rate:.1f}" for rate in sorted(front["tokens_per_user_s"], reverse=True)]
    assert all(rate in row for rate, row in zip(rates, rows, strict=True))
    assert any(line.startswith("Left out: vllm+nvfp4: ") for line in lines)


def test_all_marks_every_row(lscd: Shell) -> None:
    out = lscd.out("--batch", "1,4096", "--systems", "vllm,vllm+fp8,vllm+df11", "--tpot", "6.5", "--all")
    rows = {tuple(line.split()[:1]): line for line in out.splitlines() if " 4096 " in line}
    assert len(rows) == 3
    assert all(line.endswith("does not fit") for line in rows.values())
    assert "at most" in next(line for line in out.splitlines() if line.startswith("vllm+df11"))
    assert "beyond the limits" in next(line for line in out.splitlines() if line.startswith("vllm "))
    assert "front" in next(line for line in out.splitlines() if line.startswith("vllm+fp8"))
    assert "No kernel of this format has been timed" in out


def made_up(rows: list[tuple[str, int, float, bool, bool]]) -> pd.DataFrame:
    names = ("system", "batch", "tokens_per_user_s", "front", "ties")
    table = pd.DataFrame(rows, columns=list(names))
    return table.assign(change="rounded", fits=True, measured=True, tpot_s=1 / table["tokens_per_user_s"], ttft_s=0.5)


def test_the_sentence_names_ranges_of_neighbouring_loads_and_ties() -> None:
    table = made_up(
        [("a", load, 100.0 / load, load != 4, False) for load in (1, 2, 4, 8, 16)] + [("b", 4, 26.0, False, True)]
    )
    words = answer(table, {"ttft_s": INF, "tpot_s": INF}, "batch")
    told = "On the front, from the quickest for a user: a (rounded) at batch 1 to 2, 8 to 16."
    assert words == f"{told} Level with it by intervals: b."
    alone = answer(table[table["system"] == "a"], {"ttft_s": 0.5, "tpot_s": INF}, "users")
    assert alone.startswith("On the front with TTFT at most 500 ms, from")
    assert alone.endswith("a (rounded) at users 1 to 2, 8 to 16. No other is level with it by intervals.")


def test_limits_that_nothing_keeps_are_told_with_what_comes_nearest(lscd: Shell) -> None:
    out = lscd.out("--batch", "1", "--tpot", "0.1")
    assert out.startswith("No measured kernel runs with TPOT at most 0.1 ms: the shortest TTFT is ")
    assert "the shortest TPOT is " in out.splitlines()[0]
    nobody = lscd.out("--batch", "1", "--systems", "vllm+df11")
    assert nobody.startswith("Nobody has measured a kernel of those that fit: none is on the front.")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--users", "1,x"), "--users is '1,x', allowed are whole numbers"),
        (("--batch", "0"), "--batch is '0'"),
        (("--users", "1", "--batch", "1"), "--batch does nothing with --users"),
        (("--json", "--all"), "--all does nothing with --json"),
        (("--systems", "vllm", "--engine", "sglang"), "--engine does nothing with --systems"),
        (("--systems", "vllm,"), "--systems is 'vllm,'"),
        (("--systems", "vllm+two-four"), "no system to compare: vllm+two-four: its pattern drops 50% of the weights"),
        (("--ttft", "0"), "--ttft must be above 0 milliseconds, got 0"),
        (("--output-len", "1"), "output_len must be a whole number of at least 2, got 1"),
        (("--sparsity", "60"), "did you mean 0.6"),
        (("--gpus", "3"), "llama-3.1-8b"),
        (("--batch", "4096"), "out of memory: no system compared fits on 1 x h100 with batch 4096"),
    ],
)
def test_bad_options_are_a_sentence(lscd: Shell, options: tuple[str, ...], words: str) -> None:
    assert words in lscd.refusal(*options)
