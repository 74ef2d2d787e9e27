"""The families of kernels that are measured, ours and the rivals: what each multiplies, ready to run.

A family runs in a process of its own, so that a fault of one costs no other. Ours are those of `gpu.variants`, by the
encoder of their format; a rival is a library's kernel, which may be absent.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels_numba.bench import rivals
from kernels_numba.bench.product import Gpu, Product, copies_beyond_l2, upload
from kernels_numba.bench.session import Trial
from kernels_numba.bench.slabs import Matrix, repeat
from kernels_numba.bench.timing import AbsentError, Library, Run
from kernels_numba.formats import Dense, EncodedWeight, encode_csr, encode_tiled_csl, encode_two_four
from kernels_numba.gpu.compile import compile_kernel
from kernels_numba.gpu.decoders import ENCODERS, OF_CODES
from kernels_numba.gpu.launch import has_bulk_copies, with_aligned_rows
from kernels_numba.gpu.variants import BULK, kernel_names

Encoder = Callable[[NDArray[np.float16]], EncodedWeight]
Products = Callable[[int], list[Trial]]  # of n columns: alternatives, of which the fastest counts
OTHERS: dict[str, Encoder] = {  # of the kernels that decode no records
    "tiled_csl": encode_tiled_csl,
    "dense": Dense,
    "two_four": partial(encode_two_four, index_bits=16),
    "csr": partial(encode_csr, index_bits=16),
}
PARTS = ("reduce",)  # kernels that are part of others' products
# Measured on dense weights: once a shape, not once a sparsity.
DENSE_ONLY = ("cublas", "lscd-dense", *rivals.RIVALS)
ROW_SPARSITY = {"two-four": 0.5}  # of rows of a family that makes its own zeros


def encoders() -> dict[str, Encoder]:
    """Encoder of each of our kernels, by the kernel's name in tables, ``lscd-...``.

    None of codes: their products are not those of the matrix, with which all families are compared.
    """
    made = {}
    for name in kernel_names():
        stored = name.removesuffix(BULK)
        if name not in PARTS and stored not in OF_CODES:
            made[f"lscd-{name.replace('_', '-')}"] = (ENCODERS | OTHERS)[stored]
    return made


def is_streamed(family: str) -> bool:
    """Whether a family's records are brought by bulk copies."""
    return family.endswith(BULK.replace("_", "-"))


def names() -> list[str]:
    """All families: the vendor's dense product, which all are compared with, then ours, then the other rivals."""
    return ["cublas", *encoders(), *rivals.RIVALS, "cusparse"]


def wants(family: str, sparsity: float) -> bool:
    """Whether a family is measured on weights of this sparsity."""
    return (family in DENSE_ONLY) == (sparsity == 0)


def prepare(family: str, library: Library, gpu: Gpu, matrix: Matrix) -> Products:
    """Put a family's copies of the weights on the GPU; returns what makes its product with n columns.

    Raises
    ------
    AbsentError
        If the library or the GPU has no such product.
    """
    if family in rivals.RIVALS:
        return rivals.prepare(family, library, gpu, matrix)
    vendor = {"cublas": _cublas, "cusparse": _cusparse}
    return vendor[family](library, gpu, matrix) if family in vendor else _ours(family, library, gpu, matrix)


def _ours(family: str, library: Library, gpu: Gpu, matrix: Matrix) -> Products:
    streamed = is_streamed(family)
    if streamed and not has_bulk_copies(gpu.arch):
        raise AbsentError(f"{gpu.arch} has no bulk copies")
    weights = repeat(with_aligned_rows(encoders()[family](matrix.slab)), matrix.times)
    copies = upload(library, weights, copies_beyond_l2(weights.nbytes, gpu.l2_bytes))

    def at(n: int) -> list[Trial]:
        product = Product(library, weights, matrix.activations(n), gpu, streamed=streamed)
        trial = Trial(
            family,
            (matrix.m, matrix.k, n),
            matrix.sparsity,
            [product.runner(copy) for copy in copies],
            product.out,
            product.result,
            matrix.expected(n),
            weights.nbytes,
            product.bytes,
            split_k=product.plan.split_k,
            blocks_per_sm=compile_kernel(product.plan.variant, gpu.arch).blocks_with(product.plan.shared_bytes),
        )
        return [trial]

    return at


def _cublas(library: Library, gpu: Gpu, matrix: Matrix) -> Products:
    """The vendor's dense product in both layouts: x (k, n) row-major, "NN", and x (n, k), "TN", as engines keep it."""
    first = library.asarray(matrix.dense())
    nbytes = 2 * matrix.m * matrix.k
    copies = [first, *(library.copy(first) for _ in range(copies_beyond_l2(nbytes, gpu.l2_bytes) - 1))]
    return lambda n: [_dense_trial(library, matrix, copies, n, layout) for layout in ("NN", "TN")]


def _dense_trial(library: Library, matrix: Matrix, copies: list[Any], n: int, layout: str) -> Trial:
    x, (m, k), nbytes = matrix.activations(n), (matrix.m, matrix.k), 2 * matrix.m * matrix.k
    on_gpu = library.asarray(x if layout == "NN" else np.ascontiguousarray(x.T))
    out = library.full((m, n) if layout == "NN" else (n, m), np.float16, np.nan)

    def runner(a: Any) -> Run:
        return library.dense(a, on_gpu, out) if layout == "NN" else library.dense(on_gpu, a.T, out)

    def result() -> NDArray[Any]:
        host = library.to_host(out)
        return host if layout == "NN" else host.T

    runners = [runner(copy) for copy in copies]
    sizes = ("cublas", (m, k, n), matrix.sparsity, runners, out, result, matrix.expected(n))
    return Trial(*sizes, nbytes, nbytes + 2 * n * (m + k), layout=layout)


def _cusparse(library: Library, gpu: Gpu, matrix: Matrix) -> Products:
    """The vendor's sparse product, warm: it is far from memory's speed."""
    weights = repeat(encode_csr(matrix.slab), matrix.times)

    def at(n: int) -> list[Trial]:
        out = library.full((matrix.m, n), np.float16, 0.0)
        run = library.sparse(weights, library.asarray(matrix.activations(n)), out)
        if run is None:
            raise AbsentError(f"{library.name} has no sparse product of fp16")
        size, expected = (matrix.m, matrix.k, n), matrix.expected(n)
        moved = weights.nbytes + 2 * n * (matrix.m + matrix.k)
        given = ("cusparse", size, matrix.sparsity, [run], out, lambda: library.to_host(out), expected)
        return [Trial(*given, weights.nbytes, moved, replay=False)]

    return at
