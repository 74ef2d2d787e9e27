"""One code a weight times a scale: INT8 and FP8 by tensor, row, group or block; NVFP4 and MXFP4, two codes a byte.

References
----------
DeepSeek-V3 Technical Report, arXiv 2412.19437, section 3.3.2 (blocks of 128 x 128); compressed-tensors, formats
int-quantized, float-quantized, nvfp4-pack-quantized, mxfp4-pack-quantized; NVIDIA TensorRT Model Optimizer,
``weight_scale_2``; OpenAI, gpt-oss, ``_blocks`` and ``_scales``.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from kernels_numba.checkpoints.float_values import ELEMENTS
from kernels_numba.checkpoints.layouts.pieces import (
    FLOATS,
    ROW,
    TENSOR,
    Coding,
    Packed,
    Pieces,
    Rows,
    columns_of,
    nibbles,
    side_of,
)
from kernels_numba.checkpoints.small_floats import FLOAT8, POWERS, values_of

CODES = ("weight", "")  # roles of codes that are called like a whole weight
SCALES = ("weight_scale_inv", "weight_scale", "scale_weight", "scale_inv", "scale", "scales")
GLOBAL_SCALES = ("weight_scale_2", "weight_global_scale")
ZERO_POINT = "weight_zero_point"
NVFP4_GROUP, MX_GROUP = 16, 32
Block = tuple[int, int]


def coded(p: Pieces) -> Packed | None:
    """INT8 or FP8, a code a byte, with scales of any regular grain; FP8 also with none."""
    codes = p.first(*CODES)
    if codes is None or not p.is_a(codes, ("I8", *FLOAT8), 2) or p.has("SCB"):
        return None
    scale, floating = p.first(*SCALES), p.dtype(codes) in FLOAT8
    if scale is None and not floating:
        return None
    shape, roles = (p.shape(codes)[0], p.shape(codes)[1]), (codes, scale or "", ZERO_POINT)
    layout = _name(scale, floating)
    block = shape if scale is None else block_of(shape, p.shape(scale))
    readable = scale is None or p.dtype(scale) in (*FLOATS, "U8")
    zeros = p.shape(ZERO_POINT) if p.has(ZERO_POINT) else None
    if block is None or not readable or (zeros is not None and scale and zeros != p.shape(scale)):
        return p.packed(layout, roles, shape=shape, obstacle="its scales have a shape or type that is not known")
    coding = Coding(
        8, floating, grain_of(block, shape) if scale else "", zero_points=zeros is not None and not floating
    )
    if p.dtype(scale) in ("U8", POWERS) and block == (1, MX_GROUP):
        coding = Coding(8, True, MX_GROUP, name="MXFP8")
    return p.packed(layout, roles, shape=shape, coding=coding, decoder=lambda: _coded_rows(p, codes, scale, block))


def _name(scale: str | None, floating: bool) -> str:
    """What quantisers call it; of FP8 there are several who store the same."""
    if not floating:
        return "int-quantized"
    if scale is None:
        return "FP8 without scales"
    return "fine-grained FP8" if scale == "weight_scale_inv" else "float-quantized"


def _coded_rows(p: Pieces, codes: str, scale: str | None, block: Block) -> Rows:
    stored = p.read(codes)
    scaled = Scaled(p, scale, stored.shape, block) if scale else None
    table = values_of(p.dtype(codes)) if p.dtype(codes) in FLOAT8 else None
    zeros = Scaled(p, ZERO_POINT, stored.shape, block) if p.has(ZERO_POINT) else None

    def rows(first: int, stop: int) -> NDArray[np.float32]:
        part = stored[first:stop]
        values = part.astype(np.float32) if table is None else table[part]
        if zeros is not None:
            values = values - zeros.of_rows(first, stop)
        return values if scaled is None else values * scaled.of_rows(first, stop)

    return rows


class Scaled:
    """Scales, or zero points, of a matrix by the blocks that share one."""

    def __init__(self, p: Pieces, role: str, shape: tuple[int, ...], block: Block) -> None:
        integers = role == ZERO_POINT and p.dtype(role) in ("I8", "U8", "I32", "I64")
        values = p.read(role).astype(np.float32) if integers else p.floats(role)
        self.k, self.block = shape[1], block
        self.values = values.reshape(-(-shape[0] // block[0]), -1)

    def of_rows(self, first: int, stop: int) -> NDArray[np.float32]:
        """For each weight of rows [first, stop), or (rows, 1) if a row has one for all."""
        values = self.values[np.arange(first, stop) // self.block[0]]
        return values if values.shape[1] == 1 else np.repeat(values, self.block[1], axis=1)[:, : self.k]


def block_of(shape: Block, scales: tuple[int, ...]) -> Block | None:
    """Rows and columns that share one of ``scales``; None if they do not cover the matrix regularly."""
    m, k = shape
    if math.prod(scales) == 1:
        return m, k
    if len(scales) == 1:
        scales = (scales[0], 1)
    if len(scales) != 2:
        return None
    sides = [side_of(size, count) for size, count in zip(shape, scales, strict=True)]
    return None if None in sides else (sides[0] or 0, sides[1] or 0)


def grain_of(block: Block, shape: Block) -> str | int:
    """A block in words, or as the number of columns of one row."""
    if block == shape and shape[0] > 1:
        return TENSOR
    if block[0] == 1:
        return ROW if block[1] == shape[1] else block[1]
    return f"{block[0]}x{block[1]}"


def fp4(p: Pieces) -> Packed | None:
    """NVFP4 (scales E4M3 for 16 weights, and one for all) and MXFP4 (powers of two for 32)."""
    codes = p.first("weight_packed", "weight")
    if codes is None or not (p.is_a(codes, ("U8",), 2) or p.is_a(codes, ("F4",), 2)) or not p.has("weight_scale"):
        return None
    m, columns = p.shape(codes)
    k = columns if p.dtype(codes) == "F4" else 2 * columns
    kinds = {("F8_E4M3", NVFP4_GROUP): "NVFP4", (POWERS, MX_GROUP): "MXFP4", ("U8", MX_GROUP): "MXFP4"}
    name, group = next(
        ((name, group) for (dtype, group), name in kinds.items() if p.dtype("weight_scale") == dtype), ("", 0)
    )
    roles = (codes, "weight_scale", *GLOBAL_SCALES)
    if not name:
        return None
    maker = "ModelOpt " if p.has("weight_scale_2") else ""
    layout = f"compressed-tensors {name.lower()}-pack-quantized" if codes == "weight_packed" else f"{maker}{name}"
    factor = p.first(*GLOBAL_SCALES)
    single = factor is None or (p.dtype(factor) in ELEMENTS and math.prod(p.shape(factor)) == 1)
    if k % group or p.shape("weight_scale") != (m, k // group) or not single:
        return p.packed(layout, roles, obstacle="its scales have a shape that is not known (padded or reordered)")
    coding = Coding(4, True, group, name=name)
    return p.packed(layout, roles, shape=(m, k), coding=coding, decoder=lambda: _fp4_rows(p, codes, k))


def _fp4_rows(p: Pieces, codes: str, k: int) -> Rows:
    stored, scales = p.read(codes).reshape(p.shape(codes)[0], -1), p.floats("weight_scale")
    factor = p.first(*GLOBAL_SCALES)
    whole = np.float32(1) if factor is None else p.floats(factor).reshape(-1)[0]
    scales = scales / whole if factor == "weight_global_scale" else scales * whole  # compressed-tensors divides by it

    def rows(first: int, stop: int) -> NDArray[np.float32]:
        return values_of("F4")[nibbles(stored[first:stop])] * columns_of(scales[first:stop], k)

    return rows


def blocks(p: Pieces) -> Packed | None:
    """MXFP4 of gpt-oss: experts stacked, (..., k / 32, 16) bytes of two codes, a power of two for each block."""
    if not p.has("blocks", "scales") or p.dtype("blocks") != "U8" or p.dtype("scales") not in ("U8", POWERS):
        return None
    shape, roles = p.shape("blocks"), ("blocks", "scales")
    if len(shape) < 3 or 2 * shape[-1] != MX_GROUP or shape[:-1] != p.shape("scales") or not math.prod(shape):
        return p.packed("gpt-oss MXFP4", roles, name=p.stem, obstacle="its pieces do not fit each other")
    m, k = math.prod(shape[:-2]), MX_GROUP * shape[-2]

    def decoder() -> Rows:
        stored = p.read("blocks").reshape(m, -1)
        powers = values_of(POWERS)[p.read("scales")].reshape(m, -1)
        return lambda first, stop: values_of("F4")[nibbles(stored[first:stop])] * columns_of(powers[first:stop], k)

    coding = Coding(4, True, MX_GROUP, name="MXFP4")
    return p.packed("gpt-oss MXFP4", roles, name=p.stem, shape=(m, k), coding=coding, decoder=decoder)


def scaled_floats(p: Pieces) -> Packed | None:
    """Weights of 16 or 32 bits that have scales for codes: codes in disguise, or rounded weights; nobody says which."""
    roles = ("weight", "weight_scale", "weight_scale_inv", "scales", ZERO_POINT, "qzeros")
    if not p.is_a("weight", tuple(ELEMENTS), 2) or p.first(*roles[1:]) is None:
        return None
    shape, offset = (p.shape("weight")[0], p.shape("weight")[1]), p.has(ZERO_POINT) or p.has("qzeros")

    def zeros() -> int | None:
        return None if offset else int((p.floats("weight") == 0).sum())

    obstacle = "whether its scales are applied already is not said"
    return p.packed(f"{p.dtype('weight')} with scales", roles, shape=shape, zeros=zeros, obstacle=obstacle)
