"""CPU kernels against NumPy in float64."""

import os
import subprocess
import sys

import numpy as np
import pytest

from kernels_numba.cpu import kernels as cpu
from kernels_numba.cpu.bitmap import encode_cpu_bitmap
from kernels_numba.cpu.panel_csr import encode_panel_csr
from kernels_numba.formats import (
    Dense,
    Element,
    ValueType,
    encode_bitmap,
    encode_condensed,
    encode_csr,
    encode_quantised_bitmap,
    encode_tiled_csl,
    encode_two_four,
)
from tests.kernels_numba.problems import random_matrix

SHAPES = [(1, 1), (127, 63), (128, 64), (129, 65), (131, 257), (3, 600)]
DENSITIES = [0, 1e-3, 0.1, 0.3, 0.5, 0.51, 0.9, 1]
TOKENS = [1, 2, 3, 8, 9, 17, 32, 41]
CASES = {
    "tiled decode": (encode_tiled_csl, "decode"),
    "tiled sparse": (encode_tiled_csl, "sparse"),
    "csr": (encode_csr, "auto"),
    "csr 16": (lambda a: encode_csr(a, index_bits=16), "sparse"),
    "panel csr": (encode_panel_csr, "auto"),
    "cpu bitmap": (encode_cpu_bitmap, "auto"),
    "two four": (encode_two_four, "auto"),
    "bitmap": (encode_bitmap, "auto"),
    "condensed": (lambda a: encode_condensed(a, 1), "auto"),
    "condensed pairs": (encode_condensed, "auto"),
    "dense": (Dense, "auto"),
}


def assert_product(actual, a, x):
    """Raise with index and both values unless ``actual`` is a @ x up to float32 rounding of every sum."""
    a, x = a.astype(np.float64), x.astype(np.float64)
    expected = a @ x
    allowed = (a.shape[1] + 4) * 2.0**-24 * (np.abs(a) @ np.abs(x)) + 1e-30
    assert actual.shape == expected.shape
    assert actual.dtype == np.float32
    wrong = np.argwhere(~(np.abs(actual - expected) <= allowed))
    if wrong.size:
        at = tuple(wrong[0])
        raise AssertionError(f"{len(wrong)} wrong, first at {at}: {actual[at]}, expected {expected[at]}")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("density", DENSITIES)
def test_product(case, density):
    encode, path = CASES[case]
    for shape in SHAPES:
        a = random_matrix(*shape, density)
        encoded = encode(a)
        for n in TOKENS if case != "csr 16" else (32,):  # the columns' width matters to no vector width
            x = np.random.default_rng(n).standard_normal((shape[1], n)).astype(np.float32)
            assert_product(cpu.spmm(encoded, x, path=path), a, x)


def as_bfloat16(a):
    """Bit patterns of ``a`` cut to bfloat16, and the values they stand for."""
    bits = (a.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return bits, (bits.astype(np.uint32) << 16).view(np.float32)


@pytest.mark.parametrize("encode", [encode_csr, encode_panel_csr, encode_two_four, Dense])
@pytest.mark.parametrize("element", [Element.BFLOAT16, Element.FLOAT32])
def test_other_elements(encode, element):
    a = random_matrix(130, 300, 0.4).astype(np.float32)
    stored, a = as_bfloat16(a) if element is Element.BFLOAT16 else (a, a)
    x_bits, x = as_bfloat16(random_matrix(300, 8, 1, seed=1))
    encoded = encode(stored, element=element)
    assert_product(cpu.spmm(encoded, x_bits, element=Element.BFLOAT16), a, x)
    assert_product(cpu.spmm(encoded, x), a, x)


def test_half_precision_and_strided_activations():
    a = random_matrix(130, 300, 0.4)
    x = random_matrix(16, 300, 1).T
    assert_product(cpu.spmm(encode_panel_csr(a), x), a, x)
    assert_product(cpu.spmm(encode_tiled_csl(a), x), a, x)


@pytest.mark.parametrize("value_type", ValueType)
def test_codes_multiply_as_what_they_decode_to(value_type):
    """K ends in the second group of columns that share a scale; a unit matrix gives the decoded weights back."""
    encoded = encode_quantised_bitmap(random_matrix(131, 200, 0.4), value_type)
    x = random_matrix(200, 9, 1, seed=1)
    assert_product(cpu.spmm(encoded, x), encoded.decode(), x)
    np.testing.assert_array_equal(cpu.spmm(encoded, np.eye(200, dtype=np.float32)), encoded.decode())


def test_infinite_and_nan_weights_reach_the_output():
    a = np.zeros((3, 70), np.float16)
    a[0, 69], a[1, 5] = np.inf, np.nan
    x = np.ones((70, 8), np.float32)
    for encode, path in CASES.values():
        product = cpu.spmm(encode(a), x, path=path)
        assert np.isposinf(product[0]).all()
        assert np.isnan(product[1]).all()
        assert not product[2].any()


def test_chosen_path_follows_density():
    assert cpu.choose_path(encode_tiled_csl(random_matrix(128, 640, 0.1))) is cpu.Path.SPARSE
    assert cpu.choose_path(encode_tiled_csl(random_matrix(128, 640, 0.5))) is cpu.Path.DECODE
    assert cpu.choose_path(encode_csr(random_matrix(8, 8, 0.9))) is cpu.Path.SPARSE
    assert cpu.choose_path(Dense(random_matrix(8, 8, 0.1))) is cpu.Path.DECODE


@pytest.mark.parametrize(
    ("weights", "x", "path", "message"),
    [
        (
            Dense(np.ones((2, 3), np.float16)),
            np.ones((4, 1), np.float32),
            "auto",
            r"shape of x: \(4, 1\); allowed: \(3",
        ),
        (Dense(np.ones((2, 3), np.float16)), np.ones((3, 0), np.float32), "auto", "n >= 1"),
        (Dense(np.ones((2, 3), np.float16)), np.ones(3, np.float32), "auto", r"x: \(3,\)"),
        (Dense(np.ones((2, 3), np.float16)), np.ones((3, 1)), "auto", "dtype of x: float64"),
        (
            Dense(np.ones((2, 3), np.float16)),
            np.ones((3, 1), np.float32),
            "sparse",
            "path: sparse; allowed: auto, decode",
        ),
        (np.ones((2, 3), np.float16), np.ones((3, 1), np.float32), "auto", "weights: ndarray"),
    ],
)
def test_bad_input_is_named(weights, x, path, message):
    with pytest.raises(ValueError, match=message):
        cpu.spmm(weights, x, path=path)


BOUNDS_SCRIPT = """
import numpy as np
from kernels_numba.cpu import kernels as cpu, kernels_njit
from kernels_numba.cpu.bitmap import encode_cpu_bitmap
from kernels_numba.cpu.panel_csr import encode_panel_csr
from kernels_numba.formats import encode_tiled_csl
rng = np.random.default_rng(0)
a = rng.standard_normal((131, 65)).astype(np.float16)
a[rng.random(a.shape) < 0.6] = 0
x = rng.standard_normal((65, 7)).astype(np.float32)
encoded = [(encode(a), "auto") for encode in (encode_panel_csr, encode_cpu_bitmap)]
for weights, path in ((encode_tiled_csl(a), "decode"), (encode_tiled_csl(a), "sparse"), *encoded):
    weights.validate()
    assert (weights.decode() == a).all()
    np.testing.assert_allclose(cpu.spmm(weights, x, path=path), a.astype(float) @ x, atol=1e-4)
panel = encode_panel_csr(a)
kernel = kernels_njit.segments_kernel(8)
try:
    kernel(panel.segment_ptr, panel.col_idx, panel.values.view(np.uint16), False, (128, 1, 256, 131),
           np.zeros(64 * 8, np.float32), np.zeros(132 * 8, np.float32), 8, 0)
except (IndexError, SystemError) as error:  # Numba wraps what a parallel region raises
    print("caught:", error.__cause__ or error)
"""


def test_no_access_outside_the_arrays(tmp_path):
    """With bounds checks compiled in, all kernels pass, and an x that is one row short is caught."""
    environment = os.environ | {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-W", "error", "-c", BOUNDS_SCRIPT]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "caught: vector load outside the array" in done.stdout
