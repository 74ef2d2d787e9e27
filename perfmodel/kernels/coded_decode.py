"""Our kernels that decode in registers with values of 8 and 4 bits: counted as the others are, unmeasured like them.

Codes become FP16 in registers, times a scale of their row and 128 columns; what that costs is part of the counted main
loop (``data/traces/{bitmap,condensed_pairs}_{int8,int4}_*.json``). FP8 codes (``_e4m3_``) take a few instructions more
than INT8 and have no model of their own.
"""

from __future__ import annotations

from perfmodel.formats import STRIP_K
from perfmodel.formats.scales import FP16_BITS, PER_GROUP, Scales, group
from perfmodel.kernels.base import Array
from perfmodel.kernels.register_decode import CondensedDecodePairs, RegisterDecode

PER_STRIP = Scales(group(STRIP_K), FP16_BITS)


class BitmapInt8(RegisterDecode):
    """Bitmap weights with 8-bit codes, a scale per row and 128 columns."""

    name = "lscd-bitmap-8"
    title = "LSCD INT8, unmeasured"
    format_name = "lscd-bitmap-8"
    traced = "bitmap_int8"
    value_bits = 8

    def streamed_bytes(self, m: Array, k: Array, sparsity: Array) -> Array:
        """A record carries the scales of its 64 columns, so that each scale comes twice."""
        return super().streamed_bytes(m, k, sparsity) + PER_STRIP.bytes(m, k) - PER_GROUP.bytes(m, k)


class BitmapInt4(BitmapInt8):
    """As with 8-bit codes; picking 4-bit ones apart takes more instructions."""

    name = "lscd-bitmap-4"
    title = "LSCD INT4, unmeasured"
    format_name = "lscd-bitmap-4"
    traced = "bitmap_int4"
    value_bits = 4


class CondensedInt8(CondensedDecodePairs):
    """Condensed strips with 8-bit codes: a register's two come with one load."""

    name = "lscd-condensed-pairs-8"
    title = "LSCD condensed INT8, unmeasured"
    format_name = "lscd-condensed-pairs-8"
    traced = "condensed_pairs_int8"
    value_bits = 8


class CondensedInt4(CondensedDecodePairs):
    """Condensed strips with 4-bit codes, two in a byte."""

    name = "lscd-condensed-pairs-4"
    title = "LSCD condensed INT4, unmeasured"
    format_name = "lscd-condensed-pairs-4"
    traced = "condensed_pairs_int4"
    value_bits = 4
