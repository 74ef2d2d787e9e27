"""Integer arithmetic and logic against exact Python integers."""

import numpy as np
import pytest

from kernels_numba import ptx_emulator
from tests.kernels_numba.ptx_emulator.programs import apply, check_unary, operands, wrap


def truncated_quotient(a, b):
    return abs(a) // abs(b) * (-1 if (a < 0) != (b < 0) else 1)


def high(a, b, bits):
    return (a * b) >> bits


BINARY = {
    "add.u32": (np.uint32, np.uint32, lambda a, b: a + b),
    "sub.s32": (np.int32, np.int32, lambda a, b: a - b),
    "add.s64": (np.int64, np.int64, lambda a, b: a + b),
    "mul.lo.u32": (np.uint32, np.uint32, lambda a, b: a * b),
    "mul.hi.u32": (np.uint32, np.uint32, lambda a, b: high(a, b, 32)),
    "mul.hi.s32": (np.int32, np.int32, lambda a, b: high(a, b, 32)),
    "mul.hi.u64": (np.uint64, np.uint64, lambda a, b: high(a, b, 64)),
    "mul.hi.s64": (np.int64, np.int64, lambda a, b: high(a, b, 64)),
    "mul.wide.u32": (np.uint32, np.uint64, lambda a, b: a * b),
    "mul.wide.s32": (np.int32, np.int64, lambda a, b: a * b),
    "min.s32": (np.int32, np.int32, min),
    "max.u64": (np.uint64, np.uint64, max),
    "and.b32": (np.uint32, np.uint32, lambda a, b: a & b),
    "or.b64": (np.uint64, np.uint64, lambda a, b: a | b),
    "xor.b32": (np.uint32, np.uint32, lambda a, b: a ^ b),
    "add.sat.s32": (np.int32, np.int32, lambda a, b: max(-(2**31), min(2**31 - 1, a + b))),
}


@pytest.mark.parametrize("name", BINARY)
def test_binary_integer_instructions_equal_python_integers(name):
    dtype, result, reference = BINARY[name]
    a, b = operands(dtype, 1), operands(dtype, 2)
    found = apply(f"{name} D, A, B;", dtype, a, b, result=result)
    assert found.tolist() == [wrap(reference(int(x), int(y)), result) for x, y in zip(a, b, strict=True)]


@pytest.mark.parametrize(
    ("name", "dtype"), [("u32", np.uint32), ("s32", np.int32), ("u64", np.uint64), ("s64", np.int64)]
)
def test_division_truncates_towards_zero(name, dtype):
    a, b = operands(dtype, 3), operands(dtype, 4)
    b[b == 0] = 7
    quotient = [truncated_quotient(int(x), int(y)) for x, y in zip(a, b, strict=True)]
    assert apply(f"div.{name} D, A, B;", dtype, a, b).tolist() == [wrap(q, dtype) for q in quotient]
    remainder = [int(x) - q * int(y) for x, y, q in zip(a, b, quotient, strict=True)]
    assert apply(f"rem.{name} D, A, B;", dtype, a, b).tolist() == remainder


UNARY = {
    "not.b32": (np.uint32, lambda a: ~a),
    "neg.s32": (np.int32, lambda a: -a),
    "abs.s32": (np.int32, abs),
    "cnot.b32": (np.uint32, lambda a: int(a == 0)),
}


@pytest.mark.parametrize("name", UNARY)
def test_unary_integer_instructions_equal_python_integers(name):
    check_unary(name, *UNARY[name])


def test_multiply_add_wide_and_carry_of_the_sign():
    a, b, c = operands(np.int32, 13), operands(np.int32, 14), operands(np.int64, 15)
    found = apply("mad.wide.s32 D, A, B, C;", np.int64, a, b, c)
    assert found.tolist() == [wrap(int(x) * int(y) + int(z), np.int64) for x, y, z in zip(a, b, c, strict=True)]
    low = operands(np.int32, 16)
    found = apply("mad.lo.s32 D, A, B, C;", np.int32, a, b, low)
    assert found.tolist() == [wrap(int(x) * int(y) + int(z), np.int32) for x, y, z in zip(a, b, low, strict=True)]


def test_byte_dot_product() -> None:
    """The emulator's dp4a: four products of unsigned bytes and a sum that wraps."""
    text = """
    .version 8.0
    .target sm_80
    .address_size 64
    .visible .entry dot(.param .u64 out)
    { .reg .b32 %r<5>; .reg .b64 %rd<2>;
      ld.param.u64 %rd1, [out]; mov.u32 %r1, 0xff020301; mov.u32 %r2, 0xff000102; mov.u32 %r3, 0xffffffff;
      dp4a.u32.u32 %r4, %r1, %r2, %r3; st.global.u32 [%rd1], %r4; ret; }
    """
    out = np.zeros(1, np.uint32)
    ptx_emulator.launch(text, grid=1, block=1, args=(out,))
    assert out[0] == 255 * 255 + 3 * 1 + 1 * 2 - 1
