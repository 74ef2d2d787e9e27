"""SpInfer's kernel as a program: bitmaps decoded by population counts straight into Tensor-Core operands.

Its released source was compiled (nvcc 13.0, sm_80) and its machine instructions counted; tile sizes, buffers and the
order of its main loop are those of the source. Population counts run on the slowest of an SM's units, at the same cost
for every sparsity, which is what bounds it on cards with HBM.
"""

from __future__ import annotations

from dataclasses import replace

from perfmodel.pipeline.machine import LDMATRIX_CYCLES, Machine
from perfmodel.pipeline.program import Program, Resource, Stage, Tile, Work
from perfmodel.pipeline.stages import (
    ACCESS_INSTRUCTIONS,
    MASK_BYTES,
    MMA_K,
    THREADS,
    VECTOR_BYTES,
    WARPS,
    Product,
    WhatIf,
    barrier,
    copy_stage,
    covered,
    fill_wavefronts,
    in_order,
    mma_stage,
    offsets_stage,
    padded_tokens,
    start_stage,
    store_stage,
    wavefronts,
    weights_from_memory,
)
from perfmodel.units import FP16_BYTES, FP32_BYTES

BITMAP_POSITIONS = 64  # weights of an 8 x 8 bitmap, one operand register of every lane
# Machine instructions of a warp for one tile of 64 x 64 at 16 tokens, of which it owns 16 bitmaps.
TILE_BITMAPS, TILE_INSTRUCTIONS = 16, 465
TILE_PIPES = {Resource.ALU: 205, Resource.FMA: 117, Resource.XU: 62}
OTHER_INSTRUCTIONS = 24  # of these: products, operands of B, copies and barriers, which have stages of their own
DECODE_INSTRUCTIONS = (TILE_INSTRUCTIONS - OTHER_INSTRUCTIONS) / TILE_BITMAPS  # per bitmap
COUNT_SHARE = 0.6  # of these up to the place of a value, assumed; the rest reads, selects and packs it
# Shares of the pipes in both halves: all population counts come before the reads.
GATHER_PIPES = {pipe: TILE_PIPES[pipe] / TILE_BITMAPS / DECODE_INSTRUCTIONS for pipe in (Resource.ALU, Resource.FMA)}
COUNT_PIPES = GATHER_PIPES | {Resource.XU: TILE_PIPES[Resource.XU] / TILE_BITMAPS / DECODE_INSTRUCTIONS / COUNT_SHARE}
COUNT_CYCLES, GATHER_CYCLES = 24.0, LDMATRIX_CYCLES  # latency of a population count and its sum, of a read
REGISTERS, REGISTERS_ABOVE_16 = 92, 100  # of a thread
STORED_SHARE = 0.5625  # room for 2,304 of a tile's 4,096 values


def bitmap(machine: Machine, product: Product, what_if: WhatIf) -> Program:
    """SpInfer as released: the tile of A has one buffer, that of B two; registers hold the decoded tile.

    A step loads the next tile while it multiplies the decoded one, waits for it, decodes it, and waits for B. Nothing
    of A is on its way while a block decodes.
    """
    what_if.check_for("bitmap")
    n = padded_tokens(product.n)
    tile = Tile(64, min(max(n, 16), 64), 64)
    columns, groups = min(n, tile.columns), range(tile.depth // MMA_K)
    stages = (
        _load(machine, product, tile, 1),
        copy_stage(machine, product, tile, 1),
        *(stage for j in groups for stage in _multiply(j, tile, columns, skip=1, decoded_ago=1)),
        barrier(machine, "A there", ("load A", 0)),
        *(stage for j in groups for stage in _decode(j, tile, skip_last=1)),
        barrier(machine, "tile complete", ("copy B", 0)),
    )
    shared = _stored_bytes(tile) + 2 * _activation_bytes(tile)
    return _program("bitmap", machine, product, tile, stages, buffers=2, shared_bytes=shared)


def decoding_in_line(name: str, machine: Machine, product: Product, tile: Tile, buffers: int) -> Program:
    """A kernel that decodes just before it multiplies, while the next tile comes into another buffer."""
    columns, skip = min(padded_tokens(product.n), tile.columns), buffers - 1
    multiply = [
        stage
        for j in range(tile.depth // MMA_K)
        for stage in (*_decode(j, tile, skip_first=skip), *_multiply(j, tile, columns, skip=skip, decoded_ago=0))
    ]
    stages = in_order(
        [_load(machine, product, tile, skip), copy_stage(machine, product, tile, skip)],
        multiply,
        [barrier(machine, "tile complete", ("load A", 0), ("copy B", 0))],
        buffers,
    )
    shared = buffers * (_stored_bytes(tile) + _activation_bytes(tile))
    return _program(name, machine, product, tile, tuple(stages), buffers=buffers, shared_bytes=shared)


def _program(
    name: str, machine: Machine, product: Product, tile: Tile, stages: tuple[Stage, ...], *, buffers: int,
    shared_bytes: float,
) -> Program:  # fmt: skip
    """What both kernels have besides their main loop."""
    n = padded_tokens(product.n)
    return Program(
        name=name, tile=tile, buffers=buffers, threads=THREADS, pad_nonzeros=8,
        shared_bytes=int(max(shared_bytes, FP32_BYTES * (tile.rows + 4) * tile.columns)),
        registers_per_thread=REGISTERS if n <= MMA_K else REGISTERS_ABOVE_16,
        stages=(
            start_stage(machine), offsets_stage(machine), *stages,
            store_stage(machine, product, tile, min(n, tile.columns)),
        ),
        source="HPMLL/SpInfer_EuroSys25, commit 2410ef7, and Fan et al., SpInfer, EuroSys 2025",
    )  # fmt: skip


def _stored_bytes(tile: Tile) -> float:
    """Shared memory for the values and bitmaps of a tile."""
    return (STORED_SHARE * FP16_BYTES + MASK_BYTES) * tile.rows * tile.depth


def _activation_bytes(tile: Tile) -> float:
    return FP16_BYTES * tile.columns * tile.depth


def _load(machine: Machine, product: Product, tile: Tile, skip_last: int) -> Stage:
    """Asynchronous copy of a tile's values and bitmaps."""
    masks = MASK_BYTES * tile.rows * tile.depth * covered(product, tile)
    fill, vectors = fill_wavefronts(machine, 1.0), ACCESS_INSTRUCTIONS / (VECTOR_BYTES * THREADS)
    work = weights_from_memory(product, tile, masks, FP16_BYTES)
    return Stage(
        "load A", "load", work | {Resource.SHARED: Work(masks * fill, FP16_BYTES * fill)},
        Work(masks * vectors, FP16_BYTES * vectors), after=(("offsets", 0),),
        latency_cycles=machine.dram_cycles, skip_last=skip_last,
    )  # fmt: skip


def _decode(j: int, tile: Tile, *, skip_first: int = 0, skip_last: int = 0) -> list[Stage]:
    """16 columns of A: where each value lies, by population counts that follow each other, and two reads a bitmap."""
    bitmaps = tile.rows * MMA_K / BITMAP_POSITIONS
    each = DECODE_INSTRUCTIONS * bitmaps / WARPS
    before = ((f"count {j - 1}", 0),) if j else ()
    return [
        Stage(
            f"count {j}", "read", {Resource.SHARED: Work(bitmaps)}, Work(COUNT_SHARE * each),
            pipes=COUNT_PIPES, independent=True, after=before, latency_cycles=COUNT_CYCLES,
            skip_first=skip_first, skip_last=skip_last,
        ),
        Stage(
            f"gather {j}", "read", {Resource.SHARED: Work(2 * bitmaps)}, Work((1 - COUNT_SHARE) * each),
            pipes=GATHER_PIPES, independent=True, after=((f"count {j}", 0),), latency_cycles=GATHER_CYCLES,
            skip_first=skip_first, skip_last=skip_last,
        ),
    ]  # fmt: skip


def _multiply(j: int, tile: Tile, columns: int, *, skip: int, decoded_ago: int) -> list[Stage]:
    """Operands of 16 rows of B, and the products with 16 columns of A that were decoded so many steps ago."""
    read = Stage(
        f"ldmatrix {j}", "read", {Resource.SHARED: Work(wavefronts(FP16_BYTES * MMA_K * WARPS * tile.columns))},
        Work(ACCESS_INSTRUCTIONS * max(tile.columns // MMA_K, 1)), latency_cycles=LDMATRIX_CYCLES, skip_first=skip,
    )  # fmt: skip
    product = mma_stage(j, tile, columns, skip)
    return [read, replace(product, after=(*product.after, (f"gather {j}", decoded_ago)))]
