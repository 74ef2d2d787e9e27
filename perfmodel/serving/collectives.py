"""How long do GPUs of one machine take to sum, gather or exchange their partial results?

Tensor parallelism sums one activation tensor over ``p`` GPUs twice a layer. Each algorithm costs a start, a number of
hops and the bytes that cross a GPU's link in one direction:

=================  =====================  ===================  =====================================
algorithm          hops                   bytes per GPU        used by
=================  =====================  ===================  =====================================
ring, low latency  ``2 (p - 1)``          ``2 (p - 1) / p S``  NCCL, small messages
ring               ``2 (p - 1)``          ``2 (p - 1) / p S``  NCCL, large messages
tree               ``2 ceil(log2 p)``     ``2 S``              NCCL across machines; here for comparison
one-shot           1, to ``p - 1`` peers  ``(p - 1) S``        kernels of engines, small messages
two-shot           2, to ``p - 1`` peers  ``2 (p - 1) / p S``  kernels of engines, middling messages
in switch          2                      ``(1 + 1 / p) S``    NCCL, large messages, from Hopper on
=================  =====================  ===================  =====================================

One-shot: everyone reads all of its peers' data and sums. Two-shot: everyone sums its ``p``-th part, then reads the
other parts from those who summed them. Which of them an engine has, and up to which message, is `OwnKernels`.

In the switch: it reads every GPU's ``S`` bytes and sums them on the way to whom each block belongs, then copies the
owner's ``S / p`` to all. On eight GPUs that is two thirds of a ring's traffic, on two GPUs half as much again.

Half of a ring is an all-gather. In an all-to-all everyone sends a part to every other at once, by NCCL's two protocols.

Start and hop are waits of threads that poll memory, so they are stated in SM clock cycles: cycles fitted on an A100
give the small messages of an H100, whose clock is 40 % faster, within a fifth. In a rack of GB200, all libraries wait
1.3 to 1.5 times as long as that. Bandwidth carries to both, as a fitted share of the datasheet's link in one direction
(half of the printed figure).

Without NVLink, two GPUs have a link each. More of them send every byte through the host's bridge, which carries in all
what one link carries: a GPU's share is the ``p``-th part. At 67 % of PCIe 4.0 x16 that is 21, 5.4 and 2.7 GB/s for 2, 4
and 8 GPUs; NCCL on L40S was seen to reach 20, 5.1 and 2.1. There engines leave all sums to NCCL.
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
PASSES = 2  # of an all-reduce around its ring: one sums, one hands round the sums
PAIR = 2  # GPUs that a link each serves without NVLink
FIRST_SUMMING_SWITCH = 9.0  # compute capability of the GPUs that the third generation of NVSwitch came with
SWITCHED_BYTES_PER_S = 900e9  # of Hopper boards with a switch; a bridge of the PCIe boards has 600


class Algorithm(StrEnum):
    """Ways to all-reduce; ``NCCL`` and ``CUSTOM`` choose among those that NCCL or an engine has."""

    RING_LOW_LATENCY = "ring-low-latency"
    RING = "ring"
    TREE = "tree"
    ONE_SHOT = "one-shot"
    TWO_SHOT = "two-shot"
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
    two_shot_cycles: float = free(1e4, 1e3, 1e5, "SM cycles to launch and synchronise a two-shot all-reduce")
    barrier_cycles: float = free(1e3, 0.0, 2e4, "SM cycles of the barriers around kernels whose data carry no flags")


@dataclass(frozen=True)
class OwnKernels:
    """What an engine sums with where that beats NCCL.

    Attributes
    ----------
    barriers : bool
        Whether GPUs meet before and after they read; else every piece of data carries a flag that says it has come.
    two_shot : bool
        Whether it has two-shot kernels.
    most_bytes : float
        Largest message; NCCL sums larger ones.
    """

    barriers: bool
    two_shot: bool
    most_bytes: float


OWN_KERNELS = {
    "vllm": OwnKernels(barriers=True, two_shot=True, most_bytes=2**23 - 1),
    "sglang": OwnKernels(barriers=False, two_shot=True, most_bytes=2**24),  # from 0.5.14 on; before, vLLM's
    "tensorrt-llm": OwnKernels(barriers=False, two_shot=False, most_bytes=np.inf),
}


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
    *,
    kernels: OwnKernels = OWN_KERNELS["vllm"],
) -> Array:
    """Seconds to sum ``message_bytes`` held by each of ``gpus`` GPUs, back to back, result everywhere.

    Parameters
    ----------
    gpus
        Number of GPUs in one machine; 1 costs nothing.
    message_bytes
        Bytes each GPU contributes.
    kernels
        Those of the engine; ``CUSTOM`` alone asks for them.

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
    p, size = _checked(gpus, message_bytes)
    c = calibrated_collectives() if parameters is None else parameters
    custom = algorithm is Algorithm.CUSTOM
    seconds = _custom(gpu, p, size, c, kernels) if custom else _TIMES[algorithm](gpu, p, size, c)
    return np.where(p > 1, seconds, 0.0)


def all_gather_time(
    gpu: Gpu, gpus: ArrayLike, message_bytes: ArrayLike, parameters: CollectiveParameters | None = None
) -> Array:
    """Seconds until all ``gpus`` GPUs hold ``message_bytes``, of which each brought its part; also a reduce-scatter's.

    Half of a ring: NCCL's two protocols. Nothing of it was fitted.
    """
    p, size = _checked(gpus, message_bytes)
    c = calibrated_collectives() if parameters is None else parameters
    return np.where(p > 1, _rings(gpu, p, size, c, passes=1), 0.0)


def all_to_all_time(
    gpu: Gpu, gpus: ArrayLike, message_bytes: ArrayLike, parameters: CollectiveParameters | None = None
) -> Array:
    """Seconds in which each of ``gpus`` GPUs sends ``message_bytes``, an equal part to everyone, itself included.

    Expert parallelism sends tokens so, to their experts and back. All parts go at once, one hop, ``(p - 1) / p`` of the
    bytes through the link, by the better of NCCL's two protocols. Nothing of it was fitted.
    """
    p, size = _checked(gpus, message_bytes)
    c = calibrated_collectives() if parameters is None else parameters
    return np.where(p > 1, _one_hop(gpu, p, (p - 1) / p * size, c), 0.0)


def point_to_point_time(gpu: Gpu, message_bytes: ArrayLike, parameters: CollectiveParameters | None = None) -> Array:
    """Seconds to send ``message_bytes`` to a neighbour: a pipeline stage hands over its activations."""
    c = calibrated_collectives() if parameters is None else parameters
    return _one_hop(gpu, np.full((), 2.0), np.asarray(message_bytes, dtype=np.float64), c)


def _checked(gpus: ArrayLike, message_bytes: ArrayLike) -> tuple[Array, Array]:
    p, size = np.asarray(gpus, dtype=np.float64), np.asarray(message_bytes, dtype=np.float64)
    if np.any(~(p >= 1)):
        raise ValueError(f"gpus must be at least 1, got {float(np.min(p)):g}")
    if np.any(~(size >= 0)):
        raise ValueError(f"message_bytes must be at least 0, got {float(np.min(size)):g}")
    return p, size


def _seconds(gpu: Gpu, p: Array, cycles: Array | float, crossing: Array, efficiency: float) -> Array:
    wait_s = np.asarray(cycles) / gpu.clock.hz
    return np.asarray(wait_s + crossing / (efficiency * link_bytes_per_s(gpu, p)))


def _one_hop(gpu: Gpu, p: Array, crossing: Array, c: CollectiveParameters) -> Array:
    small = _seconds(gpu, p, c.start_cycles + c.hop_cycles, crossing, c.low_latency_efficiency)
    large = _seconds(gpu, p, c.bulk_start_cycles + c.hop_cycles, crossing, c.link_efficiency)
    return np.minimum(small, large)


def _ring_low_latency(gpu: Gpu, p: Array, size: Array, c: CollectiveParameters, passes: int = PASSES) -> Array:
    hops, crossing = passes * (p - 1), passes * (p - 1) / p * size
    return _seconds(gpu, p, c.start_cycles + hops * c.hop_cycles, crossing, c.low_latency_efficiency)


def _ring(gpu: Gpu, p: Array, size: Array, c: CollectiveParameters, passes: int = PASSES) -> Array:
    hops, crossing = passes * (p - 1), passes * (p - 1) / p * size
    return _seconds(gpu, p, c.bulk_start_cycles + hops * c.hop_cycles, crossing, c.link_efficiency)


def _tree(gpu: Gpu, p: Array, size: Array, c: CollectiveParameters) -> Array:
    hops = 2 * np.ceil(np.log2(p))
    return _seconds(gpu, p, c.bulk_start_cycles + hops * c.hop_cycles, 2 * size, c.link_efficiency)


def _one_shot(gpu: Gpu, p: Array, size: Array, c: CollectiveParameters) -> Array:
    cycles = c.one_shot_cycles + (p - 1) * c.one_shot_peer_cycles
    return _seconds(gpu, p, cycles, (p - 1) * size, c.one_shot_efficiency)


def _two_shot(gpu: Gpu, p: Array, size: Array, c: CollectiveParameters) -> Array:
    cycles = c.two_shot_cycles + (p - 1) * c.one_shot_peer_cycles
    return _seconds(gpu, p, cycles, 2 * (p - 1) / p * size, c.link_efficiency)


def _in_switch(gpu: Gpu, p: Array, size: Array, c: CollectiveParameters) -> Array:
    crossing = (1 + 1 / p) * size
    return _seconds(gpu, p, c.bulk_start_cycles + 2 * c.hop_cycles, crossing, c.link_efficiency)


def _nccl(gpu: Gpu, p: Array, size: Array, c: CollectiveParameters) -> Array:
    rings = _rings(gpu, p, size, c)
    if not switch_reduces(gpu):
        return rings
    return np.where(_low_latency(gpu, p, size), rings, np.minimum(rings, _in_switch(gpu, p, size, c)))


def _rings(gpu: Gpu, p: Array, size: Array, c: CollectiveParameters, passes: int = PASSES) -> Array:
    small, large = _ring_low_latency(gpu, p, size, c, passes), _ring(gpu, p, size, c, passes)
    return np.where(_low_latency(gpu, p, size), small, large)


def _low_latency(gpu: Gpu, p: Array, size: Array) -> NDArray[np.bool_]:
    return np.asarray(size / p <= LOW_LATENCY_CHUNK_S * link_bytes_per_s(gpu, p))


def _custom(gpu: Gpu, p: Array, size: Array, c: CollectiveParameters, kernels: OwnKernels) -> Array:
    nccl, own = _nccl(gpu, p, size, c), _one_shot(gpu, p, size, c)
    if kernels.two_shot:
        own = np.minimum(own, _two_shot(gpu, p, size, c))
    if kernels.barriers:
        own = own + c.barrier_cycles / gpu.clock.hz
    used = (size <= kernels.most_bytes) & ((p <= PAIR) | (gpu.link.nvlink_bytes_per_s is not None))
    return np.where(used, np.minimum(own, nccl), nccl)


_TIMES = {
    Algorithm.RING_LOW_LATENCY: _ring_low_latency,
    Algorithm.RING: _ring,
    Algorithm.TREE: _tree,
    Algorithm.ONE_SHOT: _one_shot,
    Algorithm.TWO_SHOT: _two_shot,
    Algorithm.IN_SWITCH: _in_switch,
    Algorithm.NCCL: _nccl,
}
