"""Which model runs on which GPUs, stored how? One tensor-parallel group, checked: what `memory` and `passes` ask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.catalog import load_gpu, load_model
from perfmodel.catalog.arrays import number, numbers
from perfmodel.catalog.decoder import Experts
from perfmodel.catalog.language_model import LanguageModel
from perfmodel.catalog.records import LARGEST_SIZE
from perfmodel.catalog.sparsities import Sparsities
from perfmodel.catalog.specs import Gpu, Launch
from perfmodel.formats import check_sparsity
from perfmodel.kernels import Call, Machine
from perfmodel.serving.systems import (
    NO_HOST,
    HostParameters,
    System,
    SystemParameters,
    calibrated_host,
    calibrated_systems,
    load_system,
)
from perfmodel.serving.transformer import Matrix, all_matrices, can_spread, check_split
from perfmodel.serving.what_if import NOTHING, WhatIf

Array = NDArray[np.float64]

FP16_BITS, LEAST_CACHE_BITS = 16.0, 2.0


@dataclass(frozen=True)
class Group:
    """One model on GPUs that share its matrices, ``p`` of them, or its experts, ``expert_parallel`` of them.

    Attributes
    ----------
    model, gpu, system
        Records.
    p, expert_parallel : ndarray
        GPUs that share each matrix; GPUs that spread the experts and have all else whole.
    sparsity : ndarray or Sparsities
        Fraction of zeros in the prunable matrices, or that of each matrix in each layer.
    cache_bits : float
        Bits of a cached value.
    what_if : WhatIf
        Changes beside the weights; none by default.
    parameters, host
        Fitted numbers of all systems, and of the engine's host.
    """

    model: LanguageModel
    gpu: Gpu
    system: System
    p: Array = field(default_factory=lambda: np.ones(()))
    expert_parallel: Array = field(default_factory=lambda: np.ones(()))
    sparsity: Array | Sparsities = field(default_factory=lambda: np.zeros(()))
    cache_bits: float = FP16_BITS
    what_if: WhatIf = NOTHING
    parameters: SystemParameters = field(default_factory=calibrated_systems)
    host: HostParameters = NO_HOST

    @cached_property
    def machine(self) -> Machine:
        """The GPU as kernel models see it."""
        return Machine.of(self.gpu)

    @cached_property
    def matrices(self) -> tuple[Matrix, ...]:
        """Weight matrices of all kinds of layers as one GPU holds them."""
        return tuple(all_matrices(self.model.shape, self.p, self.expert_parallel))

    @cached_property
    def alike(self) -> tuple[Alike, ...]:
        """Matrices of the layers, but those of experts, by the system as whose weights they are stored."""
        kinds: dict[tuple[int, bool], list[tuple[Matrix, System, Array, float]]] = {}
        for matrix in self.matrices:
            for system, sparsity, share in () if matrix.grouped else self.stored(matrix):
                kinds.setdefault((id(system), matrix.prunable), []).append((matrix, system, sparsity, share))
        return tuple(map(Alike.of, kinds.values()))

    @property
    def cache_bytes(self) -> float:
        """Bytes of a cached value, those of its bitmap included where values are pruned."""
        return self.what_if.cache_bytes(self.cache_bits)

    def stored(self, matrix: Matrix) -> Iterator[tuple[System, Array, float]]:
        """Systems as whose weights copies of a matrix are stored and multiplied, their sparsity, their share.

        A quantised checkpoint is read as it is, unless the system has a format of its own; what pruning leaves alone is
        dense.
        """
        if (own := self.as_stored(matrix)) is not None:
            yield own, np.asarray(own.pattern or 0.0), 1.0
        elif not isinstance(self.sparsity, Sparsities):
            yield self.system, self.sparsity, 1.0
        else:
            for sparsity, share in self.sparsity.shares(matrix.name):
                yield self.system, self.system.own_sparsity(sparsity), share

    def as_stored(self, matrix: Matrix) -> System | None:
        """How a matrix is stored that pruning leaves alone or that the checkpoint stores quantised; None if neither."""
        formats = self.model.stored.formats if self.model.stored and self.system.keeps_dense else {}
        if matrix.name in formats:
            return self.system.reading(formats[matrix.name]).on(self.gpu)
        return None if matrix.prunable else self.system.reading("cublas")

    def bytes_of(self, matrix: Matrix) -> Array:
        """Bytes of one copy of a matrix, mean over the layers that have it."""
        kinds = self.stored(matrix)
        return np.asarray(sum(share * system.prunable_bytes(matrix.m, matrix.k, s) for system, s, share in kinds))


@dataclass(frozen=True)
class Alike:
    """Matrices that one system stores, along the first axis: so that its kernel's model is asked once.

    Attributes
    ----------
    system : System
        As whose weights they are stored.
    prunable : bool
        As `Matrix` has it.
    m, k, sparsity : ndarray
        Of each; of the shapes of ``p`` and the sparsity beyond the first axis.
    count : ndarray
        Products with each in a pass.
    """

    system: System
    prunable: bool
    m: Array
    k: Array
    sparsity: Array
    count: Array

    @classmethod
    def of(cls, found: Sequence[tuple[Matrix, System, Array, float]]) -> Alike:
        """Of matrices with their system, sparsity and share of the layers."""
        rows = (np.broadcast_arrays(matrix.m, matrix.k, sparsity) for matrix, _, sparsity, _ in found)
        m, k, sparsity = (np.stack(column) for column in zip(*rows, strict=True))
        count = np.array([matrix.layers * share for matrix, _, _, share in found], dtype=np.float64)
        return cls(found[0][1], found[0][0].prunable, m, k, sparsity, count)

    def each(self, seconds: Array) -> Array:
        """Seconds of all products with each, from those of one."""
        return self.count.reshape(-1, *(1,) * (seconds.ndim - 1)) * seconds

    def few(self, most: int, axes: int) -> Iterator[Alike]:
        """Itself in parts of at most ``most`` matrices, ready to broadcast against arrays of ``axes`` axes."""
        apart = (1,) * max(axes + 1 - self.m.ndim, 0)
        for start in range(0, len(self.count), most):
            rows = slice(start, start + most)
            m, k, sparsity = (a[rows].reshape(-1, *apart, *a.shape[1:]) for a in (self.m, self.k, self.sparsity))
            yield replace(self, m=m, k=k, sparsity=sparsity, count=self.count[rows])


def make_group(
    model: str | LanguageModel,
    gpu: str | Gpu,
    system: str | System,
    *,
    input_len: ArrayLike,
    output_len: ArrayLike,
    sparsity: ArrayLike | Sparsities = 0.0,
    gpus: ArrayLike = 1,
    pipeline_parallel: ArrayLike = 1,
    expert_parallel: ArrayLike = 1,
    cache_bits: float | None = None,
    launch: str | None = None,
    what_if: WhatIf = NOTHING,
    parameters: SystemParameters | None = None,
    host: HostParameters | None = None,
) -> tuple[Group, Array]:
    """The group of GPUs that `evaluate` asks about, all of its arguments checked, and the number of GPUs in all."""
    model, gpu, system = resolve(model, gpu, system)
    if launch is not None:
        Call.of(launch=launch)  # refuses what is no launch
        system = replace(system, engine=replace(system.engine, launch=Launch(launch)))
    counts = {"gpus": gpus, "pipeline_parallel": pipeline_parallel, "expert_parallel": expert_parallel}
    total_gpus, stages, spread = (whole(name, value) for name, value in counts.items())
    _check_positions(model, whole("input_len", input_len), whole("output_len", output_len))
    group = Group(
        model,
        gpu,
        system,
        _tensor_parallel(model, total_gpus, stages, spread),
        spread,
        _sparsity(model, gpu, system, sparsity),
        _cache_bits(model, cache_bits),
        what_if,
        parameters or calibrated_systems(),
        host or calibrated_host(system.host),
    )
    return group, total_gpus


def resolve(model: str | LanguageModel, gpu: str | Gpu, system: str | System) -> tuple[LanguageModel, Gpu, System]:
    """Records behind names; raises `ValueError` with the nearest name where there is none."""
    return (
        model if isinstance(model, LanguageModel) else load_model(model),
        load_gpu(gpu),
        system if isinstance(system, System) else load_system(system),
    )


def _sparsity(model: LanguageModel, gpu: Gpu, system: System, sparsity: ArrayLike | Sparsities) -> Array | Sparsities:
    """Checked, and for a kernel of a pattern that pattern's."""
    if (refusal := system.refusal(gpu)) is not None:
        raise ValueError(f"system {system.name!r}: {refusal}")
    if isinstance(sparsity, Sparsities):
        sparsity.check(model)
        return sparsity
    asked = check_sparsity(sparsity)
    system.check_sparsity(asked)
    return system.own_sparsity(asked)


def _cache_bits(model: LanguageModel, cache_bits: float | None) -> float:
    if cache_bits is None:
        return (model.stored and model.stored.cache_bits) or FP16_BITS
    return number("cache_bits", cache_bits, LEAST_CACHE_BITS, FP16_BITS)


def whole(name: str, value: ArrayLike) -> Array:
    """``value`` as floats, refused where one is no whole number from 1 to 2**40; the message names it."""
    array = numbers(name, value)
    wrong = ~(array >= 1) | (np.floor(array) != array) | (array == np.inf)
    if np.any(wrong):
        raise ValueError(f"{name} must be a whole number of at least 1, got {float(array[wrong].flat[0]):g}")
    if np.any(array > LARGEST_SIZE):
        raise ValueError(f"{name} must be at most 2**40, got {float(np.max(array)):g}")
    return array


def _tensor_parallel(model: LanguageModel, gpus: Array, stages: Array, spread: Array) -> Array:
    if np.any(stages > model.shape.layers):
        raise ValueError(f"pipeline_parallel must be at most the {model.shape.layers} layers, got {stages.max():g}")
    if np.any(gpus % stages != 0):
        raise ValueError("gpus must be a multiple of pipeline_parallel")
    if np.any(spread > 1):
        _check_spread(model, gpus, stages, spread)
    return check_split(model, gpus / (stages * spread))


def _check_spread(model: LanguageModel, gpus: Array, stages: Array, spread: Array) -> None:
    """Refuse experts that cannot be spread: there are none, or they are no multiple."""
    counts = sorted({part.count for _, part in model.shape.parts if isinstance(part, Experts)})
    if not counts:
        raise ValueError(f"expert_parallel must be 1 for {model.key}, which has no experts, got {spread.max():g}")
    wrong = ~can_spread(model.shape, spread)
    if np.any(wrong):
        raise ValueError(f"expert_parallel must divide {counts[0]} experts, got {spread[wrong].flat[0]:g}")
    if np.any(gpus % (stages * spread) != 0):
        raise ValueError("gpus must be a multiple of pipeline_parallel times expert_parallel")


def _check_positions(model: LanguageModel, prompt: Array, new: Array) -> None:
    longest, limit = float(np.max(prompt + new)), model.shape.max_positions
    if longest > limit:
        raise ValueError(f"{model.key} knows {limit} positions, got {longest:g} tokens of input and output")
