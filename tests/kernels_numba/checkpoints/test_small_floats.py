"""Tables of small floats, code by code against the formula, and the codes that are no numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kernels_numba.checkpoints.small_floats import FIELDS, values_of
from tests.kernels_numba.checkpoints.layouts.files import small_float


@pytest.mark.parametrize("dtype", FIELDS)
def test_every_code_is_what_the_formula_says(dtype: str) -> None:
    table = values_of(dtype)
    assert table.dtype == np.float32
    assert len(table) == 1 << (1 + FIELDS[dtype][0] + FIELDS[dtype][1])
    for code, value in enumerate(table):
        if math.isfinite(value):
            assert value == small_float(code, *FIELDS[dtype]), code


def test_codes_that_are_no_numbers() -> None:
    """E4M3 gives up two codes, E5M2 eight, FNUZ the one of minus zero, floats below 8 bits none."""
    assert np.flatnonzero(np.isnan(values_of("F8_E4M3"))).tolist() == [127, 255]
    assert np.flatnonzero(np.isinf(values_of("F8_E5M2"))).tolist() == [124, 252]
    assert np.flatnonzero(np.isnan(values_of("F8_E5M2"))).tolist() == [125, 126, 127, 253, 254, 255]
    for dtype in ("F8_E4M3FNUZ", "F8_E5M2FNUZ"):
        assert np.flatnonzero(~np.isfinite(values_of(dtype))).tolist() == [128]
    for dtype in ("F4", "F6_E2M3", "F6_E3M2"):
        assert np.isfinite(values_of(dtype)).all()


def test_powers_of_two() -> None:
    table = values_of("F8_E8M0")
    assert table[127] == 1
    assert [float(table[0]), float(table[254])] == [2.0**-127, 2.0**127]
    assert np.isnan(table[255])


def test_published_extremes() -> None:
    assert [np.nanmax(values_of(x)) for x in ("F4", "F6_E2M3", "F6_E3M2", "F8_E4M3")] == [6, 7.5, 28, 448]
    with pytest.raises(ValueError, match="dtype: F16; allowed: F4"):
        values_of("F16")
