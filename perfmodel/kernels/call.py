"""How a product is called: from a stream or a graph, with cold or warm caches, with K shared among blocks or not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.catalog.arguments import shown
from perfmodel.catalog.arrays import numbers
from perfmodel.catalog.records import LARGEST_SIZE
from perfmodel.catalog.specs import Activations, Cache, Launch
from perfmodel.kernels.machine import Array, Machine, Number

# The fixed part of a dense product is 5 us where serving stacks replay graphs, 11 us and more where the paper's
# benchmark launches in a stream. Other benchmarks in a stream lie between: 3 to 9 us in SpInfer's, 12 in MACKO's.
STREAM_LAUNCH_S = 6e-6
# Share of the L2's plateau that products reach whose weights it holds: 33 MB in 19 us on an RTX 4090. Never less than
# what device memory sustains, which is more on an H200, a B200 and a V100.
L2_READ_SHARE = 0.35
RESIDENT_L2_SIZES = 1.1  # working sets up to here are rather the L2's than the memory's
MOSTLY = 0.5
NEWTON_STEPS = 6


def cyclic_misses(working_set: Number) -> Array:
    """Share of reads that miss when a ``working_set``, in sizes of the cache, is read over and over.

    A line must outlive one round, in which every miss throws out a line at random: ``1 - miss = exp(-miss * set)``.
    Nothing misses up to the size of the cache, and 20 % still hit at twice its size.
    """
    x = np.asarray(working_set, dtype=np.float64)
    miss = np.clip(2 * (x - 1) / np.maximum(x, 1) ** 2, 0.0, 1.0)
    for _ in range(NEWTON_STEPS):
        left = np.exp(-miss * x)
        miss = np.where(x > 1, miss - (miss - 1 + left) / np.maximum(1 - x * left, 1e-9), 0.0)
    return miss


@dataclass(frozen=True)
class Call:
    """How a product is called; scalars or arrays that broadcast against the product's sizes.

    Attributes
    ----------
    graph : bool
        Replayed from a CUDA graph, which saves `STREAM_LAUNCH_S` of each launch in a stream.
    warm : bool
        The same product was called before, and finds in the L2 what still is there of it. Otherwise every byte comes
        from device memory, as for the weights of a model that were last read a whole forward pass ago.
    copies : float
        Copies of the weights that warm calls go through in turn, as some benchmarks do.
    split_k : float
        Ways to share K among blocks, NaN for the kernel's own choice. Kernels without split-K ignore it.
    quantised : bool
        The activations come as the kernel multiplies them, as where a fused norm has quantised them. Otherwise a kernel
        of less than 16 bits launches another before it. Kernels that multiply FP16 ignore it.
    """

    graph: NDArray[np.bool_] | bool = False
    warm: NDArray[np.bool_] | bool = False
    copies: Number = 1.0
    split_k: Number = np.nan
    quantised: NDArray[np.bool_] | bool = False

    @classmethod
    def of(
        cls,
        launch: ArrayLike = "stream",
        cache: ArrayLike = "cold",
        split_k: ArrayLike | None = None,
        activations: ArrayLike = "fp16",
    ) -> Call:
        """Check and convert.

        Raises
        ------
        ValueError
            If ``launch``, ``cache`` or ``activations`` is no choice there is, or ``split_k`` no whole number from 1 to
            2**40; names the quantity, the value and what is allowed.
        """
        asked = (("launch", launch, Launch), ("cache", cache, Cache), ("activations", activations, Activations))
        for name, value, kind in asked:
            given = [value] if isinstance(value, str) or not np.iterable(value) else [*np.asarray(value, object).flat]
            wrong = [one for one in given if not isinstance(one, str) or one not in list(kind)]
            if wrong or not given:
                raise ValueError(f"{name} is {shown(wrong[0] if wrong else value)}, allowed are {', '.join(kind)}")
        ways = numbers("split_k", np.nan if split_k is None else split_k)
        bad = ~(np.isnan(ways) | ((ways >= 1) & (ways <= LARGEST_SIZE) & (np.floor(ways) == ways)))
        if np.any(bad):
            raise ValueError(f"split_k is {np.atleast_1d(ways[bad])[0]:g}, allowed is a whole number from 1 to 2**40")
        quantised = np.asarray(activations) == Activations.QUANTISED
        return cls(np.asarray(launch) == Launch.GRAPH, np.asarray(cache) == Cache.WARM, 1.0, ways, quantised)

    def launch_s(self, launches: Number = 1.0) -> Array:
        """Seconds that launches cost in a stream beyond their cost in a graph."""
        return np.where(self.graph, 0.0, STREAM_LAUNCH_S * launches)

    def ways(self, own: Number, k_tiles: Number) -> Array:
        """Ways to share K among blocks: as asked for, at most the tiles along K, or else the kernel's ``own``."""
        return np.where(np.isnan(self.split_k), own, np.minimum(self.split_k, k_tiles))

    def miss_share(self, machine: Machine, weight_bytes: Number) -> Array:
        """Share of a product's bytes that comes from device memory: 1 unless warm, and then what the L2 cannot keep."""
        if not np.any(self.warm):
            return np.ones(())  # as for most calls, of which sweeps make millions
        return np.where(self.warm, cyclic_misses(self.copies * weight_bytes / machine.kept_bytes), 1.0)

    def resident(self, machine: Machine, weight_bytes: Number) -> NDArray[np.bool_]:
        """True where warm calls have all copies of their weights in an L2 of this size, or nearly.

        How many reads hit is the least sure there, so such products are fitted and scored apart.
        """
        return np.asarray(self.warm & (self.copies * weight_bytes <= RESIDENT_L2_SIZES * machine.l2_bytes))

    def mostly_hits(self, machine: Machine, weight_bytes: Number) -> NDArray[np.bool_]:
        """True where most of what a product reads comes from the L2 of a GPU."""
        return np.asarray((self.miss_share(machine, weight_bytes) < MOSTLY) & ~np.isnan(machine.kept_bytes))

    def dram_bytes(self, machine: Machine, weight_bytes: Number, other_bytes: Number) -> Array:
        """Bytes of weights and activations that come from device memory."""
        return np.asarray((weight_bytes + other_bytes) * self.miss_share(machine, weight_bytes))

    def memory_s(
        self, machine: Machine, weight_bytes: Number, other_bytes: Number, all_weight_bytes: Number | None = None
    ) -> Array:
        """Seconds to bring weights and activations in: what misses from device memory, the rest from the L2.

        Of a product of several kernels ``weight_bytes`` are those of one; ``all_weight_bytes`` compete for the L2.
        """
        moved = weight_bytes + other_bytes
        miss = self.miss_share(machine, weight_bytes if all_weight_bytes is None else all_weight_bytes)
        l2_rate = np.maximum(L2_READ_SHARE * machine.l2_bytes_per_s, machine.streamed_bytes_per_s)
        hit_s = moved / l2_rate
        return miss * moved / machine.streamed_bytes_per_s + (1 - miss) * hit_s


FIRST_CALL = Call()  # in a stream, with nothing in the caches
