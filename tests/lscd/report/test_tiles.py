"""Drawings of a tile: every number is the encoder's or the kernel's."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle

from kernels_numba.formats import TILE_K, TILE_M, encode_bitmap, encode_csr, encode_tiled_csl
from kernels_numba.gpu.tiled_csl import shared_bytes
from kernels_numba.gpu.variants import tiled_csl as variant
from lscd.report import tiles
from lscd.report.exhibit import Context
from perfmodel.plotting.style import house_style
from tests.figures import faults
from tests.perfmodel.plotting.boxes import overlaps, texts


@pytest.fixture(autouse=True)
def styled() -> Iterator[None]:
    with house_style():
        yield
    plt.close("all")
    tiles.example.cache_clear()


@pytest.mark.parametrize("tile", [0, 3, 5])
def test_words_say_where_the_weights_are(tile: int) -> None:
    """Rows, columns and values of the table are the tile; its cells are those of swizzled rows of 128 bytes."""
    words = tiles.words_table(encode_tiled_csl(tiles.example()), tile)
    down, across = divmod(tile, tiles.TILES_K)
    expected = tiles.example()[down * TILE_M :, across * TILE_K :][:TILE_M, :TILE_K]
    found = np.zeros((TILE_M, TILE_K), np.float16)
    found[words["row"], words["column"]] = words["value"]
    np.testing.assert_array_equal(found, expected)
    place = words["column"] // 8 ^ words["row"] % 8
    np.testing.assert_array_equal(words["cell"], words["row"] * 32 + place * 4 + words["column"] % 8 // 2)


def test_turns_are_those_that_the_format_counts() -> None:
    """Store by store over a matrix of one tile of 32 words a step."""
    weights = np.zeros((TILE_M, TILE_K), np.float16)
    weights[:2] = 1
    for reorder in (True, False):
        encoded = encode_tiled_csl(weights, reorder=reorder)
        words = tiles.words_table(encoded, 0)
        steps = [words[words["position"] % 4 == step] for step in range(4)]
        assert (len(steps), sum(map(tiles.wavefronts, steps))) == encoded.scatter_wavefronts()
        assert tiles.first_store(words).equals(steps[0])


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.8, 0.99])
def test_bytes_are_those_of_the_arrays(sparsity: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "SPARSITY", sparsity)
    tile = tiles.example()[:TILE_M, :TILE_K]
    table = tiles.sizes(tile)
    encoded = {
        "dense": tile,
        "CSR, 32-bit columns": encode_csr(tile),
        "CSR, 16-bit columns": encode_csr(tile, index_bits=16),
        "Tiled-CSL": encode_tiled_csl(tile),
        "bitmap": encode_bitmap(tile),
    }
    assert (table["bytes"] > 0).all()
    assert table.groupby("title")["bytes"].sum().to_dict() == {name: each.nbytes for name, each in encoded.items()}
    values = table[(table["array"] == "values") & (table["title"] != "dense")]
    assert set(values["bytes"]) == {2 * np.count_nonzero(tile)}


@pytest.mark.parametrize("tile_n", [8, 16, 32, 64])
def test_a_block_holds_what_its_kernel_asks_for(tile_n: int) -> None:
    size = tiles.tile_table(1632, tile_n)
    assert 2 * (size["bytes"]["A"] + size["bytes"]["X"]) == shared_bytes(tile_n) == variant(tile_n, 4).shared_bytes
    assert size["rows"]["held"] == variant(tile_n, 4).threads
    assert size["columns"]["held"] == 4 * 4
    assert tiles.tile_table(4000, tile_n)["columns"]["held"] == 8 * 4, "a fuller tile needs more registers"


def test_the_drawings_show_the_encoder_s_numbers(context: Context) -> None:
    encoded = encode_tiled_csl(tiles.example())
    shown = [text.get_text() for text in texts(tiles.tiled_csl(context).figure)]
    offsets = [f"{offset:,}" for offset in encoded.tile_offsets]
    first = shown.index(offsets[1]) - 1
    assert shown[first : first + len(offsets)] == offsets
    words = tiles.words_table(encoded, 0)
    for row, column in words[["row", "column"]].head(8).itertuples(index=False):
        assert f"{row}, {column}" in shown
    assert (words["value"] == 0).any(), "an example without padding shows none"
    assert shown.count("0") == 2 + (words["value"] == 0).sum(), "number and offset of tile 0, and its padding"
    bars = [text.get_text() for text in texts(tiles.tile(context).figure)]
    assert any(f"{4 * (encoded.tile_offsets[2] - encoded.tile_offsets[1]):,} words" in text for text in bars)


@pytest.mark.parametrize("sparsity", [0.6, 0.9])
def test_another_matrix_changes_the_numbers_and_stays_legible(
    sparsity: float, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tiles.tiled_csl(context), tiles.tile(context)
    tiles.example.cache_clear()
    monkeypatch.setattr(tiles, "SPARSITY", sparsity)
    after = tiles.tiled_csl(context), tiles.tile(context)
    for old, new in zip(before, after, strict=True):
        assert old.finding != new.finding
        assert not old.table.equals(new.table)
        assert [*faults(new.figure), *overlaps(new.figure)] == []


def test_bars_of_words_are_as_long_as_there_are_words(context: Context) -> None:
    counts = 4 * np.diff(encode_tiled_csl(tiles.example()).tile_offsets)[: tiles.TILES_K]
    bars = [box for box in tiles.tile(context).figure.findobj(Rectangle) if box.get_gid() == "words"]
    widths = np.array([bar.get_width() for bar in bars])
    np.testing.assert_allclose(widths / widths[0], counts / counts[0])
