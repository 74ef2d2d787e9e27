"""`lscd worth`: does pruning pay for this model on this GPU, against everything else one could do?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lscd.asking import AsJson, Card, InputLen, Model, OutputLen, Sharing, ZerosFile, asked_sparsity, checkpoint_words
from lscd.errors import InputError, refuse_missing, split_names
from lscd.printing import headline, print_table, say
from lscd.quality import best_formats, quality, quality_line
from lscd.worth_budget import budget_dict, print_budget, within_budget
from perfmodel.units import GIGA, MILLI

if TYPE_CHECKING:
    from perfmodel.worth import AtBatch, Rival, Worth

LARGEST_BATCH = 2**20
MOST_BATCHES = 64


def worth(
    context: typer.Context,
    model: Model = "",
    gpu: Card = "",
    batch: Annotated[
        str, typer.Option(help="Sequences decoded together: 16, or 1,4,16, or 1:64 for the powers of two between.")
    ] = "1:64",
    sparsity: Annotated[
        float | None, typer.Option(show_default=False, help="Fraction of zeros that pruning reaches, 0 to 1.")
    ] = None,
    sparsity_file: ZerosFile = None,
    gpus: Sharing = 1,
    input_len: InputLen = 64,
    output_len: OutputLen = 512,
    kernels: Annotated[
        str | None,
        typer.Option(help="Only these besides dense, joined by commas, for example flash-llm,fp8; all by default."),
    ] = None,
    accuracy_budget: Annotated[
        float | None,
        typer.Option(help="Instead of a sparsity: points of accuracy that may be lost, by published results."),
    ] = None,
    accuracy_metric: Annotated[
        str, typer.Option(help="What the budget counts: points of any mean of many tasks, or a metric such as mmlu.")
    ] = "points",
    as_json: AsJson = False,
) -> None:
    """Say whether pruning is worth it: sparse against quantised against dense, over the batch, with a verdict."""
    example = "--model llama-3.1-70b --gpu h100 --gpus 2 --batch 1:64 --sparsity 0.6"
    pruned = asked_sparsity(sparsity, sparsity_file)
    unasked = pruned is None and accuracy_budget is None
    refuse_missing(context, example, "model", "gpu", *(["sparsity"] if unasked else []))
    batches = parse_batches(batch)
    names = split_names("--kernels", kernels)
    lengths = {"input_len": input_len, "output_len": output_len}
    if accuracy_budget is not None:
        if pruned is not None or names:
            raise InputError("--accuracy-budget finds sparsity and kernel: give no --sparsity and no --kernels with it")
        budget = (accuracy_budget, accuracy_metric)
        source = context.get_parameter_source("gpus")
        asked = source is not None and source.name != "DEFAULT"  # whichever copy of click typer brings
        tables = within_budget(model, gpu, batches, *budget, gpus if asked else None, lengths)
        if as_json:
            print(json.dumps(budget_dict(tables, gpu, *budget), indent=2))
        else:
            print_budget(tables, gpu, *budget)
        return
    if accuracy_metric != "points":
        raise InputError("--accuracy-metric says what --accuracy-budget counts: give both")
    assert pruned is not None  # one of both is there

    from perfmodel.worth import worth as weigh

    found = weigh(model, gpu, batches=batches, sparsity=pruned, gpus=gpus, kernels=names, **lengths)
    if as_json:
        print(json.dumps(as_dict(found), indent=2))
    else:
        _print(found, names)
        for line in checkpoint_words(model):
            say(line)


def parse_batches(text: str, option: str = "--batch") -> tuple[int, ...]:
    """Batches of ``16``, ``1,4,16``, or ``1:64``: the powers of two from 1 to 64, and both ends; or users.

    Raises
    ------
    InputError
        If it is none of these; names the value, what is allowed, and the option.
    """
    allowed = f"{option} is {text!r}, allowed are whole numbers from 1 to 2**20 as 16, 1,4,16 or 1:64"
    try:
        ends = [int(part) for part in text.split(":")] if ":" in text else []
        listed = [] if ends else [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(allowed) from None
    if ends and (len(ends) != 2 or ends[0] > ends[1]):
        raise InputError(allowed)
    if any(not 1 <= number <= LARGEST_BATCH for number in [*ends, *listed]):
        raise InputError(allowed)
    if not ends:
        if len(batches := dict.fromkeys(listed)) > MOST_BATCHES:
            raise InputError(f"{option} names {len(batches)} numbers, allowed are at most {MOST_BATCHES}")
        return tuple(batches)
    powers = [2**power for power in range(LARGEST_BATCH.bit_length()) if ends[0] <= 2**power <= ends[1]]
    return tuple(sorted({*ends, *powers}))


def as_dict(found: Worth) -> dict[str, Any]:
    """Everything about the answer, for scripts; seconds of one decoding step, bytes on one GPU."""
    from perfmodel.worth_words import answer

    names = ("model", "gpu", "gpus", "sparsity", "input_len", "output_len")
    return {
        "verdict": str(found.verdict),
        "answer": answer(found),
        **{name: getattr(found, name) for name in names},
        "batch": found.headline.batch,
        "needed_sparsity": found.needed_sparsity,
        "needed_bandwidth_bytes_per_s": found.needed_bandwidth,
        "batches": [_batch(at, found.model) for at in found.batches],
    }


def _batch(at: AtBatch, model: str) -> dict[str, Any]:
    best = {"sparse": at.sparse, "quantised": at.whole, "quantised_to_8_bits": at.mild, "both": at.both}
    return {
        "batch": at.batch,
        "verdict": str(at.verdict),
        "best": {name: rival.kernel if rival else None for name, rival in best.items()},
        "rivals": [_rival(rival, at, model) for rival in at.rivals],
    }


def _rival(rival: Rival, at: AtBatch, model: str) -> dict[str, Any]:
    names = ("kernel", "change", "sparsity", "step_s", "memory_bytes", "fits", "extrapolated")
    gain = dict(zip(("value", "lo", "hi"), rival.speedup_over(at.dense), strict=True))
    found = {"speedup_vs_dense": gain, "published_quality": quality(model, rival)}
    return {name: getattr(rival, name) for name in names} | found


def _print(found: Worth, only: list[str]) -> None:
    from perfmodel.worth_words import answer

    headline(answer(found))
    if published := quality_line(found.model, best_formats(found)):
        say(published)
    say(_notes(found))
    if only:
        say(f"Compared with dense: {', '.join(only)}, and nothing else.")
    words = ("", "kernel", "evidence")
    rows = []
    for at in found.batches:
        columns = {"dense": at.dense, "best sparse": at.sparse, "best quantised": at.whole, "best of both": at.both}
        for number, (name, rival) in enumerate(columns.items()):
            shown = _cells(rival, at) if rival is not None else ("-",) * 5 + ("none fits, or takes part",)
            rows.append((str(at.batch) if number == 0 else "", name, *shown))
    print_table(("batch", "", "kernel", "ms a step", "vs dense", "90 %", "GB", "evidence"), rows, text=words)


def _cells(rival: Rival, at: AtBatch) -> tuple[str, ...]:
    value, low, high = rival.speedup_over(at.dense)
    name = "dense" if rival.kernel == at.dense.kernel else rival.kernel
    return (
        name,
        f"{rival.step_s / MILLI:.2f}",
        f"{value:.2f}x",
        "" if rival.kernel == at.dense.kernel else f"{low:.2f} - {high:.2f}",
        f"{rival.memory_bytes / GIGA:.1f}" + ("" if rival.fits else " !"),
        ", ".join(_evidence(rival)),
    )


def _evidence(rival: Rival) -> list[str]:
    """What a reader must know about a number."""
    marks = [rival.change] if rival.kernel != "cublas" else []
    if rival.sparsity and "pruned" in rival.change:
        marks.append(f"{rival.sparsity:.0%} zeros")
    if rival.extrapolated:
        marks.append("extrapolated")
    return marks if rival.fits else [*marks, "does not fit"]


def _notes(found: Worth) -> str:
    cards = f"{found.gpus} x {found.gpu}"
    return (
        f"{found.model} on {cards}, pruned to {found.sparsity:.0%}, {found.input_len} + {found.output_len} tokens; a "
        "decoding step with graphs, the products on one kernel and everything else alike. Bests are the fastest that "
        "fit, of kernels that somebody has measured; the verdict is that of the batch at which sparse does best "
        "against what keeps all weights."
    )
