"""Shifts, counts, fields and permutations of bits against exact Python integers."""

import struct

import numpy as np
import pytest

from tests.kernels_numba.ptx_emulator.programs import apply, check_unary, operands, wrap


def find_high_bit(a, bits, signed):
    if signed and a < 0:
        a = ~a
    return wrap(a.bit_length() - 1, np.uint32)


UNARY = {
    "popc.b32": (np.uint32, lambda a: a.bit_count()),
    "popc.b64": (np.uint64, lambda a: a.bit_count()),
    "clz.b32": (np.uint32, lambda a: 32 - a.bit_length()),
    "clz.b64": (np.uint64, lambda a: 64 - a.bit_length()),
    "bfind.u32": (np.uint32, lambda a: find_high_bit(a, 32, False)),
    "bfind.s32": (np.int32, lambda a: find_high_bit(a, 32, True)),
    "bfind.shiftamt.u32": (np.uint32, lambda a: wrap(32 - a.bit_length(), np.uint32) if a else 0xFFFFFFFF),
    "brev.b32": (np.uint32, lambda a: int(f"{a:032b}"[::-1], 2)),
}


@pytest.mark.parametrize("name", UNARY)
def test_counts_of_bits_equal_python_integers(name):
    check_unary(name, *UNARY[name])


def bit_field(a, start, count, signed):
    start, count = start & 255, count & 255
    bits = [(a >> min(start + i, 31)) & 1 if start + i < 32 else None for i in range(32)]
    top = (a >> min(start + max(count, 1) - 1, 31)) & 1 if signed and count else 0
    field = [bits[i] if i < count and bits[i] is not None else top for i in range(32)]
    return sum(bit << i for i, bit in enumerate(field))


def test_bit_fields():
    rng = np.random.default_rng(6)
    a, b = operands(np.uint32, 7), operands(np.uint32, 8)
    start = rng.integers(0, 40, a.size).astype(np.uint32)
    count = rng.integers(0, 40, a.size).astype(np.uint32)
    rows = [tuple(int(v) for v in row) for row in zip(a, b, start, count, strict=True)]
    for kind, signed in (("u32", False), ("s32", True)):
        found = apply(f"bfe.{kind} D, A, B, C;", np.uint32, a, start, count)
        assert found.tolist() == [bit_field(x, s, n, signed) for x, _, s, n in rows]
    # bfi with 5 bits at position ``start``
    found = apply("bfi.b32 D, A, B, C, 5;", np.uint32, a, b, start)
    assert found.tolist() == [(y & ~(31 << s) | (x & 31) << s) & 0xFFFFFFFF if s < 32 else y for x, y, s, _ in rows]


def test_shifts_clamp_their_amount():
    a, n = operands(np.int32, 9), np.arange(96, dtype=np.uint32) % 40
    rows = [(int(x), int(s)) for x, s in zip(a, n, strict=True)]
    assert apply("shl.b32 D, A, B;", np.int32, a, n).tolist() == [wrap(x << s, np.int32) for x, s in rows]
    assert apply("shr.s32 D, A, B;", np.int32, a, n).tolist() == [x >> s for x, s in rows]
    unsigned = apply("shr.u32 D, A, B;", np.uint32, a, n).tolist()
    assert unsigned == [wrap(x, np.uint32) >> s for x, s in rows]


def test_funnel_shift_and_byte_permutation_and_lop3():
    a, b = operands(np.uint32, 10), operands(np.uint32, 11)
    n = np.arange(96, dtype=np.uint32) % 40
    rows = [tuple(int(v) for v in row) for row in zip(a, b, n, strict=True)]
    found = apply("shf.l.wrap.b32 D, A, B, C;", np.uint32, a, b, n)
    assert found.tolist() == [((y << 32 | x) << (s & 31) >> 32) & 0xFFFFFFFF for x, y, s in rows]
    found = apply("shf.r.clamp.b32 D, A, B, C;", np.uint32, a, b, n)
    assert found.tolist() == [((y << 32 | x) >> min(s, 32)) & 0xFFFFFFFF for x, y, s in rows]

    def permute(x, y, selector):
        octets = struct.pack("<II", x, y)
        picked = [(octets[s & 7], s & 8) for s in ((selector >> 4 * i) & 15 for i in range(4))]
        return struct.unpack("<I", bytes((255 if o & 128 else 0) if sign else o for o, sign in picked))[0]

    selectors = operands(np.uint32, 12)
    found = apply("prmt.b32 D, A, B, C;", np.uint32, a, b, selectors)
    assert found.tolist() == [permute(int(x), int(y), int(s)) for x, y, s in zip(a, b, selectors, strict=True)]
    found = apply("lop3.b32 D, A, B, C, 0xE8;", np.uint32, a, b, selectors)  # 0xE8 is the majority
    assert found.tolist() == [int(x & y | x & s | y & s) for x, y, s in zip(a, b, selectors, strict=True)]
