"""Bitmaps for CPUs: every way to unpack them, the matrix unit, and which input and buffers are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels_numba.cpu import kernels as cpu
from kernels_numba.cpu import lanes, tiles
from kernels_numba.cpu.bitmap import encode_cpu_bitmap
from kernels_numba.formats import Dense, Element
from tests.kernels_numba.cpu.test_kernels import as_bfloat16, assert_product
from tests.kernels_numba.formats.encodings import SAMPLE, assert_refused_or_harmless, corrupt
from tests.kernels_numba.problems import random_matrix

# Rows that end in a block, columns in a panel and in a chunk; the last holds a single panel without a rest.
SHAPES = [(1, 1), (3, 31), (36, 544), (131, 1057), (64, 512)]
RUNS_HERE = [way for way in lanes.Expansion if way <= lanes.best_expansion()]


@pytest.mark.parametrize("way", RUNS_HERE)
@pytest.mark.parametrize("element", [Element.FLOAT16, Element.BFLOAT16])
def test_every_expansion_multiplies(way, element, monkeypatch):
    """Tokens that meet a chunk alone, in twos, in fours, and with one to spare."""
    monkeypatch.setattr(lanes, "best_expansion", lambda: way)
    slow = way is lanes.Expansion.PORTABLE  # to compile
    for shape in SHAPES:
        a = random_matrix(*shape, 0.4)
        stored, a = as_bfloat16(a) if element is Element.BFLOAT16 else (a, a)
        encoded = encode_cpu_bitmap(stored, element=element)
        for n in (1,) if slow else (1, 2, 3, 9):
            x = np.random.default_rng(n).standard_normal((shape[1], n)).astype(np.float32)
            assert_product(cpu.spmm(encoded, x), a, x)


def test_dense_rows_are_read_in_chunks():
    for m, k in ((4, 32), (36, 544)):
        for element in (Element.FLOAT16, Element.BFLOAT16):
            a = random_matrix(m, k, 1)
            stored, a = as_bfloat16(a) if element is Element.BFLOAT16 else (a, a)
            for n in (1, 2, 7):
                x = np.random.default_rng(n).standard_normal((k, n)).astype(np.float32)
                assert_product(cpu.spmm(Dense(stored, element), x), a, x)


@pytest.mark.skipif(not tiles.has_tiles(), reason="no matrix unit for bfloat16 here")
@pytest.mark.parametrize("n", [5, 16, 17, 50])
def test_the_matrix_unit_multiplies(n):
    """One to three tiles of tokens, and a second pass beyond 48."""
    for shape in SHAPES:
        stored, a = as_bfloat16(random_matrix(*shape, 0.4))
        x_bits, x = as_bfloat16(random_matrix(shape[1], n, 1, seed=1))
        assert_product(cpu.spmm(encode_cpu_bitmap(stored, element="bfloat16"), x_bits, element=Element.BFLOAT16), a, x)


def test_without_the_matrix_unit_bfloat16_activations_are_widened(monkeypatch):
    monkeypatch.setattr(tiles, "has_tiles", lambda: False)
    stored, a = as_bfloat16(random_matrix(36, 70, 0.4))
    x_bits, x = as_bfloat16(random_matrix(70, 6, 1, seed=1))
    assert_product(cpu.spmm(encode_cpu_bitmap(stored, element="bfloat16"), x_bits, element=Element.BFLOAT16), a, x)


@pytest.mark.parametrize(
    ("name", "index", "value", "message"),
    [
        ("offsets", 2, 10**6, "falls"),
        ("offsets", 2, 0, "falls"),
        ("offsets", 1, 1, "other bits than values in block"),
        ("masks", 0, 0, "other bits than values in block"),
    ],
)
def test_corrupt_entries_are_refused(name, index, value, message):
    with pytest.raises(ValueError, match=message):
        corrupt(encode_cpu_bitmap(SAMPLE), name, index, value)


def test_bits_outside_the_matrix_are_refused():
    """The only weight of a 1 x 1 matrix moved to the next column, and to the next row."""
    encoded = encode_cpu_bitmap(np.ones((1, 1), np.float16))
    with pytest.raises(ValueError, match="1 bits beyond column 1"):
        corrupt(encoded, "masks", 0, 2)
    masks = np.roll(encoded.masks, 1)
    with pytest.raises(ValueError, match="bits beyond"):
        corrupt(encoded, "masks", slice(None), masks)


@pytest.mark.parametrize("name", ["masks", "offsets"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_fuzzed_buffers_are_refused_or_lose_nothing(name, data):
    assert_refused_or_harmless(encode_cpu_bitmap, name, data)
