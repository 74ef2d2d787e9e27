"""Prune a checkpoint, tensor by tensor: the file a checkpoint becomes when some of its weights are zeroed.

Only weight matrices are touched, and of these not the embeddings, the output head, normalisations, routers, tables;
every other tensor is copied byte for byte. A matrix that is stored in pieces, quantised or without its zeros, is
refused by the name of its layout: half of its scales set to zero would be no pruned matrix. Memory holds one matrix
and its scores.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels_numba.checkpoints.allocation import zeros_by_matrix
from kernels_numba.checkpoints.float_values import ELEMENTS, as_float32
from kernels_numba.checkpoints.layouts.pieces import Packed
from kernels_numba.checkpoints.layouts.recognise import packed_matrices, pieces_of
from kernels_numba.checkpoints.pruning import (
    Allocation,
    GlobalThreshold,
    Method,
    PruningRule,
    Scores,
    below_threshold,
    global_threshold,
    magnitudes,
    mask_by,
    random_scores,
)
from kernels_numba.checkpoints.safetensors_reader import Checkpoint, TensorInfo
from kernels_numba.checkpoints.safetensors_writer import aligned_order, header_room, written
from kernels_numba.files import identity
from kernels_numba.formats.encoded import bits_of, check

# Pruning studies leave these alone: few weights, looked up instead of multiplied, or sensitive. Factors of LoRA are no
# weights of the model, but what is added to them.
LEFT_ALONE = (
    "*embed*", "*wte*", "*wpe*", "*lm_head*", "embed_out*", "shared.weight", "*norm*", "*Norm*", "*ln_*",
    "*.gate.weight", "*router*", "*bias*", "*rotary*", "*inv_freq*", "*freqs*", "*cos_cached*", "*sin_cached*",
    "*alibi*", "*pos_emb*", "*rel_pos*", "*relative_position*", "*_table", "*A_log", "*conv1d*", "*running_*",
    "*lora_*", "*lokr_*", "*hada_*",
)  # fmt: skip
MARK = "lscd_pruned"
WAY_OUT = "start from the checkpoint in 16 or 32 bits, or dequantise it first"


@dataclass(frozen=True)
class Pruned:
    """Outcome for one matrix: elements, and zeros before and after."""

    size: int
    zeros_before: int
    zeros: int


def is_matrix(info: TensorInfo) -> bool:
    """Whether a tensor has the form of a weight matrix stored whole: two dimensions, F16, BF16 or F32, not empty."""
    return len(info.shape) == 2 and info.dtype in ELEMENTS and info.nbytes > 0


def chosen_matrices(
    checkpoint: Checkpoint, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> tuple[list[str], list[Packed]]:
    """Names of the matrices that are stored whole, and records of those in pieces, in file order.

    Parameters
    ----------
    include : patterns (``*``, ``?``, ``[...]``) of the names wanted; all but ``LEFT_ALONE``, and what has a single row
        or column, if there are none. A matrix in pieces goes by its name where it is stored whole, and by those of its
        pieces.
    exclude : patterns of names to leave alone in any case.

    Raises
    ------
    ValueError
        If nothing is left; the message says why.
    """
    packed = packed_matrices(checkpoint)
    pieces = pieces_of(checkpoint, packed)
    whole = [name for name, info in checkpoint.tensors.items() if is_matrix(info) and name not in pieces]

    def wanted(name: str, *parts: str) -> bool:
        names = (name, *parts)
        asked = any(_matches(x, include) for x in names) if include else not _matches(name, LEFT_ALONE)
        return asked and not any(_matches(x, exclude) for x in names)

    names = [name for name in whole if wanted(name) and (include or min(checkpoint.info(name).shape) > 1)]
    chosen = [matrix for matrix in packed if wanted(matrix.name, *matrix.parts)]
    if not names and not chosen:
        stray = len(pieces) - sum(len(matrix.parts) for matrix in packed)
        where = f"{checkpoint.path}: of its {len(whole) + len(packed)} weight matrices none is left"
        raise ValueError(f"{where}: {_wish(include, exclude)}" + f"; {stray} tensors belong to codes" * bool(stray))
    return names, chosen


def _wish(include: Sequence[str], exclude: Sequence[str]) -> str:
    """What was asked for, in words."""
    wish = f"include {', '.join(include)}" if include else "all but embeddings, norms, routers and output heads"
    return wish + (f", exclude {', '.join(exclude)}" if exclude else "")


def weight_matrices(checkpoint: Checkpoint, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[str]:
    """Names of the matrices to work on, in file order; chosen as by `chosen_matrices`.

    Raises
    ------
    ValueError
        If nothing is left, or one of those chosen is stored in pieces; the message names layout and way out.
    """
    names, packed = chosen_matrices(checkpoint, include, exclude)
    if packed:
        layouts = ", ".join(sorted({matrix.what for matrix in packed}))
        here = " (lscd weights import)" if all(matrix.decoder for matrix in packed) else ""
        raise ValueError(
            f"{checkpoint.path}: {len(packed)} of the {len(names) + len(packed)} matrices chosen, {packed[0].name} "
            f"first, are stored in pieces ({layouts}); {WAY_OUT}{here}, or choose others by include and exclude"
        )
    return names


def whole_shapes(source: Checkpoint, names: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Shapes of matrices stored whole; ValueError naming the first that is none, or a piece of one."""
    pieces, shapes = pieces_of(source, packed_matrices(source)), {}
    for name in names:
        info = source.info(name)
        where, found = f"{info.path}: tensor {name!r}", f"{info.dtype} {info.shape}"
        check(is_matrix(info), where, found, "a matrix of F16, BF16, F32")
        check(name not in pieces, where, "a piece of a matrix that is stored in pieces", WAY_OUT)
        shapes[name] = (info.shape[0], info.shape[1])
    return shapes


def check_target(source: Checkpoint, target: str | Path) -> None:
    """Refuse to write over a file of ``source``."""
    files = {identity(path) for path in (source.path, *(info.path for info in source.tensors.values()))}
    check(identity(target) not in files, "output", target, "another file than the input")


def prune_checkpoint(
    source: Checkpoint,
    target: str | Path,
    rule: PruningRule,
    names: Sequence[str],
    *,
    norms: Checkpoint | None = None,
    progress: Callable[[str], None] = lambda name: None,
) -> dict[str, Pruned]:
    """Write ``source`` to ``target`` with the matrices ``names`` pruned; the file appears only when it is complete.

    Parameters
    ----------
    norms : for each of ``names`` a tensor (k,) of the same name: the L2 norm of each input over calibration tokens.
        Wanda needs it; N:M uses it if given.
    progress : called with the name of each tensor written.

    Returns
    -------
    dict
        Exact counts of each pruned matrix.

    Raises
    ------
    ValueError
        If a tensor is missing, holds NaN or does not fit the pattern or its norms; the message names it.
    """
    check(norms is not None or rule.method is not Method.WANDA, "norms", "none", "a file of input norms for wanda")
    check(norms is None or rule.method in (Method.WANDA, Method.NM), "norms", "given", "none but for wanda and nm")
    check(rule.method is not Method.SPARSEGPT, "method", rule.method, "those that need no calibration tokens")
    shapes = whole_shapes(source, names)
    zeros, threshold = zeros_by_matrix(rule, shapes), _threshold(source, rule, shapes)

    def zeroed(name: str, values: NDArray[Any]) -> NDArray[Any]:
        nonlocal threshold
        with _naming(source.info(name)):
            scores = _scores(source, rule, name, values, norms)
            if rule.method is Method.MAGNITUDE_GLOBAL:
                mask, threshold = below_threshold(scores, threshold)
            else:
                mask = mask_by(rule, scores, zeros[name])
        bits_of(values)[mask] = 0
        return values

    return write_pruned(source, target, names, zeroed, mark_of(rule, names), progress)


def mark_of(rule: PruningRule, names: Sequence[str]) -> dict[str, Any]:
    """What a pruned file says about itself, under the key ``MARK`` of its metadata."""
    mark: dict[str, Any] = {"method": rule.method, "sparsity": rule.sparsity, "matrices": len(names)}
    if rule.pattern is not None:
        mark["pattern"] = f"{rule.pattern[0]}:{rule.pattern[1]}"
    if rule.allocation is not Allocation.UNIFORM:
        mark["allocation"] = rule.allocation
    return mark


def write_pruned(
    source: Checkpoint,
    target: str | Path,
    names: Sequence[str],
    prune: Callable[[str, NDArray[Any]], NDArray[Any]],
    mark: Mapping[str, Any],
    progress: Callable[[str], None] = lambda name: None,
) -> dict[str, Pruned]:
    """Write ``source`` to ``target``, each of ``names`` as ``prune`` makes it; counts of each of these.

    Parameters
    ----------
    prune : new values by name and old values, both in the dtype of the file; may change the old in place.
    mark : what the file's metadata say under the key ``MARK``.
    """
    check_target(source, target)
    metadata = source.metadata | {MARK: json.dumps(mark)}
    room = header_room(((name, len(info.shape)) for name, info in source.tensors.items()), metadata)
    chosen, found = set(names), {}
    with written(target, room) as out:
        out.metadata = metadata
        for name in _order(source):
            info = source.info(name)
            if name in chosen:
                values = source.read(name)
                before = _zeros(values, info.dtype)
                values = prune(name, values)
                found[name] = Pruned(values.size, before, _zeros(values, info.dtype))
                out.add(name, info.dtype, info.shape, [values])
            else:
                out.add(name, info.dtype, info.shape, source.chunks(name))
            progress(name)
    return found


def _threshold(source: Checkpoint, rule: PruningRule, shapes: dict[str, tuple[int, int]]) -> GlobalThreshold:
    """Threshold over all matrices, read for ``magnitude-global`` only."""
    if rule.method is not Method.MAGNITUDE_GLOBAL:
        return GlobalThreshold(0, 0)

    def passes() -> Iterator[Scores]:
        for name in _order(source):
            if name in shapes:
                with _naming(source.info(name)):
                    yield _scores(source, rule, name, source.read(name), None)

    return global_threshold(passes, round(rule.sparsity * sum(m * k for m, k in shapes.values())))


def _scores(source: Checkpoint, rule: PruningRule, name: str, values: NDArray[Any], norms: Checkpoint | None) -> Scores:
    """Scores of one matrix."""
    info = source.info(name)
    wide = as_float32(values, info.dtype)
    column_norms = None
    if norms is not None:
        norm_info = norms.info(name)
        check(norm_info.dtype in ELEMENTS, f"{norms.path}: dtype of {name}", norm_info.dtype, ", ".join(ELEMENTS))
        column_norms = as_float32(norms.read(name), norm_info.dtype)
    scores = magnitudes(wide, column_norms)
    return random_scores((info.shape[0], info.shape[1]), rule.seed, name) if rule.method is Method.RANDOM else scores


@contextmanager
def _naming(info: TensorInfo) -> Iterator[None]:
    """Let errors name the file and the tensor."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{info.path}: tensor {info.name!r}: {error}") from None


def _zeros(values: NDArray[Any], dtype: str) -> int:
    """Zeros of either sign."""
    return values.size - int(np.count_nonzero(bits_of(values) & ELEMENTS[dtype].magnitude))


def _order(source: Checkpoint) -> list[str]:
    return aligned_order({name: info.dtype for name, info in source.tensors.items()})


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
