"""Predicted times of matrices on every kernel that takes them, by the calibrated kernel models."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

DENSE_FORMAT = "dense"


@dataclass(frozen=True)
class KernelTimes:
    """Predicted time of one matrix on one kernel.

    tokens : N after the padding the kernel asks for.
    time_us, lo_us, hi_us : microseconds of one product and the model's 90 % interval.
    bound : the resource with the longest time alone.
    extrapolated : the kernel was never measured near this shape, N or GPU.
    measured : anybody has measured the kernel at all.
    """

    tokens: int
    time_us: float
    lo_us: float
    hi_us: float
    bound: str
    extrapolated: bool
    measured: bool


def dense_kernel(kernels: Collection[str]) -> str | None:
    """The dense kernel of a device among ``kernels``: None if there is none."""
    from perfmodel.kernels import BASELINES

    return next((name for name in BASELINES if name in kernels), None)


def predicted_times(
    matrices: Sequence[tuple[tuple[int, int], float]], gpu: str, tokens: int
) -> list[dict[str, KernelTimes]]:
    """Predicted times of every matrix (shape, sparsity) on every kernel that takes so many tokens."""
    import numpy as np

    from perfmodel.prediction import predict_all

    if tokens < 1:
        raise ValueError(f"batch must be at least 1, got {tokens}")
    m, k = (np.array([shape[axis] for shape, _ in matrices]) for axis in (0, 1))
    # Rounding may leave -1e-17 for a full matrix.
    sparsity = np.clip([sparsity for _, sparsity in matrices], 0, 1)
    result: list[dict[str, KernelTimes]] = [{} for _ in matrices]
    for padded, p in predict_all(gpu, m, k, tokens, sparsity):
        for i, times in enumerate(result):
            if p.at_least[i]:
                continue  # a lower bound ranks with nothing
            time_us, lo_us, hi_us = (float(column[i]) * 1e6 for column in (p.time_s, p.lo_s, p.hi_s))
            about = (str(p.bound[i]), bool(p.extrapolated[i]), p.measured)
            times[p.kernel] = KernelTimes(padded, time_us, lo_us, hi_us, *about)
    return result
