"""2:4 with a residual: metadata by hand, the expected residual, and which buffers are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels_numba.formats import encode_two_four
from tests.kernels_numba.formats.encodings import SAMPLE, assert_refused_or_harmless, corrupt
from tests.kernels_numba.problems import random_bits


def test_two_four_metadata_by_hand():
    a = np.array([[0, 1, 0, 2, 3, 4, 5, 6, 0, 0, 0, 7, 0, 0, 0, 0]], np.float16)
    encoded = encode_two_four(a)
    assert encoded.values.tolist() == [[1, 2, 3, 4, 0, 7, 0, 0]]
    pairs = [(1, 3), (0, 1), (2, 3), (0, 1)]
    assert encoded.metadata[0, 0] == sum((low | high << 2) << 4 * group for group, (low, high) in enumerate(pairs))
    assert encoded.residual.col_idx.tolist() == [6, 7]


def test_two_four_residual_count_matches_expectation():
    """Residual per weight of Bernoulli weights: (4 d^3 s + 2 d^4) / 4, the third and fourth of each group."""
    a = random_bits((512, 1024), 0.5).view(np.float16)
    expected = a.size / 4 * (4 * 0.5**4 + 2 * 0.5**4)
    assert encode_two_four(a).residual.nnz == pytest.approx(expected, rel=0.02)


def test_value_in_both_parts_of_two_four_is_refused():
    encoded = encode_two_four(np.ones((1, 16), np.float16))
    with pytest.raises(ValueError, match="disjoint parts"):
        corrupt(encoded, "metadata", (0, 0), 0xEEEE)
    with pytest.raises(ValueError, match="column 9; allowed: below 9"):
        corrupt(encode_two_four(np.ones((1, 9), np.float16)), "values", (0, 5), 1)


@pytest.mark.parametrize(
    ("name", "index", "value", "message"),
    [
        ("metadata", (0, 0), 0, "positions not ascending"),
        ("metadata", (0, 0), 0xFFFF, "positions not ascending"),
    ],
)
def test_corrupt_entries_are_refused(name, index, value, message):
    with pytest.raises(ValueError, match=message):
        corrupt(encode_two_four(SAMPLE), name, index, value)


@pytest.mark.parametrize("name", ["metadata"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_fuzzed_buffers_are_refused_or_lose_nothing(name, data):
    assert_refused_or_harmless(encode_two_four, name, data)
