"""SparseGPT: zero weights one column at a time, and let the columns that follow make up for the error.

A layer's outputs ``W X`` change least if, once column j of ``W`` has lost ``e``, the later columns take up
``-e / U[j, j] * U[j, j+1:]``, where ``U`` is upper triangular and ``U^T U`` the inverse of ``X X^T``. Columns come in
blocks of 128: within a block each column is compensated at once, the columns behind it once a block.

References
----------
Frantar, Alistarh, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot", ICML 2023, section 3 and
algorithm 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, lapack

from kernels_numba.checkpoints.pruning import outside_pattern, smallest
from kernels_numba.formats.encoded import check

BLOCK = 128  # columns
DAMPING = 0.01  # of the mean of the diagonal of X X^T, added to all of it

Weights = NDArray[Any]  # float32 or float64


def sparsegpt(
    weights: Weights,
    factor: NDArray[np.float64],
    zeros: int,
    pattern: tuple[int, int] | None = None,
    *,
    block: int = BLOCK,
) -> Weights:
    """Weights (m, k) of which ``zeros`` are +0.0, the others moved to make up for them.

    Parameters
    ----------
    weights : (m, k) float32 or float64, finite; computed as such.
    factor : (k, k), `inverse_factor` of the inputs.
    zeros : entries to zero, shared out over blocks of columns by their width so that the sum is exact. A kept weight
        that happens to become 0 is one more. Weights of inputs that are always 0 go first.
    pattern : N and M, to keep N of each M neighbouring columns of a row instead.
    block : columns whose mask is chosen at once; with a pattern the next multiple of M.

    Raises
    ------
    ValueError
        If shapes do not fit, the pattern does not divide k, or a weight is not finite.
    """
    m, k = weights.shape
    check(factor.shape == (k, k), "shape of the factor", factor.shape, str((k, k)))
    check(np.isfinite(weights).all(), "weights", "hold infinity or NaN", "finite numbers")
    check(0 <= zeros <= m * k, "zeros", zeros, f"0 to {m * k}")
    if pattern is not None:
        check(k % pattern[1] == 0, "columns", k, f"a multiple of {pattern[1]} for an N:{pattern[1]} pattern")
        block += -block % pattern[1]
    new, factor = weights.copy(), factor.astype(weights.dtype)
    for first in range(0, k, block):
        part, last = slice(first, k), min(first + block, k)
        count = zeros * last // k - zeros * first // k
        _prune_block(new[:, part], factor[part, part], last - first, count if pattern is None else pattern)
    return new


def inverse_factor(gram: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Upper triangular U (k, k) with ``U^T U`` the inverse of a damped Gram matrix.

    Parameters
    ----------
    gram : (k, k), ``X X^T`` of the inputs X (k, tokens), times any positive factor. An input that is always 0 gets
        infinity on the diagonal: zeroing its weights costs ``(w / U[j, j])^2``, nothing, and moves no others.

    Raises
    ------
    ValueError
        If it is not square or not finite.
    """
    check(gram.ndim == 2 and gram.shape[0] == gram.shape[1], "shape of the Gram matrix", gram.shape, "(k, k)")
    check(np.isfinite(gram).all(), "Gram matrix of inputs", "holds infinity or NaN", "finite numbers")
    damped = gram.astype(np.float64)
    diagonal = np.einsum("ii->i", damped)  # a view
    silent = diagonal == 0
    diagonal += DAMPING * diagonal.mean()
    diagonal[silent] = 1
    # From the last row on, the Cholesky factor is upper triangular, R R^T, and its inverse is U.
    backwards = cholesky(damped[::-1, ::-1], lower=True, check_finite=False)
    factor, failed = lapack.dtrtri(backwards[::-1, ::-1], lower=0)
    assert not failed, "the factor's diagonal is positive"
    np.fill_diagonal(factor, np.where(silent, np.inf, np.diag(factor)))
    found: NDArray[np.float64] = factor
    return found


def _prune_block(weights: Weights, factor: Weights, width: int, how: int | tuple[int, int]) -> None:
    """Prune the first ``width`` columns in place, and let all behind them make up for it.

    Parameters
    ----------
    how : zeros, or the N and M of a pattern, whose groups are chosen when their turn comes.
    """
    inner, ease = weights[:, :width].T.copy(), np.diag(factor)  # columns are rows here
    gone, errors = np.zeros(inner.shape, np.bool_), np.empty_like(inner)
    if isinstance(how, int):
        gone = smallest(np.square(inner.T / ease[:width]), how).T
    for j in range(width):
        if isinstance(how, tuple) and j % how[1] == 0:
            group = slice(j, j + how[1])
            gone[group] = outside_pattern(np.square(inner[group].T / ease[group]), *how).T
        errors[j] = np.where(gone[j], inner[j] / ease[j], 0)
        inner[j + 1 :] -= factor[j, j + 1 : width, None] * errors[j]
    inner[gone] = 0
    weights[:, :width] = inner.T
    weights[:, width:] -= errors.T @ factor[:width, width:]
