"""What every encoding must withstand: exact round trips, single wrong entries, any wrong entry."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.kernels_numba.problems import random_bits, without_minus_zero

SAMPLE = random_bits((200, 301), 0.3, seed=3).view(np.float16)
SPARSE_SAMPLE = random_bits((200, 301), 0.02, seed=4).view(np.float16)


def assert_round_trip(encoded: Any, bits: NDArray[Any]) -> None:
    """Decoding gives ``bits`` back, but for the sign of zeros, and the non-zeros are counted."""
    expected = without_minus_zero(bits)
    np.testing.assert_array_equal(encoded.decode().view(bits.dtype), expected)
    assert encoded.nnz == np.count_nonzero(expected)
    assert encoded.shape == bits.shape
    encoded.validate()


def corrupt(encoded: Any, name: str, index: Any, value: Any) -> Any:
    """Copy of ``encoded`` with one entry of one buffer replaced, rebuilt through ``from_buffers``."""
    fields = {item.name: getattr(encoded, item.name) for item in dataclasses.fields(encoded)}
    fields[name] = fields[name].copy()
    fields[name][index] = value
    return type(encoded).from_buffers(**fields)


def assert_refused_or_harmless(encode: Callable[[NDArray[np.float16]], Any], name: str, data: Any) -> None:
    """Whatever entry changes: a clear error, or an encoding in which every stored non-zero has its own place."""
    encoded = encode(SPARSE_SAMPLE)
    buffer = getattr(encoded, name)
    index = np.unravel_index(data.draw(st.integers(0, buffer.size - 1)), buffer.shape)
    limits = np.iinfo(buffer.dtype)
    value = data.draw(st.integers(int(limits.min), int(limits.max)))
    try:
        accepted = corrupt(encoded, name, index, value)
    except ValueError:
        return
    assert np.count_nonzero(without_minus_zero(accepted.decode().view(np.uint16))) == accepted.nnz
