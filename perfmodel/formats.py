"""How many bytes does a weight matrix take in each sparse or quantised format?

Closed forms for a matrix of ``m`` rows and ``k`` columns whose zeros fall at random with probability ``sparsity``
(Bernoulli, independent). Expectations are exact under that assumption, padding included; a real matrix with clustered
zeros differs only in the padding. All functions broadcast over arrays.

Pattern formats (2:4) and quantised formats do not depend on ``sparsity``: their bytes are those of a matrix that has
already been forced into the pattern.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.crossing import first_fraction
from perfmodel.units import BITS_PER_BYTE, FP16_BYTES, FP32_BYTES

Array = NDArray[np.float64]
BytesOf = Callable[[Array, Array, Array], Array]

TILE_M, TILE_K = 128, 64  # Tiled-CSL tile
TILED_CSL_WORDS = 4  # every tile is padded to one 128-bit load
CERTAIN_COUNT = 40.0  # powers of the roots of unity below are then smaller than exp(-40)
TABLE_FROM = 1_000  # points below which a table of distinct values is not worth its making
STRIP_M, STRIP_K, STRIP_UNIT_BYTES = 32, 64, 16  # lane-ordered bitmap: strips are padded to one asynchronous copy
BITMAP_SIDE, GROUP_SIDE = 8, 64  # TCA-BME bitmap and group tile
MACKO_MAX_GAP = 16  # a 4-bit delta reaches 16 columns
MACKO_VALUE_BYTES = 2.5  # FP16 value and 4-bit delta
QUANT_GROUP = 128  # weights that share one FP16 scale
GQSA_GROUP = 16  # consecutive weights kept or dropped together


@dataclass(frozen=True)
class WeightFormat:
    """One storage format.

    Attributes
    ----------
    name : str
        What users type.
    title : str
        What figures show.
    bytes_of : callable
        ``(m, k, sparsity) -> bytes`` on float arrays.
    depends_on_sparsity : bool
        False for dense, pattern and quantised formats.
    lossless : bool
        True if every kept weight keeps its FP16 value.
    source : str
        Where the layout is defined.
    """

    name: str
    title: str
    bytes_of: BytesOf
    depends_on_sparsity: bool
    lossless: bool
    source: str

    def bytes(self, m: ArrayLike, k: ArrayLike, sparsity: ArrayLike = 0.0) -> Array:
        """Bytes of an ``m`` x ``k`` matrix at ``sparsity`` (fraction of zeros).

        Raises
        ------
        ValueError
            If a size is not positive or a sparsity lies outside [0, 1]; the message names the value.
        """
        sizes = [np.asarray(v, dtype=np.float64) for v in (m, k)]
        for letter, size in zip("mk", sizes, strict=True):
            if np.any(~(size > 0)):
                raise ValueError(f"{letter} must be positive, got {float(np.min(size)):g}")
        return self.bytes_of(sizes[0], sizes[1], check_sparsity(sparsity))

    def bits_per_weight(self, m: ArrayLike, k: ArrayLike, sparsity: ArrayLike = 0.0) -> Array:
        """Bits a weight takes on average, zeros counted as weights."""
        weights = np.asarray(m, dtype=np.float64) * np.asarray(k, dtype=np.float64)
        return self.bytes(m, k, sparsity) * BITS_PER_BYTE / weights


def check_sparsity(sparsity: ArrayLike) -> Array:
    """``sparsity`` as a float array.

    Raises
    ------
    ValueError
        If a value lies outside [0, 1]; names it, and the fraction that a percentage may have meant.
    """
    values = np.asarray(sparsity, dtype=np.float64)
    wrong = ~((values >= 0) & (values <= 1))
    if np.any(wrong):
        value = float(values[wrong].flat[0])
        hint = f"; sparsity is a fraction, did you mean {value / 100:g}?" if 1 < value <= 100 else ""
        raise ValueError(f"sparsity must lie in [0, 1], got {value:g}{hint}")
    return values


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


def _dense(m: Array, k: Array, s: Array) -> Array:
    return FP16_BYTES * m * k + 0 * s


def _csr_bytes(nnz: Array, m: Array, index_bytes: int) -> Array:
    return (FP16_BYTES + index_bytes) * nnz + FP32_BYTES * (m + 1)


def _csr(m: Array, k: Array, s: Array) -> Array:
    return _csr_bytes((1 - s) * m * k, m, index_bytes=4)


def _csr16(m: Array, k: Array, s: Array) -> Array:
    return _csr_bytes((1 - s) * m * k, m, index_bytes=2)


def _coo(m: Array, k: Array, s: Array) -> Array:
    return (FP16_BYTES + 4 + 4) * (1 - s) * m * k


def expected_stored(elements: Array, sparsity: Array, unit: int) -> Array:
    """Expected non-zeros among ``elements`` Bernoulli weights, rounded up to a multiple of ``unit``, which is even.

    Exact: ``E[(-X) mod u] = (u-1)/2 + sum over j = 1 .. u-1 of E[w_j ** X] / (w_j - 1)`` for a binomial ``X`` and the
    u-th roots of unity ``w_j``; ``E[w ** X] = (s + d w) ** elements``. Roots come in conjugate pairs, but for -1.
    """
    d = 1.0 - sparsity
    angles = 2 * np.pi / unit * np.arange(1, unit // 2)
    # abs(s + d w) <= exp(-d s (1 - cos angle)), and the first root decays most slowly.
    if np.all(elements * d * sparsity * (1 - np.cos(angles[0])) > CERTAIN_COUNT):
        return d * elements + (unit - 1) / 2  # so many that every remainder is equally likely
    if np.all(elements == 0):
        return np.zeros_like(d * elements)
    return d * elements + _tabulated(_expected_padding, elements, sparsity, unit)


def _expected_padding(elements: Array, sparsity: Array, unit: int) -> Array:
    d = 1.0 - sparsity
    padding = (unit - 1) / 2 - 0.5 * (sparsity - d) ** elements
    for root in np.exp(2j * np.pi / unit * np.arange(1, unit // 2)):
        mean, pole = sparsity + d * root, root - 1
        turned = np.cos(elements * np.angle(mean) - np.angle(pole))  # real arithmetic is twice as fast
        padding = padding + 2 / abs(pole) * np.exp(elements * np.log(np.abs(mean))) * turned
    return np.where(elements > 0, padding, 0.0)


def _tabulated(function: Callable[[Array, Array, int], Array], first: Array, second: Array, unit: int) -> Array:
    """``function`` of two arrays, evaluated once for each pair of their values if that saves half of the work."""
    if np.broadcast(first, second).size > TABLE_FROM:
        (a, at_a), (b, at_b) = (np.unique(values, return_inverse=True) for values in (first, second))
        if 2 * a.size * b.size < np.broadcast(first, second).size:
            table = function(a[:, None], b, unit)
            return table[at_a.reshape(first.shape), at_b.reshape(second.shape)]
    return function(first, second, unit)


def _stored_in_tiles(m: Array, k: Array, s: Array, tile: tuple[int, int], unit: int) -> Array:
    """Expected values of a matrix cut into tiles, those of every tile padded to a multiple of ``unit``."""
    tile_m, tile_k = tile
    rows, columns = np.floor(m / tile_m), np.floor(k / tile_k)
    rest_m, rest_k = m - rows * tile_m, k - columns * tile_k
    return (
        rows * columns * expected_stored(np.asarray(float(tile_m * tile_k)), s, unit)
        + columns * expected_stored(rest_m * tile_k, s, unit)
        + rows * expected_stored(tile_m * rest_k, s, unit)
        + expected_stored(rest_m * rest_k, s, unit)
    )


def _tiled_csl(m: Array, k: Array, s: Array) -> Array:
    tiles = np.ceil(m / TILE_M) * np.ceil(k / TILE_K)
    return 4 * _stored_in_tiles(m, k, s, (TILE_M, TILE_K), TILED_CSL_WORDS) + 4 * (tiles + 2)


def _lscd_bitmap(value_bits: int) -> BytesOf:
    """Masks, offsets, and values padded to 16 bytes a strip; quantised ones with a scale per row and 128 columns."""
    unit = STRIP_UNIT_BYTES * BITS_PER_BYTE // value_bits

    def bytes_of(m: Array, k: Array, s: Array) -> Array:
        strips = np.ceil(m / STRIP_M) * np.ceil(k / STRIP_K)
        values = _stored_in_tiles(m, k, s, (STRIP_M, STRIP_K), unit) * value_bits / BITS_PER_BYTE
        scales = 0 if value_bits == FP16_BYTES * BITS_PER_BYTE else FP16_BYTES * m * np.ceil(k / QUANT_GROUP)
        return STRIP_M * STRIP_K / BITS_PER_BYTE * strips + 4 * (strips + 2) + values + scales

    return bytes_of


def _lscd_bitmap_pairs(m: Array, k: Array, s: Array) -> Array:
    """A bit for two neighbouring columns, 4 bytes if either is kept, padded to 16 bytes a strip."""
    strips = np.ceil(m / STRIP_M) * np.ceil(k / STRIP_K)
    pairs = _stored_in_tiles(m, np.ceil(k / 2), s**2, (STRIP_M, STRIP_K // 2), STRIP_UNIT_BYTES // 4)
    return STRIP_M * STRIP_K / 2 / BITS_PER_BYTE * strips + 4 * (strips + 2) + 4 * pairs


def _two_four(m: Array, k: Array, s: Array) -> Array:
    kept = m * k / 2
    return FP16_BYTES * kept + kept * 2 / BITS_PER_BYTE + 0 * s


def _sparta(m: Array, k: Array, s: Array) -> Array:
    return _two_four(m, k, s) + _csr_bytes(two_four_residual_density(s) * m * k, m, index_bytes=4)


def _bitmap(m: Array, k: Array, s: Array) -> Array:
    groups = np.ceil(m / GROUP_SIDE) * np.ceil(k / GROUP_SIDE)
    bitmaps = groups * (GROUP_SIDE // BITMAP_SIDE) ** 2
    return 4 * (groups + 1) + 8 * bitmaps + FP16_BYTES * (1 - s) * m * k


def _macko(m: Array, k: Array, s: Array) -> Array:
    """Each stored value has a 4-bit gap to its predecessor; a longer gap costs one padding zero per 16 columns."""
    q = s**MACKO_MAX_GAP
    steps = np.floor(k / MACKO_MAX_GAP)
    gap = np.maximum(1 - q, 1e-12)
    powers = np.where(q < 1, q * (1 - q**steps) / gap, steps)
    weighted = np.where(q < 1, (powers - steps * q ** (steps + 1)) / gap, steps * (steps + 1) / 2)
    stored = (1 - s) * m * (k + k * powers - MACKO_MAX_GAP * weighted)
    return MACKO_VALUE_BYTES * stored + FP32_BYTES * (m + 1)


def _quantised(bits: int, group: int | None) -> BytesOf:
    """Weights of ``bits`` bits and one FP16 scale per ``group`` weights of a row (per row if None)."""

    def bytes_of(m: Array, k: Array, s: Array) -> Array:
        scales = m if group is None else m * np.ceil(k / group)
        return m * k * bits / BITS_PER_BYTE + FP16_BYTES * scales + 0 * s

    return bytes_of


def _int4_two_four(m: Array, k: Array, s: Array) -> Array:
    kept = m * k / 2
    return kept * (4 + 2) / BITS_PER_BYTE + FP16_BYTES * m * np.ceil(k / QUANT_GROUP) + 0 * s


def _gqsa(m: Array, k: Array, s: Array) -> Array:
    """Half of the groups of 16 kept: 4-bit values, an FP16 scale, a 4-bit zero point, a 16-bit group index."""
    group_bytes = GQSA_GROUP * 4 / BITS_PER_BYTE + FP16_BYTES + 0.5 + 2
    kept_groups = 0.5 * m * np.ceil(k / GQSA_GROUP)
    return kept_groups * group_bytes + FP32_BYTES * (m + 1) + 0 * s


_SPINFER = "Fan et al., SpInfer, EuroSys 2025, section 3"
_OURS = "kernels_numba/formats/bitmap.py"
_ALL = (
    WeightFormat("dense", "dense FP16", _dense, False, True, "2 bytes a weight"),
    WeightFormat("csr", "CSR, 32-bit index", _csr, True, True, f"{_SPINFER}: 6 nnz + 4 (m + 1)"),
    WeightFormat(
        "sputnik-csr",
        "Sputnik CSR, 16-bit index",
        _csr16,
        True,
        True,
        "Gale et al., Sparse GPU Kernels for Deep Learning, SC 2020; row-swizzle indices not counted",
    ),
    WeightFormat("coo", "COO, 32-bit indices", _coo, True, True, "FP16 value, 32-bit row, 32-bit column"),
    WeightFormat("tiled-csl", "Tiled-CSL", _tiled_csl, True, True, "Xia et al., Flash-LLM, PVLDB 17(2), 2023, Fig 7"),
    WeightFormat("2:4", "2:4", _two_four, False, True, "NVIDIA A100 whitepaper: half the values, 2-bit indices"),
    WeightFormat("sparta", "SparTA (2:4 + CSR)", _sparta, True, True, f"Zheng et al., SparTA, OSDI 2022; {_SPINFER}"),
    WeightFormat("bitmap", "bitmap (TCA-BME)", _bitmap, True, True, _SPINFER),
    WeightFormat("lscd-bitmap", "bitmap, lane order (ours)", _lscd_bitmap(16), True, True, _OURS),
    WeightFormat("lscd-bitmap-pairs", "bitmap of pairs (ours)", _lscd_bitmap_pairs, True, True, _OURS),
    WeightFormat("lscd-bitmap-8", "bitmap, 8-bit values (ours)", _lscd_bitmap(8), True, False, _OURS),
    WeightFormat("lscd-bitmap-4", "bitmap, 4-bit values (ours)", _lscd_bitmap(4), True, False, _OURS),
    WeightFormat("macko", "MACKO", _macko, True, True, "Macko and Boza, MACKO, arXiv 2511.13061"),
    WeightFormat("int8", "INT8", _quantised(8, None), False, False, "one FP16 scale per row"),
    WeightFormat("fp6", "FP6", _quantised(6, None), False, False, "Xia et al., FP6-LLM, USENIX ATC 2024"),
    WeightFormat("fp5", "FP5", _quantised(5, None), False, False, "Xia et al., FP6-LLM, USENIX ATC 2024"),
    WeightFormat(
        "int4", "INT4, groups of 128", _quantised(4, QUANT_GROUP), False, False, "Frantar et al., MARLIN, PPoPP 2025"
    ),
    WeightFormat(
        "int4-2:4", "INT4 + 2:4", _int4_two_four, False, False, "Frantar et al., MARLIN, PPoPP 2025 (Sparse-MARLIN)"
    ),
    WeightFormat("gqsa-w4s50", "GQSA W4 S50", _gqsa, False, False, "Zeng et al., GQSA, arXiv 2412.17560"),
)
FORMATS: dict[str, WeightFormat] = {entry.name: entry for entry in _ALL}


def break_even_sparsity(sparse: WeightFormat, other: WeightFormat, m: float = 16384, k: float = 16384) -> float | None:
    """Sparsity from which ``sparse`` takes fewer bytes than ``other``.

    Returns
    -------
    float or None
        Break-even sparsity; 0.0 if ``sparse`` is always smaller, None if it never is.
    """
    found = first_fraction(lambda sparsity: sparse.bytes(m, k, sparsity) <= other.bytes(m, k, sparsity))
    return None if np.isnan(found) else float(found)
