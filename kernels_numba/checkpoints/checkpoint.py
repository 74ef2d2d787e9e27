"""Prune a checkpoint, tensor by tensor: the file a checkpoint becomes when some of its weights are zeroed.

Only weight matrices are touched, and of these not the embeddings, the output head, normalisations and routers; every
other tensor is copied byte for byte. Memory holds one matrix and its scores.
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

# Pruning studies leave these alone: few weights, looked up instead of multiplied, or sensitive.
LEFT_ALONE = (
    "*embed*", "*wte*", "*wpe*", "*lm_head*", "embed_out*", "*norm*", "*Norm*", "*ln_*", "*.gate.weight", "*bias*",
)  # fmt: skip
MARK = "lscd_pruned"


@dataclass(frozen=True)
class Pruned:
    """Outcome for one matrix: elements, and zeros before and after."""

    size: int
    zeros_before: int
    zeros: int


def is_matrix(info: TensorInfo) -> bool:
    """Whether a tensor is a weight matrix: two dimensions, F16, BF16 or F32, not empty."""
    return len(info.shape) == 2 and info.dtype in ELEMENTS and info.nbytes > 0


def weight_matrices(checkpoint: Checkpoint, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[str]:
    """Names of the matrices to work on, in file order.

    Parameters
    ----------
    include : patterns (``*``, ``?``, ``[...]``) of the names wanted; all but ``LEFT_ALONE`` if there are none.
    exclude : patterns of names to leave alone in any case.

    Raises
    ------
    ValueError
        If nothing is left; the message says why.
    """
    matrices = [name for name, info in checkpoint.tensors.items() if is_matrix(info)]
    wanted = [name for name in matrices if (_matches(name, include) if include else not _matches(name, LEFT_ALONE))]
    chosen = [name for name in wanted if not _matches(name, exclude)]
    if not chosen:
        where = f"{checkpoint.path}: of its {len(matrices)} weight matrices none is left"
        wish = f"include {', '.join(include)}" if include else "all but embeddings, norms, routers and output heads"
        raise ValueError(f"{where}: {wish}" + (f", exclude {', '.join(exclude)}" if exclude else ""))
    return chosen


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
    shapes = {name: _matrix_shape(source, name) for name in names}
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


def _matrix_shape(source: Checkpoint, name: str) -> tuple[int, int]:
    info = source.info(name)
    check(is_matrix(info), f"{info.path}: tensor {name!r}", f"{info.dtype} {info.shape}", "a matrix of F16, BF16, F32")
    return info.shape[0], info.shape[1]


def _order(source: Checkpoint) -> list[str]:
    return aligned_order({name: info.dtype for name, info in source.tensors.items()})


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
