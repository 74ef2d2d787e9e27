"""SparseGPT against algebra: one column by hand, exact counts, and an output error below Wanda's and magnitude's."""

import numpy as np
import pytest

from kernels_numba.checkpoints.pruning import magnitudes, outside_pattern, smallest, smallest_of_rows
from kernels_numba.checkpoints.sparsegpt import DAMPING, inverse_factor, sparsegpt


@pytest.fixture(scope="module")
def problem() -> tuple[np.ndarray, np.ndarray]:
    """Weights (48, 320) and inputs (320, 900) that are correlated and of very different sizes, as real ones are."""
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((320, 40)) @ rng.standard_normal((40, 900)) + 0.3 * rng.standard_normal((320, 900))
    inputs *= np.exp(rng.standard_normal((320, 1)))
    return rng.standard_normal((48, 320)).astype(np.float32), inputs.astype(np.float32)


def test_two_columns_by_hand() -> None:
    """The second column takes up what the first one carried: the least-squares solution, damping included."""
    gram = np.array([[2.0, 1.0], [1.0, 4.0]])
    damped = gram + DAMPING * 3 * np.eye(2)
    new = sparsegpt(np.array([[1.0, 5.0]]), inverse_factor(gram), 1)
    np.testing.assert_allclose(new, [[0, 5 + damped[0, 1] / damped[1, 1]]])


def test_the_factor_is_that_of_the_damped_inverse() -> None:
    x = np.random.default_rng(1).standard_normal((6, 20))
    x[2] = 0
    factor, damped = inverse_factor(x @ x.T), x @ x.T
    damped[np.diag_indices(6)] += DAMPING * np.trace(damped) / 6
    damped[2, 2] = 1
    assert factor[2, 2] == np.inf
    factor[2, 2] = 1
    np.testing.assert_allclose(factor.T @ factor @ damped, np.eye(6), atol=1e-12)
    assert (np.tril(factor, -1) == 0).all()


def test_one_row_is_the_least_squares_optimum() -> None:
    """With everything left of it zeroed, what is kept of a row is the regression of the row's output on its inputs."""
    rng = np.random.default_rng(2)
    x, w = rng.standard_normal((8, 50)), rng.standard_normal((1, 8))
    w[:, 3:] *= 1e3  # the first three columns go
    gram = x @ x.T
    damped = gram + DAMPING * np.trace(gram) / 8 * np.eye(8)
    new = sparsegpt(w, inverse_factor(gram), 3)
    kept = np.linalg.solve(damped[3:, 3:], damped[3:] @ w[0])
    np.testing.assert_allclose(new[0], [0, 0, 0, *kept], rtol=1e-9)


@pytest.mark.parametrize("block", [1, 100, 128, 1000])
@pytest.mark.parametrize("zeros", [0, 1, 7_777, 48 * 320])
def test_counts_are_exact(problem: tuple[np.ndarray, np.ndarray], zeros: int, block: int) -> None:
    weights, inputs = problem
    new = sparsegpt(weights, inverse_factor(inputs @ inputs.T), zeros, block=block)
    assert (new == 0).sum() == zeros
    assert new.dtype == np.float32
    assert np.isfinite(new).all()


@pytest.mark.parametrize("pattern", [(2, 4), (1, 5), (4, 8)])
def test_patterns_hold(problem: tuple[np.ndarray, np.ndarray], pattern: tuple[int, int]) -> None:
    weights, inputs = problem
    new = sparsegpt(weights, inverse_factor(inputs @ inputs.T), 0, pattern)
    assert ((new.reshape(-1, pattern[1]) != 0).sum(1) == pattern[0]).all()


@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.7])
def test_outputs_move_less_than_wandas_and_those_less_than_magnitudes(
    problem: tuple[np.ndarray, np.ndarray], sparsity: float
) -> None:
    weights, inputs = problem
    norms = np.linalg.norm(inputs, axis=1)
    zeros = round(sparsity * weights.size)
    error = {
        "sparsegpt": weights - sparsegpt(weights, inverse_factor(inputs @ inputs.T), zeros),
        "wanda": weights * smallest_of_rows(magnitudes(weights, norms), zeros // len(weights)),
        "magnitude": weights * smallest(magnitudes(weights), zeros),
    }
    moved = {name: float(np.linalg.norm(each @ inputs)) for name, each in error.items()}
    assert moved["sparsegpt"] < 0.8 * moved["wanda"] < 0.8 * 0.8 * moved["magnitude"]


def test_patterned_outputs_move_less_than_wandas(problem: tuple[np.ndarray, np.ndarray]) -> None:
    weights, inputs = problem
    wanda = weights * outside_pattern(magnitudes(weights, np.linalg.norm(inputs, axis=1)), 2, 4)
    ours = weights - sparsegpt(weights, inverse_factor(inputs @ inputs.T), 0, (2, 4))
    assert np.linalg.norm(ours @ inputs) < 0.8 * np.linalg.norm(wanda @ inputs)


def test_weights_of_silent_inputs_go_first(problem: tuple[np.ndarray, np.ndarray]) -> None:
    weights, inputs = problem
    silent = inputs.copy()
    silent[10:20] = 0
    new = sparsegpt(
        weights, inverse_factor(silent @ silent.T), 48 * 10 * 320 // 128
    )  # the first block's part is 48 * 10
    assert (new[:, 10:20] == 0).all()
    assert (sparsegpt(weights, inverse_factor(np.zeros((320, 320))), 100) == 0).sum() == 100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"factor": np.eye(3)}, r"shape of the factor: \(3, 3\); allowed: \(8, 8\)"),
        ({"zeros": 33}, "zeros: 33; allowed: 0 to 32"),
        ({"pattern": (1, 3)}, "columns: 8; allowed: a multiple of 3"),
        ({"weights": np.full((4, 8), np.nan)}, "weights: hold infinity or NaN; allowed: finite numbers"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sparsegpt(**{"weights": np.ones((4, 8)), "factor": np.eye(8), "zeros": 4} | change)
    with pytest.raises(ValueError, match="Gram matrix of inputs: holds infinity or NaN"):
        inverse_factor(np.full((2, 2), np.inf))
    with pytest.raises(ValueError, match=r"shape of the Gram matrix: \(2, 3\)"):
        inverse_factor(np.ones((2, 3)))
