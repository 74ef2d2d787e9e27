"""Counting a kernel's work on the emulator: coefficients by hand."""

from __future__ import annotations

import pytest

from kernels_numba.formats.two_four_tiles import TILE_BYTES
from kernels_numba.gpu import trace, variants
from kernels_numba.gpu.decoders import DECODERS, OF_CODES
from perfmodel.catalog import load_trace


def test_tiled_csl_by_hand() -> None:
    """A 128 x 64 tile at tile_n = 8: 1,024 bytes of X, 4 a word, 32 mma, 128 wavefronts to clear and to read."""
    result = trace.trace(variants.tiled_csl(8, 4), archs=["sm_80"])
    per_block = result["per_block"]
    assert per_block["global_bytes.x.load"] == {"tile": 1024}
    assert per_block["global_bytes.words.load"] == {"word": 4, "overflow_word": 4}
    assert per_block["global_bytes.out.store"] == {"block": 128 * 8 * 2}
    assert per_block["mma"] == {"tile": 32}
    assert per_block["shared_wavefronts.clear"] == per_block["shared_wavefronts.read_a"] == {"tile": 128}
    assert per_block["barriers"] == {"block": 2, "tile": 2}
    assert set(result["residuals"]) <= {"instructions", "shared_wavefronts.scatter"}
    assert max(result["residuals"].values()) < 0.05


def test_reordering_halves_the_wavefronts_of_the_scatter() -> None:
    """At 80 % sparsity: 52 wavefronts a tile would be ideal; row order takes more than twice the reordered number."""
    row = trace._scatter(variants.tiled_csl(8, 4), 0.2)
    assert row["ideal_wavefronts"] == 52
    assert row["wavefronts"] < 1.5 * row["ideal_wavefronts"]
    assert row["wavefronts_not_reordered"] > 2 * row["wavefronts"]


def test_bitmap_by_hand() -> None:
    """A tile has 1,024 bytes of masks and 1,024 of X at 8 columns; a value has 2; up to a quarter full, a gather of 32
    lanes takes one wavefront, and when full 4: 256 halves lie in 4 rows of the 32 banks."""
    result = trace.trace(variants.records("bitmap", 8), archs=["sm_80"])
    per_block = result["per_block"]
    assert per_block["global_bytes.records.load"] == {"tile": 1024, "value": 2}
    assert per_block["global_bytes.x.load"] == {"tile": 1024}
    assert per_block["mma"] == {"tile": 32}
    assert per_block["barriers"] == {"tile": 1}
    gather = {row["density"]: row["wavefronts"] for row in result["gather"]}
    assert gather[0.2] == 256
    assert gather[1.0] == 4 * 256


def test_bitmap_of_pairs_by_hand() -> None:
    """A tile has 512 bytes of masks; a pair takes 4 bytes of the 128 a wavefront brings, so a full chunk's 32 loads,
    each of 4 lanes' neighbouring pairs, meet no conflict up to a quarter full and 4 wavefronts when full."""
    per_block = (result := trace.trace(variants.records("bitmap_pairs", 8), archs=["sm_80"]))["per_block"]
    assert per_block["global_bytes.records.load"] == {"tile": 512, "value": 2}
    assert per_block["mma"] == {"tile": 32}
    gather = {row["density"]: row["wavefronts"] for row in result["gather"]}
    assert gather[1.0] == 4 * 128
    assert gather[0.1] == pytest.approx(128, rel=0.05)


def test_condensed_by_hand() -> None:
    """A tile has 4 headers of 384 bytes; 16 sparse products do the work of 32; a tail adds 80 bytes and 2 products of
    16 x 16; each row of X is read once, without conflicts."""
    result = trace.trace(variants.records("condensed_pairs", 8), archs=["sm_80"])
    per_block = result["per_block"]
    assert per_block["global_bytes.records.load"] == {"tile": 4 * 384, "value": 2, "tail": 80}
    assert per_block["mma"] == {"tile": 16, "tail": 2}
    assert per_block["mma_flops"]["tile"] == 2 * 128 * 64 * 8
    assert per_block["shared_wavefronts.read_x"]["tile"] == per_block["shared_ideal_wavefronts.read_x"]["tile"] == 32
    rows = {row["density"]: row for row in result["gather"]}
    assert rows[0.2]["tails"] == 0
    assert rows[1.0]["tails"] == 8
    assert 4 * 16 <= rows[0.2]["wavefronts"] < 4 * 40


@pytest.mark.parametrize("kernel", ["bitmap_bulk", "condensed_pairs_bulk"])
def test_streamed_kernels_by_hand(kernel: str) -> None:
    """Records as in the ring, X once a slice, a row of 32 x 8 halves stored once, a piece of float32 left and read."""
    variant = variants.streamed(kernel.removesuffix("_bulk"), 8)
    per_block, residuals = trace._fit(list(trace._samples(variant)))
    header = {"tile": 1024, "value": 2} if kernel == "bitmap_bulk" else {"tile": 4 * 384, "value": 2, "tail": 80}
    assert per_block["global_bytes.records.load"] == header
    assert per_block["global_bytes.x.load"] == {"x_tile": 64 * 8 * 2}
    assert per_block["global_bytes.out.store"] == {"row": 32 * 8 * 2}
    assert per_block["global_bytes.sums.store"] == per_block["global_bytes.sums.load"] == {"piece": 32 * 8 * 4}
    assert per_block["barriers"] == {"block": 2}
    assert residuals["instructions"] < 0.01
    stored = load_trace(f"{kernel}_n8")
    if stored["versions"] == {package: trace._version(package) for package in trace.PACKAGES}:
        assert (per_block, residuals) == (stored["per_block"], stored["residuals"])
        assert trace._machine_code(variant, "sm_90") == stored["architectures"]["sm_90"]


def test_streaming_gathers_as_the_ring_does() -> None:
    """The decoder is the same; streamed kernels are compiled for the architectures that have bulk copies."""
    for n in (8, 64):
        for kernel in DECODERS.keys() - OF_CODES:  # codes have no traces of their streamed kernels
            ring, streamed = load_trace(f"{kernel}_n{n}"), load_trace(f"{kernel}_bulk_n{n}")
            # Denser condensed strips fit in no order found, and what a search leaves over depends on its rules.
            sparse = [[row for row in found["gather"] if row["density"] <= 0.25] for found in (ring, streamed)]
            assert sparse[0] == sparse[1] != []
            assert list(streamed["architectures"]) == ["sm_90", "sm_100", "sm_120"]
            for name, amounts in streamed["per_block"].items():
                if name.startswith(("mma", "global_bytes.records")):
                    assert amounts["tile"] == ring["per_block"][name]["tile"]


def test_two_four_by_hand() -> None:
    counted = trace.trace(variants.two_four(8), archs=("sm_80",))
    tile = {name: amounts.get("tile", 0) for name, amounts in counted["per_block"].items()}
    assert tile["global_bytes.tiles.load"] == TILE_BYTES
    assert tile["mma"] == 4 * 2 * 2
    assert tile["barriers"] == 1
    assert tile["shared_wavefronts.read_metadata"] == 4 * 4  # a warp's 16-byte loads go in four phases
    assert counted["residuals"].keys() <= {"instructions"}
