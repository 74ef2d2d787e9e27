"""Marlin: 4-bit codes in the order in which a warp's Tensor Core operands want them; and with 2:4 sparsity.

The place of each code is undone for Marlin; of Marlin-24, codes are only counted: half of the weights are not stored,
and of the others those are zero whose code is the middle one.

References
----------
Frantar et al., "MARLIN", PPoPP 2025, section 3; compressed-tensors, format marlin-24.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels_numba.checkpoints.layouts.pieces import ROW, WORD_BITS, Coding, Packed, Pieces, Rows, unpacked

TILE, CHUNK = 16, 64  # rows of K in a tile, columns of M that are permuted together
BITS, MIDDLE = 4, 8
IN_WORD = [0, 2, 4, 6, 1, 3, 5, 7]
MARLIN = ("B", "s", "workspace")
MARLIN_24 = (("weight_packed", "meta", "scale_packed"), ("B_24", "B_meta", "s"))


def marlin(p: Pieces) -> Packed | None:
    """Marlin as AutoGPTQ saves it: ``B`` (k / 16, 2 m), ``s`` (groups, m)."""
    if not p.is_a("B", ("I32",), 2) or not p.is_a("s", ("F16", "BF16"), 2):
        return None
    (tiles, words), (groups, m) = p.shape("B"), p.shape("s")
    k = TILE * tiles
    if words * WORD_BITS != BITS * TILE * m or m % CHUNK or k % groups:
        return p.packed("Marlin", MARLIN, obstacle="its pieces have shapes that do not fit each other")
    coding = Coding(BITS, False, ROW if groups == 1 else k // groups)
    return p.packed("Marlin", MARLIN, shape=(m, k), coding=coding, decoder=lambda: _rows(p, m, k))


def _rows(p: Pieces, m: int, k: int) -> Rows:
    codes = unpacked(p.words("B"), BITS).reshape(-1, TILE * CHUNK)
    tiles = np.empty_like(codes)
    tiles[:, _places()] = codes
    # (k / 16, m / 16, row of K, column of M) to (m, k)
    weights = tiles.reshape(k // TILE, m // TILE, TILE, TILE).transpose(1, 3, 0, 2).reshape(m, k)
    stored = p.floats("s")
    scales = np.empty_like(stored)
    order = _scale_places(len(stored) > 1)
    scales.reshape(-1, len(order))[:, order] = stored.reshape(-1, len(order))

    def rows(first: int, stop: int) -> NDArray[np.float32]:
        by_group = scales[:, first:stop].T
        values = weights[first:stop].astype(np.float32) - MIDDLE
        return values * np.repeat(by_group, k // by_group.shape[1], axis=1)

    return rows


def _places() -> NDArray[np.int64]:
    """Place, in four tiles of 16 x 16 one after the other, of each code of a chunk."""
    lane, tile, block, pair, low = np.ogrid[:32, :4, :2, :2, :2]
    row = 2 * (lane % 4) + low + 8 * pair
    place = TILE * TILE * tile + TILE * row + lane // 4 + 8 * block  # (32, 4, 2, 2, 2)
    return place.reshape(-1, 8)[:, IN_WORD].reshape(-1)


def _scale_places(grouped: bool) -> NDArray[np.int64]:
    """Column of each scale, of 64 with groups and of 32 with one scale a row."""
    if grouped:
        return np.arange(64).reshape(8, 8).T.reshape(-1)
    step, offset = np.ogrid[:4, :8]
    return (2 * step + offset % 2 + 8 * (offset // 2)).reshape(-1)


def marlin_24(p: Pieces) -> Packed | None:
    """Marlin-24: codes (k / 32, 16 m bits / 32) of the two kept weights of four, and which ones they are."""
    roles = next((roles for roles in MARLIN_24 if p.has(*roles[:2])), None)
    if roles is None:
        return None
    codes, _, scale = roles
    layout, obstacle = "Marlin-24", "the places of its codes are not undone"
    if not p.is_a(codes, ("I32",), 2) or not p.is_a(scale, ("F16", "BF16"), 2):
        return p.packed(layout, roles, obstacle=obstacle)
    (tiles, words), (groups, m) = p.shape(codes), p.shape(scale)
    k, (bits, rest) = 2 * TILE * tiles, divmod(WORD_BITS * words, TILE * m)
    if rest or bits not in (4, 8) or k % groups:
        return p.packed(layout, roles, obstacle=obstacle)
    coding = Coding(bits, False, ROW if groups == 1 else k // groups, pattern=True)

    def zeros() -> int | None:
        if (p.floats(scale) == 0).any():
            return None  # whose weights they are is unknown
        kept = sum(int((unpacked(row, bits) == 1 << (bits - 1)).sum()) for row in p.words(codes))
        return m * k // 2 + kept

    return p.packed(layout, roles, shape=(m, k), coding=coding, zeros=zeros, obstacle=obstacle)
