"""What programs are built of: the product, what-ifs, counts of accesses, and the stages that kernels share.

What released sources leave to the compiler (instructions per access) are the named constants here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from perfmodel.pipeline.machine import LDMATRIX_CYCLES, MMA_CYCLES, WAVEFRONT_BYTES, Machine
from perfmodel.pipeline.program import Program, Resource, Stage, Tile, Wait, Work
from perfmodel.units import FP16_BYTES, FP32_BYTES

THREADS, WARPS = 128, 4
MMA_M, MMA_N, MMA_K = 16, 8, 16  # one Tensor-Core instruction, m16n8k16
VECTOR_BYTES = 16  # what one thread moves with one access
WORD_BYTES = 4  # a stored weight of Tiled-CSL: value and place
ACCESS_INSTRUCTIONS = 2  # an access and its address or predicate
# Each further wavefront of a store whose banks collide holds its warp as long as so many instructions. Chosen, as the
# only number here, by a time: medians of Flash-LLM without reordering on an A100-40GB (`spinfer-rerun-boxplot`).
CONFLICT_INSTRUCTIONS = 1.5
MASK_BYTES = 1 / 8  # a bitmap holds one bit per weight
SMALLEST_SCALE = 1e-6  # of bandwidth or shared memory; its inverse is the largest
DEEPEST_TILE = 4096  # more than any shared memory holds
KERNEL_CHANGES = ("reorder", "double_buffer", "register_decode", "tile_k")  # the others change the GPU


@dataclass(frozen=True)
class WhatIf:
    """Changes to a kernel or its GPU, to see what each is worth.

    Attributes
    ----------
    reorder : bool
        False: words in storage order, so that the scatter meets the bank conflicts of random places.
    double_buffer : bool
        False: one buffer, so that a tile is prepared only after the one before has been multiplied.
    register_decode : bool
        True: weights are decoded from bitmaps straight into Tensor-Core operands; no clearing, no scatter.
    bandwidth_scale, shared_scale : float
        Device-memory bandwidth, and shared memory per SM, times this; above 0.
    tile_k : int or None
        Depth of a tile, a multiple of 16.
    """

    reorder: bool = True
    double_buffer: bool = True
    register_decode: bool = False
    bandwidth_scale: float = 1.0
    shared_scale: float = 1.0
    tile_k: int | None = None

    def __post_init__(self) -> None:
        """Refuse scales and tiles that mean nothing."""
        for name in ("bandwidth_scale", "shared_scale"):
            if not SMALLEST_SCALE <= getattr(self, name) <= 1 / SMALLEST_SCALE:
                raise ValueError(f"{name} is {getattr(self, name):g}, allowed is 1e-6 to 1e6")
        if self.tile_k is not None and not (MMA_K <= self.tile_k <= DEEPEST_TILE and self.tile_k % MMA_K == 0):
            raise ValueError(f"tile_k is {self.tile_k}, allowed are multiples of {MMA_K} up to {DEEPEST_TILE}")

    def check_for(self, kernel: str, *possible: str) -> None:
        """Refuse changes of the kernel other than the ``possible`` ones, which would do nothing; names them."""
        unchanged = WhatIf()
        wrong = [name for name in KERNEL_CHANGES if getattr(self, name) != getattr(unchanged, name)]
        wrong = [name for name in wrong if name not in possible]
        if wrong:
            can = f"only {' and '.join(possible)} can" if possible else "nothing can"
            raise ValueError(f"{' and '.join(wrong)} cannot be changed in {kernel}; {can}")


@dataclass(frozen=True)
class Product:
    """The product ``C[m, n] = A[m, k] @ B[k, n]`` a program is built for."""

    m: int
    k: int
    n: int
    sparsity: float


def covered(product: Product, tile: Tile) -> float:
    """Share of the block tiles of A that lies inside the matrix; below 1 where sizes are no multiples of the tile."""
    rows, depth = math.ceil(product.m / tile.rows) * tile.rows, math.ceil(product.k / tile.depth) * tile.depth
    return product.m / rows * product.k / depth


Builder = Callable[[Machine, Product, WhatIf], Program]


def wavefronts(n_bytes: float) -> float:
    """Shared-memory wavefronts of ``n_bytes`` without bank conflicts."""
    return n_bytes / WAVEFRONT_BYTES


def held_instructions(conflicts: float) -> float:
    """Instructions that a warp could have issued while its store takes ``conflicts`` wavefronts instead of one."""
    return CONFLICT_INSTRUCTIONS * (conflicts - 1)


def fill_wavefronts(machine: Machine, n_bytes: float) -> float:
    """Wavefronts for which ``cp.async`` keeps shared memory busy, at its own rate of writing."""
    return n_bytes / machine.parameters.fill_bytes_per_cycle * machine.gpu.sm.shared_bytes_per_clock / WAVEFRONT_BYTES


def accesses(n_bytes: float) -> float:
    """Instructions of each warp to move ``n_bytes`` of the block, 16 bytes a thread at a time."""
    return ACCESS_INSTRUCTIONS * math.ceil(n_bytes / (VECTOR_BYTES * THREADS))


def from_memory(constant: float, per_nonzero: float = 0.0) -> dict[Resource, Work]:
    """Work of bytes that come from device memory, through L2 and the SM's port."""
    return dict.fromkeys((Resource.DRAM, Resource.L2, Resource.PORT), Work(constant, per_nonzero))


def weights_from_memory(
    product: Product, tile: Tile, constant: float, per_nonzero: float = 0.0
) -> dict[Resource, Work]:
    """Work of a block's weights: of blocks that differ in columns only, which start together, one reads them from DRAM.

    The others find them in L2.
    """
    sharing = math.ceil(product.n / tile.columns)
    return from_memory(constant, per_nonzero) | {Resource.DRAM: Work(constant / sharing, per_nonzero / sharing)}


def start_stage(machine: Machine) -> Stage:
    """A new block is set up before its first instruction."""
    cycles = machine.parameters.block_cycles
    return Stage("start", "barrier", {}, cycles=cycles, waits_for=Wait.LAUNCH, only="first")


def offsets_stage(machine: Machine) -> Stage:
    """Where the block's weights begin: a dependent read before anything else."""
    return Stage("offsets", "load", from_memory(32.0), Work(8.0), latency_cycles=machine.dram_cycles, only="first")


def copy_stage(machine: Machine, product: Product, tile: Tile, skip: int) -> Stage:
    """Asynchronous copy of the tile of B: from L2, and its share of the one read from device memory."""
    n_bytes = FP16_BYTES * tile.depth * tile.columns
    work = from_memory(n_bytes / math.ceil(product.m / tile.rows))
    work |= {Resource.L2: Work(n_bytes), Resource.SHARED: Work(fill_wavefronts(machine, n_bytes))}
    return Stage(
        "copy B", "load", work, Work(accesses(n_bytes)), latency_cycles=machine.l2_cycles, skip_last=skip
    )  # fmt: skip


def read_stage(j: int, tile: Tile, skip: int) -> Stage:
    """``ldmatrix`` of 16 columns of A and 16 rows of B: each of the 4 warps its rows of A, and all of B."""
    read = wavefronts(FP16_BYTES * MMA_K * (tile.rows + WARPS * tile.columns))
    count = tile.rows / MMA_M / WARPS + max(tile.columns // MMA_K, 1)
    return Stage(
        f"ldmatrix {j}", "read", {Resource.SHARED: Work(read)}, Work(ACCESS_INSTRUCTIONS * count),
        latency_cycles=LDMATRIX_CYCLES, skip_first=skip,
    )  # fmt: skip


def mma_stage(j: int, tile: Tile, columns: int, skip: int) -> Stage:
    """Tensor-Core instructions of 16 columns of A; they add to the sums of the step before."""
    before = ((f"mma {j - 1}", 0),) if j else ()
    return Stage(
        f"mma {j}", "multiply", {Resource.TENSOR: Work(float(tile.rows * MMA_K * columns))},
        Work(tile.rows / MMA_M / WARPS * max(columns // MMA_N, 1)), independent=True,
        after=((f"ldmatrix {j}", 0), *before), latency_cycles=MMA_CYCLES, waits_for=Wait.TENSOR, skip_first=skip,
    )  # fmt: skip


def multiply_stages(tile: Tile, columns: int, skip: int) -> list[Stage]:
    """One tile in steps of 16 along K; the operands of the next step are read while this one multiplies.

    ``columns`` is what the Tensor Cores multiply, which may be less than the tile stores.
    """
    reads = [read_stage(j, tile, skip) for j in range(tile.depth // MMA_K)]
    products = [mma_stage(j, tile, columns, skip) for j in range(tile.depth // MMA_K)]
    interleaved = [stage for pair in zip(reads[1:], products[:-1], strict=True) for stage in pair]
    return [reads[0], *interleaved, products[-1]]


def barrier(machine: Machine, name: str, *after: tuple[str, int]) -> Stage:
    """All warps of the block meet, when the asynchronous copies named have landed."""
    return Stage(
        name, "barrier", {}, Work(2.0), after=after, cycles=machine.parameters.barrier_cycles, waits_for=Wait.BARRIER
    )


def store_stage(machine: Machine, product: Product, tile: Tile, columns: int, element_bytes: int = FP16_BYTES) -> Stage:
    """Results through shared memory to L2 and device memory, once per block, when the last product is there."""
    n_bytes = element_bytes * tile.rows * columns * product.m / (math.ceil(product.m / tile.rows) * tile.rows)
    work = from_memory(n_bytes) | {Resource.SHARED: Work(2 * wavefronts(FP32_BYTES * tile.rows * columns))}
    instructions = Work(4 * tile.rows * columns / THREADS)
    last = f"mma {tile.depth // MMA_K - 1}"
    return Stage(
        "store C", "store", work, instructions, after=((last, 0),), latency_cycles=machine.l2_cycles, only="last"
    )


def in_order(prepare: list[Stage], multiply: list[Stage], finish: list[Stage], buffers: int) -> list[Stage]:
    """Stages of a step: with two buffers the product runs while the next tile is prepared, with one after it."""
    return [*prepare, *multiply, *finish] if buffers > 1 else [*prepare, *finish, *multiply]


def padded_tokens(n: int) -> int:
    """Smallest N the Flash-LLM and SpInfer kernels take that holds ``n`` tokens: 8, 16, 32, 64, multiples of 128."""
    return next((width for width in (8, 16, 32, 64) if n <= width), 128 * math.ceil(n / 128))
