"""Without the zeros: values one after the other, and a bit for each weight that has one; and a mask beside weights.

References
----------
compressed-tensors, formats sparse-bitmask and sparse-24-bitmask, alone or around codes with a scale; PyTorch,
``torch.nn.utils.prune``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels_numba.checkpoints.float_values import ELEMENTS, as_float32
from kernels_numba.checkpoints.layouts.floats import Scaled, block_of, grain_of
from kernels_numba.checkpoints.layouts.pieces import FLOATS, Coding, Packed, Pieces, Rows
from kernels_numba.checkpoints.safetensors_reader import BITS
from kernels_numba.checkpoints.small_floats import FLOAT8, values_of
from kernels_numba.formats.encoded import check

VALUES = (*ELEMENTS, "I8", *FLOAT8)
PARTS = ("compressed", "bitmask", "row_offsets", "shape", "weight_scale")


def bitmask(p: Pieces) -> Packed | None:
    """sparse-bitmask, (nnz,) values, and sparse-24-bitmask, (m, k / 2), of which two of four are there."""
    if not p.has("compressed", "bitmask"):
        return None
    pattern = len(p.shape("compressed")) == 2
    layout = f"compressed-tensors sparse-{'24-' * pattern}bitmask"
    m, k = _shape(p)
    fits = (
        p.dtype("compressed") in VALUES
        and p.dtype("bitmask") == "U8"
        and p.shape("bitmask") == (m, -(-k // 8))
        and p.shape("compressed") in ([(m, k // 2)] if pattern else [p.shape("compressed")[:1]])
        and m * k > 0
    )
    if not fits:
        return p.packed(layout, PARTS, obstacle="its pieces have types or shapes that do not fit each other")
    scaled, block = p.has("weight_scale"), block_of((m, k), p.shape("weight_scale"))
    if scaled and (block is None or p.dtype("weight_scale") not in FLOATS):
        return p.packed(layout, PARTS, shape=(m, k), obstacle="its scales have a shape or type that is not known")
    dtype = p.dtype("compressed")
    whole = dtype if dtype in ELEMENTS else ""
    grain = grain_of(block, (m, k)) if scaled and block else ""
    coding = Coding(BITS[dtype], dtype != "I8", grain, pattern=pattern, name=whole)
    return p.packed(layout, PARTS, shape=(m, k), coding=coding, decoder=lambda: _rows(p, m, k))


def _shape(p: Pieces) -> tuple[int, int]:
    """What the piece ``shape`` says; of a matrix without it, as many columns as the bits of a row."""
    if p.is_a("shape", ("I32", "I64"), 1) and p.shape("shape") == (2,):
        m, k = p.read("shape")
        return int(m), int(k)
    m, bytes_ = (*p.shape("bitmask"), 0, 0)[:2]
    return m, 8 * bytes_


def _rows(p: Pieces, m: int, k: int) -> Rows:
    bits, stored = p.read("bitmask"), p.read("compressed").reshape(-1)
    if k % 8:
        bits[:, -1] &= (1 << k % 8) - 1  # bits behind the last column
    ends = np.cumsum(np.bitwise_count(bits).sum(axis=1, dtype=np.int64))
    check(int(ends[-1]) == len(stored), f"{p.where}: bits set", int(ends[-1]), f"{len(stored)}, one a value")
    starts = np.concatenate([[0], ends])
    if p.has("row_offsets"):
        told = p.read("row_offsets").reshape(-1)
        fits = np.array_equal(told, starts[: len(told)])
        check(fits, f"{p.where}: row_offsets", "others than the bits give", "where each row begins")
    block = block_of((m, k), p.shape("weight_scale"))
    scaled = Scaled(p, "weight_scale", (m, k), block) if p.has("weight_scale") and block else None

    def rows(first: int, stop: int) -> NDArray[np.float32]:
        mask = np.unpackbits(bits[first:stop], axis=1, count=k, bitorder="little").astype(np.bool_)
        out = np.zeros(mask.shape, np.float32)
        out[mask] = _floats(stored[starts[first] : starts[stop]], p.dtype("compressed"))
        return out if scaled is None else out * scaled.of_rows(first, stop)

    return rows


def _floats(values: NDArray[np.generic], dtype: str) -> NDArray[np.float32]:
    if dtype in ELEMENTS:
        return as_float32(values, dtype)
    return values.astype(np.float32) if dtype == "I8" else values_of(dtype)[values]


def masked(p: Pieces) -> Packed | None:
    """Weights as they were and a mask of zeros and ones, as PyTorch keeps them until pruning is made permanent."""
    roles, types = ("weight_orig", "weight_mask"), tuple(ELEMENTS)
    if not all(p.is_a(role, types, 2) for role in roles) or p.shape(roles[0]) != p.shape(roles[1]):
        return None
    shape, dtype = (p.shape(roles[0])[0], p.shape(roles[0])[1]), p.dtype(roles[0])

    def decoder() -> Rows:
        weights, mask = p.read(roles[0]), p.read(roles[1])
        return lambda first, stop: (
            as_float32(weights[first:stop], dtype) * as_float32(mask[first:stop], p.dtype(roles[1]))
        )

    coding = Coding(BITS[dtype], True, "", name=dtype)
    return p.packed("torch.nn.utils.prune", roles, shape=shape, coding=coding, decoder=decoder)
