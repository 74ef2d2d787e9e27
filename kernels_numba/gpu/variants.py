"""The compiled variants of every kernel, and the rule that picks one.

Which tile, how many registers for sparse words, how many blocks on an SM? Each choice is one entry here; launching,
checking, inspecting and tracing all take their variants from this list.
"""

from __future__ import annotations

import difflib
from dataclasses import replace
from functools import cache

from kernels_numba.formats import Element
from kernels_numba.gpu import bulk as gpu_bulk
from kernels_numba.gpu import csr as gpu_csr
from kernels_numba.gpu import dense as gpu_dense
from kernels_numba.gpu import reduce as gpu_reduce
from kernels_numba.gpu import ring as gpu_ring
from kernels_numba.gpu import sparta as gpu_sparta
from kernels_numba.gpu import tiled_csl as gpu_tiled_csl
from kernels_numba.gpu.compile import Variant
from kernels_numba.gpu.decoders import DECODERS, OF_CODES
from kernels_numba.gpu.elements import SUFFIX
from kernels_numba.gpu.stages import THREADS, TILE_N_CHOICES, WARP_SIZE

# Blocks per SM that registers must leave room for, by decoder and columns; with fewer registers the compiler spills on
# sm_80.
RING_BLOCKS = {
    "bitmap": {8: 4, 16: 4, 32: 3, 64: 2},
    "bitmap_pairs": {8: 6, 16: 5, 32: 4, 64: 2},
    "condensed": {8: 5, 16: 4, 32: 3, 64: 2},
    "condensed_pairs": {8: 5, 16: 4, 32: 3, 64: 2},
    **{name: {8: 4, 16: 4, 32: 3, 64: 2} for name in OF_CODES},
}
BULK = "_bulk"  # ends the names of the kernels that bulk copies feed
# Words held per thread in vectors of 4: 4 vectors hold a tile of up to 25 % density, 8 one of up to 50 %.
VECTOR_CHOICES = (4, 8)
WORDS_PER_HELD_VECTOR = 4 * THREADS


@cache
def tiled_csl(tile_n: int, vectors: int) -> Variant:
    """Load as sparse, compute as dense: the paper's kernel."""
    kernel = gpu_tiled_csl
    return Variant(
        "tiled_csl",
        f"n{tile_n}_v{vectors}",
        kernel.make_tiled_csl_kernel,
        (tile_n, vectors),
        kernel.SIGNATURE,
        THREADS,
        kernel.shared_bytes(tile_n),
        kernel.BLOCKS_PER_SM[tile_n],
        tile_n,
    )


@cache
def records(kernel: str, tile_n: int) -> Variant:
    """The kernel that decodes records in registers, by one of `DECODERS`."""
    make, shared_bytes, blocks = gpu_ring.make_ring_kernel, gpu_ring.shared_bytes(tile_n, 0), RING_BLOCKS[kernel]
    parameters = (tile_n, kernel)
    return Variant(
        kernel, f"n{tile_n}", make, parameters, gpu_ring.SIGNATURE, THREADS, shared_bytes, blocks[tile_n], tile_n
    )


@cache
def streamed(kernel: str, tile_n: int) -> Variant:
    """The kernel that decodes records which bulk copies bring, for sm_90 and newer."""
    make, threads = gpu_bulk.make_bulk_kernel, WARP_SIZE * gpu_bulk.WARPS[tile_n]
    parameters, shared_bytes = (tile_n, kernel), gpu_bulk.shared_bytes(tile_n, 0, 0)
    signature = gpu_bulk.SIGNATURE
    return Variant(kernel + BULK, f"n{tile_n}", make, parameters, signature, threads, shared_bytes, 1, tile_n, "sm_90")


@cache
def dense(tile_n: int) -> Variant:
    """Dense Tensor-Core baseline."""
    shared_bytes, blocks = gpu_dense.shared_bytes(tile_n), gpu_dense.BLOCKS_PER_SM[tile_n]
    make = gpu_dense.make_dense_kernel
    return Variant("dense", f"n{tile_n}", make, (tile_n,), gpu_dense.SIGNATURE, THREADS, shared_bytes, blocks, tile_n)


@cache
def two_four(tile_n: int) -> Variant:
    """The 2:4 part of a SparTA-type product, on the Sparse Tensor Cores."""
    shared_bytes, blocks = gpu_sparta.shared_bytes(tile_n), gpu_sparta.BLOCKS_PER_SM[tile_n]
    make = gpu_sparta.make_two_four_kernel
    return Variant(
        "two_four", f"n{tile_n}", make, (tile_n,), gpu_sparta.SIGNATURE, THREADS, shared_bytes, blocks, tile_n
    )


@cache
def csr(tile_n: int, index_bits: int) -> Variant:
    """Sputnik-type CSR on the CUDA cores."""
    choice, blocks = f"n{tile_n}_i{index_bits}", gpu_csr.BLOCKS_PER_SM
    make = gpu_csr.make_csr_kernel
    return Variant("csr", choice, make, (tile_n, index_bits), gpu_csr.SIGNATURE, gpu_csr.THREADS, 0, blocks, tile_n)


@cache
def reduce() -> Variant:
    """Sum of split-K partial results."""
    make = gpu_reduce.make_reduce_kernel
    return Variant("reduce", "", make, (), gpu_reduce.SIGNATURE, gpu_reduce.THREADS, 0, gpu_reduce.BLOCKS_PER_SM)


@cache
def all_variants(element: Element = Element.FLOAT16) -> dict[str, Variant]:
    """Every variant of an element type, by name; those with quantised values know fp16 only."""
    decoders = [name for name in DECODERS if element is Element.FLOAT16 or name not in OF_CODES]
    tiled = [tiled_csl(n, vectors) for n in TILE_N_CHOICES for vectors in VECTOR_CHOICES]
    tiled += [make(kernel, n) for make in (records, streamed) for kernel in decoders for n in TILE_N_CHOICES]
    others = [dense(n) for n in TILE_N_CHOICES] + [two_four(n) for n in TILE_N_CHOICES]
    others += [csr(n, bits) for n in TILE_N_CHOICES for bits in (16, 32)]
    every = [replace(variant, element=element) for variant in (*tiled, *others, reduce())]
    return {variant.name: variant for variant in every}


def kernel_names() -> list[str]:
    """Names of the kernels: what `all_variants` has variants of."""
    return list(dict.fromkeys(variant.kernel for variant in all_variants().values()))


def find_variants(name: str) -> list[Variant]:
    """Variants whose name is ``name`` or begins with ``name_``; of bfloat16 if ``name`` ends as such variants' do.

    Raises
    ------
    ValueError
        If there is none; the message has the nearest names.
    """
    suffix = SUFFIX[Element.BFLOAT16]
    element = Element.BFLOAT16 if name.endswith(suffix) else Element.FLOAT16
    stem = name.removesuffix(suffix) + "_"
    found = [v for key, v in all_variants(element).items() if key == name or key.startswith(stem)]
    if not found:
        families = kernel_names()
        near = difflib.get_close_matches(name, families + list(all_variants()), n=3, cutoff=0.4)
        hint = f"did you mean {', '.join(near)}? " if near else ""
        raise ValueError(f"unknown kernel {name!r}: {hint}Known: {', '.join(families)}")
    return found


def tile_n_for(n: int) -> int:
    """Narrowest tile that covers n columns, else the widest."""
    return next((tile for tile in TILE_N_CHOICES if n <= tile), TILE_N_CHOICES[-1])


def vectors_for(words_per_tile: float) -> int:
    """Held vectors for tiles with this many words on average; a tile above it is finished by the overflow loop."""
    return next((v for v in VECTOR_CHOICES if words_per_tile <= v * WORDS_PER_HELD_VECTOR), VECTOR_CHOICES[-1])
