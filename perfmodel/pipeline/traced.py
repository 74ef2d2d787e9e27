"""Our own compiled kernels as programs: counts from the traces in ``data/traces``, nothing assumed but the order.

A trace holds what the compiler made of a kernel (registers, shared memory, instructions of the main loop) and what the
emulator counted while it ran (shared-memory wavefronts with their bank conflicts, instructions per tile and per word).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from perfmodel import catalog
from perfmodel.formats import STRIP_M
from perfmodel.kernels import Machine as KernelMachine
from perfmodel.kernels import Shape
from perfmodel.kernels.conflicts import expected_wavefronts
from perfmodel.kernels.launcher import launcher_split_k
from perfmodel.kernels.pipes import loop_pipes
from perfmodel.kernels.register_decode import RegisterDecode, sums_in_turn
from perfmodel.kernels.register_decode import counts as counts_of
from perfmodel.kernels.registry import KERNELS
from perfmodel.kernels.streamed_decode import StreamedDecode
from perfmodel.pipeline.machine import LDMATRIX_CYCLES, MMA_CYCLES, Machine
from perfmodel.pipeline.parameters import CODED_DECODERS, DECODERS
from perfmodel.pipeline.program import Program, Resource, Stage, Tile, Wait, Work
from perfmodel.pipeline.stages import (
    ACCESS_INSTRUCTIONS,
    MMA_K,
    THREADS,
    VECTOR_BYTES,
    WARPS,
    WORD_BYTES,
    Builder,
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
from perfmodel.units import BITS_PER_BYTE, FP16_BYTES, FP32_BYTES, WARP_SIZE

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


@dataclass(frozen=True)
class _Decoding:
    """What rings and streams of records have in common, of one tile; see `_decoding`."""

    model: RegisterDecode
    trace: dict[str, Any]
    built: dict[str, Any]
    tile: Tile
    load: dict[Resource, Work]
    shared: float
    macs: float
    mma: int
    with_tails: float
    instructions: float
    capacity: int

    def multiply(self, part: float, beside: float, skip: int) -> list[Stage]:
        """Stages of a ``part`` of a tile; ``beside`` are the instructions of its warps in other stages."""
        decode = (self.instructions - self.mma - beside) * self.with_tails
        # Other stages have their instructions of the pipes here too, so that the sum over the loop is the counted one.
        everything = self.instructions * self.with_tails / decode
        pipes: dict[Resource, float] = {pipe: share * everything for pipe, share in _shares(self.built).items()}
        del pipes[Resource.ISSUE]
        return _multiply(
            self.tile, self.macs * part, self.shared * part, decode, self.mma, skip, pipes=pipes, decodes=True
        )


def _decoding(name: str, machine: Machine, product: Product) -> _Decoding:
    """The counts of a kernel that decodes records, as the closed form of the same name has them."""
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
    records = counts["shared_wavefronts.copy_records"]
    header = table.header_bytes + tails * counts["global_bytes.records.load"].get("tail", 0.0)
    value_bytes = model.value_bits / BITS_PER_BYTE
    load = weights_from_memory(product, tile, header * covered(product, tile), value_bytes * stored)
    load[Resource.SHARED] = Work(records["tile"], records["value"] * stored)
    return _Decoding(
        model, trace, built, tile, load,
        shared=_per_tile(counts, "shared_wavefronts.read_") + gather,
        macs=counts["mma_flops"]["tile"] / 2 * (TWO_OF_FOUR if model.sparse_cores else 1.0),
        mma=loop["tensor_core"],
        with_tails=1 + float(table.tail_share[TILE_N_CHOICES.index(tile.columns)]) * tails,
        instructions=sum(loop.values()),
        capacity=int(model.capacity_bytes(np.asarray(product.sparsity))),
    )  # fmt: skip


def register_decoding(name: str, machine: Machine, product: Product, what_if: WhatIf) -> Program:
    """A kernel that decodes records in registers behind a ring of copies that its 4 warps share."""
    what_if.check_for(name)
    d, lag = _decoding(name, machine, product), RING_STAGES - 1
    copies = ACCESS_INSTRUCTIONS * d.built["main_loop_instructions"]["async_copy"]
    copy, ready = copy_stage(machine, product, d.tile, lag), barrier(machine, "ready", ("load A", lag), ("copy B", lag))
    beside = copies + copy.instructions.constant + ready.instructions.constant
    shared_bytes = RING_STAGES * (FP16_BYTES * d.tile.depth * d.tile.columns + WARPS * d.capacity)
    stages = (
        start_stage(machine),
        offsets_stage(machine),
        ready,
        Stage(
            "load A", "load", d.load, Work(copies), after=(("offsets", 0),), latency_cycles=machine.dram_cycles,
            skip_last=lag,
        ),
        copy,
        *d.multiply(1.0, beside, lag),
        _store_shares(machine, product, d.tile, shared_bytes, d.built["registers"]),
    )  # fmt: skip
    return Program(
        name=name, tile=d.tile, buffers=RING_STAGES, shared_bytes=shared_bytes,
        registers_per_thread=d.built["registers"], threads=d.trace["threads"], stages=stages, pad_nonzeros=8,
        reduces_in_kernel=True, shares_list=True, source=f"data/traces/{d.trace['variant']}.json",
    )  # fmt: skip


def streamed_decoding(name: str, machine: Machine, product: Product, what_if: WhatIf) -> Program:
    """A kernel whose warps each stream strips of their own by bulk copies, behind no barrier of the block.

    Every warp is a block of one warp to the engine, 32 rows high. A copy is asked for when its buffer has been read,
    which makes it one step later than a ring's. The slices of K are taken to be equally long.
    """
    what_if.check_for(name)
    d, lag = _decoding(name, machine, product), RING_STAGES
    assert isinstance(d.model, StreamedDecode)
    shape = Shape.of(product.m, product.k, product.n, product.sparsity)
    cut = d.model.slicing(KernelMachine.of(machine.gpu), shape, np.asarray(float(d.tile.columns)))
    if np.isnan(cut.slices):
        raise ValueError(
            f"sparsity is {product.sparsity:g}, but at N = {product.n} records of {name} must be shorter: "
            f"{machine.gpu.key} allows a block {machine.shared_bytes_per_block:.0f} bytes of shared memory"
        )
    streams, slices, launched = int(cut.streams), float(cut.slices), int(cut.blocks * cut.slices)
    tile = Tile(STRIP_M, d.tile.columns, d.tile.depth)
    strip = 1 / (d.tile.rows / STRIP_M)
    load = {r: Work(work.constant * strip, work.per_nonzero) for r, work in d.load.items()}
    x_bytes = float(cut.slice_tiles) * FP16_BYTES * tile.depth * tile.columns / streams
    piece_bytes, warps = FP32_BYTES * tile.rows * tile.columns, launched * streams
    pieces, adds = float(cut.pieces), float(cut.pieces_per_warp)
    per_block = d.trace["per_block"]["instructions"]
    ends = per_block["row"] * float(cut.rows) * slices / warps + per_block["piece"] * pieces / warps
    output = FP16_BYTES * product.m * product.n / (warps * float(cut.columns))
    stages = (
        start_stage(machine),
        offsets_stage(machine),
        Stage(
            "load X", "load", {Resource.L2: Work(x_bytes), Resource.PORT: Work(x_bytes)},
            Work(ACCESS_INSTRUCTIONS * x_bytes / (VECTOR_BYTES * WARP_SIZE)), latency_cycles=machine.l2_cycles,
            only="first",
        ),
        Stage(
            "record there", "barrier", after=(("load A", lag), ("load X", lag)), waits_for=Wait.BARRIER, skip_first=lag
        ),
        *d.multiply(strip, ACCESS_INSTRUCTIONS, lag),
        Stage(
            "load A", "load", load, Work(ACCESS_INSTRUCTIONS), after=(("offsets", 0),),
            latency_cycles=machine.dram_cycles, skip_last=lag,
        ),
        Stage(
            "add pieces", "store",
            {
                Resource.DRAM: Work(output), Resource.PORT: Work(piece_bytes * adds),
                Resource.L2: Work(2 * piece_bytes * pieces / warps + output),
            },
            Work(ends), cycles=2 * machine.l2_cycles * adds, only="last", waits_for=Wait.REDUCTION,
            after=((f"mma {tile.depth // MMA_K - 1}", 0),),
        ),
    )  # fmt: skip
    return Program(
        name=name, tile=tile, buffers=RING_STAGES + 1,
        shared_bytes=int(d.model.shared_bytes(cut, np.asarray(tile.columns), product.sparsity)),
        registers_per_thread=d.built["registers"], threads=WARP_SIZE, stages=stages, pad_nonzeros=2,
        reduces_in_kernel=True, shares_list=True, streams=streams, launched=launched,
        source=f"data/traces/{d.trace['variant']}.json",
    )  # fmt: skip


DECODING: dict[str, Builder] = {
    **{f"numba-{kind}": partial(register_decoding, f"numba-{kind}") for kind in (*DECODERS, *CODED_DECODERS)},
    **{f"numba-{kind}-bulk": partial(streamed_decoding, f"numba-{kind}-bulk") for kind in DECODERS},
}


def _store_shares(machine: Machine, product: Product, tile: Tile, shared_bytes: int, registers: int) -> Stage:
    """Sums that a block leaves and takes, through the L2, and its share of the output, which goes to memory.

    Sums of one row of tiles are taken one after the other: a round trip for the flag of each, and one for itself.
    """
    columns = min(product.n, tile.columns)
    at_once = machine.sm_count * machine.resident_blocks(shared_bytes, registers, THREADS)
    rows, depth = (
        math.ceil(product.m / tile.rows) * math.ceil(product.n / tile.columns),
        math.ceil(product.k / tile.depth),
    )
    blocks = min(at_once, rows * depth)
    taken = float(sums_in_turn(rows, depth, blocks))
    output = FP16_BYTES * product.m * product.n / blocks
    stage = store_stage(machine, product, tile, columns, SUM_BYTES)
    return replace(
        stage, work={**stage.work, Resource.DRAM: Work(output)}, cycles=stage.cycles + 2 * machine.l2_cycles * taken
    )


def _per_tile(counts: dict[str, Any], prefix: str, suffix: str = "", without: tuple[str, ...] = ()) -> float:
    """Sum of what a tile takes of all quantities of a kind, but those named."""
    left_out = {prefix + name + suffix for name in without}
    chosen = (name for name in counts if name.startswith(prefix) and name.endswith(suffix) and name not in left_out)
    return float(sum(counts[name].get("tile", 0.0) for name in chosen))
