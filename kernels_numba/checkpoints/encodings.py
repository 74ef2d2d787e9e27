"""Formats by name: how a weight of each is encoded, which of its buffers are stored, and how it is rebuilt of them.

What does a name in a container stand for? ``bitmap-e4m3`` and its like hold codes for values, times scales; every other
format keeps the values it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels_numba.checkpoints.float_values import ELEMENTS, Rounding, as_float16
from kernels_numba.formats import (
    Bitmap,
    Condensed,
    Csr,
    Dense,
    Element,
    EncodedWeight,
    QuantisedBitmap,
    QuantisedCondensed,
    TiledCsl,
    TwoFour,
    ValueType,
    encode_bitmap,
    encode_condensed,
    encode_csr,
    encode_quantised_bitmap,
    encode_quantised_condensed,
    encode_tiled_csl,
    encode_two_four,
)
from kernels_numba.formats.bitmap import MASK_DTYPES
from kernels_numba.formats.encoded import HALF_ELEMENTS, bits_of, check

CODED_BITMAPS = {f"bitmap-{value_type}": value_type for value_type in ValueType}
CODED_STRIPS = {f"condensed-pairs-{value_type}": value_type for value_type in ValueType}
QUANTISED = {**CODED_BITMAPS, **CODED_STRIPS}
Coded = QuantisedBitmap | QuantisedCondensed
BUFFERS = {
    "tiled-csl": ("words", "tile_offsets"),
    "csr": ("row_ptr", "col_idx", "values"),
    "two-four": ("values", "metadata", "residual_row_ptr", "residual_col_idx", "residual_values"),
    "bitmap": ("masks", "values", "offsets"),
    "bitmap-pairs": ("masks", "values", "offsets"),
    "condensed": ("records", "offsets"),
    "condensed-pairs": ("records", "offsets"),
    "dense": ("values",),
    **dict.fromkeys(CODED_BITMAPS, ("masks", "codes", "offsets", "scales")),
    **dict.fromkeys(CODED_STRIPS, ("records", "offsets")),
}
ENCODERS: dict[str, Callable[..., EncodedWeight]] = {
    "tiled-csl": encode_tiled_csl,
    "csr": encode_csr,
    "two-four": encode_two_four,
    "bitmap": encode_bitmap,
    "bitmap-pairs": partial(encode_bitmap, width=2),
    "dense": Dense,
    "condensed": partial(encode_condensed, width=1),
    "condensed-pairs": partial(encode_condensed, width=2),
    **{name: partial(encode_quantised_bitmap, value_bits=value_type) for name, value_type in CODED_BITMAPS.items()},
    **{name: partial(encode_quantised_condensed, value_type=value_type) for name, value_type in CODED_STRIPS.items()},
}
HALVES_ONLY = ("tiled-csl", "bitmap", "bitmap-pairs", "condensed", "condensed-pairs")  # formats of 16-bit values
BITMAP_MASKS = {"bitmap": np.dtype(MASK_DTYPES[1]), "bitmap-pairs": np.dtype(MASK_DTYPES[2])}
CONDENSED_WIDTHS = {"condensed": 1, "condensed-pairs": 2}


def encode(values: NDArray[Any], dtype: str, format_name: str, *, keep_dtype: bool) -> tuple[EncodedWeight, Rounding]:
    """Encode a matrix of safetensors type ``dtype``.

    Parameters
    ----------
    keep_dtype : store the values as they are; otherwise as float16. ``tiled-csl``, bitmaps and condensed strips take
        no F32, those with codes for values F16 only.

    Raises
    ------
    ValueError
        If the format is unknown or cannot hold the type, or a finite value overflows float16; says how many do.
    """
    check(format_name in BUFFERS, "format", format_name, ", ".join(BUFFERS))
    rounding, element = Rounding(), ELEMENTS[dtype]
    if not keep_dtype:
        values, rounding = as_float16(values, dtype)
        element = Element.FLOAT16
        remedy = "magnitudes up to 65504; keep the dtype (--dtype keep) or exclude the tensor"
        check(not rounding.overflowed, "float16", f"overflows at {rounding.overflowed} values", remedy)
    fits = element in HALF_ELEMENTS or format_name not in HALVES_ONLY
    check(fits, "dtype", dtype, f"F16 or BF16, or conversion to float16, for {format_name}")
    scaled = element is Element.FLOAT16 or format_name not in QUANTISED
    check(scaled, "dtype", dtype, f"F16, or conversion to float16, for {format_name}")
    return ENCODERS[format_name](values, element=element), rounding


def rebuild(entry: dict[str, Any], buffers: dict[str, NDArray[Any]]) -> EncodedWeight:
    """Build and validate the encoding of one weight."""
    shape, element = (entry["shape"][0], entry["shape"][1]), Element(entry["element"])
    common = {"shape": shape, "element": element}
    if entry["format"] == "dense":
        dense = Dense(buffers["values"], element)
        check(dense.shape == shape, "shape", dense.shape, str(shape))
        return dense
    if entry["format"] == "two-four":
        part = {field.name: buffers.pop(f"residual_{field.name}") for field in fields(Csr) if field.name not in common}
        return TwoFour.from_buffers(**common, **buffers, residual=Csr.from_buffers(**common, **part))
    if entry["format"] in CODED_STRIPS:
        return QuantisedCondensed.from_buffers(**common, **buffers, value_type=CODED_STRIPS[entry["format"]])
    if entry["format"] in CODED_BITMAPS:
        value_type = CODED_BITMAPS[entry["format"]]
        return QuantisedBitmap.from_buffers(**common, **buffers, value_bits=value_type.bits, value_type=value_type)
    if entry["format"] in BITMAP_MASKS:
        masks, wanted = buffers["masks"].dtype, BITMAP_MASKS[entry["format"]]
        check(masks == wanted, "masks", masks, str(wanted))
        return Bitmap.from_buffers(**common, **buffers)
    if entry["format"] in CONDENSED_WIDTHS:
        return Condensed.from_buffers(**common, **buffers, width=CONDENSED_WIDTHS[entry["format"]])
    kinds: dict[str, type[EncodedWeight]] = {"tiled-csl": TiledCsl, "csr": Csr}
    return kinds[entry["format"]].from_buffers(**common, **buffers)


def holds_same(values: NDArray[Any], dtype: str, encoded: EncodedWeight) -> bool:
    """Whether a weight decodes to a matrix of safetensors type ``dtype``, as it is or as its format rounds it."""
    if encoded.element is Element.FLOAT16:
        values, _ = as_float16(values, dtype)
    found = encoded.decode()
    same = _same_values(values, found, encoded.element)
    if same or not isinstance(encoded, Coded) or not np.isfinite(values).all():
        return same
    encode_again = encode_quantised_bitmap if isinstance(encoded, QuantisedBitmap) else encode_quantised_condensed
    rounded = encode_again(values, str(encoded.value_type)).decode()
    return _same_values(rounded, found, encoded.element)


def _same_values(values: NDArray[Any], found: NDArray[Any], element: Element) -> bool:
    """Whether two matrices have the same bits, but for the sign of zeros."""
    if values.shape != found.shape:
        return False
    one, other = bits_of(values), bits_of(found)
    return bool((((one | other) & element.magnitude == 0) | (one == other)).all())


def code_error(values: NDArray[Any], dtype: str, encoded: EncodedWeight) -> float:
    """Root mean square of what codes and scales changed, over that of the float16 weights; 0 for other formats."""
    if not isinstance(encoded, Coded):
        return 0.0
    wide = as_float16(values, dtype)[0].astype(np.float64)
    size = np.linalg.norm(wide)
    return float(np.linalg.norm(encoded.decode().astype(np.float64) - wide) / size) if size else 0.0
