"""The first fraction at which something holds."""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel.crossing import first_fraction
from tests.comparison import assert_close


def test_the_first_fraction_is_found_for_many_cases_at_once() -> None:
    starts = np.array([[0.0, 1e-8, 0.3], [2 / 3, 1.0, 1.1]])
    found = first_fraction(lambda s: s >= starts[..., None], starts.shape)
    assert_close(found[np.isfinite(found)], starts[starts <= 1], relative=0, absolute=1e-9)
    assert np.isnan(found[1, 2])


def test_of_several_beginnings_the_first_counts() -> None:
    found = first_fraction(lambda s: ((s > 0.123456789) & (s < 0.2)) | (s > 0.7))
    assert float(found) == pytest.approx(0.123456789, abs=1e-9)
