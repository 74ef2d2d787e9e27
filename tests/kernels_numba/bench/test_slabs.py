"""A repeated encoded slab is the encoding of the repeated slab, bit for bit, in every format."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from kernels_numba.bench.families import encoders
from kernels_numba.bench.order import SHAPES
from kernels_numba.bench.slabs import SLAB_ROWS, make_matrix, repeat, slab_rows
from kernels_numba.formats import encode_bitmap, encode_csr, encode_tiled_csl
from kernels_numba.gpu.launch import with_aligned_rows
from tests.kernels_numba.problems import random_matrix

FORMATS: dict[str, Any] = {**encoders(), "csr of 32 bits": partial(encode_csr, index_bits=32)}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("density", [0.0, 0.3])
def test_a_repeated_slab_is_the_encoding_of_the_repeated_matrix(name: str, density: float) -> None:
    slab, encode = random_matrix(256, 192, density), FORMATS[name]
    found, whole = repeat(encode(slab), 3), encode(np.tile(slab, (3, 1)))
    assert found.shape == whole.shape == (768, 192)
    assert found.buffers.keys() == whole.buffers.keys()
    for buffer, expected in zip(found.buffers.values(), whole.buffers.values(), strict=True):
        assert buffer.dtype == expected.dtype
        np.testing.assert_array_equal(buffer.view(np.uint8), expected.view(np.uint8))
    found.validate()


@pytest.mark.parametrize("name", FORMATS)
def test_slabs_may_be_repeated_after_they_are_packed_for_the_gpu(name: str) -> None:
    slab, encode = random_matrix(128, 100, 0.3), FORMATS[name]
    found = repeat(with_aligned_rows(encode(slab)), 2).buffers
    for key, expected in with_aligned_rows(encode(np.tile(slab, (2, 1)))).buffers.items():
        np.testing.assert_array_equal(found[key].view(np.uint8), expected.view(np.uint8))


def test_slabs_that_cannot_be_repeated_are_refused() -> None:
    with pytest.raises(ValueError, match="rows of a slab: 130; allowed: a multiple of 128"):
        repeat(encode_bitmap(random_matrix(130, 64, 0.5)), 2)
    with pytest.raises(ValueError, match="offsets of repeated slabs"):
        repeat(encode_tiled_csl(random_matrix(128, 64, 0.5)), 2**22)


def test_slabs_of_the_benchmarks_shapes() -> None:
    assert [slab_rows(m) for m in (36864, 9216, 12288, 28672, 7168, 49152)] == [4608, 4608, 4096, 4096, 3584, 4096]
    for m, _ in SHAPES:
        rows = slab_rows(m)
        assert m % rows == rows % 128 == 0
        assert SLAB_ROWS / 2 < rows <= SLAB_ROWS
    assert slab_rows(100) == 100


def test_the_product_of_a_matrix_is_its_own() -> None:
    matrix = make_matrix(256, 96, 0.6, 16, seed=3, most_rows=128)
    assert (matrix.times, matrix.slab.shape) == (2, (128, 96))
    assert matrix.sparsity == pytest.approx(0.6, abs=0.02)
    exact = matrix.dense().astype(np.float64) @ matrix.activations(8).astype(np.float64)
    np.testing.assert_allclose(matrix.expected(8), exact, rtol=1e-12, atol=1e-9)
