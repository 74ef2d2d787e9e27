"""Integers packed into 32-bit words: GPTQ, AWQ, compressed-tensors, MLX.

References
----------
Frantar et al., "GPTQ", ICLR 2023, as AutoGPTQ and GPTQModel save it; Lin et al., "AWQ", MLSys 2024, as AutoAWQ saves
it; compressed-tensors, format pack-quantized; Apple, MLX, ``mlx.core.quantize``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels_numba.checkpoints.float_values import ELEMENTS
from kernels_numba.checkpoints.layouts.pieces import (
    ROW,
    WORD_BITS,
    Coding,
    Packed,
    Pieces,
    Rows,
    columns_of,
    side_of,
    unpacked,
)
from kernels_numba.formats.encoded import check

WORDS = ("I32", "U32")
SCALES = tuple(ELEMENTS)
GPTQ_BITS = (2, 3, 4, 8)  # other widths lie in bit planes
AWQ_BITS = 4
AWQ_COLUMN = np.array([0, 2, 4, 6, 1, 3, 5, 7])  # column, of eight, whose code is the n-th of a word
PACK_BITS = (4, 8, 2, 3, 6, 5, 1, 7)  # widths that give the same number of words: the first wins
GPTQ_PARTS = ("qweight", "qzeros", "scales", "g_idx")


def gptq(p: Pieces) -> Packed | None:
    """GPTQ: codes packed along K, transposed: (k bits / 32, m); scales (groups, m)."""
    if not (p.is_a("qweight", WORDS, 2) and p.is_a("scales", SCALES, 2)) or p.has("lookup_table"):
        return None
    words, (groups, m) = p.shape("qweight"), p.shape("scales")
    if words[1] != m:
        return None
    bits = _gptq_bits(p)
    if bits not in GPTQ_BITS or WORD_BITS * words[0] % bits:
        return p.packed("GPTQ", GPTQ_PARTS, obstacle=f"{bits or 'unknown'} bits a code; known are 2, 3, 4, 8")
    k = WORD_BITS * words[0] // bits
    zeros_fit = not p.has("qzeros") or p.shape("qzeros") == (groups, m * bits // WORD_BITS)
    if groups > k or not zeros_fit or p.shape("g_idx") not in ((), (k,)):
        return p.packed("GPTQ", GPTQ_PARTS, obstacle="its pieces have shapes that do not fit each other")
    symmetric = p.config.get("sym") is True or not p.has("qzeros")
    coding = Coding(bits, False, _grain(k, groups), zero_points=not symmetric)
    return p.packed("GPTQ", GPTQ_PARTS, shape=(m, k), coding=coding, decoder=lambda: _gptq_rows(p, bits, k))


def _grain(k: int, groups: int) -> str | int:
    return ROW if groups == 1 else side_of(k, groups) or -(-k // groups)


def _in_order(k: int, groups: int) -> NDArray[np.int64]:
    """Group of each column where neighbours share one."""
    return np.arange(k) // (side_of(k, groups) or -(-k // groups))


def _gptq_bits(p: Pieces) -> int | None:
    """Bits of a code, by the words of zero points or by the columns that have a group."""
    groups, m = p.shape("scales")
    if p.has("qzeros") and len(p.shape("qzeros")) == 2 and p.shape("qzeros")[0] == groups:
        bits, rest = divmod(WORD_BITS * p.shape("qzeros")[1], m)
        return None if rest else bits
    k = p.shape("g_idx")
    return WORD_BITS * p.shape("qweight")[0] // k[0] if k and k[0] else None


def _gptq_rows(p: Pieces, bits: int, k: int) -> Rows:
    words, scales = p.words("qweight"), p.floats("scales")
    middle = 1 << (bits - 1)
    zeros = np.full(scales.shape, middle, np.float32)
    if p.has("qzeros"):
        stored = unpacked(p.words("qzeros"), bits)
        zeros = (stored + _gptq_offset(p, stored, middle) & (2 * middle - 1)).astype(np.float32)
    groups = len(scales)
    of_column = p.read("g_idx").astype(np.int64) if p.has("g_idx") else _in_order(k, groups)
    inside = ((of_column >= 0) & (of_column < groups)).all()
    check(bool(inside), f"{p.where}: g_idx", "points outside the groups", f"0 to {groups - 1}")

    def rows(first: int, stop: int) -> NDArray[np.float32]:
        codes = unpacked(np.ascontiguousarray(words[:, first:stop].T), bits)  # (rows, k)
        zero, scale = (x[:, first:stop].T[:, of_column] for x in (zeros, scales))
        return (codes.astype(np.float32) - zero) * scale

    return rows


def _gptq_offset(p: Pieces, stored: NDArray[np.uint8], middle: int) -> int:
    """What was taken off zero points before they were stored: 1 in version 1 of the format, nothing in version 2.

    Without a config that says so, codes that are symmetric tell: their zero point is the middle.
    """
    version = p.config.get("checkpoint_format")
    if version in ("gptq", "gptq_v2"):
        return int(version == "gptq")
    return int(not (stored == middle).all())


def awq(p: Pieces) -> Packed | None:
    """AWQ for matrix products: codes packed along M, (k, m bits / 32), in an order of their own; scales (groups, m)."""
    roles = ("qweight", "qzeros", "scales")
    if not (p.is_a("qweight", WORDS, 2) and p.is_a("qzeros", WORDS, 2) and p.is_a("scales", SCALES, 2)):
        return None
    (k, words), (groups, m) = p.shape("qweight"), p.shape("scales")
    if (words * WORD_BITS, k % groups) != (m * AWQ_BITS, 0) or p.shape("qzeros") != (groups, words):
        return None
    coding = Coding(AWQ_BITS, False, ROW if groups == 1 else k // groups, zero_points=True)
    return p.packed("AWQ", roles, shape=(m, k), coding=coding, decoder=lambda: _awq_rows(p))


def _awq_rows(p: Pieces) -> Rows:
    words, scales = p.words("qweight"), p.floats("scales")
    k, per_word = len(words), WORD_BITS // AWQ_BITS
    zeros = _in_columns(p.words("qzeros"))

    def rows(first: int, stop: int) -> NDArray[np.float32]:
        low, high = first // per_word, -(-stop // per_word)
        codes = _in_columns(words[:, low:high])[:, first - low * per_word : stop - low * per_word]
        zero, scale = (columns_of(x[:, first:stop].T, k) for x in (zeros.astype(np.float32), scales))
        return (codes.T - zero) * scale

    return rows


def _in_columns(words: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Codes of AWQ's words in the order of their columns."""
    codes = unpacked(words, AWQ_BITS).reshape(len(words), -1, len(AWQ_COLUMN))
    return codes[..., np.argsort(AWQ_COLUMN)].reshape(len(words), -1)


def pack_quantized(p: Pieces) -> Packed | None:
    """compressed-tensors, pack-quantized: codes packed along K, whole in a word, with the middle for zero."""
    roles = ("weight_packed", "weight_scale", "weight_shape", "weight_zero_point", "weight_g_idx")
    layout = "compressed-tensors pack-quantized"
    if not p.is_a("weight_packed", WORDS, 2) or not p.is_a("weight_scale", SCALES, 2) or p.has("meta"):
        return None
    if not p.is_a("weight_shape", ("I32", "I64"), 1):
        return p.packed(layout, roles, obstacle="no weight_shape says how many columns it has")
    m, words = p.shape("weight_packed")
    rows, k = (*map(int, p.read("weight_shape")), 0, 0)[:2]
    fitting = [bits for bits in PACK_BITS if k > 0 and -(-k // (WORD_BITS // bits)) == words]
    groups = p.shape("weight_scale")[1]
    zeros = p.shape("weight_zero_point")
    scaled = p.shape("weight_scale")[0] == m and groups <= k and p.shape("weight_g_idx") in ((), (k,))
    if rows != m or not fitting or not scaled or (zeros and zeros != (-(-m // (WORD_BITS // fitting[0])), groups)):
        return p.packed(layout, roles, obstacle="its pieces have shapes that do not fit each other")
    coding = Coding(fitting[0], False, _grain(k, groups), zero_points=bool(zeros))
    return p.packed(layout, roles, shape=(m, k), coding=coding, decoder=lambda: _pack_rows(p, coding, k))


def _pack_rows(p: Pieces, coding: Coding, k: int) -> Rows:
    words, scales = p.words("weight_packed"), p.floats("weight_scale")
    m, groups = scales.shape
    zeros: NDArray[Any] = np.full(scales.shape, 1 << (coding.bits - 1), np.uint8)
    if coding.zero_points:
        zeros = _whole_in_words(np.ascontiguousarray(p.words("weight_zero_point").T), coding.bits).T[:m]
    of_column = p.read("weight_g_idx").astype(np.int64) if p.has("weight_g_idx") else _in_order(k, groups)
    if (of_column == -1).all():  # as vLLM's own tensors say "in order"
        of_column = _in_order(k, groups)
    inside = ((of_column >= 0) & (of_column < groups)).all()
    check(bool(inside), f"{p.where}: weight_g_idx", "points outside the groups", f"0 to {groups - 1}")

    def rows(first: int, stop: int) -> NDArray[np.float32]:
        codes = _whole_in_words(words[first:stop], coding.bits)[:, :k].astype(np.float32)
        return (codes - zeros[first:stop, of_column]) * scales[first:stop, of_column]

    return rows


def _whole_in_words(words: NDArray[np.uint32], bits: int) -> NDArray[np.uint8]:
    """Codes along the last axis where none lies across two words."""
    shifts = np.arange(WORD_BITS // bits, dtype=np.uint32) * np.uint32(bits)
    codes = (words[..., None] >> shifts & np.uint32((1 << bits) - 1)).astype(np.uint8)
    return codes.reshape(*words.shape[:-1], -1)


def mlx(p: Pieces) -> Packed | None:
    """MLX: codes as one stream of bits along K; a scale and an offset for each group."""
    roles = ("weight", "scales", "biases")
    if not (p.is_a("weight", ("U32",), 2) and all(p.is_a(role, SCALES, 2) for role in roles[1:])):
        return None
    bits, group = p.config.get("bits"), p.config.get("group_size")
    (m, words), scales = p.shape("weight"), p.shape("scales")
    if bits not in (2, 3, 4, 5, 6, 8) or not isinstance(group, int):
        return p.packed("MLX", roles, obstacle="only a config.json beside it says how many bits a code has")
    k, rest = divmod(WORD_BITS * words, bits)
    if rest or scales != p.shape("biases") or scales[0] != m or scales[1] * group != k:
        return p.packed("MLX", roles, obstacle="its pieces have shapes that do not fit each other")
    coding = Coding(bits, False, group, zero_points=True)

    def decoder() -> Rows:
        codes, scale, offset = p.words("weight"), p.floats("scales"), p.floats("biases")
        return lambda first, stop: (
            unpacked(codes[first:stop], bits) * columns_of(scale[first:stop], k) + columns_of(offset[first:stop], k)
        )

    return p.packed("MLX", roles, shape=(m, k), coding=coding, decoder=decoder)
