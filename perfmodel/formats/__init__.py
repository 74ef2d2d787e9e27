"""How many bytes does a weight matrix take in each sparse or quantised format?

Closed forms for a matrix of ``m`` rows and ``k`` columns whose zeros fall at random with probability ``sparsity``
(Bernoulli, independent). Expectations are exact under that assumption, padding included; a real matrix with clustered
zeros differs only in the padding. All functions broadcast over arrays.

Pattern formats (2:4, 6:8) and quantised formats do not depend on ``sparsity``: their bytes are those of a matrix that
has already been forced into the pattern. `bsr` takes it for the fraction of whole blocks that are zero.

`base` says what a format is, `scales` and `padding` are what several share, then one file a family; `registry` lists
them all.
"""

from perfmodel.formats.base import Array, BytesOf, WeightFormat, check_sparsity
from perfmodel.formats.bitmap import STRIP_K, STRIP_M, STRIP_UNIT_BYTES
from perfmodel.formats.padding import CERTAIN_COUNT, TABLE_FROM, expected_stored
from perfmodel.formats.pattern import PATTERNS, pattern_sparsity, two_four_family_bytes, two_four_residual_density
from perfmodel.formats.quantised import GQSA_GROUP
from perfmodel.formats.registry import FORMATS, break_even_sparsity
from perfmodel.formats.scales import QUANT_GROUP
from perfmodel.formats.sparse import (
    BITMAP_SIDE,
    GROUP_SIDE,
    MACKO_MAX_GAP,
    MACKO_VALUE_BYTES,
    TILE_K,
    TILE_M,
    TILED_CSL_WORDS,
)

__all__ = [
    "BITMAP_SIDE", "CERTAIN_COUNT", "FORMATS", "GQSA_GROUP", "GROUP_SIDE", "MACKO_MAX_GAP", "MACKO_VALUE_BYTES",
    "PATTERNS", "QUANT_GROUP", "STRIP_K", "STRIP_M", "STRIP_UNIT_BYTES", "TABLE_FROM", "TILED_CSL_WORDS", "TILE_K",
    "TILE_M", "Array", "BytesOf", "WeightFormat", "break_even_sparsity", "check_sparsity", "expected_stored",
    "pattern_sparsity", "two_four_family_bytes", "two_four_residual_density",
]  # fmt: skip
