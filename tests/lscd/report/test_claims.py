"""The chapter of claims: its numbers are those of `lscd reproduce`, its picture shows each claim with a number."""

from __future__ import annotations

import numpy as np
import pytest

from lscd.report.claims import claims, papers
from lscd.report.exhibit import Context
from perfmodel.papers import Verdict, judge, paper_names, predicted_numbers


def test_claims_are_those_of_the_papers(context: Context) -> None:
    exhibit = claims(context)
    judged = [judge(name) for name in paper_names()]
    assert len(exhibit.table) == sum(len(paper.claims) for paper in judged)
    reproduced = sum(paper.count(Verdict.REPRODUCED) for paper in judged)
    assert f"{reproduced} are reproduced" in exhibit.finding
    tests = predicted_numbers()
    assert not tests["fitted"].any()
    assert f"{tests['inside'].astype(bool).mean():.0%} lie inside" in exhibit.finding
    assert len(papers(context).table) == len(judged)


def test_a_claim_is_drawn_where_its_numbers_are(context: Context) -> None:
    exhibit = claims(context)
    row = exhibit.table.set_index("claim").loc["It is 1.4, 1.7 and 2.1 times as fast as dense cuBLAS."]
    numbers = judge("flash-llm").held_out.query("claim == 'kernel-cublas'")
    assert row["ratio"] == pytest.approx(np.exp(np.log(numbers["ours"] / numbers["published"]).mean()))
    assert row["low"] < row["ratio"] < row["high"]
    (axes,) = exhibit.figure.axes
    drawn = np.concatenate([line.get_xdata() for line in axes.get_lines() if line.get_label()[0] != "_"])
    judged = exhibit.table[exhibit.table["verdict"] != Verdict.CANNOT]
    assert sorted(drawn) == pytest.approx(sorted(judged["ratio"]))
    papers_drawn = {label.get_text() for label in axes.get_yticklabels() if label.get_fontweight() == "bold"}
    assert papers_drawn == set(judged["paper"])
