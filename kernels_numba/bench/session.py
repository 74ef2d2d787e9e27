"""Measuring one product: checked, timed cold and warm, checked again, with clocks and power of the timing.

Outputs are poisoned before each check, so that what writes nothing is wrong. Of alternatives, which do the same work
with another layout, the fastest has the row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels_numba.bench.nvml import Sampler, State
from kernels_numba.bench.product import SHARE, UNIT, Gpu, accuracy
from kernels_numba.bench.provenance import Row
from kernels_numba.bench.timing import Library, Run, Timing

WARM_PRODUCTS = 10
WARM_L2_FACTOR = 2  # of weights larger than this many L2 caches, repetition leaves next to nothing in the cache
SOURCE = "lscd-bench-gpu"
DRY_RUN_GPU = "emulator"  # such rows have the status "dry-run", which no reader of evidence takes


@dataclass(frozen=True)
class Trial:
    """A product that is ready to run.

    size : (m, k, n); sparsity : of its weights.
    runners : one for each copy of the weights; a single one is timed warm only.
    out : what they write; result : the output (m, n) on the host.
    expected : (m, n) float64; unit, share : what it may err by (`product.accuracy`).
    weight_bytes, bytes : of the weights, and of everything the product must move.
    replay : whether it may be captured in a graph. cuSPARSE may not, nor may its output hold NaN: it may multiply that
        by beta = 0.
    """

    kernel: str
    size: tuple[int, int, int]
    sparsity: float
    runners: Sequence[Run]
    out: Any
    result: Callable[[], NDArray[Any]]
    expected: NDArray[np.float64]
    weight_bytes: int
    bytes: int
    replay: bool = True
    unit: float = UNIT
    share: float = SHARE
    split_k: int | None = None
    blocks_per_sm: int | None = None
    activations: str = "fp16"
    layout: str = ""


@dataclass(frozen=True)
class Measured:
    """Times of a trial by state of the cache, its relative error, and the GPU's state under each timing."""

    trial: Trial
    error: float
    times: dict[str, Timing]
    states: dict[str, State] = field(default_factory=dict)


class Session:
    """A library, the GPU it works on, and what looks at the GPU meanwhile."""

    def __init__(self, library: Library, gpu: Gpu, sampler: Sampler):
        self.library, self.gpu, self.sampler = library, gpu, sampler

    def measure(self, alternatives: Sequence[Trial]) -> list[Row]:
        """Rows of the fastest alternative, one for each state of the cache.

        Raises
        ------
        ArithmeticError
            If a product is wrong before or after its timing.
        """
        found = [self._time(trial) for trial in alternatives]
        best = min(found, key=lambda measured: next(iter(measured.times.values())).time_us)
        others = [measured for measured in found if measured is not best]
        return [self._row(best, cache, others) for cache in best.times]

    def _time(self, trial: Trial) -> Measured:
        """Check a product, time it, check it again; cold if there are copies, warm if the L2 may keep the weights."""
        poison = np.nan if trial.replay else 0.0
        trial.out[...] = poison
        trial.runners[0]()
        errors = [self._error(trial)]
        trial.out[...] = poison
        todo = {"cold": list(trial.runners)} if len(trial.runners) > 1 else {}
        if not todo or trial.weight_bytes < WARM_L2_FACTOR * self.gpu.l2_bytes:
            todo["warm"] = list(trial.runners[:1]) * WARM_PRODUCTS
        times, states = {}, {}
        for cache, products in todo.items():
            with self.sampler.watch() as state:
                times[cache] = self.library.time(products, replay=trial.replay)
            states[cache] = state
        errors.append(self._error(trial))
        return Measured(trial, max(errors), times, states)

    def _error(self, trial: Trial) -> float:
        return accuracy(trial.result(), trial.expected, trial.unit, trial.share)

    def _row(self, measured: Measured, cache: str, others: Sequence[Measured]) -> Row:
        trial, timing, state = measured.trial, measured.times[cache], measured.states[cache]
        rate = trial.bytes / timing.time_us * 1e6
        parts = [f"{rate / 1e9:.0f} GB/s"]
        if cache == "cold":
            parts.append(f"{rate / self.gpu.copy_bytes_per_s:.2f} of a copy")
        parts.append(f"error {measured.error:.1e}")
        if trial.layout:
            rest = "".join(f", {x.trial.layout} {x.times[cache].time_us:.2f} us" for x in others)
            parts.append(f"layout {trial.layout}{rest}")
        status = "upper_bound" if timing.host_bound else "value"
        return Row(
            gpu=self.gpu.key,
            kernel=trial.kernel,
            m=trial.size[0],
            k=trial.size[1],
            n=trial.size[2],
            sparsity=round(trial.sparsity, 4),
            time_us=round(timing.time_us, 3),
            time_err_us=round(timing.error_us, 3),
            status="dry-run" if self.gpu.key == DRY_RUN_GPU else status,
            cache=cache,
            source=SOURCE,
            note=", ".join(parts),
            launch="graph" if timing.replayed else "stream",
            split_k=trial.split_k,
            activations=trial.activations,
            blocks_per_sm=trial.blocks_per_sm,
            clock_mhz=state.clock_mhz,
            power_w=state.power_w,
            throttle=state.throttle,
        )
