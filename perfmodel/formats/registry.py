"""Which formats are there? `FORMATS` maps the name users type to its format."""

from __future__ import annotations

import numpy as np

from perfmodel.catalog.arguments import record
from perfmodel.crossing import first_fraction
from perfmodel.formats.base import Array, WeightFormat, at_any_sparsity
from perfmodel.formats.bitmap import BITMAPS
from perfmodel.formats.condensed import CONDENSED
from perfmodel.formats.cpu import ON_CPU
from perfmodel.formats.entropy import CODED
from perfmodel.formats.pattern import PATTERNED
from perfmodel.formats.quantised import QUANTISED
from perfmodel.formats.sparse import SPARSE
from perfmodel.units import FP16_BYTES


def _dense(m: Array, k: Array) -> Array:
    return FP16_BYTES * m * k


_DENSE = WeightFormat("dense", "dense FP16", at_any_sparsity(_dense), False, True, "2 bytes a weight")
_ALL = (_DENSE, *SPARSE, *BITMAPS, *CONDENSED, *PATTERNED, *QUANTISED, *CODED, *ON_CPU)
FORMATS: dict[str, WeightFormat] = {entry.name: entry for entry in _ALL}


def break_even_sparsity(sparse: WeightFormat, other: WeightFormat, m: float = 16384, k: float = 16384) -> float | None:
    """Sparsity from which ``sparse`` takes fewer bytes than ``other``.

    Returns
    -------
    float or None
        Break-even sparsity; 0.0 if ``sparse`` is always smaller, None if it never is.
    """
    record("sparse", sparse, WeightFormat)
    record("other", other, WeightFormat)
    found = first_fraction(lambda sparsity: sparse.bytes(m, k, sparsity) <= other.bytes(m, k, sparsity))
    return None if np.isnan(found) else float(found)
