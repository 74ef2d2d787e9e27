"""CSR: what its encoder refuses, and which buffers are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels_numba.formats import encode_csr
from tests.kernels_numba.formats.encodings import SAMPLE, assert_refused_or_harmless, corrupt


@pytest.mark.parametrize(
    ("encode", "message"),
    [
        (lambda: encode_csr(np.zeros((0, 4), np.float16)), r"shape: \(0, 4\)"),
        (lambda: encode_csr(np.zeros((4, 4), np.int8)), "dtype: int8"),
        (lambda: encode_csr(np.zeros((4, 4), np.float16), index_bits=8), "index_bits: 8; allowed: 16 or 32"),
        (lambda: encode_csr(np.zeros((1, 65537), np.float16), index_bits=16), "k: 65537; allowed: at most 65536"),
    ],
)
def test_bad_input_is_named(encode, message):
    with pytest.raises(ValueError, match=message):
        encode()


@pytest.mark.parametrize(
    ("name", "index", "value", "message"),
    [
        ("row_ptr", 3, -1, "falls"),
        ("row_ptr", -1, 5, r"row_ptr\[-1\]: 5"),
        ("col_idx", 7, 301, "allowed: 0 to 300"),
        ("col_idx", 7, -1, "allowed: 0 to 300"),
        ("col_idx", 7, 0, "ascending"),
    ],
)
def test_corrupt_entries_are_refused(name, index, value, message):
    with pytest.raises(ValueError, match=message):
        corrupt(encode_csr(SAMPLE), name, index, value)


@pytest.mark.parametrize("name", ["row_ptr", "col_idx"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_fuzzed_buffers_are_refused_or_lose_nothing(name, data):
    assert_refused_or_harmless(encode_csr, name, data)
