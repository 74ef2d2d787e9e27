"""The measured table of the report: sources named, nothing predicted, sparsities counted as the table has them."""

from __future__ import annotations

import re

from lscd.report.exhibit import Context
from lscd.report.leaderboard import FEW_TOKENS, as_markdown, leaderboard
from perfmodel.evidence.leaderboard import winners
from perfmodel.kernels import KERNELS


def test_every_line_names_its_source_and_the_finding_counts_the_lines() -> None:
    exhibit = leaderboard(Context())
    assert exhibit.shown is not None
    sources, calls = zip(*(words.split(", ", 1) for words in exhibit.shown["source, called"]), strict=True)
    assert set(sources) == set(exhibit.sources)
    assert set(calls) <= {"warm, stream", "warm, graph", "cold, stream"}
    assert exhibit.shown["next, slower by"].str.fullmatch(r"-|.+, \+\d+%( to \d+%)?").all()
    won = winners(exhibit.table[exhibit.table["n"] <= FEW_TOKENS]).query("sparsity == 0.7")
    ahead = sum(len(names) == 1 and KERNELS[names[0]].format.prunes for names in won["fastest"])
    assert re.search(rf"{ahead} of {len(won)} comparisons at 70% zeros", exhibit.finding)


def test_the_page_of_the_documentation_has_a_table_for_each_gpu() -> None:
    page = as_markdown()
    assert {"## A100", "## RTX 4090", "## AMD Instinct MI300X"} <= set(page.splitlines())
    lines = [line for line in page.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {8}
