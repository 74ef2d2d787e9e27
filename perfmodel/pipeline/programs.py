"""The published kernels as programs: stages and counts of Flash-LLM, a cuBLAS-like dense product, SpInfer (`spinfer`).

Every count follows from tile sizes and formats that the released sources and papers state; what they leave to the
compiler are the named constants here and in `stages`.
"""

from __future__ import annotations

from dataclasses import replace

from perfmodel.catalog.specs import Architecture
from perfmodel.kernels.conflicts import expected_wavefronts
from perfmodel.pipeline.machine import LDMATRIX_CYCLES, Machine
from perfmodel.pipeline.program import Program, Resource, Stage, Tile, Work
from perfmodel.pipeline.spinfer import bitmap, decoding_in_line
from perfmodel.pipeline.stages import (
    ACCESS_INSTRUCTIONS,
    THREADS,
    VECTOR_BYTES,
    WORD_BYTES,
    Builder,
    Product,
    WhatIf,
    accesses,
    barrier,
    copy_stage,
    covered,
    fill_wavefronts,
    held_instructions,
    in_order,
    multiply_stages,
    offsets_stage,
    padded_tokens,
    start_stage,
    store_stage,
    wavefronts,
    weights_from_memory,
)
from perfmodel.units import FP16_BYTES, FP32_BYTES, WARP_SIZE

SCATTER_INSTRUCTIONS = 8  # per word: unpack place and value, form the address, store
# Registers of a thread of Flash-LLM: a third-party nsys report on an A6000; at 64 tokens half as many hold words and
# results, so that three blocks fit (`tiled_csl.BLOCKS_BY_REGISTERS_AT_64`).
REGISTERS, REGISTERS_AT_64 = 246, 168


def flash_llm(machine: Machine, product: Product, what_if: WhatIf) -> Program:
    """Flash-LLM as released: Tiled-CSL words through registers, scattered into a cleared tile, read back dense.

    Up to 32 tokens a block owns 256 rows (two sparse tiles) and 64 registers of words per thread, above 128 and 32; at
    least 16 columns of B are stored.
    """
    n = padded_tokens(product.n)
    tile = Tile(256 if n <= 32 else 128, min(max(n, 16), 128), what_if.tile_k or 64)
    buffers = 2 if what_if.double_buffer else 1
    if what_if.register_decode:
        what_if.check_for("flash-llm that decodes in registers", "register_decode", "double_buffer", "tile_k")
        return decoding_in_line("flash-llm", machine, product, tile, buffers)
    skip = buffers - 1
    a_bytes = FP16_BYTES * tile.rows * tile.depth
    slots = a_bytes / WORD_BYTES / 2 / THREADS * 2  # registers for a tile that is half full
    tests = Work(ACCESS_INSTRUCTIONS * slots / (VECTOR_BYTES / WORD_BYTES))
    conflicts = 1.0 if what_if.reorder else expected_wavefronts(WARP_SIZE)
    clear = Stage(
        "clear A", "clear", {Resource.SHARED: Work(fill_wavefronts(machine, a_bytes))}, Work(accesses(a_bytes)),
        latency_cycles=LDMATRIX_CYCLES, skip_last=skip, parts=4,
    )  # fmt: skip
    words = Stage(
        "load words", "load", weights_from_memory(product, tile, 0.0, WORD_BYTES), tests, after=(("offsets", 0),),
        latency_cycles=machine.dram_cycles, skip_last=skip,
    )  # fmt: skip
    scatter = Stage(
        "scatter", "scatter", {Resource.SHARED: Work(0.0, conflicts / WARP_SIZE)},
        Work(tests.constant, (SCATTER_INSTRUCTIONS + held_instructions(conflicts)) / THREADS),
        after=(("load words", 0),), skip_last=skip, parts=4,
    )  # fmt: skip
    stages = in_order(
        [start_stage(machine), offsets_stage(machine), clear, words, copy_stage(machine, product, tile, skip)],
        multiply_stages(tile, min(n, 128), skip),
        [barrier(machine, "A clear", ("clear A", 0)), scatter, barrier(machine, "tile complete", ("copy B", 0))],
        buffers,
    )
    shared = max(2 * FP16_BYTES * (tile.rows + tile.columns) * tile.depth, FP32_BYTES * (tile.rows + 4) * tile.columns)
    return Program(
        name="flash-llm", tile=tile, buffers=buffers, shared_bytes=shared, threads=THREADS,
        registers_per_thread=REGISTERS_AT_64 if n == 64 else REGISTERS,
        stages=(*stages, store_stage(machine, product, tile, min(n, 128))), pad_nonzeros=VECTOR_BYTES // WORD_BYTES,
        source="AlibabaResearch/flash-llm csrc, commit 1d2828a",
    )  # fmt: skip


def flash_llm_unordered(machine: Machine, product: Product, what_if: WhatIf) -> Program:
    """Flash-LLM with words in storage order, as some encoders leave them."""
    return flash_llm(machine, product, replace(what_if, reorder=False))


def dense(machine: Machine, product: Product, what_if: WhatIf) -> Program:
    """A dense Tensor-Core product as libraries build it: tiles of 128 x 64 through a ring of buffers, split K.

    Without ``cp.async`` (Volta, Turing) the second tile waits in registers; Hopper's kernels reduce a split K inside a
    cluster of blocks.
    """
    what_if.check_for("cublas", "double_buffer", "tile_k")
    n, architecture = product.n, machine.gpu.architecture
    columns = next((width for width in (16, 32, 64) if n <= width), 128)
    tile = Tile(128, columns, what_if.tile_k or 64)
    ring = 2 if architecture in (Architecture.VOLTA, Architecture.TURING) else 4
    buffers = ring if what_if.double_buffer else 1
    a_bytes = FP16_BYTES * tile.rows * tile.depth
    lag = buffers - 1
    load = Stage(
        "load A", "load",
        weights_from_memory(product, tile, covered(product, tile) * a_bytes)
        | {Resource.SHARED: Work(wavefronts(a_bytes))},
        Work(accesses(a_bytes)), latency_cycles=machine.dram_cycles, skip_last=lag,
    )  # fmt: skip
    stages = in_order(
        [
            load,
            copy_stage(machine, product, tile, lag),
            barrier(machine, "tile complete", ("load A", lag), ("copy B", lag)),
        ],
        multiply_stages(tile, columns, lag),
        [],
        buffers,
    )
    shared = max(buffers * FP16_BYTES * (tile.rows + columns) * tile.depth, FP32_BYTES * tile.rows * columns)
    return Program(
        name="cublas", tile=tile, buffers=buffers, shared_bytes=shared, registers_per_thread=128, threads=THREADS,
        stages=(*stages, store_stage(machine, product, tile, min(n, columns))),
        max_split_k=64, reduces_in_kernel=architecture in (Architecture.HOPPER, Architecture.BLACKWELL),
        source="tile sizes and stages as in NVIDIA CUTLASS's default Tensor-Core GEMMs; the library itself is closed",
    )  # fmt: skip


PUBLISHED: dict[str, Builder] = {
    "cublas": dense,
    "flash-llm": flash_llm,
    "flash-llm-noreorder": flash_llm_unordered,
    "bitmap": bitmap,
}
