"""Conversions, comparisons and selections: rounding as named, clamping, NaN, packed halves."""

import math

import numpy as np
import pytest

from tests.kernels_numba.ptx_emulator.programs import apply, check_unary, wrap

UNARY = {
    "cvt.s32.s8": (np.int32, lambda a: wrap(a, np.int8)),
    "cvt.u32.u8": (np.uint32, lambda a: a & 0xFF),
    "cvt.sat.u8.s32": (np.int32, lambda a: min(max(a, 0), 255)),
    "cvt.s32.s16": (np.int32, lambda a: wrap(a, np.int16)),
}


@pytest.mark.parametrize("name", UNARY)
def test_conversions_of_integers_equal_python_integers(name):
    check_unary(name, *UNARY[name])


FLOAT_INTEGER = [3.7, -3.7, 2.5, 3.5, -2.5, 1e10, -1e10, math.nan, math.inf, -math.inf, 0.0, -0.4]


@pytest.mark.parametrize(
    ("rounding", "expected"),
    [("rzi", [3, -3, 2, 3, -2]), ("rni", [4, -4, 2, 4, -2]), ("rmi", [3, -4, 2, 3, -3]), ("rpi", [4, -3, 3, 4, -2])],
)
def test_float_to_integer_rounds_as_named_and_clamps(rounding, expected):
    a = np.array(FLOAT_INTEGER, np.float32)
    found = apply(f"cvt.{rounding}.s32.f32 D, A;", np.int32, a)
    limits = [2**31 - 1, -(2**31), 0, 2**31 - 1, -(2**31), 0]
    assert found.tolist() == [*expected, *limits, -1 if rounding == "rmi" else 0]
    unsigned = apply(f"cvt.{rounding}.u32.f32 D, A;", np.uint32, a)
    assert unsigned.tolist()[5:11] == [2**32 - 1, 0, 0, 2**32 - 1, 0, 0]


def test_half_conversions_round_to_nearest_even():
    rng = np.random.default_rng(17)
    a, b = (
        (rng.standard_normal(64) * 10.0 ** rng.integers(-9, 6, 64)).astype(np.float32),
        np.float32(1) / np.arange(1, 65, dtype=np.float32),
    )
    with np.errstate(over="ignore"):
        halves = np.stack([b.astype(np.float16), a.astype(np.float16)], axis=1).view(np.uint32).ravel()
    assert (apply("cvt.rn.f16x2.f32 D, A, B;", np.uint32, a, b) == halves).all()  # A goes to the upper half
    packed = apply("cvt.rn.bf16x2.f32 D, A, B;", np.uint32, a, b)
    for part, value in ((packed >> 16, a), (packed & 0xFFFF, b)):
        near = (part.astype(np.uint32) << 16).view(np.float32)
        below, above = (
            (part.astype(np.uint32) - 1 << 16).view(np.float32),
            (part.astype(np.uint32) + 1 << 16).view(np.float32),
        )
        error = np.abs(near.astype(float) - value)
        assert (error <= np.abs(below.astype(float) - value)).all()
        assert (error <= np.abs(above.astype(float) - value)).all()
    # Ties: 1 + 2**-8 lies between 1 and 1 + 2**-7 and goes to the even one; 1 + 3 * 2**-8 goes up.
    ties = np.array([1 + 2**-8, 1 + 3 * 2**-8], np.float32)
    assert [hex(v & 0xFFFF) for v in apply("cvt.rn.bf16x2.f32 D, A, B;", np.uint32, ties, ties)] == ["0x3f80", "0x3f82"]


def test_bfloat16_pairs_of_any_bits_are_rounded_as_by_the_rule():
    """Random bit patterns, subnormal, infinite and NaN: the nearest of the two neighbours, by exact distances."""
    rng = np.random.default_rng(18)
    bits = rng.integers(0, 2**32, 512, dtype=np.uint32)
    bits[:8] = [0, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC12345, 0x7F7FFFFF, 0x00007FFF, 0x00008001]
    values = bits.view(np.float32)
    packed = apply("cvt.rn.bf16x2.f32 D, A, B;", np.uint32, values, values[::-1].copy())
    assert (packed >> 16 == packed[::-1] & 0xFFFF).all()
    for found, pattern, value in zip((packed >> 16).tolist(), bits.tolist(), values.tolist(), strict=True):
        if math.isnan(value):
            assert found == 0x7FFF
            continue
        rest = pattern & 0xFFFF
        up = rest > 0x8000 or (rest == 0x8000 and pattern >> 16 & 1)
        assert found == (pattern >> 16) + up


@pytest.mark.parametrize("shift", [15, 16])
def test_bfloat16_is_widened_by_a_shift_and_by_a_mask(shift):
    """``shl.b32`` and ``and.b32`` into a float register give the two halves; a shift by 15 gives something else."""
    words = np.array([0x3F80C000, 0x00010080, 0x7F80FF7F, 0x80007FC0], np.uint32)
    low = apply(f"shl.b32 %f1, A, {shift}; mov.b32 D, %f1;", np.uint32, words)
    high = apply("and.b32 %f1, A, 0xffff0000; mov.b32 D, %f1;", np.uint32, words)
    assert (high == (words >> 16) << 16).all()
    assert (low == (words & 0xFFFF) << 16).all() == (shift == 16)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("eq", "0100"),
        ("ne", "1010"),
        ("lt", "1000"),
        ("ge", "0110"),
        ("ltu", "1001"),
        ("neu", "1011"),
        ("nan", "0001"),
        ("num", "1110"),
    ],
)
def test_float_comparisons_with_nan(name, expected):
    a, b = np.array([1, 2, 3, np.nan], np.float32), np.array([2, 2, 2, 2], np.float32)
    found = apply(f"setp.{name}.f32 %p1, A, B; selp.u32 D, 1, 0, %p1;", np.uint32, a, b)
    assert "".join(map(str, found)) == expected


def test_comparison_combines_with_a_predicate_and_gives_two_results():
    a = np.arange(8, dtype=np.uint32)
    body = """
        setp.lt.u32 %p1, A, 6; setp.gt.and.u32 %p2|%p3, A, 2, %p1;
        selp.u32 %r30, 1, 0, %p2; selp.u32 %r31, 2, 0, %p3; or.b32 D, %r30, %r31;"""
    # p2 = (a > 2) and p1, p3 = not (a > 2) and p1
    assert apply(body, np.uint32, a).tolist() == [2, 2, 2, 1, 1, 1, 0, 0]
