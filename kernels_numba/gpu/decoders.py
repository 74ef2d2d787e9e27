"""The decoders of records by name: what a kernel that streams records does with one of them."""

from __future__ import annotations

from typing import Any

from kernels_numba.formats import ValueType
from kernels_numba.gpu.bitmap import multiply_strip, multiply_strip_of_pairs
from kernels_numba.gpu.condensed import multiply_condensed, multiply_condensed_pairs
from kernels_numba.gpu.quantised import make_multiply_condensed_codes, make_multiply_quantised

# Those of codes know fp16 only: they make it by its bits.
OF_CODES: dict[str, Any] = {
    **{f"bitmap_{value_type}": make_multiply_quantised(value_type) for value_type in ValueType},
    **{f"condensed_pairs_{value_type}": make_multiply_condensed_codes(value_type) for value_type in ValueType},
}
DECODERS: dict[str, Any] = {
    "bitmap": multiply_strip,
    "bitmap_pairs": multiply_strip_of_pairs,
    "condensed": multiply_condensed,
    "condensed_pairs": multiply_condensed_pairs,
    **OF_CODES,
}
