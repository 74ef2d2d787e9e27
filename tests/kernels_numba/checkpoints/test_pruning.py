"""Rules of pruning, matrix by matrix: exact counts, and the right weights gone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kernels_numba.checkpoints.pruning import (
    Allocation,
    Method,
    PruningRule,
    below_threshold,
    global_threshold,
    magnitudes,
    outside_pattern,
    smallest,
    smallest_of_rows,
)


@settings(max_examples=80, deadline=None)
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 5)),
    st.floats(0, 1),
)
def test_smallest_is_a_stable_sort(scores: np.ndarray, fraction: float) -> None:
    """Many ties: of equal scores the first go."""
    count = round(fraction * scores.size)
    expected = np.zeros(scores.size, bool)
    expected[np.argsort(scores, axis=None, kind="stable")[:count]] = True
    np.testing.assert_array_equal(smallest(scores, count), expected.reshape(scores.shape))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(hnp.arrays(np.float32, (3, 5), elements=st.floats(0, 2.0**100, width=32)), min_size=1, max_size=4),
    st.floats(0, 1),
)
def test_global_threshold_is_a_sort_of_everything(matrices: list[np.ndarray], fraction: float) -> None:
    everything = np.concatenate([matrix.ravel() for matrix in matrices])
    count = round(fraction * everything.size)
    threshold = global_threshold(lambda: matrices, count)
    masks = []
    for matrix in matrices:
        mask, threshold = below_threshold(matrix, threshold)
        masks.append(mask.ravel())
    expected = np.zeros(everything.size, bool)
    expected[np.argsort(everything, kind="stable")[:count]] = True
    np.testing.assert_array_equal(np.concatenate(masks), expected)


def test_masks_by_hand() -> None:
    scores = np.array([[5, 1, 3, 3, 0, 9, 2, 2]], np.float32)
    assert outside_pattern(scores, 2, 4).tolist() == [[False, True, True, False, True, False, True, False]]
    assert smallest_of_rows(np.array([[3, 1], [0, 2]], np.float32), 1).tolist() == [[False, True], [True, False]]
    with pytest.raises(ValueError, match="columns: 6; allowed: a multiple of 4"):
        outside_pattern(np.ones((2, 6), np.float32), 2, 4)


def test_wanda_scores_by_hand() -> None:
    """|w| times the norm of the column, compared within a row: the large weight of a silent input goes first."""
    weights, norms = np.array([[4, -1, 2], [1, 1, 1]], np.float32), np.array([0.1, 3, 1], np.float32)
    scores = magnitudes(weights, norms)
    np.testing.assert_allclose(scores, [[0.4, 3, 2], [0.1, 3, 1]])
    assert smallest_of_rows(scores, 1).tolist() == [[True, False, False], [True, False, False]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((Method.MAGNITUDE, 0.5, 2, 4), "method of 2:4: magnitude; allowed: nm, wanda, sparsegpt"),
        ((Method.WANDA, 0.5, 2, 4, 0, Allocation.OWL), "allocation of 2:4: owl; allowed: uniform"),
        (
            (Method.RANDOM, 0.5, 2, None, 0, Allocation.OWL),
            "method: random; allowed: magnitude, wanda, sparsegpt with owl",
        ),
        ((Method.ERK, 0.5, 2, None, 0, Allocation.OWL), "allocation of erk: owl; allowed: erk"),
        ((Method.MAGNITUDE, 1.01), "sparsity: 1.01; allowed: a fraction"),
        ((Method.MAGNITUDE, float("nan")), "sparsity: nan"),
        ((Method.NM, 0.5, 5, 4), "n:m: 5:4"),
        ((Method.NM, 0.6, 2, 4), "sparsity: 0.6; allowed: 0.5 for 2:4"),
    ],
)
def test_rules_that_do_not_exist(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PruningRule(*arguments)
