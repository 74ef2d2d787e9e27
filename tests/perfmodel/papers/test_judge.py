"""Verdicts: what is inside, what is outside, and what nobody can judge."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from perfmodel.catalog import data_directory
from perfmodel.evidence.runs import joined_runs
from perfmodel.evidence.validation import join_predictions
from perfmodel.papers import Verdict, judge, paper_names
from perfmodel.papers.evidence import evidence_numbers
from perfmodel.papers.judge import QUANTITIES, UNMODELLED


def verdicts(name: str) -> dict[str, Verdict]:
    return {one.claim.key: one.verdict for one in judge(name).claims}


@pytest.fixture
def numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Change one line of Flash-LLM's numbers; verdicts are asked anew."""
    shutil.copytree(data_directory(), tmp_path / "data")
    monkeypatch.setenv("LSCD_DATA", str(tmp_path / "data"))
    path = tmp_path / "data" / "papers" / "flash-llm.csv"

    def change(old: str, new: str) -> None:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    judge.cache_clear()
    yield change
    judge.cache_clear()


def test_flash_llm_holds_where_it_can_be_judged() -> None:
    found = verdicts("flash-llm")
    assert found["kernel-cublas"] is found["e2e-fewer"] is Verdict.REPRODUCED
    assert found["accuracy"] is found["matmul-share"] is Verdict.CANNOT


def test_the_field_is_covered() -> None:
    judged = [judge(name) for name in paper_names()]
    decided = sum(one.verdict is not Verdict.CANNOT for paper in judged for one in paper.claims)
    own = [paper.numbers[paper.numbers["claim"].notna() & paper.numbers["low"].notna()] for paper in judged]
    assert decided >= 8
    assert len(judged) >= 2
    assert sum(map(len, own)) >= 40


def test_a_number_of_another_size_is_not_reproduced(numbers) -> None:
    numbers("1.749,0.02,false", "3.9,0.02,false")
    assert verdicts("flash-llm")["kernel-cublas"] is Verdict.NOT


def test_what_the_fit_has_seen_judges_nothing(numbers) -> None:
    numbers(",false,", ",true,")
    judged = judge("flash-llm")
    assert {one.verdict for one in judged.claims} == {Verdict.CANNOT}
    because = {one.claim.key: one.because for one in judged.claims}
    assert because["kernel-cublas"] == "our fits have seen all 6 of its numbers"
    assert because["half"] == "our fits have seen its only number"


def test_an_interval_that_agrees_with_anything_judges_nothing() -> None:
    one = next(one for one in judge("spinfer").claims if one.claim.key == "at-best")
    assert one.verdict is Verdict.CANNOT
    assert "spans a factor" in one.because


def test_an_interval_that_reaches_to_no_gain_proves_none(numbers) -> None:
    because = {one.claim.key: one.because for one in judge("spinfer").claims}
    assert because["from-30"].startswith("our interval does not tell a gain from a loss")
    assert because["high"].startswith("our interval reaches to always or never")
    assert because["low"].startswith("our interval spans 27% of zeros")


def test_errors_are_signed_and_of_the_quantity_as_published() -> None:
    judged = judge("flash-llm")
    rows = judged.answered
    assert rows["error"].to_numpy() == pytest.approx((rows["ours"] / rows["published"] - 1).to_numpy())
    assert (rows["error"] < 0).any()
    assert (rows["error"] > 0).any()


def test_evidence_counts_as_fitted_where_the_fit_saw_it() -> None:
    exhibit = {each.name: each for each in judge("flash-llm").paper.exhibit}
    bars = evidence_numbers(exhibit["Fig 9"])
    joined = join_predictions()
    same = joined[(joined["source"] == "flash-llm-fig9") & ~joined["at_least"]]
    assert (len(bars), int(bars["fitted"].sum())) == (len(same), int(same["fitted"].sum()))
    runs = evidence_numbers(exhibit["Fig 13"])
    assert not runs["fitted"].any()
    assert len(runs) == (joined_runs()["source"] == "flash-llm-fig13").sum()


def test_quartiles_that_kernels_are_fitted_to_are_not_held_out() -> None:
    rerun = next(each for each in judge("spinfer").paper.exhibit if each.name.startswith("third party"))
    rows = evidence_numbers(rerun)
    seen = rows.loc[rows["fitted"], "what"]
    assert set(seen.str.split().str[0]) == {"bitmap", "flash-llm-noreorder"}  # no times of theirs were at hand
    assert set(seen.str.extract(r"N = (\d+)")[0]) == {"8", "32"}


@pytest.mark.parametrize("name", paper_names())
def test_what_has_no_answer_says_why(name: str) -> None:
    numbers = judge(name).numbers
    silent = numbers[numbers["ours"].isna()]
    assert (silent["note"] != "").all()
    assert not silent["note"].str.startswith("unknown ").any()  # a misspelt name is no reason
    assert set(numbers["quantity"]) - {UNMODELLED, *QUANTITIES} <= {*silent["quantity"], *EVIDENCE}


def test_every_quantity_is_described() -> None:
    words = (data_directory() / "README.md").read_text(encoding="utf-8")
    assert [name for name in QUANTITIES if f"`{name}`" not in words] == []


EVIDENCE = {"time (us)", "tokens/s/GPU", "GPU-seconds", "speed-up"}
