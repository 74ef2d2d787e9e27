"""Encoded weight matrices A (m, k): how non-zeros are laid out in memory, with exact encoders and decoders.

Letters: ``m`` rows (outputs), ``k`` columns (inputs), ``nnz`` non-zeros, ``tiles`` = number of 128 x 64 tiles.
Every encoding is a frozen record of plain NumPy buffers. Decoding returns the matrix bit for bit, with one
exception: -0.0 counts as zero, is dropped by the sparse formats, and decodes as +0.0.

Buffers that come from elsewhere enter through ``from_buffers``, which checks them; the encoders' own output needs
no check. NumPy has no bfloat16: such matrices are uint16 bit patterns with ``element=Element.BFLOAT16``, or arrays of
``ml_dtypes.bfloat16``, which are viewed as such.

One file a format, its compiled loops beside it in ``*_njit``; they are imported when an encoder first runs.
"""

from kernels_numba.formats.bitmap import Bitmap, encode_bitmap
from kernels_numba.formats.condensed import Condensed, encode_condensed
from kernels_numba.formats.csr import Csr, encode_csr
from kernels_numba.formats.dense import Dense
from kernels_numba.formats.encoded import Element, EncodedWeight
from kernels_numba.formats.layout import TILE_K, TILE_M
from kernels_numba.formats.quantised import QuantisedBitmap, ValueType, encode_quantised_bitmap
from kernels_numba.formats.quantised_condensed import QuantisedCondensed, encode_quantised_condensed
from kernels_numba.formats.tiled_csl import TiledCsl, encode_tiled_csl
from kernels_numba.formats.two_four import TwoFour, encode_two_four

__all__ = [
    "TILE_K", "TILE_M", "Bitmap", "Condensed", "Csr", "Dense", "Element", "EncodedWeight", "QuantisedBitmap",
    "QuantisedCondensed", "TiledCsl", "TwoFour", "ValueType", "encode_bitmap", "encode_condensed", "encode_csr",
    "encode_quantised_bitmap", "encode_quantised_condensed", "encode_tiled_csl", "encode_two_four",
]  # fmt: skip
