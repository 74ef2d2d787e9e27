"""Expected shared-memory wavefronts against sampling."""

from __future__ import annotations

import numpy as np
from numpy.testing import assert_allclose

from perfmodel.kernels.conflicts import expected_wavefronts


def test_expected_wavefronts_against_sampling():
    sample = np.random.default_rng(0).integers(0, 32, (20_000, 32))
    fullest = [np.bincount(row, minlength=32).max() for row in sample]
    assert_allclose(expected_wavefronts(32), np.mean(fullest), rtol=0.01)
    assert expected_wavefronts(2, 2) == 1.5
