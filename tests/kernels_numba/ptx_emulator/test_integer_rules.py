"""The PTX emulator: arithmetic against exact Python integers and IEEE floats, control flow, spaces, launches."""

import math
import struct

import numpy as np
import pytest

from kernels_numba.ptx_emulator import launch


def module(body, parameters="", declarations="", name="k"):
    """PTX text of one kernel with plenty of registers; ``parameters`` are types such as "u64 u32"."""
    listed = ", ".join(f".param .{t} p{i}" for i, t in enumerate(parameters.split()))
    return f"""
    .version 9.0
    .target sm_80
    .address_size 64
    {declarations}
    .visible .entry {name}({listed}) {{
        .reg .pred %p<20>;
        .reg .b16 %h<20>;
        .reg .b32 %r<60>;
        .reg .f32 %f<40>;
        .reg .b64 %rd<40>;
        .reg .f64 %d<20>;
        {body}
        ret;
    }}"""


# Address of element tid of an array of 4- or 8-byte elements, from parameter p0, p1 ...
def element(parameter, register, size=4):
    return f"""
        ld.param.u64 {register}, [p{parameter}];
        mov.u32 %r59, %tid.x;
        mul.wide.u32 %rd39, %r59, {size};
        add.s64 {register}, {register}, %rd39;"""


def apply(instruction, kind, *columns, result=None):
    """Run ``instruction`` (operands D, A, B, C) once for every row of ``columns``; returns the result column."""
    result = result or kind
    n = len(columns[0])
    body, args = "", []
    for i, column in enumerate(columns):
        column = np.ascontiguousarray(column)
        letter, wide = "ABC"[i], column.dtype.itemsize == 8
        register = f"%rd{10 + i}" if wide else f"%r{10 + i}"
        body += element(i, f"%rd{i}", column.dtype.itemsize)
        body += f"ld.global.{'b64' if wide else 'b32'} {register}, [%rd{i}];"
        instruction = instruction.replace(letter, register)
        args.append(column)
    out = np.zeros(n, result)
    wide = out.dtype.itemsize == 8
    target = "%rd20" if wide else "%r20"
    body += instruction.replace("D", target)
    body += element(len(columns), "%rd9", out.dtype.itemsize)
    body += f"st.global.{'b64' if wide else 'b32'} [%rd9], {target};"
    launch(module(body, "u64 " * (len(columns) + 1)), grid=1, block=n, args=[*args, out])
    return out


def wrap(value, dtype):
    bits = np.dtype(dtype).itemsize * 8
    value &= (1 << bits) - 1
    return value - (1 << bits) if np.dtype(dtype).kind == "i" and value >> (bits - 1) else value


def operands(dtype, seed, n=96):
    """Random integers of all magnitudes, with the extreme values first."""
    info = np.iinfo(dtype)
    rng = np.random.default_rng(seed)
    wide = rng.integers(info.min, info.max, n, endpoint=True, dtype=dtype)
    values = [int(value) >> int(shift) for value, shift in zip(wide, rng.integers(0, info.bits, n), strict=True)]
    values[:5] = [0, 1, info.max, info.min, info.max - 1]
    rng.shuffle(values)
    return np.array(values, dtype)


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
    "not.b32": (np.uint32, lambda a: ~a),
    "neg.s32": (np.int32, lambda a: -a),
    "abs.s32": (np.int32, abs),
    "cnot.b32": (np.uint32, lambda a: int(a == 0)),
    "cvt.s32.s8": (np.int32, lambda a: wrap(a, np.int8)),
    "cvt.u32.u8": (np.uint32, lambda a: a & 0xFF),
    "cvt.sat.u8.s32": (np.int32, lambda a: min(max(a, 0), 255)),
    "cvt.s32.s16": (np.int32, lambda a: wrap(a, np.int16)),
}


@pytest.mark.parametrize("name", UNARY)
def test_unary_integer_instructions_equal_python_integers(name):
    dtype, reference = UNARY[name]
    a = operands(dtype, 5)
    found = apply(f"{name} D, A;", dtype, a, result=np.uint32)
    assert found.tolist() == [wrap(reference(int(x)), np.uint32) for x in a]


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


def test_multiply_add_wide_and_carry_of_the_sign():
    a, b, c = operands(np.int32, 13), operands(np.int32, 14), operands(np.int64, 15)
    found = apply("mad.wide.s32 D, A, B, C;", np.int64, a, b, c)
    assert found.tolist() == [wrap(int(x) * int(y) + int(z), np.int64) for x, y, z in zip(a, b, c, strict=True)]
    low = operands(np.int32, 16)
    found = apply("mad.lo.s32 D, A, B, C;", np.int32, a, b, low)
    assert found.tolist() == [wrap(int(x) * int(y) + int(z), np.int32) for x, y, z in zip(a, b, low, strict=True)]


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


def test_packed_half_arithmetic_rounds_once():
    rng = np.random.default_rng(18)
    a, b, c = (rng.standard_normal((64, 2)).astype(np.float16) for _ in range(3))
    words = [np.ascontiguousarray(x).view(np.uint32).ravel() for x in (a, b, c)]
    found = apply("fma.rn.f16x2 D, A, B, C;", np.uint32, *words).view(np.float16).reshape(64, 2)
    exact = a.astype(np.float64) * b.astype(np.float64) + c.astype(np.float64)
    assert (found == exact.astype(np.float16)).all()
    found = apply("add.f16x2 D, A, B;", np.uint32, *words[:2]).view(np.float16).reshape(64, 2)
    assert (found == a + b).all()
    found = apply("max.f16x2 D, A, B;", np.uint32, *words[:2]).view(np.float16).reshape(64, 2)
    assert (found == np.maximum(a, b)).all()


def test_float_minimum_ignores_nan_and_ftz_flushes():
    a, b = np.array([np.nan, 1, -0.0, 1e-40], np.float32), np.array([2, np.nan, 3, 0], np.float32)
    assert apply("min.f32 D, A, B;", np.float32, a, b).tolist() == [2, 1, 0, 0]
    assert np.isnan(apply("min.NaN.f32 D, A, B;", np.float32, a, b)[:2]).all()
    assert apply("add.f32 D, A, B;", np.float32, a, b)[3] == np.float32(1e-40)
    assert apply("add.ftz.f32 D, A, B;", np.float32, a, b)[3] == 0


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


def test_inline_assembly_scopes_keep_their_own_registers_and_labels():
    body = """
        {{ .reg .b32 t; .reg .pred q; mov.u32 t, 0; again: add.u32 t, t, 3; setp.lt.u32 q, t, {limit};
           @q bra again; mov.u32 {out}, t; }}"""
    both = body.format(limit=7, out="%r30") + body.format(limit=20, out="%r31")
    found = apply(both + "add.u32 D, %r30, %r31; add.u32 D, D, A;", np.uint32, np.arange(4, dtype=np.uint32))
    assert found.tolist() == [30, 31, 32, 33]


def collatz(n):
    steps = 0
    while n != 1:
        n = 3 * n + 1 if n % 2 else n // 2
        steps += 1
    return steps


def test_divergent_loops_join_again():
    body = """
        add.u32 %r30, A, 1; mov.u32 D, 0;
        loop: setp.eq.u32 %p1, %r30, 1; @%p1 bra done;
        and.b32 %r31, %r30, 1; setp.eq.u32 %p2, %r31, 0; @%p2 bra even;
        mad.lo.u32 %r30, %r30, 3, 1; bra next;
        even: shr.u32 %r30, %r30, 1;
        next: add.u32 D, D, 1; bra loop;
        done: bar.sync 0;"""
    found = apply(body, np.uint32, np.arange(100, dtype=np.uint32))
    assert found.tolist() == [collatz(i + 1) for i in range(100)]


def test_branch_table():
    body = """
        mov.u32 D, 99; setp.gt.u32 %p1, A, 2; @%p1 bra out;
        targets: .branchtargets zero, one, out;
        brx.idx A, targets;
        zero: mov.u32 D, 10; bra out;
        one: mov.u32 D, 11;
        out: add.u32 D, D, 0;"""
    assert apply(body, np.uint32, np.arange(5, dtype=np.uint32)).tolist() == [10, 11, 99, 99, 99]


def test_local_memory_and_generic_addresses():
    body = (
        ".local .align 8 .b8 depot[32]; mov.u64 %rd20, depot; cvta.local.u64 %rd21, %rd20;"
        + element(0, "%rd0")
        + """st.u32 [%rd21+8], %r59; ld.local.u32 %r1, [%rd20+8];
        mov.u64 %rd22, buffer; cvta.shared.u64 %rd23, %rd22; mul.wide.u32 %rd24, %r59, 4; add.s64 %rd23, %rd23, %rd24;
        st.u32 [%rd23], %r1; ld.u32 %r2, [%rd23]; st.u32 [%rd0], %r2;"""
    )
    out = np.zeros(40, np.uint32)
    launch(module(body, "u64", ".shared .align 4 .b8 buffer[160];"), grid=1, block=40, args=[out])
    assert out.tolist() == list(range(40))


def test_constant_tables_and_atomics():
    body = (
        element(0, "%rd0")
        + """and.b32 %r1, %r59, 3; mul.wide.u32 %rd1, %r1, 4; mov.u64 %rd2, table; add.s64 %rd2, %rd2, %rd1;
        ld.const.u32 %r2, [%rd2]; ld.param.u64 %rd3, [p1]; red.global.add.u32 [%rd3], %r2;
        atom.global.add.u32 %r3, [%rd3+4], 1; st.global.u32 [%rd0], %r3; atom.global.max.u32 %r4, [%rd3+8], %r59;
        cvt.rn.f32.u32 %f1, %r2; red.global.add.f32 [%rd3+12], %f1;"""
    )
    table = ".const .align 4 .u32 table[4] = {5, 6, 0x7, 8};"
    order, sums = np.zeros(64, np.uint32), np.zeros(4, np.uint32)
    launch(module(body, "u64 u64", table), grid=2, block=32, args=[order[:32], sums])
    assert sums[:3].tolist() == [2 * 8 * 26, 64, 31]
    assert sums[3:].view(np.float32)[0] == 2 * 8 * 26
    assert order[:32].tolist() == list(range(32, 64))  # block 1 came second


def test_special_registers_of_a_three_dimensional_launch():
    body = """
        mov.u32 %r1, %tid.x; mov.u32 %r2, %tid.y; mov.u32 %r3, %tid.z; mov.u32 %r4, %ctaid.x; mov.u32 %r5, %ctaid.y;
        mov.u32 %r6, %ntid.x; mov.u32 %r7, %ntid.y; mov.u32 %r8, %nctaid.x;
        mad.lo.u32 %r9, %r3, %r7, %r2; mad.lo.u32 %r9, %r9, %r6, %r1;
        mad.lo.u32 %r10, %r5, %r8, %r4; mov.u32 %r11, %ntid.z; mul.lo.u32 %r12, %r6, %r7; mul.lo.u32 %r12, %r12, %r11;
        mad.lo.u32 %r13, %r10, %r12, %r9; ld.param.u64 %rd1, [p0]; mul.wide.u32 %rd2, %r13, 4; add.s64 %rd1, %rd1, %rd2;
        mov.u32 %r14, %laneid; mov.u32 %r15, %warpid; mad.lo.u32 %r16, %r15, 32, %r14; st.global.u32 [%rd1], %r16;"""
    out = np.full(6 * 60, 99, np.uint32)
    result = launch(module(body, "u64"), grid=(3, 2), block=(5, 4, 3), args=[out])
    assert out.reshape(6, 60).tolist() == [list(range(60))] * 6
    assert list(result.block_counters) == [(x, y, 0) for y in range(2) for x in range(3)]
    out[:] = 99
    launch(module(body, "u64"), grid=(3, 2), block=(5, 4, 3), args=[out], blocks=[(2, 1)])
    assert (out.reshape(6, 60) == 99).all(axis=1).tolist() == [True] * 5 + [False]
