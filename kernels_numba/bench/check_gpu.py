"""Is every kernel right on a real GPU? Random problems against float64, outputs poisoned, every product run twice."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels_numba.bench.library import Library
from kernels_numba.bench.product import Gpu, Product, upload
from kernels_numba.formats import (
    Csr,
    Dense,
    EncodedWeight,
    encode_bitmap,
    encode_csr,
    encode_tiled_csl,
    encode_two_four,
)
from kernels_numba.formats.encoded import HALF_ELEMENTS, narrowed
from kernels_numba.reference import check_product

ENCODERS = (encode_tiled_csl, encode_bitmap, encode_two_four, Dense, encode_csr, partial(encode_csr, index_bits=16))
PROBLEMS = ((1, 1, 1), (127, 63, 7), (129, 65, 16), (1000, 520, 24), (768, 2048, 32), (300, 1000, 64), (256, 512, 100))
DENSITIES = (0.0, 0.1, 0.3, 0.51, 1.0)


def check_kernels(
    library: Library, gpu: Gpu, seed: int, problems: Iterable[tuple[int, int, int]] = PROBLEMS
) -> Iterator[str]:
    """Yield one line for every product that fails, is wrong or differs between two runs; yield "" for a right one."""
    rng = np.random.default_rng(seed)
    for m, k, n in problems:
        for density in DENSITIES:
            a = rng.standard_normal((m, k))
            a[rng.random((m, k)) >= density] = 0
            wide_x = rng.standard_normal((k, n))
            pairs = () if k % 2 else (partial(encode_bitmap, width=2),)
            for element, encode in itertools.product(HALF_ELEMENTS, (*ENCODERS, *pairs)):
                weights, x = encode(narrowed(a, element), element=element), narrowed(wide_x, element)
                for split_k in (None,) if isinstance(weights, Csr) else (None, 1, 3):
                    kind = f"{type(weights).__name__} {element}"
                    what = f"{kind} {m} x {k} x {n} density {density} split_k {split_k}"
                    yield _check_one(library, gpu, weights, x, split_k, what)


def _check_one(
    library: Library, gpu: Gpu, weights: EncodedWeight, x: NDArray[Any], split_k: int | None, what: str
) -> str:
    """Empty, or what is wrong; a kernel that cannot be compiled or launched is one finding among others."""
    try:
        product = Product(library, weights, x, gpu, split_k=split_k, as_fp32=weights.shape[0] % 2 == 1)
        return check_twice(product, weights, x, what)
    except Exception as error:
        return f"{what}: {type(error).__name__}: {str(error).partition(chr(10))[0]}"


def check_twice(product: Product, weights: EncodedWeight, x: NDArray[Any], what: str) -> str:
    """Empty, or what is wrong with the first or the second result."""
    run = product.runner(upload(product.library, product.weights)[0])
    run()
    first = product.result().copy()
    run()
    try:
        check_product(first, weights, x, what)
    except AssertionError as error:
        return str(error)
    same = np.array_equal(first, product.result(), equal_nan=True)
    return "" if same else f"{what}: two runs differ, which means a race"
