"""Matrix products of a warp against layouts written out element by element from the PTX ISA's tables."""

from fractions import Fraction

import numpy as np
import pytest

from kernels_numba.ptx_emulator import PtxError, launch
from tests.kernels_numba.ptx_emulator.programs import element, module


def words_of(pairs):
    """uint32 words from (low, high) fp16 pairs, shape (..., 2)."""
    return np.ascontiguousarray(pairs, np.float16).view(np.uint32)[..., 0]


def a_fragment(a):
    """Registers of A (16, k): row g, columns 2t and 2t + 1; the next one row g + 8; then columns + 8."""
    return [
        [
            (a[g + 8 * (i % 2), 2 * t + 8 * (i // 2)], a[g + 8 * (i % 2), 2 * t + 8 * (i // 2) + 1])
            for i in range(a.shape[1] // 4)
        ]
        for g, t in (divmod(lane, 4) for lane in range(32))
    ]


def b_fragment(b):
    """Registers of B (k, 8): rows 2t and 2t+1 of column g, then rows + 8, ..."""
    return [
        [(b[2 * t + 8 * i, g], b[2 * t + 8 * i + 1, g]) for i in range(b.shape[0] // 8)]
        for g, t in (divmod(lane, 4) for lane in range(32))
    ]


def c_elements(c):
    """Elements of C (16, 8) of each lane: (g, 2t), (g, 2t+1), (g+8, 2t), (g+8, 2t+1)."""
    return np.array(
        [
            [c[g, 2 * t], c[g, 2 * t + 1], c[g + 8, 2 * t], c[g + 8, 2 * t + 1]]
            for g, t in (divmod(lane, 4) for lane in range(32))
        ]
    )


def run_mma(name, a_words, b_words, c, metadata=None, selector=0):
    """One warp: registers come from and go to global memory. Returns D as each lane's four values."""
    n_a, n_b = a_words.shape[1], b_words.shape[1]
    body = element(0, "%rd0", 4 * n_a) + element(1, "%rd1", 4 * n_b) + element(2, "%rd2", 16) + element(3, "%rd3", 4)
    a, b = [f"%r{i}" for i in range(n_a)], [f"%r{10 + i}" for i in range(n_b)]
    body += "".join(f"ld.global.b32 {r}, [%rd0+{4 * i}];" for i, r in enumerate(a))
    body += "".join(f"ld.global.b32 {r}, [%rd1+{4 * i}];" for i, r in enumerate(b))
    body += "ld.global.v4.f32 {%f0,%f1,%f2,%f3}, [%rd2]; ld.global.b32 %r30, [%rd3];"
    extra = f", %r30, {selector}" if metadata is not None else ""
    body += f"{name} {{%f0,%f1,%f2,%f3}}, {{{','.join(a)}}}, {{{','.join(b)}}}, {{%f0,%f1,%f2,%f3}}{extra};"
    body += "st.global.v4.f32 [%rd2], {%f0,%f1,%f2,%f3};"
    out = c.astype(np.float32)
    meta = np.zeros(32, np.uint32) if metadata is None else metadata
    result = launch(module(body, "u64 " * 4), grid=1, block=32, args=[a_words, b_words, out, meta])
    return out, result


@pytest.mark.parametrize("k", [8, 16])
def test_mma_fragments_are_those_of_the_isa_tables(k):
    rng = np.random.default_rng(k)
    a, b, c = rng.integers(-8, 9, (16, k)), rng.integers(-8, 9, (k, 8)), rng.integers(-99, 99, (16, 8))
    out, result = run_mma(
        f"mma.sync.aligned.m16n8k{k}.row.col.f32.f16.f16.f32",
        words_of(a_fragment(a)),
        words_of(b_fragment(b)),
        c_elements(c),
    )
    assert (out == c_elements(a @ b + c)).all()
    assert result.counters.mma_flops == 2 * 16 * 8 * k


BRAIN_MMA = "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"
BRAIN_MMA_SP = "mma.sp::ordered_metadata.sync.aligned.m16n8k32.row.col.f32.bf16.bf16.f32"


def brain_words(fragment):
    """uint32 words from (low, high) pairs of numbers that bfloat16 holds, shape (..., 2)."""
    bits = np.array(fragment, np.float32).view(np.uint32)
    assert not (bits & 0xFFFF).any()
    return np.ascontiguousarray(bits[..., 0] >> 16 | bits[..., 1])


def brain(rng, shape, exponents):
    """Random bfloat16 of both signs whose exponents lie in a range, as float32."""
    bits = rng.integers(0, 128, shape) | rng.integers(*exponents, shape) << 7 | rng.integers(0, 2, shape) << 15
    return (bits.astype(np.uint32) << 16).view(np.float32)


def test_mma_takes_bfloat16():
    rng = np.random.default_rng(2)
    a, b = rng.integers(-8, 9, (16, 16)), rng.integers(-8, 9, (16, 8))
    out, _ = run_mma(BRAIN_MMA, brain_words(a_fragment(a)), brain_words(b_fragment(b)), np.zeros((32, 4)))
    assert (out == c_elements(a @ b)).all()


# Biased exponents of A and B: around one, far beyond fp16's range, products that are subnormal float32, subnormal A.
RANGES = {
    "about one": ((120, 134), (120, 134)),
    "large": ((200, 220), (100, 140)),
    "tiny": ((50, 64), (50, 70)),
    "subnormal": ((0, 1), (120, 140)),
}


@pytest.mark.parametrize("name", RANGES)
def test_bfloat16_products_are_summed_exactly_and_rounded_once(name):
    """The float32 nearest to the sum in fractions, term by term: the emulator sums in float64."""
    rng = np.random.default_rng(len(name))
    a, b = brain(rng, (16, 16), RANGES[name][0]), brain(rng, (16, 8), RANGES[name][1])
    out, _ = run_mma(BRAIN_MMA, brain_words(a_fragment(a)), brain_words(b_fragment(b)), np.zeros((32, 4)))
    sums = [[sum(Fraction(float(a[i, k])) * Fraction(float(b[k, j])) for k in range(16)) for j in range(8)]
            for i in range(16)]  # fmt: skip
    np.testing.assert_array_equal(out, c_elements(np.array(sums, dtype=object)).astype(np.float64).astype(np.float32))


@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("name", RANGES)
def test_sparse_mma_of_bfloat16_is_that_of_the_expanded_matrix(name, selector):
    rng = np.random.default_rng(selector)
    pattern, _, places = two_four(rng, 32)
    kept, b = brain(rng, (16, 16), RANGES[name][0]), brain(rng, (32, 8), RANGES[name][1])
    dense = np.zeros((16, 32))
    dense[pattern != 0] = kept.ravel()  # both row by row, in ascending columns
    metadata = np.full(32, 0xFFFFFFFF, np.uint32)
    for g in range(8):
        for part in range(2):
            metadata[4 * g + 2 * selector + part] = metadata_word(places, g, 4 * part)
    words = brain_words(a_fragment(kept)), brain_words(b_fragment(b))
    out, _ = run_mma(BRAIN_MMA_SP, *words, np.zeros((32, 4)), metadata, selector)
    expected = c_elements(dense @ b.astype(np.float64)).astype(np.float32)
    np.testing.assert_allclose(out, expected, rtol=2**-22, atol=16 * 2**-149)


def test_bfloat16_overflow_of_a_sum_is_infinite_and_nan_stays():
    a, b = np.zeros((16, 16), np.float32), np.zeros((16, 8), np.float32)
    a[0, :2] = a[1, 0] = brain_value(0x7F7F)  # the largest
    a[1, 1] = np.nan
    b[:2] = 1
    words = brain_words(a_fragment(np.where(np.isnan(a), brain_value(0x7FC0), a))), brain_words(b_fragment(b))
    rows = run_mma(BRAIN_MMA, *words, np.zeros((32, 4)))[0]
    assert np.isposinf(rows[:4, :2]).all()
    assert np.isnan(rows[4:8, :2]).all()


def brain_value(bits):
    return np.uint32(bits << 16).view(np.float32)


def two_four(rng, k):
    """A 2:4-sparse integer matrix (16, k), its kept half, and the places kept in each group, shape (16, k / 4, 2)."""
    places = np.array([[np.sort(rng.choice(4, 2, replace=False)) for _ in range(k // 4)] for _ in range(16)])
    kept = rng.integers(1, 9, (16, k // 2))
    dense = np.zeros((16, k), int)
    for row in range(16):
        for group in range(k // 4):
            for j in range(2):
                dense[row, 4 * group + places[row, group, j]] = kept[row, 2 * group + j]
    return dense, kept, places


def metadata_word(places, row, first_group):
    """Four groups of row ``row`` in the low half, of row + 8 in the high half, 4 bits a group."""
    word = 0
    for i in range(4):
        for half, r in enumerate((row, row + 8)):
            p0, p1 = places[r, first_group + i]
            word |= int(p0 | p1 << 2) << (4 * i + 16 * half)
    return word


@pytest.mark.parametrize("variant", ["sp", "sp::ordered_metadata"])
@pytest.mark.parametrize(("k", "selector"), [(16, 0), (16, 3), (32, 0), (32, 1)])
def test_sparse_mma_expands_two_of_four(variant, k, selector):
    rng = np.random.default_rng(k + selector)
    dense, kept, places = two_four(rng, k)
    b, c = rng.integers(-8, 9, (k, 8)), rng.integers(-99, 99, (16, 8))
    metadata = np.full(32, 0xFFFFFFFF, np.uint32)  # nonsense in the lanes that are not asked
    for g in range(8):
        for part in range(k // 16):
            metadata[4 * g + selector * (k // 16) + part] = metadata_word(places, g, 4 * part)
    name = f"mma.{variant}.sync.aligned.m16n8k{k}.row.col.f32.f16.f16.f32"
    out, result = run_mma(name, words_of(a_fragment(kept)), words_of(b_fragment(b)), c_elements(c), metadata, selector)
    assert (out == c_elements(dense @ b + c)).all()
    assert result.counters.mma == {name: 1}
    with pytest.raises(PtxError, match="places that are equal or not in order"):
        run_mma(name, words_of(a_fragment(kept)), words_of(b_fragment(b)), c_elements(c), metadata * 0, selector)


def test_sparse_mma_refuses_a_selector_that_names_no_lanes():
    metadata = np.full(32, 0x44444444, np.uint32)
    a, b = np.zeros((32, 4), np.uint32), np.zeros((32, 4), np.uint32)
    with pytest.raises(PtxError, match="sparsity selector 2; allowed are 0 to 1"):
        run_mma("mma.sp.sync.aligned.m16n8k32.row.col.f32.f16.f16.f32", a, b, np.zeros((32, 4)), metadata, 2)
