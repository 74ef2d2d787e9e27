"""How many watts does a board draw while it serves, and within what interval?

A share of its power limit, by what keeps it busy:

    ``awake + memory * dram_busy + compute * tensor_busy``, at most 1

``awake`` is what a board with a loaded model draws however little it does: leakage, clocks, fans, idle memory.
``memory`` is added while DRAM delivers at the rate that long reads sustain, ``compute`` while the Tensor Cores run at
the rate that the board's power carries. Both busy shares are means over time: waits of the host or of other GPUs enter
as time in which neither is busy. At the limit the board slows its clock instead: the sum is cut off there.

Fitted on one kind of board (`perfmodel.evidence.power_fit`); nothing of it is known of a card's cooling, clock locks or
lowered limits. Below the limit, real boards differ in what they draw awake.

References
----------
Chung et al., "Where do the joules go?", arXiv 2601.22076, 2026 (measurements); Patel et al., "Characterizing power
management opportunities for LLMs in the cloud", ASPLOS 2024 (prompts draw the peak, tokens far less).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.catalog import load_calibration
from perfmodel.catalog.specs import FittedKernel, Gpu
from perfmodel.kernels.base import free
from perfmodel.kernels.limits import power_flops_per_s, streamed_share
from perfmodel.serving.collectives import CALIBRATION_FILE

Array = NDArray[np.float64]

CALIBRATION_NAME = "power"
HOME, AWAY = "inside", "gpu"  # spreads on the kinds of boards that were fitted, and on others


@dataclass(frozen=True)
class PowerParameters:
    """Free parameters of the power model, shares of the board's limit."""

    awake: float = free(0.2, 0.02, 0.5, "share of the limit drawn with a loaded model and nothing to do")
    memory: float = free(0.5, 0.05, 1.5, "share of the limit added by DRAM at its sustained rate")
    compute: float = free(1.0, 0.05, 3.0, "share of the limit added by Tensor Cores at the rate its power carries")


def fitted_power() -> FittedKernel:
    """The stored fit with its spreads.

    Raises
    ------
    ValueError
        If the calibration has no such entry, or the entry no finite spread; names it.
    """
    fits = load_calibration(CALIBRATION_FILE)
    if CALIBRATION_NAME not in fits:
        raise ValueError(f"{CALIBRATION_FILE} has no {CALIBRATION_NAME!r}; make it with `lscd calibrate`")
    fitted = fits[CALIBRATION_NAME]
    if not all(0 <= fitted.spread.get(name, -1.0) < math.inf for name in (HOME, AWAY)):
        raise ValueError(f"{CALIBRATION_NAME}: spread is {fitted.spread}, needed are {HOME} and {AWAY}, at least 0")
    return fitted


def calibrated_power() -> PowerParameters:
    """The stored parameters."""
    return PowerParameters(**fitted_power().parameters)


def sustained_bytes_per_s(gpu: Gpu) -> float:
    """DRAM rate that counts as wholly busy."""
    return streamed_share(gpu.dram) * gpu.dram.bandwidth_bytes_per_s


def sustained_flops_share(gpu: Gpu) -> float:
    """Share of the printed dense Tensor peaks that the board's power carries, and that counts as wholly busy."""
    return min(1.0, power_flops_per_s(gpu) / gpu.peak.fp16_tensor)


def power_share(dram_busy: ArrayLike, tensor_busy: ArrayLike, parameters: PowerParameters) -> Array:
    """Mean power over the board's limit; broadcast shape of both shares.

    Raises
    ------
    ValueError
        If a busy share is negative; names it. A share above 1 counts as 1.
    """
    busy = []
    for name, value in (("dram_busy", dram_busy), ("tensor_busy", tensor_busy)):
        share = np.asarray(value, dtype=np.float64)
        if np.any(~(share >= 0)):
            raise ValueError(f"{name} must be at least 0, got {float(np.min(share)):g}")
        busy.append(np.minimum(share, 1.0))
    c = parameters
    return np.asarray(np.minimum(c.awake + c.memory * busy[0] + c.compute * busy[1], 1.0))


def board_power_w(
    gpu_or_limit: Gpu | float,
    dram_busy: ArrayLike,
    tensor_busy: ArrayLike,
    parameters: PowerParameters | None = None,
    *,
    spread: float | None = None,
) -> tuple[Array, Array, Array]:
    """Watts of one board: lower end of the 90 % interval, mean, upper end (never above the limit).

    Parameters
    ----------
    gpu_or_limit
        A board, or its power limit in watts, as where it was lowered.
    dram_busy
        Share of the time that bytes at `sustained_bytes_per_s` take.
    tensor_busy
        Share of the time that FLOP take at `sustained_flops_share` of the peak.
    parameters
        The stored fit by default.
    spread
        Half-width of the log of the power; the stored one by default, of the fitted boards or of others.

    Returns
    -------
    tuple of ndarray
        Three arrays of the broadcast shape of both shares.

    Raises
    ------
    ValueError
        If the board's limit is unknown or not above 0, or a busy share negative; names it.
    """
    c = calibrated_power() if parameters is None else parameters
    limit_w, key = (
        (gpu_or_limit, "") if not isinstance(gpu_or_limit, Gpu) else (_limit_w(gpu_or_limit), gpu_or_limit.key)
    )
    if not 0 < limit_w < math.inf:
        raise ValueError(f"the power limit must be finite and above 0, got {limit_w:g}")
    if spread is None:
        fitted = fitted_power()
        spread = fitted.spread[HOME if key in fitted.gpus else AWAY]
    mean_w = limit_w * power_share(dram_busy, tensor_busy, c)
    return mean_w * math.exp(-spread), mean_w, np.minimum(mean_w * math.exp(spread), limit_w)


def _limit_w(gpu: Gpu) -> float:
    if gpu.power is None:
        raise ValueError(f"{gpu.name} has no power limit (power.tdp_w)")
    return gpu.power.tdp_w
