"""How many zeros each matrix gets: the same share, or more where a matrix or a layer is thought to bear them.

References
----------
Evci et al., "Rigging the Lottery", ICML 2020, section 3 (ERK: density by matrix in proportion to (m + k) / (m k)).
Yin et al., "Outlier Weighed Layerwise Sparsity (OWL)", ICML 2024, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from kernels_numba.checkpoints.pruning import Allocation, Method, PruningRule, Scores
from kernels_numba.formats.encoded import check

OUTLIER = 5.0  # a weight is one beyond so many times the mean of its layer: M of the paper
SPREAD = 0.08  # most that a layer's sparsity differs from the mean: lambda of the paper

Shapes = Mapping[str, tuple[int, int]]


def zeros_by_matrix(rule: PruningRule, shapes: Shapes, shares: Mapping[str, float] | None = None) -> dict[str, int]:
    """Zeros of each matrix, whole rows of equally many for Wanda.

    Parameters
    ----------
    shares : sparsity of each matrix; by default what ``rule`` says, which OWL cannot without a look at activations.

    Raises
    ------
    ValueError
        If the rule is OWL's and there are no ``shares``.
    """
    if shares is None:
        check(rule.allocation is not Allocation.OWL, "allocation", rule.allocation, "uniform, erk without calibration")
        shares = dict.fromkeys(shapes, rule.sparsity)
        if rule.allocation is Allocation.ERK:
            shares = {name: 1 - density for name, density in erk_densities(shapes, rule.sparsity).items()}
    if rule.method is Method.WANDA:
        return {name: m * round(shares[name] * k) for name, (m, k) in shapes.items()}
    return {name: round(shares[name] * m * k) for name, (m, k) in shapes.items()}


def erk_densities(shapes: Shapes, sparsity: float) -> dict[str, float]:
    """Density of each matrix, in proportion to ``(m + k) / (m k)`` and at most 1, that give ``sparsity`` over all."""
    full: set[str] = set()
    while True:
        sizes = {name: m * k for name, (m, k) in shapes.items()}
        budget = (1 - sparsity) * sum(sizes.values()) - sum(sizes[name] for name in full)
        scale = budget / max(1, sum(m + k for name, (m, k) in shapes.items() if name not in full))
        beyond = {n for n, (m, k) in shapes.items() if n not in full and scale * (m + k) > m * k}
        if not beyond:
            return {name: 1.0 if name in full else scale * (m + k) / (m * k) for name, (m, k) in shapes.items()}
        full |= beyond


def outlier_share(scores: Sequence[Scores], outlier: float = OUTLIER) -> float:
    """Share of a layer's weights whose score is beyond ``outlier`` times the mean score of the layer.

    Parameters
    ----------
    scores : of each of its matrices, weight times input norm as Wanda's.
    """
    size = sum(each.size for each in scores)
    mean = sum(float(each.sum(dtype=np.float64)) for each in scores) / size
    return sum(int(np.count_nonzero(each > outlier * mean)) for each in scores) / size


def owl_sparsities(
    outliers: Sequence[float], sizes: Sequence[int], sparsity: float, spread: float = SPREAD
) -> NDArray[np.float64]:
    """Sparsity of each layer, the lower the more outliers it has; their mean, weighted by size, is ``sparsity``.

    Parameters
    ----------
    outliers : share of outliers of each layer.
    sizes : weights of each layer.
    spread : the layer furthest from ``sparsity`` differs by so much, or by less where sparsity would leave 0 to 1.

    Notes
    -----
    ``S_i = S - spread (D_i - D) / max |D_j - D|`` with the mean D of the shares D_i. The authors' program divides by
    ``(max D_j - min D_j) / 2`` instead, which lets one layer leave the range ``S +- spread`` that the paper states.
    """
    check(0 <= spread <= 1, "spread", f"{spread:g}", "a fraction from 0 to 1")
    shares = np.asarray(outliers, np.float64)
    if shares.min() == shares.max():
        return np.full_like(shares, sparsity)
    away = shares - np.average(shares, weights=sizes)
    spread = min(spread, sparsity, 1 - sparsity)
    found: NDArray[np.float64] = sparsity - spread * away / np.abs(away).max()
    return found
