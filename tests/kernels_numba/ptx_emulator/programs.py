"""Small PTX programs: one kernel around a few instructions, run on columns of operands."""

import numpy as np

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


def check_unary(name, dtype, reference):
    """Raise unless instruction ``name`` gives what ``reference`` computes with exact integers."""
    a = operands(dtype, 5)
    found = apply(f"{name} D, A;", dtype, a, result=np.uint32)
    assert found.tolist() == [wrap(reference(int(x)), np.uint32) for x in a]
