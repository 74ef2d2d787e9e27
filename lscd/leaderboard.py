"""`lscd kernels leaderboard`: which kernel is fastest as measured, by GPU, shapes, sparsity and tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lscd.asking import AsJson
from lscd.errors import written_whole
from lscd.own_rows import Own, read_own
from lscd.printing import print_table, say

if TYPE_CHECKING:
    import pandas as pd

WORDS = ("GPU", "shapes", "fastest", "next", "source", "called", "dense")
CSV_DIGITS = "%.6g"
RULES = (
    "x dense: geometric mean over products, each of the dense product of the same source, caches and launch. Kernels "
    "are compared within such a group only, on products that all were measured on; = is a tie, within {tie:.0%}."
)


def leaderboard(
    gpu: Annotated[list[str] | None, typer.Option(help="GPU by name, repeatable; all by default.")] = None,
    sparsity: Annotated[
        list[float] | None,
        typer.Option(help="Sparsity, 0 to 1, repeatable; by default 0, 0.5, 0.7 and 0.9, or those of --with."),
    ] = None,
    n: Annotated[list[int] | None, typer.Option(min=1, help="Tokens, repeatable; all by default.")] = None,
    own: Own = None,
    output: Annotated[
        Path | None, typer.Option(writable=True, dir_okay=False, help="Write every kernel's place as CSV.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say which kernel is fastest as measured, and by how much over dense of the same source: nothing is predicted."""
    from perfmodel.evidence.leaderboard import leaderboard as places_of
    from perfmodel.evidence.leaderboard import unranked
    from perfmodel.evidence.leaderboard_words import LEVELS, chosen
    from perfmodel.kernels import BASELINE

    mine = None if own is None else read_own(own)
    ranked = places_of(mine)
    whole = as_json or output is not None
    levels = () if whole else LEVELS if mine is None else (0.0, *mine["sparsity"].unique())
    here = [] if mine is None else sorted(set(mine["gpu"]) & set(ranked["gpu"]))
    table = chosen(ranked, gpu or here, sparsity or levels, n or ())
    if output is not None:
        with written_whole(output) as partial:
            table.to_csv(partial, index=False, float_format=CSV_DIGITS)
    if as_json:
        print(json.dumps(as_dict(table), indent=2))
    elif output is not None:
        print(f"wrote {len(table)} places to {output}")
    else:
        _print(table, unranked(ranked))
        if mine is not None:
            say("Yours:")
            print_own(table[table["source"].isin(mine["source"]) & (table["kernel"] != BASELINE)])


def as_dict(table: pd.DataFrame) -> dict[str, Any]:
    """Every comparison with its kernels, fastest first."""
    from perfmodel.evidence.leaderboard import CELL, SHAPES, TIE

    comparisons = []
    for cell, places in table.groupby(list(CELL), sort=False):
        about = {
            name: value.item() if hasattr(value, "item") else value for name, value in zip(CELL, cell, strict=True)
        }
        about |= {"products": int(places["products"].iloc[0]), "dense": places["dense"].iloc[0]}
        kernels = places[["kernel", "speedup", "behind", "place"]].to_dict("records")
        comparisons.append({**about, "kernels": kernels})
    return {"tie": TIE, "shapes": SHAPES, "comparisons": comparisons}


def _print(table: pd.DataFrame, without_dense: list[str]) -> None:
    from perfmodel.evidence.leaderboard import TIE, come_quantised
    from perfmodel.evidence.leaderboard_words import SHAPE_WORDS, in_words

    if table.empty:
        say("Nobody has published times of several kernels, one of them dense, for that.")
        return
    lines = in_words(table)
    print_table(list(lines), list(lines.itertuples(index=False, name=None)), text=WORDS)
    say(RULES.format(tie=TIE))
    say(f"Shapes, {SHAPE_WORDS}.")
    say(f"Activations come quantised to kernels of 8 and 4 bits in {', '.join(come_quantised())}.")
    say(f"Without a dense product beside another kernel, so ranked nowhere: {', '.join(without_dense)}.")


def print_own(places: pd.DataFrame) -> None:
    """A user's kernels, each comparison of theirs a line: speed-up over dense, and whether that was measured."""
    if places.empty:
        say("None of these rows is of a GPU and beside a dense product.")
        return
    from perfmodel.evidence.leaderboard_words import called

    words = ("kernel", "GPU", "shapes", "dense", "source", "called")
    header = (
        "kernel",
        "GPU",
        "shapes",
        "sparsity",
        "N",
        "x dense",
        "dense",
        "place",
        "behind",
        "products",
        "source",
        "called",
    )
    rows = [
        (
            row.kernel,
            row.gpu,
            row.shapes,
            f"{row.sparsity:.2f}",
            str(row.n),
            f"{row.speedup:.2f}",
            row.dense,
            str(row.place),
            f"{row.behind:.0%}",
            str(row.products),
            row.source,
            called(row),
        )
        for row in places.itertuples()
    ]
    print_table(header, rows, text=words)
    if (places["dense"] == "model").any():
        say("dense model: the file holds no dense product called alike, so cuBLAS there is our model's, not measured.")
