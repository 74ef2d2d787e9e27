"""`lscd kernels leaderboard`: which kernel is fastest as measured, by GPU, shapes, sparsity and tokens."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lscd.asking import AsJson
from lscd.errors import InputError, written_whole
from lscd.own_rows import Own, read_own
from lscd.printing import print_table, say

if TYPE_CHECKING:
    import pandas as pd

LEVELS = (0.0, 0.5, 0.7, 0.9)  # sparsities that are printed unless others are asked for
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
        typer.Option(
            help=f"Sparsity, 0 to 1, repeatable; {', '.join(map(str, LEVELS))} by default, or those of --with."
        ),
    ] = None,
    n: Annotated[list[int] | None, typer.Option(min=1, help="Tokens, repeatable; all by default.")] = None,
    own: Own = None,
    output: Annotated[
        Path | None, typer.Option(writable=True, dir_okay=False, help="Write every kernel's place as CSV.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say which kernel is fastest as measured, and by how much over dense of the same source: no predictions."""
    from perfmodel.evidence.leaderboard import leaderboard as places_of
    from perfmodel.evidence.leaderboard import unranked
    from perfmodel.kernels import BASELINE

    mine = None if own is None else read_own(own)
    ranked = places_of(mine)
    levels = () if as_json or output is not None else LEVELS if mine is None else (0.0, *mine["sparsity"].unique())
    table = chosen(ranked, gpu or ([] if mine is None else list(mine["gpu"].unique())), sparsity or levels, n or ())
    if output is not None:
        with written_whole(output) as partial:
            table.to_csv(partial, index=False, float_format=CSV_DIGITS)
    if as_json:
        print(json.dumps(as_dict(table), indent=2))
        return
    if table.empty:
        say("Nobody has published times of several kernels, one of them dense, for that.")
    else:
        _print(table, unranked(ranked))
    if mine is not None:
        say("Yours:")
        print_own(table[table["source"].isin(mine["source"]) & (table["kernel"] != BASELINE)])
    if output is not None:
        print(f"wrote {len(table)} places to {output}")


def chosen(
    table: pd.DataFrame, gpus: Sequence[str] = (), sparsities: Sequence[float] = (), tokens: Sequence[int] = ()
) -> pd.DataFrame:
    """The comparisons on these GPUs, at these sparsities and N; all where none are named."""
    from perfmodel.catalog import load_gpu
    from perfmodel.evidence.leaderboard import DECIMALS

    for value in sparsities:
        if not 0 <= value <= 1:
            raise InputError(f"--sparsity is {value:g}, allowed is 0 to 1")
    keys = [load_gpu(name).key for name in gpus]
    asked: dict[str, Sequence[object]] = {
        "gpu": keys,
        "sparsity": [round(value, DECIMALS) for value in sparsities],
        "n": tokens,
    }
    for column, values in asked.items():
        table = table[table[column].isin(values)] if len(values) else table
    return table


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
    from perfmodel.evidence.leaderboard import SHAPES, TIE, come_quantised

    header, rows = shown(table)
    print_table(header, rows, text=WORDS)
    say(RULES.format(tie=TIE))
    say(f"Shapes: {'; '.join(f'{name}, {words}' for name, words in SHAPES.items())}.")
    say(f"Activations come quantised to kernels of 8 and 4 bits in {', '.join(come_quantised())}.")
    say(f"Without a dense product beside another kernel, so ranked nowhere: {', '.join(without_dense)}.")


def shown(table: pd.DataFrame) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows of `leaderboard`'s table for readers, neighbouring N joined."""
    from perfmodel.evidence.leaderboard import over_tokens, winners

    header = (
        "GPU",
        "shapes",
        "sparsity",
        "N",
        "fastest",
        "x dense",
        "next",
        "slower by",
        "products",
        "source",
        "called",
        "dense",
    )
    return header, [
        (
            row.gpu,
            row.shapes,
            f"{row.sparsity:.2f}",
            _range(f"{row.n_from}", f"{row.n_to}"),
            " = ".join(row.fastest),
            _range(f"{row.speedup_from:.2f}", f"{row.speedup_to:.2f}"),
            row.next or "-",
            "-" if math.isnan(row.behind_from) else _range(f"{row.behind_from:.0%}", f"{row.behind_to:.0%}"),
            str(row.products),
            row.source,
            called(row),
            row.dense,
        )
        for row in over_tokens(winners(table)).itertuples()
    ]


def _range(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


def called(row: Any) -> str:
    """How a comparison's kernels were called, in words."""
    return f"{row.cache}, {row.launch}" + (f", {row.copies} copies" if row.copies > 1 else "")


def print_own(places: pd.DataFrame) -> None:
    """A user's kernels, each comparison of theirs a line: speed-up over dense, and whether that was measured."""
    if places.empty:
        say("None of these rows is of a GPU and beside a dense product.")
        return
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
