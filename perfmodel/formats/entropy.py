"""How many bytes do BF16 weights take whose exponents are entropy coded, not one bit lost?

Trained weights are close to normally distributed, so that few of the 256 exponents occur often. DFloat11 stores sign
and mantissa as they are (8 bits) and the exponent in a Huffman code.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from functools import cache
from itertools import pairwise
from math import erf, floor, log2, sqrt

import numpy as np

from perfmodel.formats.base import Array, WeightFormat, at_any_sparsity
from perfmodel.units import BITS_PER_BYTE, FP32_BYTES

BINADES_ABOVE, BINADES_BELOW = 4, 40  # around the standard deviation; beyond are fewer than one weight in 1e12
PHASES = 16  # places of the standard deviation within its binade
RAW_BITS = 8  # sign and mantissa
BYTES_PER_THREAD, THREADS_PER_BLOCK = 8, 512  # of the decoder, by which the code is cut
GAP_BITS = 5  # where in a thread's 8 bytes its first code begins
DECODING_TABLES, TABLE_BYTES = 5, 256  # one for each byte of a code, at most four, and the lengths of the codes


def huffman_bits(probabilities: Iterable[float]) -> float:
    """Expected bits of a symbol in the Huffman code of these probabilities.

    Examples
    --------
    >>> huffman_bits([0.5, 0.25, 0.25])
    1.5
    """
    heap = list(probabilities)
    heapq.heapify(heap)
    bits = 0.0
    while len(heap) > 1:  # each merge puts one more bit before all that it joins
        joined = heapq.heappop(heap) + heapq.heappop(heap)
        bits += joined
        heapq.heappush(heap, joined)
    return bits


def binade_probabilities(sigma: float) -> list[float]:
    """Probability of each exponent of a normal variable of standard deviation ``sigma``, the smallest first."""
    middle = floor(log2(sigma))
    edges = [2.0**e / sigma for e in range(middle - BINADES_BELOW, middle + BINADES_ABOVE)]
    below = [0.0, *(erf(edge / sqrt(2)) for edge in edges), 1.0]
    return [high - low for low, high in pairwise(below)]


@cache
def exponent_bits() -> float:
    """Expected bits of an exponent, the mean over where in its binade the standard deviation lies: 2.58.

    The standard deviation itself does not matter, since twice of it raises every exponent by one; its place within the
    binade does by less than 1 %.
    """
    return float(np.mean([huffman_bits(binade_probabilities(2 ** (i / PHASES))) for i in range(PHASES)]))


def _df11(m: Array, k: Array) -> Array:
    """Bytes of one matrix in DFloat11.

    Notes
    -----
    Signs and mantissas, codes, 5 bits a thread and 4 bytes a block of threads to find their place, tables. Rows of one
    matrix differ in their standard deviation, which makes for more entropy: four published models are 0.3 to 1.1 %
    larger. The authors join the matrices of a transformer layer, which saves tables only.

    This is for BF16. FP16 is another matter: of its 5 bits of exponent 2.6 remain, its 10 bits of mantissa are as
    random as the 7 here, so that 13.6 of 16 bits remain before any overhead.

    References
    ----------
    Zhang et al., "70% Size, 100% Accuracy", arXiv 2504.11651, section 2; github.com/LeanModels/DFloat11 at 4577338.
    """
    codes = np.ceil(m * k * exponent_bits() / BITS_PER_BYTE)
    blocks = np.ceil(codes / (BYTES_PER_THREAD * THREADS_PER_BLOCK))
    gaps = blocks * THREADS_PER_BLOCK * GAP_BITS / BITS_PER_BYTE
    positions = FP32_BYTES * (blocks + 1)
    return m * k * RAW_BITS / BITS_PER_BYTE + codes + gaps + positions + DECODING_TABLES * TABLE_BYTES


_SOURCE = "Zhang et al., DFloat11, NeurIPS 2025, arXiv 2504.11651"
CODED = (WeightFormat("df11", "DFloat11 (BF16, lossless)", at_any_sparsity(_df11), False, True, _SOURCE),)
