"""Closed-form sizes against hand-computed ones, published ratios and a Monte-Carlo of the padding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels_numba.cpu.panel_csr import encode_panel_csr
from kernels_numba.formats import encode_bitmap, encode_quantised_bitmap
from perfmodel.formats import FORMATS, break_even_sparsity, two_four_residual_density
from perfmodel.formats.padding import expected_stored
from perfmodel.serving.planning import plan
from tests.kernels_numba.problems import random_matrix

SPARSE = [name for name, fmt in FORMATS.items() if fmt.depends_on_sparsity]


def ratio(name: str, sparsity: float, m: int = 12288, k: int = 12288) -> float:
    """Compression ratio over dense FP16."""
    return float(FORMATS["dense"].bytes(m, k) / FORMATS[name].bytes(m, k, sparsity))


@pytest.mark.parametrize(
    ("name", "m", "k", "sparsity", "expected"),
    [
        ("dense", 3, 5, 0.0, 30),
        ("csr", 4, 8, 0.5, 6 * 16 + 4 * 5),
        ("sputnik-csr", 4, 8, 0.5, 4 * 16 + 4 * 5),
        ("coo", 4, 8, 0.5, 10 * 16),
        ("tiled-csl", 128, 64, 1.0, 4 * 3),
        ("tiled-csl", 128, 64, 0.0, 4 * 8192 + 4 * 3),
        ("tiled-csl", 1, 1, 0.0, 4 * 4 + 4 * 3),
        ("bsr", 64, 64, 0.5, 2 * (2048 + 4) + 4 * 3),
        ("bsr", 33, 65, 0.0, 6 * (2048 + 4) + 4 * 3),
        ("2:4", 16, 16, 0.5, 256 + 32),
        ("lscd-bitmap-fp8", 32, 64, 0.0, 256 + 4 * 3 + 2048 + 2 * 32),
        ("lscd-bitmap-fp8", 33, 64, 1.0, 2 * 256 + 4 * 4 + 2 * 33),
        ("lscd-bitmap-nvfp4", 32, 64, 0.0, 256 + 4 * 3 + 1024 + 32 * 4 + 4),
        ("lscd-bitmap-nvfp4", 32, 65, 1.0, 2 * 256 + 4 * 4 + 32 * 5 + 4),
        ("bitmap", 64, 64, 0.5, 4 * 2 + 8 * 64 + 2 * 2048),
        ("cpu-bitmap", 33, 65, 0.5, 48 * 96 / 8 + 33 * 65 + 8 * 3 + 64),
        ("panel-csr", 129, 257, 0.5, 1.5 * 129 * 257 + 4 * (2 * 128 * 2 + 1)),
        ("csr-fp32", 4, 8, 0.5, 8 * 16 + 4 * 5),
        ("fp32", 3, 5, 0.9, 60),
        ("int8", 10, 100, 0.0, 1000 + 20),
        ("fp6", 10, 100, 0.0, 750 + 20),
        ("int4", 10, 256, 0.0, 1280 + 2 * 20),
        ("int4-2:4", 10, 256, 0.5, 1280 * 6 / 8 + 2 * 20),
    ],
)
def test_bytes_by_hand(name: str, m: int, k: int, sparsity: float, expected: float) -> None:
    assert float(FORMATS[name].bytes(m, k, sparsity)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "sparsity", "published"),
    [
        ("bitmap", 0.5, 1.78), ("sparta", 0.5, 1.19), ("tiled-csl", 0.5, 1.0), ("csr", 0.5, 0.67),
        ("bitmap", 0.7, 2.77), ("sparta", 0.7, 1.58), ("tiled-csl", 0.7, 1.68), ("csr", 0.7, 1.11),
        ("bitmap", 0.8, 3.8), ("sparta", 0.8, 1.71), ("tiled-csl", 0.8, 2.5), ("csr", 0.8, 1.66),
    ],
)  # fmt: skip
def test_compression_ratios_of_spinfer_figure_3(name: str, sparsity: float, published: float) -> None:
    # Fan et al., SpInfer, EuroSys 2025, figure 3, read from the picture.
    assert ratio(name, sparsity) == pytest.approx(published, rel=0.025)


@pytest.mark.parametrize(("density", "effective"), [(0.5, 0.625), (0.3, 0.376)])
def test_macko_effective_density(density: float, effective: float) -> None:
    # Macko and Boza, arXiv 2511.13061: bytes as a fraction of dense.
    assert 1 / ratio("macko", 1 - density) == pytest.approx(effective, rel=2e-3)


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.8, 0.97, 0.999, 1.0])
@pytest.mark.parametrize(("m", "k"), [(128, 64), (130, 70), (5, 7), (256, 640)])
def test_tiled_csl_padding_matches_sampled_matrices(m: int, k: int, sparsity: float) -> None:
    rng = np.random.default_rng(7)
    sampled = []
    for _ in range(200):
        kept = rng.random((m, k)) >= sparsity
        tiles = [kept[i : i + 128, j : j + 64].sum() for i in range(0, m, 128) for j in range(0, k, 64)]
        sampled.append(sum(4 * 4 * -(-int(count) // 4) for count in tiles) + 4 * (len(tiles) + 2))
    spread = np.std(sampled) / np.sqrt(len(sampled))
    assert float(FORMATS["tiled-csl"].bytes(m, k, sparsity)) == pytest.approx(np.mean(sampled), abs=4 * spread + 1e-6)


@pytest.mark.parametrize("sparsity", [0.2, 0.9, 0.98])
def test_macko_padding_matches_sampled_rows(sparsity: float) -> None:
    rng = np.random.default_rng(11)
    m, k = 400, 777
    stored = 0
    for row in rng.random((m, k)) >= sparsity:
        gaps = np.diff(np.flatnonzero(row), prepend=-1)
        stored += int(np.ceil(gaps / 16).sum())
    expected = 2.5 * stored + 4 * (m + 1)
    assert float(FORMATS["macko"].bytes(m, k, sparsity)) == pytest.approx(expected, rel=0.02)


@given(sparsity=st.floats(0, 1), seed=st.integers(0, 2**32 - 1))
def test_residual_density_is_what_two_four_leaves(sparsity: float, seed: int) -> None:
    groups = np.random.default_rng(seed).random((4000, 4)) >= sparsity
    left = np.maximum(groups.sum(axis=1) - 2, 0).sum() / groups.size
    assert float(two_four_residual_density(sparsity)) == pytest.approx(left, abs=0.02)


@pytest.mark.parametrize("name", SPARSE)
def test_sparser_is_never_larger(name: str) -> None:
    sizes = FORMATS[name].bytes(1024, 1024, np.linspace(0, 1, 201))
    assert (np.diff(sizes) <= 1e-9 * sizes[0]).all()


def test_break_even_with_dense() -> None:
    dense = FORMATS["dense"]
    assert break_even_sparsity(FORMATS["tiled-csl"], dense) == pytest.approx(0.5, abs=1e-3)
    assert break_even_sparsity(FORMATS["csr"], dense) == pytest.approx(2 / 3, abs=1e-3)
    assert break_even_sparsity(FORMATS["bitmap"], dense) == pytest.approx(0.0625, abs=1e-3)
    assert break_even_sparsity(FORMATS["int4"], dense) == 0.0
    assert break_even_sparsity(dense, FORMATS["int4"]) is None


@pytest.mark.parametrize("shape", [(1, 1), (32, 64), (33, 65), (100, 300)])
@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
def test_bytes_of_bitmaps_are_those_of_the_encoder(shape: tuple[int, int], density: float) -> None:
    """Exactly where nothing is random; with Bernoulli zeros within 4 sigma of the expectation and a unit."""
    a = random_matrix(*shape, density)
    m, k = (np.float64(size) for size in shape)
    s = np.float64(1 - density)
    slack = 8 * np.sqrt(density * (1 - density) * a.size) + 16 * (0 < density < 1)
    assert encode_bitmap(a).nbytes == pytest.approx(float(FORMATS["lscd-bitmap"].bytes(m, k, s)), abs=slack + 1e-6)
    for bits in (4, 8):
        expected = float(FORMATS[f"lscd-bitmap-{bits}"].bytes(m, k, s))
        assert encode_quantised_bitmap(a, bits).nbytes == pytest.approx(expected, abs=slack + 1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (32, 64), (33, 65), (100, 300)])
@pytest.mark.parametrize("density", [0.0, 0.1, 1.0])
def test_bytes_of_bitmaps_of_pairs_are_those_of_the_encoder(shape: tuple[int, int], density: float) -> None:
    """A bit for two positions and 4 bytes a pair; ``1 - s**2`` of the pairs are stored where zeros fall at random."""
    sizes = [encode_bitmap(random_matrix(*shape, density, seed), width=2).nbytes for seed in range(60)]
    expected = float(FORMATS["lscd-bitmap-pairs"].bytes(*map(np.float64, shape), np.float64(1 - density)))
    assert np.mean(sizes) == pytest.approx(expected, abs=4 * np.std(sizes) / np.sqrt(60) + 1e-6)


def test_expected_padding_of_bitmaps() -> None:
    """The mean over many matrices meets the closed form to a fraction of its padding."""
    sizes = [encode_bitmap(random_matrix(20, 50, 0.05, seed)).nbytes for seed in range(400)]
    expected = float(FORMATS["lscd-bitmap"].bytes(20, 50, 0.95))
    assert np.mean(sizes) == pytest.approx(expected, abs=4 * np.std(sizes) / 20)
    assert expected - (256 + 4 * 3 + 2 * 0.05 * 1000) > 6  # about 3.5 values of padding


def test_bytes_of_our_bitmaps_are_close_to_the_published_format() -> None:
    shape = (36864, 9216, [0.5, 0.8, 0.9])
    ratio = FORMATS["lscd-bitmap"].bytes(*shape) / FORMATS["bitmap"].bytes(*shape)
    assert (np.abs(ratio - 1) < 0.02).all()


@pytest.mark.parametrize(("name", "bits", "scales"), [("fp8", 8, 2 * 100 * 3), ("nvfp4", 4, 100 * 19 + 4)])
@pytest.mark.parametrize("density", [0.0, 0.1, 0.5, 1.0])
def test_bitmaps_of_other_values_differ_in_their_scales_only(name: str, bits: int, scales: int, density: float) -> None:
    """Masks, offsets and codes are those of the integer bitmaps, which an encoder writes."""
    m, k = 100, 300
    integers = float(FORMATS[f"lscd-bitmap-{bits}"].bytes(m, k, 1 - density)) - 2 * m * 3
    assert float(FORMATS[f"lscd-bitmap-{name}"].bytes(m, k, 1 - density)) == pytest.approx(integers + scales, rel=1e-12)


def test_bsr_is_what_its_arrays_take() -> None:
    rng = np.random.default_rng(9)
    kept = rng.permutation(4 * 3) >= 5
    blocks = np.zeros((kept.sum(), 32, 32), np.float16)
    columns, rows = np.nonzero(kept.reshape(4, 3))[1].astype(np.int32), np.zeros(4 + 1, np.int32)
    expected = float(FORMATS["bsr"].bytes(4 * 32, 3 * 32 - 7, 5 / 12))
    assert blocks.nbytes + columns.nbytes + rows.nbytes == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("m", "k"), [(1, 1), (128, 256), (200, 300)])
def test_bytes_of_panels_are_those_of_the_arrays(m: int, k: int) -> None:
    a = random_matrix(m, k, 0.4, np.random.default_rng(m))
    sparsity = 1 - np.count_nonzero(a) / a.size
    assert float(FORMATS["panel-csr"].bytes(m, k, sparsity)) == pytest.approx(encode_panel_csr(a).nbytes)


@given(elements=st.floats(0.01, 200.0), sparsity=st.floats(0.0, 1.0))
def test_padding_of_a_part_of_a_row_is_a_number(elements: float, sparsity: float) -> None:
    """Shapes that several GPUs share need not be whole: between whole ones padding swings, by less than a weight."""
    padding = float(expected_stored(np.asarray(elements), np.asarray(sparsity), 4)) - (1 - sparsity) * elements
    assert -1 < padding <= 4


def test_a_model_whose_shards_are_no_whole_rows_has_an_interval_unpruned() -> None:
    for option in plan("gpt-oss-120b", "gb10", sparsity=0.1, systems=("flash-llm",)).options:
        assert np.isfinite(option.tokens_per_gpu_s_interval).all()
