"""Is every kernel right on a real GPU? Random problems against float64, outputs poisoned, every product run twice."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels_numba.bench.product import Gpu, Product, upload
from kernels_numba.bench.timing import Library
from kernels_numba.formats import Csr, Element, EncodedWeight
from kernels_numba.formats.encoded import HALF_ELEMENTS, narrowed
from kernels_numba.reference import check_product

PROBLEMS = ((1, 1, 1), (127, 63, 7), (129, 65, 16), (1000, 520, 24), (768, 2048, 32), (300, 1000, 64), (256, 512, 100))
DENSITIES = (0.0, 0.1, 0.3, 0.51, 1.0)
Encoder = Callable[..., EncodedWeight]


def check_kernels(
    library: Library,
    gpu: Gpu,
    seed: int,
    encoders: Iterable[Encoder],
    *,
    problems: Iterable[tuple[int, int, int]] = PROBLEMS,
    densities: Iterable[float] = DENSITIES,
    streamed: bool = False,
) -> Iterator[str]:
    """Yield one line for every product that fails, is wrong or differs between two runs; yield "" for a right one.

    The same seed gives the same problems, whatever the encoders. What a format refuses to hold is left out.
    """
    rng, encoders, densities = np.random.default_rng(seed), tuple(encoders), tuple(densities)
    for m, k, n in problems:
        for density in densities:
            a = rng.standard_normal((m, k))
            a[rng.random((m, k)) >= density] = 0
            x = rng.standard_normal((k, n))
            for element, encode in itertools.product(HALF_ELEMENTS, encoders):
                what = f"{m} x {k} x {n} density {density}"
                yield from _check_splits(library, gpu, encode, element, a, x, what, streamed)


def _check_splits(
    library: Library,
    gpu: Gpu,
    encode: Encoder,
    element: Element,
    a: NDArray[Any],
    x: NDArray[Any],
    what: str,
    streamed: bool,
) -> Iterator[str]:
    """Outcomes of one problem in one element type, for each way to split K."""
    try:
        weights = encode(narrowed(a, element), element=element)
    except ValueError:
        return
    narrow = narrowed(x, element)
    for split_k in (None,) if isinstance(weights, Csr) else (None, 1, 3):
        told = f"{type(weights).__name__} {element} {what} split_k {split_k}"
        yield _check_one(library, gpu, weights, narrow, told, {"split_k": split_k, "streamed": streamed})


def _check_one(
    library: Library, gpu: Gpu, weights: EncodedWeight, x: NDArray[Any], what: str, options: dict[str, Any]
) -> str:
    """Empty, or what is wrong; a kernel that cannot be compiled or launched is one finding among others."""
    try:
        product = Product(library, weights, x, gpu, as_fp32=weights.shape[0] % 2 == 1, **options)
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
