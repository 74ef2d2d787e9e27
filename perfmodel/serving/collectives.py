"""How long do GPUs of one machine take to sum their partial results?

Tensor parallelism sums one activation tensor over ``p`` GPUs twice a layer. Each algorithm costs a start, a number of
hops and the bytes that cross a GPU's link in one direction:

=================  =====================  ===================  =====================================
algorithm          hops                   bytes per GPU        used by
=================  =====================  ===================  =====================================
ring, low latency  ``2 (p - 1)``          ``2 (p - 1) / p S``  NCCL, small messages
ring               ``2 (p - 1)``          ``2 (p - 1) / p S``  NCCL, large messages
tree               ``2 ceil(log2 p)``     ``2 S``              NCCL across machines; here for comparison
one-shot           1, to ``p - 1`` peers  ``(p - 1) S``        custom kernels (TensorRT-LLM, vLLM)
in switch          2                      ``(1 + 1 / p) S``    NCCL, large messages, from Hopper on
=================  =====================  ===================  =====================================

In the switch: it reads every GPU's ``S`` bytes and sums them on the way to whom each block belongs, then copies the
owner's ``S / p`` to all. On eight GPUs that is two thirds of a ring's traffic, on two GPUs half as much again.

Start and hop are waits of threads that poll memory, so they are stated in SM clock cycles: cycles fitted on an A100
give the small messages of an H100, whose clock is 40 % faster, without a further parameter. Bandwidth is a fitted
share of the datasheet's link in one direction (half of the printed figure).

Without NVLink, two GPUs have a link each. More of them send every byte through the host's bridge, which carries in all
what one link carries: a GPU's share is the ``p``-th part. At 67 % of PCIe 4.0 x16 that is 21, 5.4 and 2.7 GB/s for 2, 4
and 8 GPUs; NCCL on L40S was seen to reach 20, 5.1 and 2.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.catalog import load_calibration
from perfmodel.catalog.specs import Gpu
from perfmodel.kernels.base import free

Array = NDArray[np.float64]

CALIBRATION_FILE = "calibration/systems.json"
CALIBRATION_NAME = "all-reduce"
# NCCL leaves the low-latency protocol once a GPU's chunk S / p takes longer than this to cross its bare link: the
# geometric middle of the step in the A100's measured times, between 256 and 512 KiB per GPU.
LOW_LATENCY_CHUNK_S = 1.24e-6
PAIR = 2  # GPUs that a link each serves without NVLink
FIRST_SUMMING_SWITCH = 9.0  # compute capability of the GPUs that the third generation of NVSwitch came with
SWITCHED_BYTES_PER_S = 900e9  # of Hopper boards with a switch; a bridge of the PCIe boards has 600


class Algorithm(StrEnum):
    """Ways to all-reduce; ``NCCL`` and ``CUSTOM`` choose among those their library has."""

    RING_LOW_LATENCY = "ring-low-latency"
    RING = "ring"
    TREE = "tree"
    ONE_SHOT = "one-shot"
    IN_SWITCH = "in-switch"
    NCCL = "nccl"
    CUSTOM = "custom"


@dataclass(frozen=True)
class CollectiveParameters:
    """Free parameters of the all-reduce algorithms."""

    start_cycles: float = free(1.1e4, 1e3, 1e5, "SM cycles to launch a low-latency ring")
    hop_cycles: float = free(1.4e3, 1e2, 1e4, "SM cycles of one hop of a ring or tree")
    low_latency_efficiency: float = free(0.3, 0.05, 1.0, "share of the one-way link the low-latency protocol reaches")
    bulk_start_cycles: float = free(4e4, 1e3, 2e5, "SM cycles to launch a ring that moves whole blocks")
    link_efficiency: float = free(0.75, 0.3, 1.0, "share of the one-way link a ring reaches with large messages")
    one_shot_cycles: float = free(5e3, 1e3, 1e5, "SM cycles to launch and synchronise a one-shot all-reduce")
    one_shot_peer_cycles: float = free(1e2, 0.0, 1e4, "SM cycles per peer in a one-shot all-reduce")
    one_shot_efficiency: float = free(0.5, 0.1, 1.0, "share of the one-way link of reads from all peers at once")


def one_way_bytes_per_s(gpu: Gpu) -> float:
    """Datasheet bytes/s out of one GPU: half of NVLink's printed figure, or of PCIe's where there is no NVLink."""
    return (gpu.link.nvlink_bytes_per_s or gpu.link.pcie_bytes_per_s) / 2


def link_bytes_per_s(gpu: Gpu, gpus: ArrayLike) -> Array:
    """Datasheet bytes/s out of each of ``gpus`` GPUs at once: `one_way_bytes_per_s`, or its part of the bridge's."""
    p = np.asarray(gpus, dtype=np.float64)
    shared = (p > PAIR) & (gpu.link.nvlink_bytes_per_s is None)
    return np.asarray(one_way_bytes_per_s(gpu) / np.where(shared, p, 1.0))


def switch_reduces(gpu: Gpu) -> bool:
    """Whether NVLink switches sum on the way: those of Hopper and later; a bridge between two boards has none."""
    if gpu.architecture.amd or gpu.link.nvlink_bytes_per_s is None:
        return False
    switched = gpu.link.nvlink_bytes_per_s >= SWITCHED_BYTES_PER_S
    return switched and float(gpu.compute_capability) >= FIRST_SUMMING_SWITCH


def calibrated_collectives() -> CollectiveParameters:
    """The stored fit."""
    return CollectiveParameters(**load_calibration(CALIBRATION_FILE)[CALIBRATION_NAME].parameters)


def all_reduce_time(
    gpu: Gpu,
    gpus: ArrayLike,
    message_bytes: ArrayLike,
    algorithm: Algorithm = Algorithm.NCCL,
    parameters: CollectiveParameters | None = None,
) -> Array:
    """Seconds to sum ``message_bytes`` held by each of ``gpus`` GPUs, back to back, result everywhere.

    Parameters
    ----------
    gpus
        Number of GPUs in one machine; 1 costs nothing.
    message_bytes
        Bytes each GPU contributes.

    Returns
    -------
    ndarray
        Broadcast shape of ``gpus`` and ``message_bytes``.

    Raises
    ------
    ValueError
        If a count is below 1 or a size negative; names the value.

    References
    ----------
    Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations", JPDC 69(2), 2009
    (ring); Sanders, Speck, Träff, "Two-tree algorithms for full bandwidth broadcast, reduction and scan", Parallel
    Computing 35(12), 2009 (tree); Klenk, Jiang, Thorson, Dennison, "An in-network architecture for accelerating
    shared-memory multiprocessor collectives", ISCA 2020 (in switch).
    """
    p, size = np.asarray(gpus, dtype=np.float64), np.asarray(message_bytes, dtype=np.float64)
    if np.any(~(p >= 1)):
        raise ValueError(f"gpus must be at least 1, got {float(np.min(p)):g}")
    if np.any(~(size >= 0)):
        raise ValueError(f"message_bytes must be at least 0, got {float(np.min(size)):g}")
    c = calibrated_collectives() if parameters is None else parameters
    seconds = _TIMES[algorithm](gpu, p, size, c)
    return np.where(p > 1, seconds, 0.0)


def point_to_point_time(gpu: Gpu, message_bytes: ArrayLike, parameters: CollectiveParameters | None = None) -> Array:
    """Seconds to send ``message_bytes`` to a neighbour: a pipeline stage hands over its activations."""
    c = calibrated_collectives() if parameters is None else parameters
    size = np.asarray(message_bytes, dtype=np.float64)
    p = np.full((), 2.0)
    small = _seconds(gpu, p, c.start_cycles + c.hop_cycles, size, c.low_latency_efficiency)
    large = _seconds(gpu, p, c.bulk_start_cycles + c.hop_cycles, size, c.link_efficiency)
    return np.minimum(small, large)


def _seconds(gpu: Gpu, p: Array, cycles: Array | float, crossing: Array, efficiency: float) -> Array:
    wait_s = np.asarray(cycles) / gpu.clock.hz
    return np.asarray(wait_s + crossing / (efficiency * link_bytes_per_s(gpu, p)))


def _ring_low_latency(gpu: Gpu, p: Array, size: Array, c: CollectiveParameters) -> Array:
    hops, crossing = 2 * (p - 1), 2 * (p - 1) / p * size
    return _seconds(gpu, p, c.start_cycles + hops * c.hop_cycles, crossing, c.low_latency_efficiency)


def _ring(gpu: Gpu, p: Array, size: Array, c: CollectiveParameters) -> Array:
    hops, crossing = 2 * (p - 1), 2 * (p - 1) / p * size
    return _seconds(gpu, p, c.bulk_start_cycles + hops * c.hop_cycles, crossing, c.link_efficiency)


def _tree(gpu: Gpu, p: Array, size: Array, c: CollectiveParameters) -> Array:
    hops = 2 * np.ceil(np.log2(p))
    return _seconds(gpu, p, c.bulk_start_cycles + hops * c.hop_cycles, 2 * size, c.link_efficiency)


def _one_shot(gpu: Gpu, p: Array, size: Array, c: CollectiveParameters) -> Array:
    cycles = c.one_shot_cycles + (p - 1) * c.one_shot_peer_cycles
    return _seconds(gpu, p, cycles, (p - 1) * size, c.one_shot_efficiency)


def _in_switch(gpu: Gpu, p: Array, size: Array, c: CollectiveParameters) -> Array:
    crossing = (1 + 1 / p) * size
    return _seconds(gpu, p, c.bulk_start_cycles + 2 * c.hop_cycles, crossing, c.link_efficiency)


def _nccl(gpu: Gpu, p: Array, size: Array, c: CollectiveParameters) -> Array:
    small = size / p <= LOW_LATENCY_CHUNK_S * link_bytes_per_s(gpu, p)
    large = _ring(gpu, p, size, c)
    if switch_reduces(gpu):
        large = np.minimum(large, _in_switch(gpu, p, size, c))
    return np.where(small, _ring_low_latency(gpu, p, size, c), large)


def _custom(gpu: Gpu, p: Array, size: Array, c: CollectiveParameters) -> Array:
    return np.minimum(_one_shot(gpu, p, size, c), _nccl(gpu, p, size, c))


_TIMES = {
    Algorithm.RING_LOW_LATENCY: _ring_low_latency,
    Algorithm.RING: _ring,
    Algorithm.TREE: _tree,
    Algorithm.ONE_SHOT: _one_shot,
    Algorithm.IN_SWITCH: _in_switch,
    Algorithm.NCCL: _nccl,
    Algorithm.CUSTOM: _custom,
}
