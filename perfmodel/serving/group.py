"""Which model runs on which GPUs, stored how? One tensor-parallel group, checked: what `memory` and `passes` ask."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog.language_model import LanguageModel
from perfmodel.catalog.sparsities import Sparsities
from perfmodel.catalog.specs import Gpu
from perfmodel.kernels import Machine
from perfmodel.serving.systems import NO_HOST, HostParameters, System, SystemParameters, calibrated_systems
from perfmodel.serving.transformer import Matrix
from perfmodel.serving.what_if import NOTHING, WhatIf

Array = NDArray[np.float64]


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
    cache_bits: float = 16
    what_if: WhatIf = NOTHING
    parameters: SystemParameters = field(default_factory=calibrated_systems)
    host: HostParameters = NO_HOST

    @cached_property
    def machine(self) -> Machine:
        """The GPU as kernel models see it."""
        return Machine.of(self.gpu)

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
