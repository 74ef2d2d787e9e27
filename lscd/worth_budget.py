"""`lscd worth --accuracy-budget`: the fastest of all published ways that lose so little."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lscd.errors import InputError
from lscd.printing import headline, json_row, json_rows, print_table, say
from perfmodel.units import GIGA, MILLI

if TYPE_CHECKING:
    import pandas as pd

    from perfmodel.frontier import Best

MOST_POINTS, MOST_PERCENT = 100.0, 1000.0
BATCH_COLUMNS = (
    "batch",
    "fastest within budget",
    "loss",
    "vs dense",
    "90 %",
    "fastest that prunes",
    "loss",
    "vs dense",
)
WAY_COLUMNS = (
    "way", "method", "zeros", "loss", "spread", "results", "kernel", "GPUs", "ms a step", "tokens/GPU-s", "90 %",
    "$/M tokens", "evidence",
)  # fmt: skip


def check_budget(budget: float, metric: str) -> None:
    """Refuse a budget that is no number of points, or percent of perplexity."""
    from perfmodel.evidence.quality_words import POINTS, unit

    most = MOST_POINTS if unit(metric) == POINTS else MOST_PERCENT
    if not 0 <= budget <= most:
        raise InputError(f"--accuracy-budget is {budget:g}, allowed is 0 to {most:g} {unit(metric)}")


def within_budget(
    model: str,
    gpu: str,
    batches: tuple[int, ...],
    budget: float,
    metric: str,
    gpus: int | None,
    lengths: dict[str, int],
) -> dict[int, pd.DataFrame]:
    """Frontier of the model at each batch, its best within ``budget`` first asked for.

    Raises
    ------
    InputError
        If nothing is published of the model in that metric; names those in which something is.
    """
    from perfmodel.catalog import load_model
    from perfmodel.evidence.accuracy import FIRST_ASKED, results
    from perfmodel.evidence.quality_words import unit
    from perfmodel.frontier import frontier

    check_budget(budget, metric)
    key = load_model(model).key
    if results(key, metric).empty:
        others = [f"--accuracy-metric {name}" for name in FIRST_ASKED if not results(key, name).empty]
        hint = f"; {others[0]} has results" if others else ", by any metric: lscd worth --sparsity compares speed alone"
        raise InputError(f"--accuracy-budget: nothing is published of {key} or its family in {unit(metric)}{hint}")
    asked: dict[str, Any] = {"metric": metric, "gpus": gpus, **lengths}
    return {batch: frontier(model, gpu, batch=batch, **asked) for batch in batches}


def print_budget(tables: dict[int, pd.DataFrame], gpu: str, budget: float, metric: str) -> None:
    """The fastest within the budget, in a sentence; every way at one batch, or a line for each of several."""
    headline(budget_answer(tables, gpu, budget, metric))
    if len(tables) > 1:
        print_table(BATCH_COLUMNS, [_batch_row(*item, budget) for item in tables.items()], text=BATCH_COLUMNS[1:6:4])
        say("Every way with its results: one batch, as in --batch 16.")
        return
    ((batch, table),) = tables.items()
    rows = [_way_row(row, batch) for row in table.sort_values("loss", na_position="last").to_dict("records")]
    print_table(WAY_COLUMNS, rows, text=("way", "method", "kernel", "evidence"))


def budget_answer(tables: dict[int, pd.DataFrame], gpu: str, budget: float, metric: str) -> str:
    """The fastest within the budget at the batch where it gains most, and the fastest that prunes."""
    from perfmodel.evidence.quality_words import amount
    from perfmodel.frontier import PRUNING, best

    batch = max(tables, key=lambda batch: _gain(best(tables[batch], budget), tables[batch]))
    table = tables[batch]
    model = table["model"].iloc[0]
    first, pruned = best(table, budget), best(table, budget, PRUNING)
    if first is None:
        return f"Out of memory at batch {batch}: no way to store {model} within the budget fits the GPUs."
    fastest = _best_words(first, table, budget, metric)
    words = f"Within {amount(budget, metric)} of {model} on {gpu}, batch {batch}: {fastest}."
    if pruned is None:
        return f"{words} {_no_pruning(table[table['way'].isin(PRUNING)], budget, metric)}"
    if pruned.row["way"] == first.row["way"]:
        return words
    return f"{words} Of what prunes: {_best_words(pruned, table, budget, metric)}."


def _no_pruning(pruned: pd.DataFrame, budget: float, metric: str) -> str:
    """Why nothing that prunes keeps the budget here: none is published, none loses so little, or none of those runs."""
    from perfmodel.frontier import title_of, unpublished

    known = pruned.dropna(subset=["loss"]).nsmallest(1, "loss").to_dict("records")
    if not known:
        return f"Of nothing that prunes the loss is {unpublished(metric).removeprefix('not ')}."
    row = known[0]
    if row["loss"] <= budget:
        return f"Of what prunes {title_of(row)} would keep it, {_loss_words(row, metric)}, but: {row['gap']}."
    return f"Nothing that prunes keeps it; {title_of(row)} comes nearest, {_loss_words(row, metric)}."


def _best_words(found: Best, table: pd.DataFrame, budget: float, metric: str) -> str:
    from perfmodel.evidence.accuracy import DENSE
    from perfmodel.frontier import over_dense

    if found.row["way"] == DENSE:
        return "nothing measured that keeps it is faster than dense"
    gain = over_dense(found.row, table)
    speed = f"yields {found.row['tokens_per_gpu_s']:.0f} tokens per GPU-second where dense does not fit"
    if gain is not None:
        speed = f"is {gain[0]:.2f}x dense" + (f" ({gain[1]:.2f}-{gain[2]:.2f})" if gain[2] > gain[1] else "")
    tied = f", a tie with {' and '.join(found.ties)}" if found.ties else ""
    doubt = "; not all of its results keep it" if found.row["loss_high"] > budget else ""
    return f"{found.title} {speed}{tied}, {_loss_words(found.row, metric)}{doubt}"


def _gain(found: Best | None, table: pd.DataFrame) -> float:
    """Speed over dense, by which batches are ordered: without end where dense does not fit, 0 where nothing does."""
    from perfmodel.frontier import over_dense

    if found is None:
        return 0.0
    gain = over_dense(found.row, table)
    return math.inf if gain is None else gain[0]


def _loss_words(row: dict[str, Any], metric: str) -> str:
    from perfmodel.evidence.quality_words import count_words, lost, spread

    count = count_words(int(row["results"]), len(str(row["sources"]).split()))
    return f"{lost(row['loss'], metric)} ({spread(row['loss_low'], row['loss_high'], after=', ')}{count})"


def _batch_row(batch: int, table: pd.DataFrame, budget: float) -> tuple[str, ...]:
    from perfmodel.evidence.quality_words import tenths
    from perfmodel.frontier import PRUNING, best, over_dense

    def cells(found: Best | None) -> tuple[str, ...]:
        if found is None:
            return "-", "", "", ""
        gain = over_dense(found.row, table)
        speed = ("", "") if gain is None else (f"{gain[0]:.2f}x", f"{gain[1]:.2f} - {gain[2]:.2f}")
        return found.title, tenths(found.row["loss"]), *speed

    return (str(batch), *cells(best(table, budget)), *cells(best(table, budget, PRUNING))[:3])


def _way_row(row: dict[str, Any], batch: int) -> tuple[str, ...]:
    from perfmodel.evidence.accuracy import DENSE
    from perfmodel.evidence.quality_words import spread, tenths
    from perfmodel.frontier import title_of

    known, fast = not math.isnan(row["loss"]), not math.isnan(row["tokens_per_gpu_s"])
    marks = [row["gap"], "extrapolated" if row["extrapolated"] is True else ""]
    speed = ("", "", "", "", "", "")
    if fast:
        rate, gpus = row["tokens_per_gpu_s"], int(row["gpus"])
        dollars = "" if math.isnan(row["usd_low"]) else f"{row['usd_low']:.2f} to {row['usd_high']:.2f}"
        step = batch / (rate * gpus) / MILLI
        speed = (
            row["kernel"],
            str(gpus),
            f"{step:.2f}",
            f"{rate:.0f}",
            f"{row['low']:.0f} - {row['high']:.0f}",
            dollars,
        )
    told = (tenths(row["loss"]), spread(row["loss_low"], row["loss_high"]))
    counted = (*told, f"{int(row['results'])}") if known and row["way"] != DENSE else ("",) * 3
    zeros = f"{row['sparsity']:.0%}" if row["sparsity"] > 0 else ""
    tokens = row["retraining_tokens"]
    trained = f", {tokens / GIGA:.3g} B tokens" if known and tokens == tokens else ""
    method = f"{row['method']}{trained}" if known else ""
    return (title_of(row), method, zeros, *counted, *speed, ", ".join(mark for mark in marks if mark))


def budget_dict(tables: dict[int, pd.DataFrame], gpu: str, budget: float, metric: str) -> dict[str, Any]:
    """Everything about the answer, for scripts; NaN as null."""
    from perfmodel.frontier import PRUNING, best

    def whole(found: Best | None) -> dict[str, Any] | None:
        return None if found is None else json_row(found.row) | {"ties": list(found.ties), "sure": found.sure}

    return {
        "answer": budget_answer(tables, gpu, budget, metric),
        "accuracy_budget": budget,
        "accuracy_metric": metric,
        "gpu": gpu,
        "batches": [
            {
                "batch": batch,
                "best": whole(best(table, budget)),
                "best_pruned": whole(best(table, budget, PRUNING)),
                "ways": json_rows(table),
            }
            for batch, table in tables.items()
        ],
    }
