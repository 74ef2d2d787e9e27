"""Would the PTX emulator notice a bug? Plants bugs in the PTX of the real sparse kernel; every one must be caught.

A bug counts as caught if the emulator raises, or if the product is wrong or NaN. The problem is chosen so that
nothing is idle: rows, columns and K end inside a tile, tiles have more words than the registers hold (the overflow
loop runs several times), and six K tiles pass through the two buffers. Columns 24-31 of the tile are beyond n: bugs
in every fourth product or store would rightly go unnoticed, so none is planted there. Nor does it matter whether the
place of a word is taken with its sign: a tile has 8,192 places.
"""

import re
from functools import cache

import numpy as np
import pytest

from kernels_numba.formats import encode_tiled_csl
from kernels_numba.ptx_emulator import PtxError, launch
from tests.kernels_numba.ptx_emulator.mutations import move_behind, replace, shift_parameter

variants = pytest.importorskip("kernels_numba.gpu.variants", reason="needs numba-cuda", exc_type=ImportError)

M, K, N, TILE_N, VECTORS = 200, 330, 24, 32, 4
WORDS, OFFSETS, X, OUT, ROWS, DEPTH, COLUMNS, SPLIT_TILES, AS_FP32 = range(9)  # positions of the kernel's parameters
TOLERANCE = 1e-6
BARRIER = r"bar\.sync\s+0;"


@cache
def problem():
    rng = np.random.default_rng(1)
    a = rng.standard_normal((M, K)).astype(np.float16)
    a[rng.random((M, K)) < 0.5] = 0
    x = rng.standard_normal((K, N)).astype(np.float16)
    return encode_tiled_csl(a), x, a.astype(np.float64) @ x.astype(np.float64)


@cache
def kernel_ptx():
    from kernels_numba.gpu.compile import compile_ptx

    return compile_ptx(variants.tiled_csl(TILE_N, VECTORS), "sm_80")[0]


def relative_error(ptx):
    """Error of the product that ``ptx`` computes; infinite where it is NaN."""
    weights, x, reference = problem()
    out = np.full((M, N), np.nan, np.float32)
    k_tiles = -(-K // 64)
    launch(
        ptx,
        grid=(1, -(-M // 128), 1),
        block=128,
        args=[weights.words, weights.tile_offsets, x, out, M, K, N, k_tiles, 1],
        dynamic_shared_bytes=variants.tiled_csl(TILE_N, VECTORS).shared_bytes,
        max_steps=100_000,
    )
    error = np.linalg.norm(out - reference) / np.linalg.norm(reference)
    return error if np.isfinite(error) else np.inf


def shift_loop_bound(step):
    """Mutation: change the comparison that closes the loop around the Tensor-Core instructions."""

    def mutate(ptx):
        for branch in re.finditer(r"@(%p\d+) bra\s+([$\w]+);", ptx):
            start = ptx.find(f"\n{branch[2]}:")
            if 0 <= start < branch.start() and "mma.sync" in ptx[start : branch.start()]:
                test = list(re.finditer(rf"(setp\.\w+\.s32\s+{branch[1]}, %r\d+, )(-?\d+);", ptx[: branch.start()]))[-1]
                return f"{ptx[: test.start()]}{test[1]}{int(test[2]) + step};{ptx[test.end() :]}"
        return ptx

    return mutate


def move_behind_barrier(pattern):
    """Mutation: the first match of ``pattern`` happens after the next barrier instead of before it."""
    return move_behind(pattern, BARRIER)


ZERO_STORE = r"st\.shared\.v4\.u32 [^;]*;"
MMA = r"(mma\.sync\S+) \{([^}]*)\}, \{(\w*%r\d+),(%r\d+),(%r\d+),(%r\d+)\}, \{(%r\d+),(%r\d+)\}, \{([^}]*)\};"
COPY = r"(cp\.async\.cg\.shared\.global \[%r\d+\], \[%rd\d+)\], 16, (%r\d+);"
SCATTER = r"mov\.b32 \{value, location\}, (%r\d+); mul\.wide\.u16 address, location, 2;"
OUTSIDE = "out of bounds"

# name -> (mutation, what the error must say; None where wrong numbers are as good)
BUGS = {
    "first barrier dropped": (replace(BARRIER, "", 0), "race"),
    "second barrier dropped": (replace(BARRIER, "", 1), "race|cp.async"),
    "one warp skips a barrier": (
        replace(BARRIER, "{ .reg .pred q; setp.gt.u32 q, %warpid, 0; @q bar.sync 0; }", 0),
        None,
    ),
    "half a warp skips a barrier": (
        replace(BARRIER, "{ .reg .pred q; setp.gt.u32 q, %tid.x, 15; @q bar.sync 0; }", 0),
        "barrier divergence",
    ),
    "wait for all but one group": (replace(r"wait_group 0", "wait_group 1"), "cp.async"),
    "wait dropped": (replace(r"cp\.async\.wait_group 0;", ""), "cp.async"),
    "commit dropped": (replace(r"cp\.async\.commit_group;", ""), "cp.async"),
    "wait moved behind the barrier": (move_behind_barrier(r"cp\.async\.wait_group 0;"), "race|cp.async"),
    ".trans dropped": (replace(r"\.trans", ""), None),
    ".trans added": (replace(r"x4\.shared", "x4.trans.shared"), None),
    "one zero store dropped": (replace(ZERO_STORE, "", 3), None),
    "zero store moved behind the barrier": (move_behind_barrier(r"\{ \.reg \.b32 z;[^}]*\{z,z,z,z\}; \}"), "race"),
    "zero store of 8 bytes": (
        replace(r"st\.shared\.v4\.u32 (\[[^]]*\]), \{z,z,z,z\}", r"st.shared.v2.u32 \1, {z,z}", 0),
        None,
    ),
    "registers of A swapped": (replace(MMA, r"\1 {\2}, {\3,\5,\4,\6}, {\7,\8}, {\9};"), None),
    "registers of A swapped once": (replace(MMA, r"\1 {\2}, {\4,\3,\5,\6}, {\7,\8}, {\9};", 6), None),
    "registers of B swapped": (replace(MMA, r"\1 {\2}, {\3,\4,\5,\6}, {\8,\7}, {\9};"), None),
    "B fragment used twice": (replace(MMA, r"\1 {\2}, {\3,\4,\5,\6}, {\7,\7}, {\9};", 5), None),
    "accumulators reversed": (
        replace(
            MMA.replace(r"\{([^}]*)\};", r"\{(%f\d+),(%f\d+),([^}]*)\};"),
            r"\1 {\2}, {\3,\4,\5,\6}, {\7,\8}, {\g<10>,\9,\11};",
            2,
        ),
        None,
    ),
    "accumulators start at 1": (replace(r"0f00000000;", "0f3F800000;", 0), None),
    "one product left out": (replace(MMA, "", 10), None),
    "copy source 16 bytes further": (replace(COPY, r"\1+16], 16, \2;", 1), None),
    "copy source 8 bytes further": (replace(COPY, r"\1+8], 16, \2;", 0), "misaligned"),
    "copy without zero fill": (replace(COPY, r"\1], 16;"), OUTSIDE),
    "copy dropped": (replace(COPY, "", 1), None),
    "load without its predicate": (replace(r"@p (ld\.global\.nc\.L1::no_allocate)", r"\1"), OUTSIDE),
    "scatter reads value and place the wrong way round": (replace(r"\{value, location\}", "{location, value}"), None),
    "scatter to elements of 4 bytes": (replace(r"location, 2;", "location, 4;"), None),
    "scatter 2 bytes further": (replace(r"\[address\], value;", "[address+2], value;", 0), None),
    "scatter misaligned": (replace(r"\[address\], value;", "[address+1], value;", 0), "misaligned"),
    "scatter of 4 bytes": (
        replace(r"st\.shared\.b16 \[address\], value;", "and.b32 address, address, -4; st.shared.b32 [address], 0;", 0),
        None,
    ),
    "output misaligned": (replace(r"(st\.global\.v2\.f32 \[%rd\d+)\]", r"\1+4]", 2), "misaligned"),
    "output columns swapped": (
        replace(r"(st\.global\.v2\.f32 \[%rd\d+\]), \{(%f\d+),(%f\d+)\}", r"\1, {\3,\2}", 2),
        None,
    ),
    "one product too few": (shift_loop_bound(1), None),
    "one product too many": (shift_loop_bound(-1), None),
    "row guard one too large": (shift_parameter(ROWS, 1), OUTSIDE),
    "row guard one too small": (shift_parameter(ROWS, -1), None),
    "depth one too small": (shift_parameter(DEPTH, -1), None),
    "depth one too large": (shift_parameter(DEPTH, 1), OUTSIDE),
    "row stride 8 columns too wide": (shift_parameter(COLUMNS, 8), None),
    "one tile of the split too few": (shift_parameter(SPLIT_TILES, -1), None),
    "tile end read from the wrong place": (replace(r"(add\.s64\s+%rd\d+, %rd\d+), 4;", r"\1, 8;", 0), None),
    "one word lost": (replace(r"(mov\.b32 \{value, location\}), %r\d+;", r"\1, 0;", 2), None),
    "overflow loop strides too far": (replace(r"(nounroll\"; add\.s32 %r\d+, %r\d+), (%r\d+|128);", r"\1, 256;"), None),
    "shared-memory base 64 bytes too high": (
        replace(r"(mov\.u(\d+)\s+(%rd?\d+), dynamic_shared_memory;)", r"\1 add.u\2 \3, \3, 64;"),
        OUTSIDE,
    ),
}


def test_places_are_the_same_with_a_sign():
    """A bug that is none: places stay below 2**15 in a full tile too."""
    full = encode_tiled_csl(np.ones((128, 64), np.float16))
    assert int(full.words.max() >> 16) == 128 * 64 - 1 < 2**15
    assert relative_error(replace(r"mul\.wide\.u16", "mul.wide.s16")(kernel_ptx())) < TOLERANCE


def test_the_kernel_itself_is_right():
    assert relative_error(kernel_ptx()) < TOLERANCE


@pytest.mark.parametrize("name", BUGS)
def test_planted_bug_is_caught(name):
    mutate, message = BUGS[name]
    mutated = mutate(kernel_ptx())
    assert mutated != kernel_ptx(), f"{name}: the kernel's PTX has changed and the mutation no longer applies"
    if message is not None:
        with pytest.raises(PtxError, match=message):
            relative_error(mutated)
        return
    try:
        error = relative_error(mutated)
    except PtxError:
        return
    assert error > 1000 * TOLERANCE


def exclusive_ors():
    return [m.start() for m in re.finditer(r"xor\.b32", kernel_ptx())]


def test_every_exclusive_or_of_the_swizzles_matters():
    """Swizzled places are the only use of xor in the kernel: an or in its stead must show."""
    survivors = []
    for start in exclusive_ors():
        mutated = kernel_ptx()[:start] + "or.b32 " + kernel_ptx()[start + 7 :]
        try:
            if relative_error(mutated) < 1000 * TOLERANCE:
                survivors.append(kernel_ptx()[start : start + 40])
        except PtxError:
            continue
    assert survivors == []
