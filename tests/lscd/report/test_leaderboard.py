"""The measured table of the report: sources named, nothing predicted, sparsities counted as the table has them."""

from __future__ import annotations

import re

from lscd.report.exhibit import Context
from lscd.report.leaderboard import FEW_TOKENS, leaderboard
from perfmodel.evidence.leaderboard import winners
from perfmodel.kernels import KERNELS


def test_every_line_names_its_source_and_the_finding_counts_the_lines() -> None:
    exhibit = leaderboard(Context())
    assert exhibit.shown is not None
    assert set(exhibit.shown["source"]) == set(exhibit.sources)
    assert set(exhibit.shown["called"]) <= {"warm, stream", "warm, graph", "cold, stream"}
    assert exhibit.shown["next, slower by"].str.fullmatch(r"-|.+, \+\d+%( to \d+%)?").all()
    won = winners(exhibit.table[exhibit.table["n"] <= FEW_TOKENS]).query("sparsity == 0.7")
    ahead = sum(len(names) == 1 and KERNELS[names[0]].format.prunes for names in won["fastest"])
    assert re.search(rf"{ahead} of {len(won)} comparisons at 70% zeros", exhibit.finding)
