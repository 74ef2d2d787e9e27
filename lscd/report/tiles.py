"""Drawings of one tile: how our kernel works on it and how our encoder stores it, from their own sizes and arrays."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd

from kernels_numba.formats import TILE_K, TILE_M, EncodedWeight, TiledCsl, encode_bitmap, encode_csr, encode_tiled_csl
from kernels_numba.formats.layout import BANKS, STRIP_K, STRIP_M, WARP_SIZE, WORDS_PER_VECTOR
from kernels_numba.gpu.stages import A_TILE_BYTES, THREADS, activation_tile_bytes
from kernels_numba.gpu.tiled_csl import shared_bytes
from kernels_numba.gpu.variants import vectors_for
from lscd.report.exhibit import Context, Exhibit, percent
from perfmodel.plotting import tiled_csl as draw_csl
from perfmodel.plotting import tiles as draw
from perfmodel.units import FP16_BYTES, FP32_BYTES

SPARSITY, SEED = 0.8, 5
TILES_M, TILES_K = 2, 4  # of the example
TILE_N = 16
BANK_BYTES, PLACE_BYTES = 4, 2
SWIZZLED_ROWS, SWIZZLE = 8, 8  # the place of a column depends on the row modulo 8, in steps of 8 elements


@cache
def example() -> np.ndarray:
    """Random 16-bit weights of a few tiles, of which `SPARSITY` are zero."""
    rng = np.random.default_rng(SEED)
    shape = TILES_M * TILE_M, TILES_K * TILE_K
    weights = rng.standard_normal(shape).astype(np.float16)
    weights[rng.random(shape) < SPARSITY] = 0
    return weights


def words_of(encoded: TiledCsl, tile: int) -> np.ndarray:
    """The 32-bit words of one tile in the order of storage."""
    begin, end = (WORDS_PER_VECTOR * int(at) for at in encoded.tile_offsets[tile : tile + 2])
    return encoded.words[begin:end]


def tile_table(n_words: int, tile_n: int = TILE_N) -> pd.DataFrame:
    """What one thread block holds of a tile of ``n_words``: ``place, rows, columns, bytes``, indexed by name."""
    held = WORDS_PER_VECTOR * vectors_for(n_words)
    rows = {
        "words": ("device memory", n_words, 1, 4 * n_words),
        "load": ("registers", 1, WORDS_PER_VECTOR, 4 * WORDS_PER_VECTOR),
        "held": ("registers", THREADS, held, 4 * THREADS * held),
        "A": ("shared memory", TILE_M, TILE_K, A_TILE_BYTES),
        "X": ("shared memory", TILE_K, tile_n, activation_tile_bytes(tile_n)),
        "sums": ("registers", TILE_M, tile_n, int(FP32_BYTES) * TILE_M * tile_n),
        "C": ("device memory", TILE_M, tile_n, int(FP16_BYTES) * TILE_M * tile_n),
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=["place", "rows", "columns", "bytes"])


def tile(context: Context) -> Exhibit:
    """How a thread block works on one tile."""
    encoded = encode_tiled_csl(example())
    counts = WORDS_PER_VECTOR * np.diff(encoded.tile_offsets[: TILES_K + 1]).astype(np.int64)
    table = tile_table(int(counts[1]))
    locations = [(words_of(encoded, tile) >> 16).astype(np.int64) for tile in (0, 1)]
    size = table["bytes"]
    return Exhibit(
        name="tile",
        title="One tile in a thread block: loaded sparse, computed dense",
        finding=(
            f"A tile of {TILE_M} x {TILE_K} weights at {percent(SPARSITY, 0)} sparsity crosses device memory in "
            f"{size['words']:,} bytes instead of {size['A']:,}, and becomes dense in shared memory: the Tensor Cores "
            f"multiply every zero, in {THREADS // WARP_SIZE} warps. Two buffers in turn take "
            f"{shared_bytes(TILE_N):,} bytes of a block at N = {TILE_N}."
        ),
        evidence=(
            "Sizes of this repository's own kernel, from its constants, for a tile of random weights that its encoder "
            "encoded; the paper's kernel gives a block twice the rows where tokens are few. Places in a tile are "
            "those in shared memory, swizzled. The order of stages is that of the code; how long each takes is in 'The "
            "software pipeline, step by step'."
        ),
        sources=(),
        table=table.rename_axis("what").reset_index(),
        figure=draw.tile(table, locations, counts, THREADS // WARP_SIZE),
    )


def words_table(encoded: TiledCsl, tile: int) -> pd.DataFrame:
    """Words of one tile in the order of storage.

    Returns
    -------
    pandas.DataFrame
        ``position`` in the tile, its ``vector``; ``row, column`` in the tile and ``value``; ``cell`` of 4 bytes of
        shared memory that it is stored to, and the ``bank`` of that.
    """
    found = words_of(encoded, tile)
    location = (found >> 16).astype(np.int64)
    row = location // TILE_K
    position = np.arange(len(found))
    cell = location * int(FP16_BYTES) // BANK_BYTES
    return pd.DataFrame(
        {
            "position": position,
            "vector": position // WORDS_PER_VECTOR,
            "row": row,
            "column": location % TILE_K ^ row % SWIZZLED_ROWS * SWIZZLE,
            "value": (found & 0xFFFF).astype(np.uint16).view(np.float16),
            "cell": cell,
            "bank": cell % BANKS,
        }
    )


def first_store(words: pd.DataFrame) -> pd.DataFrame:
    """Words that the lanes of the first warp store at once: the first of each of its vectors."""
    return words[words["position"] % WORDS_PER_VECTOR == 0].head(WARP_SIZE)


def wavefronts(store: pd.DataFrame) -> int:
    """Turns that a store takes: the most different cells in one bank."""
    return int(store.groupby("bank")["cell"].nunique().max())


def sizes(tile_of_weights: np.ndarray) -> pd.DataFrame:
    """Bytes of one tile in several formats, array by array: ``format, title, array, bytes``, as encoded.

    What an array of values or words holds beyond the weights and their places is ``padding``.
    """
    encoded: dict[tuple[str, str], EncodedWeight] = {
        ("csr", "CSR, 32-bit columns"): encode_csr(tile_of_weights),
        ("csr", "CSR, 16-bit columns"): encode_csr(tile_of_weights, index_bits=16),
        ("tiled-csl", "Tiled-CSL"): encode_tiled_csl(tile_of_weights),
        ("bitmap", "bitmap"): encode_bitmap(tile_of_weights),
    }
    rows: list[tuple[str, str, str, int]] = [("dense", "dense", "values", tile_of_weights.nbytes)]
    for key, weight in encoded.items():
        rows += [(*key, array, size) for array, size in _array_bytes(weight).items() if size]
    return pd.DataFrame(rows, columns=["format", "title", "array", "bytes"])


def _array_bytes(weight: EncodedWeight) -> dict[str, int]:
    """Bytes of values, of what says where they are, of what else there is, and of padding."""
    found = {"values": int(FP16_BYTES) * weight.nnz}
    if isinstance(weight, TiledCsl):
        found["places"] = PLACE_BYTES * weight.nnz
    others = {name: array.nbytes for name, array in weight.buffers.items() if name not in ("values", "words")}
    found |= dict(sorted(others.items(), key=lambda item: -item[1]))
    return found | {"padding": weight.nbytes - sum(found.values())}


def tiled_csl(context: Context) -> Exhibit:
    """The format, on a matrix that the encoder of this repository encodes."""
    weights = example()
    orders = {"as stored": encode_tiled_csl(weights), "row by row": encode_tiled_csl(weights, reorder=False)}
    stores = {name: first_store(words_table(encoded, 0)) for name, encoded in orders.items()}
    mean = {name: _mean_wavefronts(encoded) for name, encoded in orders.items()}
    titled = {
        f"{name}:\n{_turns(wavefronts(store))}\n(mean {mean[name]:.2f})": store["bank"].to_numpy()
        for name, store in stores.items()
    }
    words, table = words_table(orders["as stored"], 0), sizes(weights[:TILE_M, :TILE_K])
    padded = words.loc[words["value"] == 0, "vector"].head(1)
    shown = words[words["vector"].isin([0, 1, *padded])]
    size = table.groupby("title")["bytes"].sum()
    return Exhibit(
        name="tiled_csl",
        title="Tiled-CSL: one word a weight, in the order of the banks",
        finding=(
            f"A tile at {percent(SPARSITY, 0)} sparsity takes {size['Tiled-CSL']:,} bytes in Tiled-CSL, "
            f"{size.filter(like='CSR').min():,} to {size.filter(like='CSR').max():,} in CSR, {size['bitmap']:,} in a "
            f"bitmap and {size['dense']:,} dense. A store of a warp takes {mean['as stored']:.2f} turns on average as "
            f"the words are ordered, {mean['row by row']:.2f} row by row."
        ),
        evidence=(
            f"Every number is from the arrays of this repository's encoders, for random weights (seed {SEED}). The "
            f"bitmap is our strips of {STRIP_M} x {STRIP_K}. A dot is the bank of shared memory that a lane's first "
            f"word goes to: two dots in a column wait for each other, unless they share {BANK_BYTES} bytes."
        ),
        sources=(),
        table=table,
        figure=draw_csl.tiled_csl(
            weights != 0, (TILE_M, TILE_K), orders["as stored"].tile_offsets, shown, titled, table
        ),
    )


def _turns(count: int) -> str:
    return "1 turn" if count == 1 else f"{count} turns"


def _mean_wavefronts(encoded: TiledCsl) -> float:
    """Turns of a store, averaged over all stores of all tiles."""
    steps, turns = encoded.scatter_wavefronts()
    return turns / steps
