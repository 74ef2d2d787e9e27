"""`lscd e2e --operators` as people read it and as scripts do."""

from __future__ import annotations

import json
import re

import pytest

from perfmodel.serving.operators import COLUMNS, operator_table
from tests.perfmodel.serving.cases import invoke

ASKED = ("e2e", "--model", "llama-3.1-8b", "--gpu", "h100", "--batch", "16", "--operators")
SPARSE = (*ASKED, "--system", "vllm-v1+flash-llm", "--sparsity", "0.7")


def tables(text: str) -> list[list[str]]:
    """Lines of each phase's table, without its title."""
    return [part.splitlines()[1:] for part in re.split(r"\n(?=Prefill,|Decoding,)", text)[1:]]


def column(lines: list[str], title: str) -> list[float]:
    """Numbers under a title, that of the last line too; 0 where there is none."""
    end = lines[0].index(title) + len(title)
    cells = [line[:end].split()[-1] for line in lines[1:] if line.strip()]
    return [0.0 if cell == "-" else float(cell.rstrip("%")) for cell in cells]


def test_rows_add_up_to_the_answer_above_them() -> None:
    answer = json.loads(invoke(*SPARSE, "--json").stdout)
    text = invoke(*SPARSE).stdout
    assert f"a token every {answer['tpot_ms']:.2f} ms" in text
    for lines, total, name in zip(tables(text), ("TTFT", "TPOT"), ("ttft_ms", "tpot_ms"), strict=True):
        assert lines[-1].startswith(total)
        *rows, last = column(lines, "  ms")
        assert last == pytest.approx(answer[name], rel=1e-4)
        assert sum(rows) == pytest.approx(last, rel=1e-3)
        *shares, whole = column(lines, "share")
        assert (sum(shares), whole) == (pytest.approx(100, abs=1), 100)


def test_what_sparsity_changed_stands_beside_each_operator() -> None:
    for lines in tables(invoke(*SPARSE).stdout):
        assert lines[0].split("  ")[-2:] == ["vllm-v1 ms", "times as fast"]
        own, dense, gain = (column(lines, title) for title in ("  ms", "vllm-v1 ms", "times as fast"))
        assert gain == pytest.approx([b / a for a, b in zip(own, dense, strict=True)], rel=0.02)
    assert "times as fast" not in invoke(*ASKED).stdout


def test_json_is_the_table() -> None:
    answer = json.loads(invoke(*ASKED, "--json").stdout)
    table = operator_table("llama-3.1-8b", "h100", "vllm", batch=16)
    assert [row["operator"] for row in answer["operators"]] == table["operator"].tolist()
    assert [row["time_s"] for row in answer["operators"]] == pytest.approx(table["time_s"].tolist())
    assert tuple(answer["operators"][0]) == COLUMNS
    assert answer["operators"][-1]["flop"] is None  # the host's
    assert "operators" not in json.loads(invoke(*ASKED[:-1], "--json").stdout)
    compared = json.loads(invoke(*SPARSE, "--json").stdout)["operators"]
    assert tuple(compared[0]) == (*COLUMNS, "dense_time_s", "speedup")


def test_a_draft_is_an_operator() -> None:
    text = invoke(*ASKED, "--speculate", "4").stdout
    assert "its share of a pass that checks a draft" in text
    assert any(line.startswith("draft") for line in tables(text)[1])


def test_what_does_not_fit_has_no_operators() -> None:
    asked = ("e2e", "--model", "opt-175b", "--gpu", "a100-80gb", "--batch", "8", "--operators")
    assert "so no operators are shown" in invoke(*asked).stdout
    assert json.loads(invoke(*asked, "--json").stdout)["operators"] is None


def test_one_output_token_has_one_table() -> None:
    (lines,) = tables(invoke(*ASKED, "--output-len", "1").stdout)
    assert lines[-1].startswith("TTFT")
