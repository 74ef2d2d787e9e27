"""`lscd weights prune`: zero weights of a checkpoint by size, by pattern, or by what they are multiplied with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lscd.errors import InputError, refuse_idle
from lscd.printing import progress
from lscd.weights_files import AsJson, Exclude, Include, Source, plain_checkpoint

if TYPE_CHECKING:
    from kernels_numba.checkpoints.checkpoint import Pruned
    from kernels_numba.checkpoints.pruning import PruningRule
    from kernels_numba.checkpoints.safetensors_reader import Checkpoint

BY_INPUT = "judges weights by their inputs: give --calibration, a text file or topics (a half of Python's help texts)"


def prune(
    context: typer.Context,
    path: Source,
    out: Annotated[
        Path,
        typer.Argument(writable=True, help="A .safetensors file, or a new folder for it with config and tokenizer."),
    ],
    method: Annotated[
        str, typer.Option(help="magnitude, magnitude-global, nm, random, erk, wanda or sparsegpt.")
    ] = "magnitude",
    sparsity: Annotated[float | None, typer.Option(help="Fraction of zero weights wanted, 0 to 1.")] = None,
    n: Annotated[
        int | None, typer.Option("--n", help="nm, wanda, sparsegpt: non-zeros kept of each group; 2 by default.")
    ] = None,
    m: Annotated[
        int | None, typer.Option("--m", help="nm, wanda, sparsegpt: columns of a group; 4 by default.")
    ] = None,
    allocation: Annotated[
        str, typer.Option(help="Zeros of each matrix: uniform, erk (more in large ones), owl (fewer among outliers).")
    ] = "uniform",
    calibration: Annotated[
        str | None,
        typer.Option(help="wanda, sparsegpt, owl, nm: text file to run through the model, or topics (Python's help)."),
    ] = None,
    samples: Annotated[int, typer.Option(help="Pieces of the calibration text, if it has so many.")] = 64,
    length: Annotated[int, typer.Option(help="Tokens of each piece.")] = 256,
    norms: Annotated[
        Path | None, typer.Option(help="wanda, nm: safetensors with the norm of each input, named as the weights.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="random: another seed, other zeros.")] = 0,
    include: Include = None,
    exclude: Exclude = None,
    as_json: AsJson = False,
) -> None:
    """Zero weights of a checkpoint; embeddings, norms, heads and biases stay as they are."""
    from kernels_numba.checkpoints.checkpoint import prune_checkpoint, weight_matrices
    from kernels_numba.checkpoints.folders import weights_file
    from kernels_numba.checkpoints.safetensors_reader import open_checkpoint

    rule = _rule(method, sparsity, (n, m), allocation, seed)
    _check_inputs(rule, calibration, norms)
    if calibration is None:
        refuse_idle(context, "without --calibration", "samples", "length")
    if method != "random":
        refuse_idle(context, "without --method random", "seed")
    source = plain_checkpoint(path)
    names = weight_matrices(source, include or (), exclude or ())
    with weights_file(source, out) as target:
        if calibration is not None:
            found, seen = _calibrated(source, target, rule, names, (calibration, samples, length))
        else:
            column_norms, seen = open_checkpoint(norms) if norms else None, None
            with progress("pruning", len(source.tensors)) as step:
                found = prune_checkpoint(source, target, rule, names, norms=column_norms, progress=step)
    _print_pruned(source, out, found, seen, as_json)


def _rule(
    method: str, sparsity: float | None, pattern: tuple[int | None, int | None], allocation: str, seed: int
) -> PruningRule:
    """Pruning rule of the options; errors name the option."""
    from kernels_numba.checkpoints.pruning import PATTERNED, Allocation, Method, PruningRule

    chosen = Method(_known(method, list(Method), "method"))
    shared = Allocation(_known(allocation, list(Allocation), "allocation"))
    if chosen is not Method.NM and pattern == (None, None):
        if sparsity is None:
            raise InputError("missing --sparsity; for example --sparsity 0.6")
        return PruningRule(chosen, sparsity, seed=seed, allocation=shared)
    if chosen not in PATTERNED:
        raise InputError("--n and --m belong to --method nm, wanda or sparsegpt")
    keep, group = (default if given is None else given for given, default in zip(pattern, (2, 4), strict=True))
    if not 0 <= keep <= group or group < 1:
        raise InputError(f"--n {keep} --m {group}: allowed is 0 <= n <= m, e.g. --n 2 --m 4")
    share = 1 - keep / group if sparsity is None else sparsity
    return PruningRule(chosen, share, keep, group, seed, shared)


def _known(name: str, names: list[str], what: str) -> str:
    """``name`` if there is one like it; InputError with the nearest otherwise."""
    from perfmodel.catalog.names import unknown_name

    if name not in names:
        raise InputError(unknown_name(what, name, names))
    return name


def _check_inputs(rule: PruningRule, calibration: str | None, norms: Path | None) -> None:
    """Refuse a rule that lacks what it judges weights by, and what a rule would ignore."""
    from kernels_numba.checkpoints.pruning import Allocation, Method

    what = f"--allocation {rule.allocation}" if rule.allocation is Allocation.OWL else f"--method {rule.method}"
    by_norms = rule.method in (Method.WANDA, Method.NM) and rule.allocation is not Allocation.OWL
    if calibration is not None and norms is not None:
        raise InputError("--calibration and --norms say the same twice; drop one")
    if norms is not None and not by_norms:
        raise InputError(f"--norms is for --method wanda and nm without --allocation owl; {what} does not use it")
    if calibration is not None and not rule.needs_inputs and rule.method is not Method.NM:
        raise InputError(f"--calibration: {what} does not look at inputs; drop it")
    if rule.needs_inputs and calibration is None and norms is None:
        raise InputError(f"{what} {BY_INPUT}" + (", or --norms, a file of input norms" if by_norms else ""))


def _calibrated(
    source: Checkpoint, target: Path, rule: PruningRule, names: list[str], text: tuple[str, int, int]
) -> tuple[dict[str, Pruned], dict[str, Any]]:
    """Prune by a pass over a text; counts, and what was seen."""
    from kernels_numba.checkpoints.allocation import Allocation
    from kernels_numba.checkpoints.checkpoint import check_target, mark_of, write_pruned
    from kernels_numba.checkpoints.float_values import ELEMENTS
    from kernels_numba.checkpoints.tokenizer import load_tokenizer
    from kernels_numba.decoder.calibrate import prune_decoder
    from kernels_numba.decoder.load import as_array, load_decoder
    from kernels_numba.decoder.texts import read_text, sequences
    from kernels_numba.formats.encoded import narrowed

    check_target(source, target)
    chosen = read_text(text[0], calibrating=True)
    tokens = sequences(chosen, load_tokenizer(source.path), text[2], text[1])
    decoder = load_decoder(source.path)
    elements = {name: ELEMENTS[source.info(name).dtype] for name in names}
    passes = 2 if rule.allocation is Allocation.OWL else 1
    with progress("pruning", passes * decoder.config.layers) as step:
        pruned = prune_decoder(decoder, rule, tokens, names, elements=elements, progress=step)
    seen = {"text": chosen.origin, "samples": len(tokens), "length": text[2]}
    found = write_pruned(
        source,
        target,
        names,
        lambda name, values: narrowed(as_array(pruned.weights[name]), elements[name]),
        mark_of(rule, names) | {"calibration": seen},
    )
    return found, seen


def _print_pruned(
    source: Checkpoint, out: Path, found: dict[str, Pruned], seen: dict[str, Any] | None, as_json: bool
) -> None:
    size, before, zeros = (sum(getattr(x, key) for x in found.values()) for key in ("size", "zeros_before", "zeros"))
    if as_json:
        matrices = {
            name: {"size": x.size, "zeros_before": x.zeros_before, "zeros": x.zeros} for name, x in found.items()
        }
        told = {"output": str(out), "size": size, "zeros": zeros, "calibration": seen, "matrices": matrices}
        print(json.dumps(told, indent=2))
        return
    print(
        f"{zeros:,} of {size:,} weights in {len(found)} matrices are zero now: sparsity {zeros / size:.6f} "
        f"(before {before / size:.6f}); the other {len(source.tensors) - len(found)} tensors are unchanged."
    )
    if seen is not None:
        print(f"Calibrated on {seen['samples']} pieces of {seen['length']} tokens of {seen['text']}.")
    print(f"Wrote {out}.")
