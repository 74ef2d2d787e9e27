"""Chapter "Claims": what the papers of the field say, beside what our models say of the same."""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd

from lscd.report.exhibit import Chapter, Context, Exhibit
from lscd.report.papers import LIST_COLUMNS, listed, summary
from perfmodel.papers import Judged, Verdict, judge, paper_names
from perfmodel.plotting import claims as draw

LEAST = 0.01  # where an interval reaches to 0
LONGEST = 74  # characters of a claim beside the axes; the table has it whole


def _claims(judged: Judged) -> pd.DataFrame:
    """One row a claim: verdict, and the geometric mean of ours over published on its held-out numbers."""
    rows = []
    for one in judged.claims:
        mine = judged.held_out[judged.held_out["claim"] == one.claim.key]
        ratios = {
            name: float(np.exp(np.log((mine[column] / mine["published"]).clip(lower=LEAST)).mean()))
            for name, column in (("ratio", "ours"), ("low", "low"), ("high", "high"))
        }
        says = {"claim": one.claim.says, "verdict": str(one.verdict), "because": one.because}
        rows.append({"paper": judged.paper.short, **says, "numbers": len(mine), **ratios})
    return pd.DataFrame(rows)


def claims(context: Context) -> Exhibit:
    """Every claim that we can judge, by paper: our interval over the published number."""
    judged = [judge(name) for name in paper_names()]
    table = pd.concat([_claims(paper) for paper in judged], ignore_index=True)
    drawn = table[table["ratio"].notna() & (table["verdict"] != Verdict.CANNOT)]
    shown = drawn.assign(says=drawn["claim"].map(lambda text: textwrap.shorten(text, LONGEST, placeholder=" …")))
    outside = table[table["verdict"] == Verdict.NOT]
    missed = "; ".join(f"{row.paper}, ours {row.ratio - 1:+.0%}" for row in outside.itertuples())
    return Exhibit(
        name="claims",
        title="What holds of what the field claims",
        finding=f"{summary()} Not reproduced: {missed or 'none'}.",
        evidence=(
            "Marker: geometric mean of ours over published on a claim's numbers that no fit saw; bar: the 90 % "
            "interval. Reproduced if nine in ten numbers, all of fewer than ten, lie inside. What we cannot judge "
            "is in the table alone: no model, only a bound, fitted, or an interval that would agree with anything."
        ),
        sources=tuple(dict.fromkeys(key for paper in judged for key in paper.paper.sources)),
        table=table,
        figure=draw.claims(shown.reset_index(drop=True)),
    )


def papers(context: Context) -> Exhibit:
    """Paper by paper: claims, numbers, error."""
    table = pd.DataFrame(listed(), columns=list(LIST_COLUMNS))
    return Exhibit(
        name="papers",
        title="Paper by paper",
        finding=(
            f"{len(table)} papers have a page each (`lscd reproduce NAME`, docs/papers): every number beside ours, "
            "every figure with the way to it or the reason why not."
        ),
        evidence="Mean error of what is modelled and no fit saw; numbers that are evidence here are among them.",
        sources=(),
        table=table,
    )


CHAPTER = Chapter(
    title="Claims of the field",
    lead="Papers say how fast sparse and rounded weights are. Nobody has put their numbers beside each other.",
    makers=(papers, claims),  # a table breaks over pages, and fills the one before a tall picture
    question="Which claims of the field hold?",
    headline="claims",
)
