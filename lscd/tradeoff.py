"""`lscd tradeoff`: tokens/s of a GPU against tokens/s of a user, every weight format of one engine, and the front."""

from __future__ import annotations

import json
import math
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lscd.asking import (
    BOUND_WORDS,
    AsJson,
    Card,
    Cards,
    ExpertParallel,
    InputLen,
    KvBits,
    Model,
    OutputLen,
    Tpot,
    Ttft,
    Zeros,
    ZerosFile,
    asked_sparsity,
    checkpoint_words,
    error_words,
    limit_s,
    mean_of,
    named,
)
from lscd.errors import InputError, refuse_idle, split_names
from lscd.printing import headline, json_row, json_rows, print_table, say
from lscd.quality import quality_line
from lscd.worth import parse_batches
from perfmodel.units import MILLI

if TYPE_CHECKING:
    import pandas as pd

TEXT = ("system", "weights", "")


def tradeoff(
    context: typer.Context,
    model: Model,
    gpu: Card,
    gpus: Cards = 1,
    sparsity: Zeros = None,
    sparsity_file: ZerosFile = None,
    batch: Annotated[
        str, typer.Option(help="Sequences decoded together: 16, or 1,4,16, or 1:64 for the powers of two between.")
    ] = "1:1024",
    users: Annotated[
        str, typer.Option(help="Instead: requests in a loaded server at all times, one or several as --batch.")
    ] = "",
    input_len: InputLen = 1024,
    output_len: OutputLen = 256,
    ttft: Ttft = None,
    tpot: Tpot = None,
    systems: Annotated[
        str | None, typer.Option(help="Only these, joined by commas, for example vllm,vllm+fp8,sglang+int4.")
    ] = None,
    engine: Annotated[str, typer.Option(help="Engine that all kernels are compared in.")] = "vllm",
    unmeasured: Annotated[
        bool, typer.Option("--unmeasured", help="Kernels too that nobody has measured; they are never on the front.")
    ] = False,
    kv_bits: KvBits = None,
    expert_parallel: ExpertParallel = 1,
    every: Annotated[bool, typer.Option("--all", help="Every system at every load, not only the front.")] = False,
    as_json: AsJson = False,
) -> None:
    """Weigh throughput against latency: which weight format gives most tokens a GPU for a user's tokens a second."""
    if systems is not None:
        refuse_idle(context, "with --systems, which name their own", "engine", "unmeasured")
    if users:
        refuse_idle(context, "with --users, which load a server", "batch")
    if as_json:
        refuse_idle(context, "with --json, which has every row", "every")

    from perfmodel.serving.tradeoff import tradeoff as weigh

    pruned = asked_sparsity(sparsity, sparsity_file)
    loads = parse_batches(users, "--users") if users else parse_batches(batch)
    limits: dict[str, Any] = {"ttft_s": limit_s("--ttft", ttft), "tpot_s": limit_s("--tpot", tpot)}
    asked: dict[str, Any] = {"gpus": gpus, "input_len": input_len, "output_len": output_len}
    table = weigh(
        model, gpu, batches=loads, sparsity=0.0 if pruned is None else pruned, served=bool(users), engine=engine,
        systems=None if systems is None else split_names("--systems", systems), unmeasured=unmeasured,
        expert_parallel=expert_parallel, cache_bits=kv_bits, **limits, **asked,
    )  # fmt: skip
    load = "users" if users else "batch"
    mean = 0.0 if pruned is None else mean_of(model, pruned)
    if as_json:
        fields = {"model": model, "gpu": gpu, **asked, "sparsity": mean, "load": load, **json_row(limits)}
        print(json.dumps(fields | {"left_out": table.attrs["left_out"], "rows": json_rows(table)}, indent=2))
        return
    if not table["fits"].any():
        raise InputError(f"out of memory: no system compared fits on {gpus} x {gpu} with {load} {min(loads)}")
    headline(answer(table, limits, load))
    how = f"pruned to {mean:.0%}" if mean else "no zeros"
    together = "a loaded server" if users else "batches that start together (--users: a loaded server)"
    say(f"{model}, {gpus} x {gpu}, {how}, {input_len} + {output_len} tokens, {together}.")
    _print_rows(table if every else table[table["front"]], load, every)
    for line in _remarks(table, model):
        say(line)


def answer(table: pd.DataFrame, limits: dict[str, float], load: str) -> str:
    """Who is on the front at which loads, within which limits, and who is level with it by intervals."""
    held = [
        f"{name} at most {limit / MILLI:g} ms"
        for name, limit in zip(("TTFT", "TPOT"), limits.values(), strict=True)
        if limit < math.inf
    ]
    within = f" with {' and '.join(held)}" if held else ""
    front = table[table["front"]].sort_values("tokens_per_user_s", ascending=False)
    if front.empty:
        return _nobody(table, within, load)
    changes = dict(zip(front["system"], front["change"], strict=True))
    words = "; ".join(f"{name} ({fate}) at {load} {_spans(table, name)}" for name, fate in changes.items())
    level = [name for name in table.loc[table["ties"], "system"].unique() if name not in changes]
    ties = f" Level with it by intervals: {', '.join(level)}." if level else " No other is level with it by intervals."
    return f"On the front{within}, from the quickest for a user: {words}.{ties}"


def _nobody(table: pd.DataFrame, within: str, load: str) -> str:
    """Why the front is empty: what comes nearest to the limits, or that nobody has measured what fits."""
    able = table[table["fits"] & table["measured"]]
    if able.empty:
        return "Nobody has measured a kernel of those that fit: none is on the front."
    best = (
        f"{name} is {row[column] / MILLI:.1f} ms ({row['system']}, {load} {row['batch']})"
        for name, column in (("TTFT", "ttft_s"), ("TPOT", "tpot_s"))
        for row in [able.loc[able[column].idxmin()]]
    )
    return f"No measured kernel runs{within}: the shortest {' and the shortest '.join(best)}."


def _spans(table: pd.DataFrame, system: str) -> str:
    """Loads at which a system is on the front, as ranges of the neighbouring ones tried."""
    rows = table[table["system"] == system].sort_values("batch")
    pairs = zip(rows["batch"], rows["front"], strict=True)
    runs = [[load for load, _ in run] for on, run in groupby(pairs, lambda pair: pair[1]) if on]
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def _print_rows(table: pd.DataFrame, load: str, every: bool) -> None:
    if table.empty:
        return
    numbers = (load, "tokens/s/user", "tokens/s/GPU", "90 %", "TTFT [ms]", "TPOT [ms]")
    ordered = table if every else table.sort_values("tokens_per_user_s", ascending=False)
    rows = [_cells(row, every) for row in ordered.to_dict("records")]
    print_table((*TEXT[:2], *numbers, ""), rows, text=TEXT)


def _cells(row: dict[str, Any], every: bool) -> tuple[str, ...]:
    weights = row["change"] + (f", {row['sparsity']:.0%}" if row["sparsity"] else "")
    if not row["fits"]:
        return (row["system"], weights, str(row["batch"]), *["-"] * 5, "does not fit")
    most, least = "at most " * row["bound"], "at least " * row["bound"]
    high = f"{row['high']:.0f}"
    marks = {
        "front": every and row["front"], "level": row["ties"], "beyond the limits": not row["keeps"],
        "extrapolated": row["extrapolated"],
    }  # fmt: skip
    return (
        row["system"],
        weights,
        str(row["batch"]),
        f"{most}{row['tokens_per_user_s']:.1f}",
        f"{most}{row['tokens_per_gpu_s']:.1f}",
        f"up to {high}" if row["bound"] else f"{row['low']:.0f} - {high}",
        f"{least}{row['ttft_s'] / MILLI:.0f}",
        f"{least}{row['tpot_s'] / MILLI:.1f}",
        ", ".join(mark for mark, held in marks.items() if held),
    )


def _remarks(table: pd.DataFrame, model: str) -> list[str]:
    """Published quality of the front's weights, who was left out and why, bounds, the checkpoint, the error."""
    from perfmodel.catalog import load_model

    front = table[table["front"] & (table["change"] != "lossless")].drop_duplicates("system")
    pairs = zip(front["system"], front["sparsity"], strict=True)
    costs = {name: (named(name).format.name, float(zeros)) for name, zeros in pairs}
    left = sorted(table.attrs["left_out"].items(), key=lambda pair: pair[1])
    out = [
        f"Left out: {', '.join(name for name, _ in group)}: {reason}."
        for reason, group in groupby(left, lambda pair: pair[1])
    ]
    published = [line] if (line := quality_line(load_model(model).key, costs)) else []
    bounds = [BOUND_WORDS] * bool(table["bound"].any())
    names = list(table.loc[table["front"], "system"].unique()) or list(table["system"].unique())
    return [*published, *out, *bounds, *checkpoint_words(model), error_words(names)]
