"""How much work did a block do? Exact counts of instructions, memory sectors and shared-memory wavefronts.

Model of global memory: an instruction of a warp asks for the distinct 32-byte sectors that its active lanes touch.
``sectors`` sums these requests; ``unique_sectors`` counts every sector once a block, which is the DRAM traffic of a
block that finds nothing in a cache and asks for nothing twice.

Model of shared memory: 32 banks of 4 bytes. A wavefront serves any set of lanes in which no bank is asked for two
different words; lanes on the same word share it (broadcast; for stores, the bytes merge). A warp's access is cut
into groups of lanes first: 32 lanes for up to 4 bytes a lane, 16 for 8 bytes, 8 for 16 bytes (so also the 8 row
addresses of a ``ldmatrix`` phase and the writes of a 16-byte ``cp.async``). A group needs as many wavefronts as its
busiest bank has distinct words. Without conflicts that is one per group: ``ideal_wavefronts``. Atomics serialise
lanes on the same word. A bulk copy is one request; it writes 128 bytes a wavefront.

References
----------
NVIDIA, "CUDA C++ Programming Guide", section on shared memory of compute capability 5.x and later.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .scalar_types import Array

WARP_SIZE = 32
N_BANKS = 32
BANK_BYTES = 4
SECTOR_BYTES = 32


class Site(NamedTuple):
    """An instruction of the kernel: its position in program order and its text."""

    position: int
    text: str


@dataclass
class GlobalTraffic:
    """Requests of warps (or bulk copies), bytes of active lanes, and 32-byte sectors of those requests."""

    requests: int = 0
    bytes: int = 0
    sectors: int = 0

    def __add__(self, other: GlobalTraffic) -> GlobalTraffic:
        return GlobalTraffic(self.requests + other.requests, self.bytes + other.bytes, self.sectors + other.sectors)


@dataclass
class SharedTraffic:
    """Requests of warps, bytes of active lanes, wavefronts needed, and wavefronts without any bank conflict."""

    requests: int = 0
    bytes: int = 0
    wavefronts: int = 0
    ideal_wavefronts: int = 0

    @property
    def bank_conflicts(self) -> int:
        """Wavefronts beyond the ideal number."""
        return self.wavefronts - self.ideal_wavefronts

    def __add__(self, other: SharedTraffic) -> SharedTraffic:
        return SharedTraffic(
            self.requests + other.requests,
            self.bytes + other.bytes,
            self.wavefronts + other.wavefronts,
            self.ideal_wavefronts + other.ideal_wavefronts,
        )


@dataclass
class Counters:
    """Work of one block, or the sum over blocks.

    Attributes
    ----------
    blocks : int
        Number of blocks counted.
    instructions : Counter
        PTX instructions issued, summed over warps, by full name; those of a warp whose guard is false in every
        lane are included and counted again in ``predicated_off``.
    global_traffic : dict
        (site, array, kind) -> GlobalTraffic; array is the argument index, kind is load, store or atomic.
    unique_sectors : Counter
        (array, kind) -> distinct 32-byte sectors touched, summed over blocks.
    shared_traffic : dict
        (site, kind) -> SharedTraffic.
    mma : Counter
        Matrix instructions of warps by full name; ``mma_flops`` counts a multiply-add as 2, for a sparse
        instruction those of the dense product it stands for.
    barriers, cp_async_groups : int
        Block-wide barriers passed; non-empty ``cp.async`` groups committed, summed over warps.
    """

    blocks: int = 0
    instructions: Counter[str] = field(default_factory=Counter)
    predicated_off: Counter[str] = field(default_factory=Counter)
    global_traffic: dict[tuple[Site, int | str, str], GlobalTraffic] = field(default_factory=dict)
    unique_sectors: Counter[tuple[int | str, str]] = field(default_factory=Counter)
    shared_traffic: dict[tuple[Site, str], SharedTraffic] = field(default_factory=dict)
    mma: Counter[str] = field(default_factory=Counter)
    mma_flops: int = 0
    barriers: int = 0
    cp_async_groups: int = 0

    def __add__(self, other: Counters) -> Counters:
        return Counters(
            self.blocks + other.blocks,
            self.instructions + other.instructions,
            self.predicated_off + other.predicated_off,
            _merged(self.global_traffic, other.global_traffic, GlobalTraffic()),
            self.unique_sectors + other.unique_sectors,
            _merged(self.shared_traffic, other.shared_traffic, SharedTraffic()),
            self.mma + other.mma,
            self.mma_flops + other.mma_flops,
            self.barriers + other.barriers,
            self.cp_async_groups + other.cp_async_groups,
        )

    def by_array(self, kind: str) -> dict[int | str, GlobalTraffic]:
        """Global traffic of one kind (load, store or atomic) by argument index."""
        total: dict[int | str, GlobalTraffic] = {}
        for (_, array, k), traffic in self.global_traffic.items():
            if k == kind:
                total[array] = total.get(array, GlobalTraffic()) + traffic
        return total

    def by_instruction(self) -> list[dict[str, Any]]:
        """One row for every instruction that touches memory, in program order."""
        rows = [
            {"space": "global", **site._asdict(), "array": array, "kind": kind, **vars(traffic)}
            for (site, array, kind), traffic in self.global_traffic.items()
        ] + [
            {
                "space": "shared",
                **site._asdict(),
                "kind": kind,
                **vars(traffic),
                "bank_conflicts": traffic.bank_conflicts,
            }
            for (site, kind), traffic in self.shared_traffic.items()
        ]
        return sorted(rows, key=lambda row: (row["position"], row["space"], str(row.get("array"))))

    def shared(self, kind: str | None = None) -> SharedTraffic:
        """Shared-memory traffic of one kind (load, store, ldmatrix, cp.async, cp.async.bulk, atomic), or of all."""
        return sum((t for (_, k), t in self.shared_traffic.items() if kind in (None, k)), SharedTraffic())

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists, strings and integers, ready for JSON."""
        return {
            "blocks": self.blocks,
            "instructions": dict(self.instructions),
            "predicated_off": dict(self.predicated_off),
            "memory": self.by_instruction(),
            "unique_sectors": [
                {"array": array, "kind": kind, "sectors": n} for (array, kind), n in self.unique_sectors.items()
            ],
            "mma": dict(self.mma),
            "mma_flops": self.mma_flops,
            "barriers": self.barriers,
            "cp_async_groups": self.cp_async_groups,
        }


def _merged(left: dict[Any, Any], right: dict[Any, Any], zero: Any) -> dict[Any, Any]:
    return {key: left.get(key, zero) + right.get(key, zero) for key in {**left, **right}}


def sum_counters(parts: Iterable[Counters]) -> Counters:
    """Sum of many counters."""
    return sum(parts, Counters())


def warps_of(threads: Array) -> int:
    """Number of warps that ``threads`` (increasing linear indices) belong to."""
    warps = threads >> 5
    return 1 + int(np.count_nonzero(warps[1:] != warps[:-1])) if warps.size else 0


def count_sectors(offsets: Array, threads: Array) -> int:
    """32-byte sectors requested, summed over warps; each access lies in one sector, being aligned and not wider.

    Parameters
    ----------
    offsets, threads : array, shape (active,)
        Byte offset in one array, and linear thread index, of each active lane.
    """
    keys = ((threads // WARP_SIZE) << np.int64(40)) | (offsets // SECTOR_BYTES)
    return int(np.count_nonzero(np.diff(np.sort(keys)))) + 1


def count_wavefronts(offsets: Array, width: int, threads: Array, *, merge: bool = True) -> tuple[int, int]:
    """Wavefronts that an access needs, and what it would need without bank conflicts (model: see the module).

    Parameters
    ----------
    offsets, threads : array, shape (active,)
        Byte offset in shared memory, and linear thread index, of each active lane.
    width : int
        Bytes a lane: 1, 2, 4, 8 or 16.
    merge : bool
        Whether lanes on the same word share a wavefront; atomics do not.
    """
    lanes_per_group = min(WARP_SIZE, 4 * N_BANKS // max(width, BANK_BYTES))
    words_per_lane = max(1, width // BANK_BYTES)
    groups = threads // lanes_per_group
    words = (offsets // BANK_BYTES)[:, None] + np.arange(words_per_lane)
    keys = (groups[:, None] << np.int64(32) | words).reshape(-1)
    keys = np.sort(keys)
    if merge:
        keys = keys[np.concatenate(([True], keys[1:] != keys[:-1]))]
    group = keys >> np.int64(32)
    load = np.bincount((group - group[0]) * N_BANKS + (keys & (N_BANKS - 1)))
    load = np.concatenate([load, np.zeros(-load.size % N_BANKS, load.dtype)]).reshape(-1, N_BANKS)
    busiest = load.max(axis=1)
    return int(busiest.sum()), int(np.count_nonzero(busiest))
