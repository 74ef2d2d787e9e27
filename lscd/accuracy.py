"""`lscd accuracy`: how far can this model be pruned or rounded, by published results?"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lscd.asking import AsJson, Model
from lscd.errors import InputError, refuse_missing
from lscd.printing import headline, json_rows, print_table, say
from perfmodel.units import GIGA

if TYPE_CHECKING:
    import pandas as pd

    from perfmodel.evidence.accuracy import Limit

MOST = 1000.0  # points, or percent of perplexity
COLUMNS = ("weights", "pattern", "zeros", "method", "loss", "spread", "results", "model", "sources")


def accuracy(
    context: typer.Context,
    model: Model = "",
    metric: Annotated[
        str,
        typer.Option(help="points of any mean of many tasks, or one metric such as mmlu or wikitext2-perplexity."),
    ] = "points",
    tolerance: Annotated[
        float | None,
        typer.Option(show_default=False, help="Loss that counts as kept: points, or percent of perplexity; 2 and 10."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say how far a model can be pruned and what rounding costs it, by published results of its family and size."""
    refuse_missing(context, "--model llama-3.1-8b", "model")

    from perfmodel.catalog import load_model
    from perfmodel.evidence.accuracy import TRAININGS, feasible, tolerance_of, variants

    if tolerance is not None and not 0 <= tolerance <= MOST:
        raise InputError(f"--tolerance is {tolerance:g}, allowed is 0 to {MOST:g}")
    key = load_model(model).key
    allowed = tolerance_of(metric) if tolerance is None else tolerance
    table = variants(key, metric)
    asked: dict[str, Any] = {"metric": metric, "tolerance": allowed}
    limits = {name: feasible(key, retrained=retrained, **asked) for name, retrained in TRAININGS.items()}
    if as_json:
        found = {way: None if limit is None else asdict(limit) for way, limit in limits.items()}
        print(json.dumps({"model": key, **asked, "zeros_anywhere": found, "published": json_rows(table)}, indent=2))
        return
    headline(answer(key, limits, metric))
    several = feasible(key, sources=2, **asked)
    if several is not None and several != limits["one shot"]:
        say(f"By a method of which several sources have results, in one shot: {several.words}.")
    _print(table, metric)


def answer(model: str, limits: dict[str, Limit | None], metric: str) -> str:
    """How many zeros anywhere the model takes, in one shot and retrained."""
    from perfmodel.evidence.accuracy import FIRST_ASKED, results

    said = {"one shot": "in one shot", "retrained": "retrained"}
    known = [f"{said[way]} up to {limit.words}" for way, limit in limits.items() if limit is not None]
    unknown = [said[way] for way, limit in limits.items() if limit is None]
    parts = [f"{model}, zeros anywhere: {'; '.join(known)}" if known else f"Nothing published of zeros in {model}"]
    if known and unknown:
        parts.append(f"nothing published {unknown[0]}")
    others = [name for name in FIRST_ASKED if name != metric and not results(model, name).empty]
    hint = f" --metric {others[0]} has results too." if others else ""
    return "; ".join(parts) + "." + hint


def _print(table: pd.DataFrame, metric: str) -> None:
    from perfmodel.evidence.quality_words import unit

    if table.empty:
        return
    rows = [_row(row) for row in table.sort_values(["weights", "pattern", "sparsity", "loss"]).to_dict("records")]
    print_table(COLUMNS, rows, text=("weights", "pattern", "method", "model", "sources"))
    say(
        f"Loss in {unit(metric)}, minus a gain: the median over published results, and their spread; data/sources.toml."
    )


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    from perfmodel.evidence.quality_words import spread, tenths

    tokens = row["retraining_tokens"]
    trained = f", {tokens / GIGA:.3g} B tokens" if tokens == tokens else ", retrained" if row["retrained"] else ""
    activations = f" A{row['activation_bits']:.0f}" if row["activation_bits"] != 16 else ""
    kind = (f"{row['weights']}{activations}", "" if row["pattern"] == "none" else row["pattern"])
    zeros = f"{row['sparsity']:.0%}" if row["sparsity"] else ""
    losses = (tenths(row["loss"]), spread(row["loss_low"], row["loss_high"]))
    return (*kind, zeros, f"{row['method']}{trained}", *losses, str(row["results"]), row["model"], row["sources"])
