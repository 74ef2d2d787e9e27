"""How many bytes do our condensed strips take, where zeros fall at random?

Exact: a strip of 32 x 64 weights has a header of 448 bytes and 2 bytes a weight with a bit for each slot, a header of
384 and 4 bytes a register in use with a bit for each register; an offset 4 (`kernels_numba/formats/condensed.py`).
Which registers are in use, and how many columns fit no group of four and lie in tails, depends on the search for an
order: both are taken from strips that the encoder has arranged, and interpolated over sparsity. Assumed: strips at an
edge hold their part of what full ones do, and the padding of tails and of registers has its mean.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from perfmodel.formats.base import Array, BytesOf, WeightFormat
from perfmodel.formats.padding import stored_in_tiles
from perfmodel.formats.scales import FP16_BITS
from perfmodel.units import BITS_PER_BYTE

TABLE = "measured/condensed_orders.csv"  # made by `python -m lscd.study.orders`
STRIP_M, STRIP_K, TILE_M, UNIT_BYTES = 32, 64, 128, 16
WEIGHTS, REGISTERS = STRIP_M * STRIP_K, STRIP_M * STRIP_K // 4  # of a strip
SLOT_HEADER, REGISTER_HEADER, TAIL_HEADER = 448, 384, 80
SCALES = 2 * STRIP_M  # bytes of a strip's scales
PADDING_OF_2 = (UNIT_BYTES - 2) / 2  # bytes lost on average to a multiple of 16 where 2 are stored at a time


@cache
def _arranged() -> tuple[Array, Array, Array, Array]:
    """Sparsity, and of strips with random zeros: tails, weights in tails and registers in use as shares."""
    from perfmodel.catalog import load_table

    table = load_table(TABLE)
    rows = table[(table["mask"] == "random") & (table["strip_rows"] == STRIP_M)].sort_values("sparsity_wanted")
    sparsity, tails, weights, registers = (
        rows[name].to_numpy(np.float64) for name in ("sparsity_wanted", "tails", "tail_weights", "registers")
    )
    return sparsity, tails, weights, registers


def tails_per_strip(sparsity: Array) -> Array:
    """Steps of 16 columns that a strip with random zeros leaves to tails, 0 to 2."""
    at, tails, _, _ = _arranged()
    return np.interp(sparsity, at, tails)


def registers_in_use(sparsity: Array) -> Array:
    """Share of a strip's 512 registers of two slots that hold a weight, after the search for emptier ones."""
    at, _, _, registers = _arranged()
    return np.interp(sparsity, at, registers)


def _weights_in_tails(sparsity: Array) -> Array:
    at, _, weights, _ = _arranged()
    return np.interp(sparsity, at, weights)


def _slots(m: Array, k: Array, s: Array) -> Array:
    """A bit for each slot, 2 bytes a weight, wherever it lies."""
    values = 2 * stored_in_tiles(m, k, s, (STRIP_M, STRIP_K), UNIT_BYTES // 2)
    return _headers(m, k, SLOT_HEADER) + values + _tails(m, k, s)


def _registers(value_bits: int) -> BytesOf:
    """A bit for each register, two values if either slot holds a weight; tails keep one a weight.

    With fewer than 16 bits a strip has 32 scales of 2 bytes; no code is taken to be zero.
    """
    value_bytes = value_bits / BITS_PER_BYTE
    header = REGISTER_HEADER + (SCALES if value_bits < FP16_BITS else 0)
    padding, tail_padding = ((UNIT_BYTES - size) / 2 for size in (2 * value_bytes, value_bytes))

    def bytes_of(m: Array, k: Array, s: Array) -> Array:
        full = m * k / WEIGHTS
        stored = 2 * value_bytes * REGISTERS * registers_in_use(s) + padding * (s < 1)
        left = value_bytes * WEIGHTS * (1 - s) * _weights_in_tails(s)
        return _headers(m, k, header) + full * (stored + left) + _tails(m, k, s, tail_padding)

    return bytes_of


def _headers(m: Array, k: Array, header: int) -> Array:
    """Headers and offsets of all strips; strips of zeros fill the last tile of 128 rows."""
    strips = np.ceil(m / TILE_M) * (TILE_M // STRIP_M) * np.ceil(k / STRIP_K)
    return header * strips + 4 * (strips + 2)


def _tails(m: Array, k: Array, s: Array, padding: float = PADDING_OF_2) -> Array:
    """Numbers, masks and padding of tails; their weights are counted apart."""
    return m * k / WEIGHTS * tails_per_strip(s) * (TAIL_HEADER + padding)


_SOURCE = f"kernels_numba/formats/condensed.py; tails and registers in use: data/{TABLE}"
_CODED = _SOURCE.replace("condensed.py", "quantised_condensed.py", 1)
CONDENSED = (
    WeightFormat("lscd-condensed", "condensed 2:4 strips (ours)", _slots, True, True, _SOURCE),
    WeightFormat("lscd-condensed-pairs", "condensed, a bit a register (ours)", _registers(16), True, True, _SOURCE),
    WeightFormat("lscd-condensed-pairs-8", "condensed, 8-bit values (ours)", _registers(8), True, False, _CODED),
    WeightFormat("lscd-condensed-pairs-4", "condensed, 4-bit values (ours)", _registers(4), True, False, _CODED),
)
