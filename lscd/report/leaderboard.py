"""Exhibit of chapter "Can you trust it?": which kernel is fastest as measured, no prediction among them."""

from __future__ import annotations

import pandas as pd

from lscd.report.exhibit import Context, Exhibit, gpu_title, percent
from lscd.report.kernels import TITLES
from perfmodel.evidence.leaderboard import TIE, come_quantised, unranked, winners
from perfmodel.evidence.leaderboard import leaderboard as places_of
from perfmodel.evidence.leaderboard_words import LEVELS, SHAPE_WORDS, chosen, in_words
from perfmodel.kernels import KERNELS

FEW_TOKENS = 64


def leaderboard(context: Context) -> Exhibit:
    """The fastest kernel of each published comparison, and its gain over dense there."""
    ranked = places_of()
    table = chosen(ranked, sparsities=LEVELS)
    few = table[table["n"] <= FEW_TOKENS]
    return Exhibit(
        name="leaderboard",
        title="Who is fastest, as measured?",
        finding=(
            f"Up to {FEW_TOKENS} tokens a kernel for zeros is ahead of all others measured beside it in "
            f"{_listed(winners(few))}. Nothing here is predicted; who measured is often who wrote the kernel."
        ),
        evidence=(
            "A line compares kernels of one source, state of the caches and way to launch, never across; where two "
            f"sources differ, both stand. Over dense: geometric mean over products; = is a tie, within {TIE:.0%}. "
            f"Shapes, {SHAPE_WORDS}. Kernels of 8 and 4 bits get quantised activations in "
            f"{', '.join(come_quantised())}. "
            f"No dense product beside another kernel, so ranked nowhere: {', '.join(unranked(ranked))}. More tokens "
            "and other sparsities: lscd kernels leaderboard, and the CSV."
        ),
        sources=tuple(sorted(few["source"].unique())),
        table=ranked,
        shown=titled(few),
    )


def _listed(won: pd.DataFrame) -> str:
    """How often a kernel that drops weights is ahead, by sparsity."""
    pruning = won["fastest"].map(lambda names: len(names) == 1 and _prunes(names[0]))
    words = []
    for sparsity in LEVELS[1:]:
        at = pruning[won["sparsity"] == sparsity]
        words.append(f"{at.sum()} of {len(at)} comparisons at {sparsity:.0%} zeros")
    return f"{', '.join(words[:-1])} and {words[-1]}"


def _prunes(kernel: str) -> bool:
    """Whether it drops weights; so does what was measured of zeros and has no model."""
    return kernel not in KERNELS or KERNELS[kernel].format.prunes


def as_markdown() -> str:
    """The whole leaderboard at `LEVELS`, a heading and a table for each GPU: the page of the documentation."""
    page = titled(chosen(places_of(), sparsities=LEVELS))
    parts = []
    for gpu, rows in page.groupby("GPU", sort=False):
        lines = [" | ".join(row) for row in rows.drop(columns="GPU").itertuples(index=False, name=None)]
        columns = list(rows.drop(columns="GPU"))
        head = [f"## {gpu}", "", f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
        parts += [*head, *(f"| {line} |" for line in lines), ""]
    return "\n".join(parts)


def titled(table: pd.DataFrame) -> pd.DataFrame:
    """The table for the page: short titles for names, and no column of what is the same in every line."""
    page = in_words(table)
    following = page["next"].map(_short) + ", +" + page["slower by"]
    found = {
        "GPU": page["GPU"].map(gpu_title),
        "shapes": page["shapes"],
        "zeros": page["sparsity"].map(lambda share: percent(float(share), 0)),
        "N": page["N"],
        "source, called": page["source"] + ", " + page["called"],
        "fastest": page["fastest"].map(lambda names: " = ".join(map(_short, names.split(" = ")))),
        "over dense": page["x dense"],
        "next, slower by": following.where(page["next"] != "-", "-"),
    }
    return pd.DataFrame(found)


def _short(kernel: str) -> str:
    return TITLES.get(kernel, kernel).split(" (")[0]
