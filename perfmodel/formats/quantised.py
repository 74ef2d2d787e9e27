"""How many bytes do rounded weights take, each of the same number of bits?

No bit is counted twice or left out: codes, scales, zero points. Codes of a matrix are packed without gaps. What a
kernel pads beyond that (NVIDIA's tiles of 128 x 4 block scales, for one) is not stored in a checkpoint and not counted.
"""

from __future__ import annotations

import numpy as np

from perfmodel.formats.base import Activations, Array, BytesOf, WeightFormat, at_any_sparsity
from perfmodel.formats.scales import (
    FP16_BITS,
    FP32_BITS,
    MX,
    NVFP4,
    PER_GROUP,
    PER_ROW,
    PER_TENSOR,
    ROW,
    Scales,
    group,
)
from perfmodel.units import BITS_PER_BYTE, FP32_BYTES

FP8_BLOCK = 128  # rows and columns that share a scale
ZERO_POINT_BITS = 4
GQSA_GROUP = 16  # consecutive weights kept or dropped together
GQSA_DENSITY = 0.5


def code_bytes(bits: int, scales: Scales) -> BytesOf:
    """Bytes of ``m * k`` codes of ``bits`` bits and of their scales."""

    def size(m: Array, k: Array) -> Array:
        return m * k * bits / BITS_PER_BYTE + scales.bytes(m, k)

    return at_any_sparsity(size)


def _fp16_scales(columns: int, zero_point_bits: int = 0) -> Scales:
    return Scales(group(columns), FP16_BITS + zero_point_bits)


@at_any_sparsity
def _gqsa(m: Array, k: Array) -> Array:
    """Half of the groups of 16 kept: 4-bit values, an FP16 scale, a 4-bit zero point, a 16-bit group index."""
    group_bits = GQSA_GROUP * 4 + FP16_BITS + ZERO_POINT_BITS + 16
    kept_groups = GQSA_DENSITY * m * np.ceil(k / GQSA_GROUP)
    return kept_groups * group_bits / BITS_PER_BYTE + FP32_BYTES * (m + 1)


def _row(
    name: str, title: str, bits: int, scales: Scales, source: str, activations: Activations = "fp16"
) -> WeightFormat:
    return WeightFormat(name, title, code_bytes(bits, scales), False, False, source, activations=activations)


_MARLIN = "Frantar et al., MARLIN, PPoPP 2025"
_FP6_LLM = "Xia et al., FP6-LLM, USENIX ATC 2024"
_FP8 = "Micikevicius et al., FP8 Formats for Deep Learning, arXiv 2209.05433; vLLM compressed-tensors"
_DEEPSEEK = "DeepSeek-V3 Technical Report, arXiv 2412.19437, section 3.3.2: blocks of 128 x 128"
_SMOOTHQUANT = "Xiao et al., SmoothQuant, ICML 2023; vLLM compressed-tensors, a scale per output channel"
_NVFP4 = "NVIDIA, Introducing NVFP4 for Efficient and Accurate Low-Precision Inference, 2025"
_OCP = "OCP Microscaling Formats (MX) Specification v1.0, 2023"
_GPTQ = "Frantar et al., GPTQ, ICLR 2023; Lin et al., AWQ, MLSys 2024"
_ZEROQUANT = "Wu et al., ZeroQuant(4+2), arXiv 2312.08583; groups of 256 assumed, its coarse grain is fp6"
_COMET = "Liu et al., COMET, arXiv 2410.12168; an FP16 scale per block of 128 channels assumed"
_TILUS = "Ding et al., Tilus, ASPLOS 2026, arXiv 2504.12984; symmetric, groups of any size, 128 assumed"

QUANTISED = (
    _row("int8", "INT8", 8, Scales(ROW, FP16_BITS), "one FP16 scale per row"),
    _row("int8-w8a8", "INT8, W8A8", 8, PER_ROW, _SMOOTHQUANT, "int8"),
    _row("fp8", "FP8", 8, PER_TENSOR, _FP8, "fp8"),
    _row("fp8-row", "FP8, scale per row", 8, PER_ROW, _FP8, "fp8"),
    _row("fp8-block", "FP8, blocks of 128 × 128", 8, Scales((FP8_BLOCK, FP8_BLOCK), FP32_BITS), _DEEPSEEK, "fp8"),
    _row("mxfp8", "MXFP8", 8, MX, _OCP, "fp8"),
    _row("mxint8", "MXINT8", 8, MX, _OCP, "int8"),
    _row("fp6", "FP6", 6, Scales(ROW, FP16_BITS), _FP6_LLM),
    _row("zq-fp6", "FP6, groups of 256 (ZeroQuant 4+2)", 6, _fp16_scales(256), _ZEROQUANT),
    _row("fp5", "FP5", 5, Scales(ROW, FP16_BITS), _FP6_LLM),
    _row("int4", "INT4, groups of 128", 4, PER_GROUP, _MARLIN),
    _row("int4-g64", "INT4, groups of 64", 4, _fp16_scales(64), _GPTQ),
    _row("int4-g32", "INT4, groups of 32", 4, _fp16_scales(32), _GPTQ),
    _row("int4-zp", "INT4, zero points, groups of 128", 4, _fp16_scales(128, ZERO_POINT_BITS), _GPTQ),
    _row("int4-g64-zp", "INT4, zero points, groups of 64", 4, _fp16_scales(64, ZERO_POINT_BITS), _GPTQ),
    _row("int4-g32-zp", "INT4, zero points, groups of 32", 4, _fp16_scales(32, ZERO_POINT_BITS), _GPTQ),
    _row("comet-w4a4", "INT4, W4A4 (COMET)", 4, PER_GROUP, _COMET, "int4"),
    _row("nvfp4", "NVFP4", 4, NVFP4, _NVFP4, "fp4"),
    _row("mxfp4", "MXFP4", 4, MX, _OCP, "fp4"),
    *(_row(f"tilus-int{bits}", f"INT{bits}, Tilus", bits, PER_GROUP, _TILUS) for bits in (7, 6, 5, 3, 2, 1)),
    WeightFormat("gqsa-w4s50", "GQSA W4 S50", _gqsa, False, False, "Zeng et al., GQSA, arXiv 2412.17560", prunes=True),
)
