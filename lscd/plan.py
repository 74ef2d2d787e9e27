"""`lscd plan`: is pruning worth it in serving? Fewest GPUs, best batch, cheapest system."""

from __future__ import annotations

import math
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from lscd.asking import (
    AsJson,
    Card,
    Model,
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
from lscd.errors import refuse_idle, split_names
from lscd.printing import headline, print_table, say
from lscd.quality import quality_line

if TYPE_CHECKING:
    from perfmodel.serving.planning import Option, Plan


def plan(
    context: typer.Context,
    model: Model,
    gpu: Card,
    sparsity: Zeros = None,
    sparsity_file: ZerosFile = None,
    input_len: Annotated[int, typer.Option(min=1, help="Tokens of each prompt.")] = 64,
    output_len: Annotated[int, typer.Option(min=1, help="Tokens generated for each prompt.")] = 512,
    ttft: Ttft = None,
    tpot: Tpot = None,
    max_gpus: Annotated[int, typer.Option(help="GPUs, at most 8.")] = 8,
    systems: Annotated[
        str | None, typer.Option(help="Only these, joined by commas, for example vllm,vllm+fp8,vllm+flash-llm.")
    ] = None,
    formats: Annotated[
        str | None,
        typer.Option(help="Only these weight formats and dense, joined by commas, for example fp8-row,int4."),
    ] = None,
    engine: Annotated[str, typer.Option(help="Engine that all kernels are compared in.")] = "fastertransformer",
    every: Annotated[bool, typer.Option("--all", help="A row for every number of GPUs, not only the best.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say whether pruning is worth it in serving: fewest GPUs, best batch, cheapest system, every kernel in each."""
    if systems is not None:
        refuse_idle(context, "with --systems, which name their own", "engine")
    if as_json:
        refuse_idle(context, "with --json, which has every row", "every")

    from perfmodel.catalog import load_model
    from perfmodel.serving.planning import Limits
    from perfmodel.serving.planning import plan as make_plan
    from perfmodel.serving.systems import HOST, load_system

    pruned = asked_sparsity(sparsity, sparsity_file)
    limits = Limits(max_gpus, limit_s("--ttft", ttft), limit_s("--tpot", tpot))
    found = make_plan(
        model, gpu, sparsity=0.0 if pruned is None else pruned, input_len=input_len, output_len=output_len,
        systems=split_names("--systems", systems), formats=split_names("--formats", formats), engine=engine,
        limits=limits,
    )  # fmt: skip
    if as_json:
        import msgspec

        print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
        return
    how = "dense weights" if pruned is None else f"pruned to {mean_of(model, pruned):.0%}"
    held = [f"{name} at most {value:g} ms" for name, value in (("TTFT", ttft), ("TPOT", tpot)) if value is not None]
    question = ", ".join([f"{model} on {gpu}", how, f"{input_len} + {output_len} tokens", *held])
    _print_plan(question, found, every, load_model(model).key)
    for line in checkpoint_words(model, load_system(HOST)):
        say(line)


def _print_plan(question: str, found: Plan, every: bool, model: str) -> None:
    headline(verdict_words(found))
    if published := quality_line(model, _best_formats(found)):
        say(published)
    if not found.options:
        say(question)
        return
    if found.measured:
        say(_cheapest_words(found))
    rows = (
        "every number of GPUs tried" if every else "each system on the GPUs where it does best (--all: on every number)"
    )
    say(f"{question}; {rows}.")
    systems = list(dict.fromkeys(option.system for option in found.options))
    shown = found.options if every else [best for system in systems if (best := found.best(system)) is not None]
    shown = sorted(shown, key=lambda option: -option.tokens_per_gpu_s)
    numbers = (
        "GPUs",
        "fewest",
        "best batch",
        "largest",
        "tokens/GPU-s",
        "90 %",
        "TTFT [ms]",
        "TPOT [ms]",
        "$/M tokens",
    )
    print_table(
        ("system", "weights", *numbers, ""),
        [_option_cells(option, found.fewest_gpus(option.system)) for option in shown],
        text=("system", "weights", ""),
    )
    for line in [*_break_even_words(found), error_words(systems)]:
        say(line)


def _best_formats(found: Plan) -> dict[str, tuple[str, float]]:
    """System, format and sparsity of the best of each kind, where the weights change."""
    kinds = (option for option in (found.sparse, found.whole, found.both) if option is not None)
    changed = (option for option in kinds if option.change != "lossless")
    return {option.system: (named(option.system).format.name, option.sparsity) for option in changed}


def verdict_words(found: Plan) -> str:
    """The verdict in a sentence: which system, how many tokens per GPU-second, against which rival."""
    sparse, whole, both = found.sparse, found.whole, found.both
    if not found.options:
        return f"Worth it: {found.verdict}. Out of memory on every number of GPUs tried."
    words = f"Worth it: {found.verdict}. {_against(sparse, whole)}"
    if both is not None and all(other is None or _ahead(both, other) for other in (sparse, whole)):
        words += f" Pruned and rounded, {_yield(both)}: ahead of all else."
    return words


def _against(sparse: Option | None, whole: Option | None) -> str:
    """The best that prunes beside the best that keeps all weights."""
    if sparse is None:
        kept = f"; {_yield(whole)} and keeps all weights" if whole else ""
        return f"No kernel that prunes and keeps 16-bit values runs here, pays in bytes and fits{kept}."
    if whole is None:
        return f"{_yield(sparse)}, and nothing that keeps all weights fits."
    tie = ": their intervals overlap" if sparse.ties_with(whole) else ""
    return f"{_yield(sparse)}; {_yield(whole)} and keeps all weights{tie}."


def _yield(option: Option) -> str:
    """``flash-llm on 2 GPUs yields 870 tokens per GPU-second (90 %: 679 - 1113)``."""
    low, high = option.tokens_per_gpu_s_interval
    rate = f"{option.tokens_per_gpu_s:.0f} tokens per GPU-second (90 %: {low:.0f} - {high:.0f})"
    return f"{option.system} on {_cards(option.gpus)} yields {rate}"


def _ahead(option: Option, other: Option) -> bool:
    return option.tokens_per_gpu_s > other.tokens_per_gpu_s and not option.ties_with(other)


def _cheapest_words(found: Plan) -> str:
    """The cheapest option, the systems that tie with it, and the option on the fewest GPUs of these.

    A tie: the 90 % intervals of throughput overlap. Of kernels that somebody has measured.
    """
    top = max(found.measured, key=lambda option: option.tokens_per_gpu_s)
    words = f"{top.system} on {_cards(top.gpus)} is the cheapest, batch {top.batch}"
    level = [option for option in found.measured if option.ties_with(top)]
    rivals = list(dict.fromkeys(option.system for option in level if option.system != top.system))
    if rivals:
        words += f"; a tie with {_listed(rivals)}: intervals overlap"
    fewest = min(level, key=lambda option: (option.gpus, -option.tokens_per_gpu_s))
    if fewest.gpus < top.gpus:
        loss = 1 - fewest.tokens_per_gpu_s / top.tokens_per_gpu_s
        words += f"; {fewest.system} on {_cards(fewest.gpus)}, batch {fewest.batch}, is {loss:.1%} below and ties too"
    return f"{words}."


def _listed(names: list[str]) -> str:
    """``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _option_cells(option: Option, fewest: int | None) -> tuple[str, ...]:
    price = option.usd_per_million_tokens
    marks = [*["a bound"] * option.bound, *["extrapolated"] * option.extrapolated]
    low, high = option.tokens_per_gpu_s_interval
    return (
        option.system,
        option.change + (f", {option.sparsity:.0%}" if option.sparsity else ""),
        str(option.gpus),
        str(fewest),
        str(option.batch),
        str(option.largest_batch),
        f"{option.tokens_per_gpu_s:.1f}",
        f"up to {high:.0f}" if option.bound else f"{low:.0f} - {high:.0f}",
        f"{option.ttft_s * 1e3:.0f}",
        "-" if math.isnan(option.tpot_s) else f"{option.tpot_s * 1e3:.1f}",
        "unknown" if price is None else f"{price[0]:.2f} to {price[1]:.2f}",
        ", ".join(marks),
    )


def _break_even_words(found: Plan) -> list[str]:
    """Flash-LLM, the system of the paper, against dense weights."""
    from perfmodel.serving.systems import HOST

    dense = found.best(HOST)
    if dense is None or not found.sparse_faster_at_batch:
        return []
    where, sparsity = f"on FasterTransformer's {_cards(dense.gpus)}", found.break_even_sparsity
    return [
        "Flash-LLM against dense FasterTransformer, best against best: it pays at no sparsity tried."
        if sparsity is None
        else f"Flash-LLM against dense FasterTransformer, best against best: it pays from {sparsity:.0%} sparsity.",
        _faster_words("batch", found.sparse_faster_at_batch, where),
        _faster_words("prompt length", found.sparse_faster_at_prompt, f"{where}, batch {dense.batch}"),
    ]


def _cards(gpus: int) -> str:
    return f"{gpus} GPU{'s' * (gpus > 1)}"


def _faster_words(axis: str, faster: dict[int, bool], where: str) -> str:
    """Where Flash-LLM is faster, as ranges of the neighbouring values tried."""
    if not faster:
        return f"No {axis} could be tried {where}."
    if len(set(faster.values())) == 1:
        return f"Flash-LLM is {'faster' if all(faster.values()) else 'slower'} at every {axis} tried {where}."
    runs = [list(run) for wins, run in groupby(faster, faster.__getitem__) if wins]
    spans = [f"{run[0]} to {run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs]
    return f"Flash-LLM is faster at {axis} {' and '.join(spans)} (of {min(faster)} to {max(faster)}) {where}."
