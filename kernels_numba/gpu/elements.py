"""From fp16 to bfloat16: the few instructions of a kernel that know what its 16 bits mean, exchanged in its PTX.

Why is no kernel written twice? Copies, scatters and decoders move bits, the same for both types. What interprets them
is one multiplication, one rounding and two widenings, inline assembly of `ptx` that comes through the compiler word for
word. So a kernel is written and lowered once, for fp16, and its machine code for bfloat16 differs in these opcodes only
(tests/kernels_numba/gpu/test_elements.py counts them). Widening is a shift or a mask, because ``cvt.f32.bf16`` needs
sm_90.
"""

from __future__ import annotations

import re

from kernels_numba.formats import Element

SUFFIX = {Element.FLOAT16: "", Element.BFLOAT16: "_bf16"}  # of the names of variants
# fp16 instruction -> bfloat16 instruction, as patterns of `re.sub`.
EXCHANGED = {
    r"\.f32\.f16\.f16\.f32\b": ".f32.bf16.bf16.f32",  # mma and mma.sp
    r"\bcvt\.rn\.f16x2\.f32\b": "cvt.rn.bf16x2.f32",
    r"mov\.b32 \{low, high\}, (\S+); cvt\.f32\.f16 (\S+), low;": r"shl.b32 \2, \1, 16;",
    r"mov\.b32 \{low, high\}, (\S+); cvt\.f32\.f16 (\S+), high;": r"and.b32 \2, \1, 0xffff0000;",
}


def in_element(ptx: str, element: Element) -> str:
    """PTX of a kernel written for fp16, for operands and outputs of another 16-bit type.

    Raises
    ------
    ValueError
        If the kernel has an fp16 instruction that is not among those exchanged; the message quotes it.
    """
    if element is Element.FLOAT16:
        return ptx
    for pattern, replacement in EXCHANGED.items():
        ptx = re.sub(pattern, replacement, ptx)
    left = re.search(r"\b\w[\w.:]*\.f16\w*\b[^;]*", ptx)
    if left:
        raise ValueError(f"instruction {left.group()}: none for {element}; allowed: those of gpu.elements.EXCHANGED")
    return ptx
