"""2:4 weights as the GPU takes them: packing is exact, corrupt tiles are refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from kernels_numba.formats import Element, encode_two_four
from kernels_numba.formats.two_four_tiles import TILE_BYTES, pack, unpack
from kernels_numba.spmm import spmm
from tests.kernels_numba.problems import random_bits, random_problem, without_minus_zero

SHAPES = [(1, 1), (127, 63), (128, 64), (129, 65), (201, 131)]


@pytest.mark.parametrize(("m", "k"), SHAPES)
@pytest.mark.parametrize("density", [0.0, 0.4, 1.0])
def test_packing_is_exact(m: int, k: int, density: float) -> None:
    a, _ = random_problem(m, k, 1, density)
    weights = encode_two_four(a)
    packed = pack(weights).validate()
    np.testing.assert_array_equal(packed.decode(), a)
    back = unpack(packed)
    np.testing.assert_array_equal(back.values.view(np.uint16), weights.values.view(np.uint16))
    np.testing.assert_array_equal(back.metadata, weights.metadata)
    assert packed.nnz == weights.nnz == np.count_nonzero(a)


def test_packed_bytes_are_those_of_the_pattern() -> None:
    """1.125 bytes a weight, padded to whole tiles; the residual is the same object."""
    weights = encode_two_four(random_problem(256, 128, 1, 0.5)[0])
    packed = pack(weights)
    assert packed.tiles.nbytes == 1.125 * 256 * 128 == 4 * TILE_BYTES
    assert packed.tiles.nbytes == weights.values.nbytes + weights.metadata.nbytes
    assert packed.residual is weights.residual


def test_only_16_bit_values_are_packed() -> None:
    wide = encode_two_four(np.ones((4, 16), np.float32))
    with pytest.raises(ValueError, match=r"element type of weights: float32; allowed: float16 or bfloat16"):
        pack(wide)
    with pytest.raises(ValueError, match="element type of weights: float32"):
        spmm(wide, np.ones((16, 8), np.float16), backend="emulator")


def test_corrupt_tiles_are_refused() -> None:
    packed = pack(encode_two_four(random_problem(130, 70, 1, 0.5)[0]))
    equal_places = packed.tiles.copy()
    equal_places[0, 0, -TILE_BYTES // 2 + 4096 :] = 0
    with pytest.raises(ValueError, match="metadata: positions not ascending"):
        dataclasses.replace(packed, tiles=equal_places).validate()
    with pytest.raises(ValueError, match="tiles: uint16"):
        dataclasses.replace(packed, tiles=packed.tiles[:1]).validate()


def test_bfloat16_is_packed_bit_for_bit() -> None:
    bits = random_bits((130, 71), 0.6)
    weights = encode_two_four(bits, element=Element.BFLOAT16)
    packed = pack(weights).validate()
    assert packed.element is unpack(packed).element is Element.BFLOAT16
    np.testing.assert_array_equal(packed.decode(), without_minus_zero(bits))
    same_bits = pack(encode_two_four(bits.view(np.float16)))
    np.testing.assert_array_equal(packed.tiles, same_bits.tiles)
