"""How many bytes do weights take that were pruned to a pattern which 2:4 Tensor Cores multiply?

The family (2N-2):2N keeps 2N - 2 of 2N consecutive weights of a row; a fraction ``s = 1 / N`` is zero. 2:4 is N = 2.
SlideSparse stores a block of 2N columns as N - 1 overlapping windows of 4 columns, each 2:4: 2N - 2 values with a 2-bit
index each. So the stored row is 2:4 over ``K' = 2 (1 - s) K`` columns, longer than the row itself for N > 2.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from perfmodel.catalog.arguments import text
from perfmodel.formats.base import Activations, Array, WeightFormat, at_any_sparsity
from perfmodel.formats.scales import PER_GROUP, PER_ROW, PER_TENSOR, Scales
from perfmodel.units import BITS_PER_BYTE

PATTERNS = {"2:4": 1 / 2, "4:6": 1 / 3, "6:8": 1 / 4, "8:10": 1 / 5}  # fraction of zeros
MOST_SPARSE = 1 / 2
INDEX_BITS = 2


def pattern_sparsity(name: str) -> float:
    """Fraction of zeros of a pattern, or of a format that is built on one.

    Raises
    ------
    ValueError
        If the name holds no pattern; the message lists them.

    Examples
    --------
    >>> pattern_sparsity("6:8-fp8")
    0.25
    """
    for part in text("pattern", name).split("-"):
        if part in PATTERNS:
            return PATTERNS[part]
    raise ValueError(f"{name!r} holds no pattern, which are {', '.join(PATTERNS)}")


def two_four_family_bytes(m: ArrayLike, k: ArrayLike, sparsity: ArrayLike, value_bits: ArrayLike = 16) -> Array:
    """Bytes of values and indices in a (2N-2):2N pattern, scales apart; all four arguments broadcast.

    Parameters
    ----------
    sparsity
        ``1 / N``, in [0, 1/2]; towards 0 (N without end) everything is kept and stored twice as wide, K' = 2 K.
    value_bits
        Of a kept weight.

    Raises
    ------
    ValueError
        If a sparsity is none of the family; the message names it.

    Notes
    -----
    ``(1 - s) m k (value_bits + 2) / 8``, for ``k`` a multiple of 2N; otherwise the last block counts in part.

    References
    ----------
    Shao et al., "SlideSparse", arXiv 2603.05232; Mishra et al., "Accelerating Sparse Deep Neural Networks",
    arXiv 2104.08378 (2:4).

    Examples
    --------
    >>> float(two_four_family_bytes(1, 8, [1 / 4, 1 / 2])[0])  # 6 values of 2 bytes, 12 bits of indices
    13.5
    """
    s = np.asarray(sparsity, dtype=np.float64)
    wrong = ~((s >= 0) & (s <= MOST_SPARSE))
    if np.any(wrong):
        raise ValueError(f"sparsity 1/N of a (2N-2):2N pattern must lie in [0, 0.5], got {float(s[wrong].flat[0]):g}")
    kept = (1 - s) * np.asarray(m, dtype=np.float64) * np.asarray(k, dtype=np.float64)
    return kept * (np.asarray(value_bits, dtype=np.float64) + INDEX_BITS) / BITS_PER_BYTE


def two_four_residual_density(sparsity: ArrayLike) -> Array:
    """Fraction of all weights that do not fit a 2:4 pattern and go to SparTA's residual.

    Of each group of four weights the third and fourth non-zero are left over: with density ``d`` and four independent
    weights, ``(4 d^3 s + 2 d^4) / 4``.

    References
    ----------
    Fan et al., "SpInfer", EuroSys 2025, section 3 (storage of SparTA).
    """
    s = np.asarray(sparsity, dtype=np.float64)
    d = 1.0 - s
    return (4 * d**3 * s + 2 * d**4) / 4


def _row(
    name: str,
    title: str,
    source: str,
    bits: int = 16,
    scales: Scales | None = None,
    activations: Activations = "fp16",
) -> WeightFormat:
    sparsity = pattern_sparsity(name)
    block = round(2 / sparsity)  # columns

    def size(m: Array, k: Array) -> Array:
        stored = two_four_family_bytes(m, np.ceil(k / block) * block, sparsity, bits)
        return stored if scales is None else stored + scales.bytes(m, k)

    lossless = scales is None
    return WeightFormat(
        name, title, at_any_sparsity(size), False, lossless, source, prunes=True, activations=activations
    )


_WHITEPAPER = "NVIDIA A100 whitepaper: half the values, 2-bit indices"
_MISHRA = "Mishra et al., Accelerating Sparse Deep Neural Networks, arXiv 2104.08378; NVIDIA cuSPARSELt"
_SPARSE_MARLIN = "Frantar et al., MARLIN, PPoPP 2025 (Sparse-MARLIN)"
_SLIDE = "Shao et al., SlideSparse, arXiv 2603.05232"

PATTERNED = (
    _row("2:4", "2:4", _WHITEPAPER),
    _row("2:4-fp8", "FP8 + 2:4", _MISHRA, 8, PER_TENSOR, "fp8"),
    _row("2:4-int8", "INT8 + 2:4", _MISHRA, 8, PER_ROW, "int8"),
    _row("int4-2:4", "INT4 + 2:4", _SPARSE_MARLIN, 4, PER_GROUP),
    _row("4:6", "4:6", _SLIDE),
    _row("6:8", "6:8", _SLIDE),
    _row("6:8-fp8", "FP8 + 6:8", _SLIDE, 8, PER_TENSOR, "fp8"),
    _row("6:8-int8", "INT8 + 6:8", _SLIDE, 8, PER_ROW, "int8"),
    _row("8:10", "8:10", _SLIDE),
)
