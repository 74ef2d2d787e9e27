"""CSR of panels, the CPU's own format: which input and which buffers are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels_numba.cpu.panel_csr import encode_panel_csr
from tests.kernels_numba.formats.encodings import SAMPLE, assert_refused_or_harmless, corrupt


@pytest.mark.parametrize(
    ("encode", "message"),
    [
        (lambda: encode_panel_csr(np.zeros((4, 4), np.uint16)), "dtype: uint16"),
    ],
)
def test_bad_input_is_named(encode, message):
    with pytest.raises(ValueError, match=message):
        encode()


@pytest.mark.parametrize(
    ("name", "index", "value", "message"),
    [
        ("segment_ptr", 3, 10**6, "falls"),
        ("col_idx", -1, 255, "outside the matrix"),
        ("col_idx", 1, 0, "does not ascend"),
    ],
)
def test_corrupt_entries_are_refused(name, index, value, message):
    with pytest.raises(ValueError, match=message):
        corrupt(encode_panel_csr(SAMPLE), name, index, value)


@pytest.mark.parametrize("name", ["segment_ptr", "col_idx"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_fuzzed_buffers_are_refused_or_lose_nothing(name, data):
    assert_refused_or_harmless(encode_panel_csr, name, data)
