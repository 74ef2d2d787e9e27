"""`lscd choose`: the best weight format and kernel for each matrix of a model on a GPU."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lscd.asking import (
    AsJson,
    Card,
    Model,
    Sharing,
    Zeros,
    ZerosFile,
    asked_sparsity,
    checkpoint_words,
)
from lscd.errors import refuse_missing, split_names
from lscd.printing import digits, headline, print_table, say
from lscd.worth import parse_batches
from perfmodel.units import GIGA, MILLI

if TYPE_CHECKING:
    from kernels_numba.plan import Candidate as MeasurableCandidate
    from perfmodel.choice import Candidate, Choice, MatrixChoice, Span
    from perfmodel.worth import Worth

STREAMED = "-bulk"  # ends the names of kernels whose records bulk copies bring
# Format of a kernel model -> our own encoding of the same kind.
OUR_FORMATS = {
    "dense": "dense",
    "tiled-csl": "tiled-csl",
    "sparta": "two-four",
    "sputnik-csr": "csr",
    "lscd-bitmap": "bitmap",
    "lscd-bitmap-pairs": "bitmap-pairs",
    "lscd-condensed": "condensed",
    "lscd-condensed-pairs": "condensed-pairs",
}


def choose(
    context: typer.Context,
    model: Model = "",
    gpu: Card = "",
    batch: Annotated[
        str, typer.Option(help="Sequences decoded together, one token each: 16, or 1,4,16, or 1:64 for powers of two.")
    ] = "",
    sparsity: Zeros = None,
    sparsity_file: ZerosFile = None,
    gpus: Sharing = 1,
    formats: Annotated[
        str | None,
        typer.Option(help="Only these formats, joined by commas, for example dense,tiled-csl; all by default."),
    ] = None,
    lossless_only: Annotated[bool, typer.Option("--lossless-only", help="Leave out quantised formats.")] = False,
    unmeasured: Annotated[
        bool, typer.Option("--unmeasured", help="Add kernels nobody has measured, predicted from counts alone.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Choose format and kernel for each weight matrix of a model, by predicted time and by memory."""
    refuse_missing(context, "--model opt-66b --gpu h100 --batch 16", "model", "gpu", "batch")
    batches = parse_batches(batch)
    names = split_names("--formats", formats)
    asked = asked_sparsity(sparsity, sparsity_file)
    pruned = 0.0 if asked is None else asked

    from perfmodel.catalog import load_device
    from perfmodel.catalog.cpu import Cpu
    from perfmodel.choice import choose as choose_kernels
    from perfmodel.worth import worth

    choices = [
        choose_kernels(
            model,
            gpu,
            batch=sequences,
            sparsity=pruned,
            gpus=gpus,
            formats=names,
            lossless_only=lossless_only,
            unmeasured=unmeasured,
        )
        for sequences in batches
    ]
    taking_part = _measured(choices[0]) if formats or lossless_only else []
    # Of a CPU there is no serving engine whose host and attention a verdict would count.
    found = None if isinstance(load_device(gpu), Cpu) else worth(
        model, gpu, batches=batches, sparsity=pruned, gpus=gpus, kernels=taking_part
    )  # fmt: skip
    if as_json:
        print(json.dumps(_all_as_dict(choices, found), indent=2))
    elif len(choices) == 1:
        _print(choices[0], found)
    else:
        _print_batches(choices, found)
    if not as_json:
        for line in checkpoint_words(model):
            say(line)


def _measured(choice: Choice) -> list[str]:
    """Kernels of ``choice`` that the verdict may compare: dense, and those that somebody has measured."""
    names = (c.kernel for matrix in choice.free for c in matrix.candidates if c.measured)
    return list(dict.fromkeys((choice.baseline, *names)))


def answer(choice: Choice) -> str:
    """One sentence: what to take, what it gains, and what else it could be."""
    return _answer(choice, f" of {choice.model} on {choice.gpus} x {choice.gpu} at batch {choice.batch}")


def _answer(choice: Choice, where: str) -> str:
    counts = Counter(matrix.fastest.kernel for matrix in choice.free)
    total = len(choice.free)
    rivals = [_plain(name) for name in choice.ties]
    doubt = (
        f"; a tie with {_listed(rivals)}: intervals overlap" if rivals else "; no other kernel's interval reaches it"
    )
    if set(counts) == {choice.baseline}:
        return f"dense for all {total} matrices{where}: no candidate is predicted faster{doubt}."
    parts = [f"{_plain(kernel)} for {count} of {total}" for kernel, count in counts.most_common()]
    ratio, low, high = choice.fastest[0].speedup_over(choice.dense[0])
    return f"{', '.join(parts)} matrices{where}: {ratio:.2f}x dense, within [{low:.2f}, {high:.2f}]{doubt}."


def measurable(matrix: MatrixChoice) -> list[MeasurableCandidate]:
    """Predictions of the formats that have kernels here, as `kernels_numba.plan.plan` takes them: one product each.

    Not of streamed kernels, which no plan takes.
    """
    from kernels_numba.plan import Candidate as Measurable

    return [
        Measurable(OUR_FORMATS[candidate.format], candidate.span.time_s / matrix.products)
        for candidate in matrix.candidates
        if candidate.format in OUR_FORMATS and not candidate.kernel.endswith(STREAMED)
    ]


def _plain(kernel: str) -> str:
    from perfmodel.kernels import BASELINE

    return "dense" if kernel == BASELINE else kernel


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def remarks(choice: Choice) -> list[str]:
    """What the numbers rest on, in sentences."""
    fastest = [matrix.fastest for matrix in choice.free]
    notes = []
    changed = {
        "rounded": "round{s} the weights",
        "pruned and rounded": "prune{s} and round{s} the weights",
    }
    for change, words in changed.items():
        if kernels := sorted({candidate.kernel for candidate in fastest if candidate.change == change}):
            notes.append(f"{_listed(kernels)} {words.format(s='s' if len(kernels) == 1 else '')}.")
    if any(not candidate.lossless for candidate in fastest) and (exact := choice.lossless):
        notes[-1] += f" Without rounding: {_answer(exact, '')}"
    own = sorted({(c.kernel, c.sparsity) for c in fastest if c.sparsity not in (0.0, choice.sparsity)})
    notes += [f"{kernel} drops {share:.1%} of the weights, as its pattern does." for kernel, share in own]
    padded = sorted({(c.kernel, c.n) for m, c in zip(choice.free, fastest, strict=True) if c.n != m.tokens})
    notes += [f"{kernel} computes N = {n}: the tokens are padded." for kernel, n in padded]
    far = sum(candidate.extrapolated for candidate in fastest)
    if far:
        notes.append(f"{far} of {len(fastest)} chosen predictions lie outside the evidence their model was fitted on.")
    notes += _too_large(choice)
    if unmeasured := sorted({candidate.kernel for candidate in fastest if not candidate.measured}):
        names = _listed(unmeasured)
        notes.append(f"Nobody has measured {names} on a GPU: the interval is the range of what is assumed.")
    return notes


def _too_large(choice: Choice) -> list[str]:
    """What does not fit by its weights alone."""
    notes = []
    for name, (_, weight_bytes) in {"all dense": choice.dense, "fastest of each": choice.fastest}.items():
        if weight_bytes > choice.capacity_bytes:
            need, there = (f"{size / GIGA:.1f} GB" for size in (weight_bytes, choice.capacity_bytes))
            notes.append(f"Does not fit: {name} takes {need} a GPU, one {choice.gpu} has {there}; see --gpus.")
    return notes


def verdict(found: Worth) -> str:
    """The sentence of `lscd worth`."""
    from perfmodel.worth_words import answer

    return answer(found)


def _all_as_dict(choices: list[Choice], found: Worth | None) -> dict[str, Any]:
    """One batch's choice with the verdict beside it; several as a list under "batches"."""
    worth = {} if found is None else {
        "worth": {"verdict": str(found.verdict), "answer": verdict(found), "batch": found.headline.batch}
    }  # fmt: skip
    if len(choices) == 1:
        return {**as_dict(choices[0]), **worth}
    return {**worth, "batches": [as_dict(choice) for choice in choices]}


def as_dict(choice: Choice) -> dict[str, Any]:
    """Everything about the choice, for scripts; times in seconds of one decoding step, bytes on one GPU."""
    totals = {"dense": choice.dense, "fastest": choice.fastest, "smallest": choice.smallest}
    return {
        "answer": answer(choice),
        "remarks": remarks(choice),
        "model": choice.model,
        "gpu": choice.gpu,
        "gpus": choice.gpus,
        "batch": choice.batch,
        "sparsity": choice.sparsity,
        "speedup_vs_dense": dict(
            zip(("value", "lo", "hi"), choice.fastest[0].speedup_over(choice.dense[0]), strict=True)
        ),
        "totals": {name: _total(*total) for name, total in totals.items()},
        "one_kernel": {kernel: _total(*total) for kernel, total in choice.uniform.items()},
        "rivals": list(choice.ties),
        "matrices": [_matrix(matrix) for matrix in choice.matrices],
    }


def _total(span: Span, weight_bytes: float) -> dict[str, float]:
    return {"time_s": span.time_s, "lo_s": span.lo_s, "hi_s": span.hi_s, "weight_bytes": weight_bytes}


def _matrix(matrix: MatrixChoice) -> dict[str, Any]:
    sizes = {name: getattr(matrix, name) for name in ("name", "m", "k", "tokens", "products", "copies", "prunable")}
    best = {"fastest": matrix.fastest.kernel, "smallest": matrix.smallest.kernel}
    return {**sizes, **best, "candidates": [_candidate(candidate) for candidate in matrix.candidates]}


def _candidate(candidate: Candidate) -> dict[str, Any]:
    names = ["kernel", "format", "n", "bound", "tile", "split_k", "lossless", "extrapolated", "measured"]
    names += ["change", "sparsity", "standing"]
    return {name: getattr(candidate, name) for name in names} | _total(candidate.span, candidate.weight_bytes)


def _print(choice: Choice, found: Worth | None) -> None:
    if found is not None:
        headline(verdict(found))
    headline(answer(choice))
    for note in remarks(choice):
        say(note)
    _print_matrices(choice)
    _print_totals(choice)


def _print_batches(choices: list[Choice], found: Worth | None) -> None:
    """The verdict over all batches, and one line for each: what is best there, and what might be as fast."""
    first = choices[0]
    if found is not None:
        headline(verdict(found))
    say(
        f"{first.model} on {first.gpus} x {first.gpu} at {first.sparsity:.0%} zeros, all products of a decoding step; "
        "the fastest kernel of each matrix. One batch alone shows every matrix, and what the numbers rest on."
    )
    for note in dict.fromkeys(note for choice in choices for note in _too_large(choice)):
        say(note)
    rows = []
    for choice in choices:
        ratio, low, high = choice.fastest[0].speedup_over(choice.dense[0])
        best = Counter(matrix.fastest.kernel for matrix in choice.free)
        standings = dict.fromkeys(matrix.fastest.standing for matrix in choice.free)
        rows.append(
            (
                str(choice.batch),
                ", ".join(f"{_plain(kernel)} {count} of {len(choice.free)}" for kernel, count in best.most_common()),
                ", ".join(standings),
                f"{ratio:.2f}x",
                f"{low:.2f} - {high:.2f}",
                ", ".join(_plain(name) for name in choice.ties) or "none",
            )
        )
    header = ("batch", "best", "weights", "vs dense", "90 % interval", "ties with")
    print_table(header, rows, text=("best", "weights", "ties with"))


def _print_matrices(choice: Choice) -> None:
    words = ("matrix", "best by", "kernel", "format", "weights", "bound by")
    numbers = ("m x k", "N", "ms a step", "90 % interval", "vs dense", "GB", "tile", "split-K")
    rows = []
    for matrix in choice.matrices:
        same = matrix.fastest == matrix.smallest
        picks = {"time, memory": matrix.fastest} if same else {"time": matrix.fastest, "memory": matrix.smallest}
        for by, candidate in ({"stays dense": matrix.dense} if not matrix.prunable else picks).items():
            rows.append((matrix.name, by, *_cells(matrix, candidate)))
    print_table((*words[:-1], *numbers, words[-1]), rows, text=words)


def _cells(matrix: MatrixChoice, candidate: Candidate) -> tuple[str, ...]:
    return (
        candidate.kernel,
        candidate.format,
        candidate.standing,
        f"{matrix.m} x {matrix.k}",
        str(candidate.n),
        *_times(candidate.span, matrix.dense.span),
        digits(candidate.weight_bytes / GIGA),
        f"{candidate.tile[0]} x {candidate.tile[1]}" if candidate.tile else "-",
        str(candidate.split_k or "-"),
        candidate.bound,
    )


def _times(span: Span, dense: Span) -> tuple[str, str, str]:
    interval = f"{digits(span.lo_s / MILLI)} - {digits(span.hi_s / MILLI)}"
    return digits(span.time_s / MILLI), interval, f"{dense.time_s / span.time_s:.2f}x"


def _print_totals(choice: Choice) -> None:
    dense, dense_bytes = choice.dense
    totals = {"all dense": choice.dense, "fastest of each": choice.fastest, "smallest of each": choice.smallest}
    standings = {c.kernel: c.standing for matrix in choice.free for c in matrix.candidates}
    rows = [(name, "", *_sizes(*total, dense, dense_bytes)) for name, total in totals.items()]
    rows += [
        (f"{kernel} alone", standings[kernel], *_sizes(*total, dense, dense_bytes))
        for kernel, total in choice.uniform.items()
        if kernel != choice.baseline
    ]
    header = ("all matrices, on one GPU", "weights", "ms a step", "90 % interval", "vs dense", "GB", "of dense")
    print_table(header, rows, text=header[:2])


def _sizes(span: Span, weight_bytes: float, dense: Span, dense_bytes: float) -> tuple[str, ...]:
    return (*_times(span, dense), digits(weight_bytes / GIGA, 4), f"{weight_bytes / dense_bytes:.0%}")
