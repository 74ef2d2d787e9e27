"""The census against the encoders' real buffers, an obvious oracle, and the closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kernels_numba.checkpoints.census import MACKO_MAX_GAP, take_census
from kernels_numba.formats import (
    ValueType,
    encode_bitmap,
    encode_condensed,
    encode_csr,
    encode_quantised_bitmap,
    encode_tiled_csl,
    encode_two_four,
)
from perfmodel.formats import FORMATS


def census_of(a: np.ndarray, block_rows: int = 128):
    return take_census(a.shape, "F16", [a[i : i + block_rows] for i in range(0, len(a), block_rows)])


def clustered(shape: tuple[int, int], density: float, seed: int = 0) -> np.ndarray:
    """Zeros that come in rows and columns, as real weights have them."""
    rng = np.random.default_rng(seed)
    likelihood = rng.random((shape[0], 1)) * rng.random((1, shape[1])) * 4 * density
    return np.where(rng.random(shape) < likelihood, rng.standard_normal(shape), 0).astype(np.float16)


def macko_padding(a: np.ndarray) -> int:
    """Zeros stored because a gap to the previous stored column is longer than 16, one row after the other."""
    stored = 0
    for row in a:
        last = -1
        for column in np.flatnonzero(row):
            while column - last > MACKO_MAX_GAP:
                last += MACKO_MAX_GAP
                stored += 1
            last = column
    return stored


@pytest.mark.parametrize("density", [0, 1e-3, 0.02, 0.3, 0.6, 1])
@pytest.mark.parametrize("shape", [(1, 1), (127, 63), (128, 64), (300, 130), (257, 515)])
def test_bytes_equal_those_of_the_encoders(shape: tuple[int, int], density: float) -> None:
    a = clustered(shape, density)
    census = census_of(a)
    found = census.format_bytes
    assert census.nnz == np.count_nonzero(a)
    assert found["csr"] == encode_csr(a).nbytes
    assert found["sputnik-csr"] == encode_csr(a, index_bits=16).nbytes
    assert found["tiled-csl"] == encode_tiled_csl(a).nbytes
    assert found["lscd-bitmap"] == encode_bitmap(a).nbytes
    assert found["lscd-bitmap-pairs"] == encode_bitmap(a, width=2).nbytes
    assert found["lscd-condensed"] == encode_condensed(a, width=1).nbytes
    assert found["lscd-condensed-pairs"] == encode_condensed(a, width=2).nbytes
    for value_type in ValueType:
        found_bytes = census.rounded_bytes[f"lscd-bitmap-{value_type.bits}"]
        assert found_bytes == encode_quantised_bitmap(a, value_type).nbytes
    two_four = encode_two_four(a)
    assert found["sparta"] == two_four.nbytes
    assert census.spilled == two_four.residual.nnz
    assert ("2:4" in found) == (two_four.residual.nnz == 0)
    assert census.gap_padding == macko_padding(a)


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.uint16, st.tuples(st.integers(1, 300), st.integers(1, 140)), fill=st.just(0)))
def test_counts_of_arbitrary_patterns(bits: np.ndarray) -> None:
    census = census_of(bits.view(np.float16))
    a = np.where(bits & 0x7FFF, 1, 0)
    m, k = bits.shape
    padded = np.zeros((-(-m // 128) * 128, -(-k // 64) * 64), int)
    padded[:m, :k] = a
    np.testing.assert_array_equal(census.tile_nnz, padded.reshape(len(padded) // 128, 128, -1, 64).sum((1, 3)))
    groups = padded.reshape(len(padded), -1, 4).sum(2)
    assert census.spilled == np.maximum(groups - 2, 0).sum()
    assert census.gap_padding == macko_padding(a)


def test_blocks_of_any_height_count_the_same() -> None:
    a = clustered((700, 200), 0.3)
    whole = census_of(a, 1024)
    for rows in (128, 256, 640):
        part = census_of(a, rows)
        np.testing.assert_array_equal(part.tile_nnz, whole.tile_nnz)
        assert (part.spilled, part.gap_padding) == (whole.spilled, whole.gap_padding)


@pytest.mark.parametrize("sparsity", [0.3, 0.6, 0.9, 0.99])
def test_independent_zeros_meet_the_closed_forms(sparsity: float) -> None:
    rng = np.random.default_rng(3)
    a = (rng.random((1024, 1024)) >= sparsity).astype(np.float16)
    census = census_of(a)
    for name in ("csr", "sputnik-csr", "coo", "tiled-csl", "sparta", "bitmap", "macko", "dense"):
        expected = float(FORMATS[name].bytes(*a.shape, census.sparsity))
        assert census.format_bytes[name] == pytest.approx(expected, rel=0.01), name
    assert census.tile_spread.ratio == pytest.approx(1, abs=0.25)


def test_tile_spread_by_hand() -> None:
    """One full tile of four: density 1/4, each tile 3/4 or 1/4 of its 8192 elements off the mean."""
    a = np.zeros((256, 128), np.float16)
    a[:128, :64] = 1
    spread = census_of(a).tile_spread
    assert (spread.mean_density, spread.max_density, spread.over_half, spread.tiles) == (0.25, 1, 1, 4)
    square = 8192**2 * (0.75**2 + 3 * 0.25**2) / 4
    assert spread.ratio == pytest.approx(np.sqrt(square / (8192 * 0.25 * 0.75)))


@pytest.mark.parametrize("value", [0, 1])
def test_no_spread_where_nothing_can_vary(value: int) -> None:
    assert census_of(np.full((130, 70), value, np.float16)).tile_spread.ratio is None


def test_blocks_that_do_not_make_up_the_matrix() -> None:
    a = np.ones((256, 64), np.float16)
    with pytest.raises(ValueError, match="rows in blocks: 128; allowed: 256"):
        take_census((256, 64), "F16", [a[:128]])
    with pytest.raises(ValueError, match=r"block: .*multiple of 128"):
        take_census((256, 64), "F16", [a[:100], a[100:]])
    with pytest.raises(ValueError, match="dtype: I8; allowed: F16, BF16, F32"):
        take_census((256, 64), "I8", [a])
