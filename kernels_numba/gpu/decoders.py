"""The decoders of records by name: what a kernel that streams records does with one, and what makes them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from kernels_numba.formats import (
    EncodedWeight,
    ValueType,
    encode_bitmap,
    encode_condensed,
    encode_quantised_bitmap,
    encode_quantised_condensed,
)
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
ENCODERS: dict[str, Callable[..., EncodedWeight]] = {
    "bitmap": encode_bitmap,
    "bitmap_pairs": partial(encode_bitmap, width=2),
    "condensed": partial(encode_condensed, width=1),
    "condensed_pairs": encode_condensed,
    **{f"bitmap_{t}": partial(encode_quantised_bitmap, value_bits=t) for t in ValueType},
    **{f"condensed_pairs_{t}": partial(encode_quantised_condensed, value_type=t) for t in ValueType},
}
