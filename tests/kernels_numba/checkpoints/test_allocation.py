"""How many zeros each matrix gets: sums and limits, by hand."""

import numpy as np
import pytest

from kernels_numba.checkpoints.allocation import erk_densities, outlier_share, owl_sparsities, zeros_by_matrix
from kernels_numba.checkpoints.pruning import Allocation, Method, PruningRule


def test_erk_by_hand() -> None:
    """Densities in proportion to (m + k) / (m k): 0.2 and 0.11, of 100 and 400 weights; half of all stays."""
    densities = erk_densities({"a": (10, 10), "b": (20, 20)}, 0.5)
    assert densities["a"] / densities["b"] == pytest.approx(2)
    assert 100 * densities["a"] + 400 * densities["b"] == pytest.approx(250)
    capped = erk_densities({"a": (2, 2), "b": (100, 100)}, 0.1)
    assert capped["a"] == 1
    assert 4 + 1e4 * capped["b"] == pytest.approx(0.9 * 10004)


def test_outliers_by_hand() -> None:
    """Two matrices of one layer: mean score (4 x 1 + 1 + 7) / 6 = 2, so only 7 is beyond three times it."""
    layer = [np.ones((2, 2), np.float32), np.array([[1, 7]], np.float32)]
    assert outlier_share(layer, 3) == pytest.approx(1 / 6)
    assert outlier_share(layer, 4) == 0


def test_owl_by_hand() -> None:
    """Mean share 0.2; the first layer is furthest from it and gets all of the spread, the others in proportion."""
    np.testing.assert_allclose(owl_sparsities([0.5, 0.1, 0.0], [1, 1, 1], 0.6, 0.09), [0.51, 0.63, 0.66])
    np.testing.assert_array_equal(owl_sparsities([0.1] * 7, [3] * 7, 0.6), [0.6] * 7)


@pytest.mark.parametrize("sparsity", [0.0, 0.03, 0.5, 0.97, 1.0])
def test_owl_keeps_the_mean_and_its_limits(sparsity: float) -> None:
    rng = np.random.default_rng(1)
    outliers, sizes = rng.random(12), rng.integers(1, 9, 12)
    found = owl_sparsities(outliers.tolist(), sizes.tolist(), sparsity, 0.08)
    assert np.average(found, weights=sizes) == pytest.approx(sparsity, abs=1e-14)
    assert np.abs(found - sparsity).max() == pytest.approx(min(0.08, sparsity, 1 - sparsity))
    assert (np.argsort(found) == np.argsort(-outliers)).all() or sparsity in (0, 1)


def test_zeros_of_each_method() -> None:
    """A row of Wanda's has round(0.3 * 5) = 2 of them (ties to even); a whole matrix of magnitude's 4.5, so 4."""
    shapes = {"a": (3, 5)}
    assert zeros_by_matrix(PruningRule(Method.WANDA, 0.3), shapes) == {"a": 6}
    assert zeros_by_matrix(PruningRule(Method.MAGNITUDE, 0.3), shapes) == {"a": 4}
    owl = PruningRule(Method.MAGNITUDE, 0.3, allocation=Allocation.OWL)
    assert zeros_by_matrix(owl, shapes, {"a": 0.4}) == {"a": 6}
    with pytest.raises(ValueError, match="allocation: owl; allowed: uniform, erk without calibration"):
        zeros_by_matrix(owl, shapes)
