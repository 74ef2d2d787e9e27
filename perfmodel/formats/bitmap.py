"""How many bytes does our bitmap take, where zeros fall at random?

A bit a position and a value a non-zero, in strips whose values are padded to one asynchronous copy
(`kernels_numba/formats/bitmap.py`, `quantised.py`). NVFP4 values have no encoder.
"""

from __future__ import annotations

import numpy as np

from perfmodel.formats.base import Array, BytesOf, WeightFormat
from perfmodel.formats.padding import stored_in_tiles
from perfmodel.formats.scales import NVFP4, PER_GROUP, Scales
from perfmodel.units import BITS_PER_BYTE

STRIP_M, STRIP_K, STRIP_UNIT_BYTES = 32, 64, 16  # lane-ordered bitmap: strips are padded to one asynchronous copy


def _strips(value_bits: int, scales: Scales | None = None) -> BytesOf:
    """Masks, offsets, and values padded to 16 bytes a strip; scales as if no weight were zero."""
    unit = STRIP_UNIT_BYTES * BITS_PER_BYTE // value_bits

    def bytes_of(m: Array, k: Array, s: Array) -> Array:
        strips = np.ceil(m / STRIP_M) * np.ceil(k / STRIP_K)
        values = stored_in_tiles(m, k, s, (STRIP_M, STRIP_K), unit) * value_bits / BITS_PER_BYTE
        stored = STRIP_M * STRIP_K / BITS_PER_BYTE * strips + 4 * (strips + 2) + values
        return stored if scales is None else stored + scales.bytes(m, k)

    return bytes_of


def _pairs(m: Array, k: Array, s: Array) -> Array:
    """A bit for two neighbouring columns, 4 bytes if either is kept, padded to 16 bytes a strip."""
    strips = np.ceil(m / STRIP_M) * np.ceil(k / STRIP_K)
    pairs = stored_in_tiles(m, np.ceil(k / 2), s**2, (STRIP_M, STRIP_K // 2), STRIP_UNIT_BYTES // 4)
    return STRIP_M * STRIP_K / 2 / BITS_PER_BYTE * strips + 4 * (strips + 2) + 4 * pairs


def _row(name: str, title: str, bytes_of: BytesOf, source: str, lossless: bool = True) -> WeightFormat:
    return WeightFormat(name, title, bytes_of, True, lossless, source)


_OURS = "kernels_numba/formats/bitmap.py"
_CODED = "kernels_numba/formats/quantised.py"
_PLANNED = f"strips and masks of {_OURS}"

BITMAPS = (
    _row("lscd-bitmap", "bitmap, lane order (ours)", _strips(16), _OURS),
    _row("lscd-bitmap-pairs", "bitmap of pairs (ours)", _pairs, _OURS),
    _row("lscd-bitmap-8", "bitmap, 8-bit values (ours)", _strips(8, PER_GROUP), _CODED, False),
    _row("lscd-bitmap-4", "bitmap, 4-bit values (ours)", _strips(4, PER_GROUP), _CODED, False),
    _row("lscd-bitmap-fp8", "bitmap, FP8 values (ours)", _strips(8, PER_GROUP), _CODED, False),
    _row("lscd-bitmap-nvfp4", "bitmap, NVFP4 values (ours)", _strips(4, NVFP4), f"{_PLANNED}, values of nvfp4", False),
)
