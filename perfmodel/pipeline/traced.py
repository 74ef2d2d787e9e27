"""Our own compiled kernels as programs: counts from the traces in ``data/traces``, nothing assumed but the order.

A trace holds what the compiler made of a kernel (registers, shared memory, instructions of the main loop) and what the
emulator counted while it ran (shared-memory wavefronts with their bank conflicts, instructions per tile and per word).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from perfmodel import catalog
from perfmodel.kernels.conflicts import expected_wavefronts
from perfmodel.kernels.launcher import launcher_split_k
from perfmodel.kernels.pipes import loop_pipes
from perfmodel.kernels.register_decode import RegisterDecode
from perfmodel.kernels.register_decode import counts as counts_of
from perfmodel.kernels.registry import KERNELS
from perfmodel.pipeline.machine import LDMATRIX_CYCLES, MMA_CYCLES, Machine
from perfmodel.pipeline.program import Program, Resource, Stage, Tile, Wait, Work
from perfmodel.pipeline.stages import (
    ACCESS_INSTRUCTIONS,
    MMA_K,
    THREADS,
    WARPS,
    WORD_BYTES,
    Product,
    WhatIf,
    barrier,
    copy_stage,
    covered,
    held_instructions,
    offsets_stage,
    start_stage,
    store_stage,
    weights_from_memory,
)
from perfmodel.units import FP16_BYTES, FP32_BYTES, WARP_SIZE

TILE_N_CHOICES = (8, 16, 32, 64)
RING_STAGES = 3  # buffers of the kernels that decode in registers
TILE_POSITIONS = 128 * 64  # of our kernels' tiles
TWO_OF_FOUR = 0.5  # of the multiplications are left out by the Sparse Tensor Cores
SUM_BYTES = 2 * FP32_BYTES  # a block writes sums, its own or another's, and reads another's
# Vectors of 4 words that each thread holds: the launcher takes the fewer where a tile's words fit on average.
HELD_VECTORS, WORDS_PER_VECTOR = (4, 8), 4 * THREADS


def load_trace(kernel: str, n: int, suffix: str = "") -> dict[str, Any]:
    """Trace of the variant with the narrowest tile that holds ``n`` columns, else the widest."""
    width = next((width for width in TILE_N_CHOICES if n <= width), TILE_N_CHOICES[-1])
    return catalog.load_trace(f"{kernel}_n{width}{suffix}")


def _compiled(trace: dict[str, Any], machine: Machine) -> dict[str, Any]:
    architecture = "sm_" + machine.gpu.compute_capability.replace(".", "")
    known = trace["architectures"]
    if architecture not in known:
        raise ValueError(f"{trace['variant']} was not compiled for {architecture}, allowed are {', '.join(known)}")
    found: dict[str, Any] = known[architecture]
    return found


def _shares(built: dict[str, Any], *regions: str) -> dict[Resource, float]:
    """Shares of the pipes in the instructions of some regions of the main loop, by default of all."""
    pipes = loop_pipes(built, *regions)
    return {Resource[name.upper()]: count / max(pipes["issue"], 1) for name, count in pipes.items()}


def _launcher_rule(tile: Tile) -> Callable[[int, int, int], int]:
    """The rule by which our launcher shares K, in the terms of `Program.split_rule`."""
    return lambda blocks, places, k_tiles: int(launcher_split_k(blocks, k_tiles, tile.columns, places))


def _multiply(
    tile: Tile, macs: float, wavefronts: float, instructions: float, mma: int, skip: int, *,
    pipes: dict[Resource, float], decodes: bool,
) -> list[Stage]:  # fmt: skip
    """Operands and products of a tile, step by step; these kernels read the operands of a step just before it.

    ``macs`` and ``wavefronts`` of the block and ``instructions`` of a warp are those of a tile, ``pipes`` what its
    operands run on; ``mma`` a warp's Tensor-Core instructions. Where operands are decoded, their many instructions do
    not wait for each other.
    """
    steps = tile.depth // MMA_K
    stages = []
    for j in range(steps):
        before = ((f"mma {j - 1}", 0),) if j else ()
        stages += [
            Stage(
                f"operands {j}", "read", {Resource.SHARED: Work(wavefronts / steps)}, Work(instructions / steps),
                pipes=pipes, independent=decodes, latency_cycles=LDMATRIX_CYCLES, skip_first=skip,
                parts=4 if decodes else 1,
            ),
            Stage(
                f"mma {j}", "multiply", {Resource.TENSOR: Work(macs / steps)}, Work(mma / steps),
                independent=True, after=((f"operands {j}", 0), *before), latency_cycles=MMA_CYCLES,
                waits_for=Wait.TENSOR, skip_first=skip,
            ),
        ]  # fmt: skip
    return stages


def _read_dense(trace: dict[str, Any], tile: Tile, each: float, built: dict[str, Any], skip: int) -> list[Stage]:
    """``ldmatrix`` and ``mma`` of a dense tile in shared memory."""
    counts, loop = trace["per_block"], built["main_loop_instructions"]
    wavefronts = counts["shared_wavefronts.read_a"]["tile"] + counts["shared_wavefronts.read_x"]["tile"]
    instructions = each * loop["load_matrix"]
    pipes = _shares(built, "load_matrix")
    macs = counts["mma_flops"]["tile"] / 2
    return _multiply(tile, macs, wavefronts, instructions, loop["tensor_core"], skip, pipes=pipes, decodes=False)


def _per_access(trace: dict[str, Any], loop: dict[str, int]) -> float:
    """Instructions per memory access: the tile's instructions beside the Tensor Cores', shared among its accesses."""
    kinds = ("load_matrix", "async_copy", "global_load", "shared_store", "scatter")
    counted = trace["per_block"]["instructions"]["tile"] / WARPS - loop["tensor_core"]
    return float(counted / sum(loop.get(kind, 0) for kind in kinds))


def numba_tiled_csl(machine: Machine, product: Product, what_if: WhatIf) -> Program:
    """Our Tiled-CSL kernel: words of the next tile are loaded as soon as the scatter has freed the registers."""
    words = TILE_POSITIONS * (1 - product.sparsity)
    vectors = next((v for v in HELD_VECTORS if words <= v * WORDS_PER_VECTOR), HELD_VECTORS[-1])
    trace = load_trace("tiled_csl", product.n, f"_v{vectors}")
    what_if.check_for("numba-tiled-csl", "reorder")
    built, counts = _compiled(trace, machine), trace["per_block"]
    loop, tile = built["main_loop_instructions"], Tile(trace["tile"]["m"], trace["tile"]["n"], trace["tile"]["k"])
    each = _per_access(trace, loop)
    stores = counts["shared_wavefronts.scatter"]
    per_word = stores["word"] if what_if.reorder else expected_wavefronts(WARP_SIZE) / WARP_SIZE
    word_instructions = counts["instructions"]["word"] / WARPS + held_instructions(per_word * WARP_SIZE) / THREADS
    last = f"mma {tile.depth // MMA_K - 1}"
    stages = (
        start_stage(machine),
        offsets_stage(machine),
        Stage(
            "load words", "load", weights_from_memory(product, tile, 0.0, WORD_BYTES), Work(each * loop["global_load"]),
            pipes=_shares(built, "global_load"), after=(("offsets", 0),), latency_cycles=machine.dram_cycles,
            skip_last=1,
        ),
        Stage(
            "clear A", "clear", {Resource.SHARED: Work(counts["shared_wavefronts.clear"]["tile"])},
            Work(each * loop["shared_store"]), pipes=_shares(built, "shared_store"), skip_last=1, parts=4,
        ),
        replace(copy_stage(machine, product, tile, 1), pipes=_shares(built, "async_copy")),
        *_read_dense(trace, tile, each, built, 1),
        barrier(machine, "A clear"),
        Stage(
            "scatter", "scatter", {Resource.SHARED: Work(stores["tile"], per_word)},
            Work(each * loop["scatter"], word_instructions), pipes=_shares(built, "scatter"),
            after=(("load words", 0),), skip_last=1, parts=4,
        ),
        barrier(machine, "tile complete", ("copy B", 0), (last, 0)),
        store_stage(machine, product, tile, min(product.n, tile.columns), FP32_BYTES),
    )  # fmt: skip
    return Program(
        name="numba-tiled-csl", tile=tile, buffers=2, shared_bytes=trace["shared_bytes"],
        registers_per_thread=built["registers"], threads=trace["threads"], stages=stages, pad_nonzeros=4,
        partial_bytes=FP32_BYTES, split_rule=_launcher_rule(tile), source=f"data/traces/{trace['variant']}.json",
    )  # fmt: skip


def numba_dense(machine: Machine, product: Product, what_if: WhatIf) -> Program:
    """Our dense kernel: a ring of tiles that cp.async fills ahead of the Tensor Cores."""
    trace = load_trace("dense", product.n)
    what_if.check_for("numba-dense")
    built, counts = _compiled(trace, machine), trace["per_block"]
    loop, tile = built["main_loop_instructions"], Tile(trace["tile"]["m"], trace["tile"]["n"], trace["tile"]["k"])
    a_bytes = FP16_BYTES * tile.rows * tile.depth
    buffers = trace["shared_bytes"] // (a_bytes + FP16_BYTES * tile.columns * tile.depth)
    lag, each = buffers - 1, _per_access(trace, loop)
    n_copies = math.ceil(a_bytes / 16 / trace["threads"])
    load = weights_from_memory(product, tile, covered(product, tile) * a_bytes)
    load[Resource.SHARED] = Work(counts["shared_wavefronts.copy_weights"]["tile"])
    stages = (
        start_stage(machine),
        Stage(
            "load A",
            "load",
            load,
            Work(each * n_copies),
            pipes=_shares(built, "async_copy"),
            latency_cycles=machine.dram_cycles,
            skip_last=lag,
        ),
        replace(copy_stage(machine, product, tile, lag), pipes=_shares(built, "async_copy")),
        barrier(machine, "tile complete", ("load A", lag), ("copy B", lag)),
        *_read_dense(trace, tile, each, built, lag),
        store_stage(machine, product, tile, min(product.n, tile.columns), FP32_BYTES),
    )
    return Program(
        name="numba-dense", tile=tile, buffers=buffers, shared_bytes=trace["shared_bytes"],
        registers_per_thread=built["registers"], threads=trace["threads"], stages=stages,
        partial_bytes=FP32_BYTES, split_rule=_launcher_rule(tile), source=f"data/traces/{trace['variant']}.json",
    )  # fmt: skip


def numba_bitmap(machine: Machine, product: Product, what_if: WhatIf) -> Program:
    """Our bitmap kernel: a ring of records that cp.async fills, decoded by each warp in registers."""
    return register_decoding("numba-bitmap", machine, product, what_if)


def numba_bitmap_pairs(machine: Machine, product: Product, what_if: WhatIf) -> Program:
    """Our bitmap kernel with a bit per pair of columns: half the decoding, more bytes."""
    return register_decoding("numba-bitmap-pairs", machine, product, what_if)


def numba_condensed(machine: Machine, product: Product, what_if: WhatIf) -> Program:
    """Our condensed kernel: two of every four columns, on the Sparse Tensor Cores, with a bit per slot."""
    return register_decoding("numba-condensed", machine, product, what_if)


def numba_condensed_pairs(machine: Machine, product: Product, what_if: WhatIf) -> Program:
    """Our condensed kernel with a bit per register of two slots."""
    return register_decoding("numba-condensed-pairs", machine, product, what_if)


def register_decoding(name: str, machine: Machine, product: Product, what_if: WhatIf) -> Program:
    """A kernel that decodes records in registers, as the traces count it for a closed form of the same name."""
    what_if.check_for(name)
    model = KERNELS[name.replace("numba", "lscd")]
    assert isinstance(model, RegisterDecode)
    trace, table = load_trace(model.traced, product.n), counts_of(model.traced)
    built, counts = _compiled(trace, machine), trace["per_block"]
    loop, tile = built["main_loop_instructions"], Tile(trace["tile"]["m"], trace["tile"]["n"], trace["tile"]["k"])
    occupied = float(model.occupied(np.asarray(product.sparsity)))
    values, gather, tails = (
        float(np.interp(occupied, table.occupied, column)) for column in (table.values, table.wavefronts, table.tails)
    )
    stored = values / max(TILE_POSITIONS * (1 - product.sparsity), 1.0)  # for each non-zero
    lag, records = RING_STAGES - 1, counts["shared_wavefronts.copy_records"]
    copies = ACCESS_INSTRUCTIONS * loop["async_copy"]
    header = table.header_bytes + tails * counts["global_bytes.records.load"].get("tail", 0.0)
    load = weights_from_memory(product, tile, header * covered(product, tile), FP16_BYTES * stored)
    load[Resource.SHARED] = Work(records["tile"], records["value"] * stored)
    copy, ready = copy_stage(machine, product, tile, lag), barrier(machine, "ready", ("load A", lag), ("copy B", lag))
    read = _per_tile(counts, "shared_wavefronts.read_")
    others = loop["tensor_core"] + copies + copy.instructions.constant + ready.instructions.constant
    with_tails = 1 + float(table.tail_share[TILE_N_CHOICES.index(tile.columns)]) * tails
    decode = (sum(loop.values()) - others) * with_tails
    # Copies have their instructions of the pipes here too, so that the sum over the loop is the counted one.
    everything = sum(loop.values()) * with_tails / decode
    pipes: dict[Resource, float] = {pipe: share * everything for pipe, share in _shares(built).items()}
    del pipes[Resource.ISSUE]
    macs = counts["mma_flops"]["tile"] / 2 * (TWO_OF_FOUR if model.sparse_cores else 1.0)
    capacity = int(model.capacity_bytes(np.asarray(product.sparsity)))
    shared_bytes = RING_STAGES * (FP16_BYTES * tile.depth * tile.columns + WARPS * capacity)
    stages = (
        start_stage(machine),
        offsets_stage(machine),
        ready,
        Stage(
            "load A", "load", load, Work(copies), after=(("offsets", 0),), latency_cycles=machine.dram_cycles,
            skip_last=lag,
        ),
        copy,
        *_multiply(tile, macs, read + gather, decode, loop["tensor_core"], lag, pipes=pipes, decodes=True),
        _store_shares(machine, product, tile, shared_bytes, built["registers"]),
    )  # fmt: skip
    return Program(
        name=name, tile=tile, buffers=RING_STAGES, shared_bytes=shared_bytes,
        registers_per_thread=built["registers"], threads=trace["threads"], stages=stages, pad_nonzeros=8,
        reduces_in_kernel=True, shares_list=True, source=f"data/traces/{trace['variant']}.json",
    )  # fmt: skip


def _store_shares(machine: Machine, product: Product, tile: Tile, shared_bytes: int, registers: int) -> Stage:
    """Sums that a block leaves and takes, through the L2, and its share of the output, which goes to memory."""
    columns = min(product.n, tile.columns)
    at_once = machine.sm_count * machine.resident_blocks(shared_bytes, registers, THREADS)
    tiles = math.ceil(product.m / tile.rows) * math.ceil(product.k / tile.depth) * math.ceil(product.n / tile.columns)
    output = FP16_BYTES * product.m * product.n / min(at_once, tiles)
    stage = store_stage(machine, product, tile, columns, SUM_BYTES)
    return replace(stage, work={**stage.work, Resource.DRAM: Work(output)})


def _per_tile(counts: dict[str, Any], prefix: str, suffix: str = "", without: tuple[str, ...] = ()) -> float:
    """Sum of what a tile takes of all quantities of a kind, but those named."""
    left_out = {prefix + name + suffix for name in without}
    chosen = (name for name in counts if name.startswith(prefix) and name.endswith(suffix) and name not in left_out)
    return float(sum(counts[name].get("tile", 0.0) for name in chosen))
