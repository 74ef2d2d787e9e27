"""Which thread block works on what, where and when: the grid, its split of K, and the non-zeros of every tile.

SMs that carry the same number of blocks do the same work, so a few of each kind are simulated and each stands for many.
Blocks go to SMs breadth first, as the hardware deals them: block i to SM ``i % sm_count``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perfmodel.pipeline.machine import BLOCK_INTERVAL_CYCLES
from perfmodel.pipeline.program import Program

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

SIMULATED_SMS = 6
MAX_EVENTS = 400_000  # about 0.1 s; larger grids are simulated on fewer SMs
MAX_EVENTS_PER_SM = 3_000_000  # beyond, memory and patience end
GOOD_WAVE = 0.9


@dataclass(frozen=True)
class Grid:
    """Thread blocks of one product.

    ``row_blocks * column_blocks * split_k`` blocks, each with ``tiles_per_block`` tiles along K (the last split may
    have fewer), ``resident`` of them at once on each of ``sm_count`` SMs. Or ``list_blocks`` blocks for each tile of
    columns share the list of all tiles in equal stretches; ``split_k`` is then how many a row has, rounded up.
    """

    row_blocks: int
    column_blocks: int
    split_k: int
    k_tiles: int
    resident: int
    sm_count: int
    list_blocks: int = 0

    @property
    def blocks(self) -> int:
        """Blocks of the whole grid."""
        if self.list_blocks:
            return self.list_blocks * self.column_blocks
        return self.row_blocks * self.column_blocks * self.split_k

    @property
    def waves(self) -> float:
        """Blocks over the places the GPU has for them."""
        return self.blocks / (self.sm_count * self.resident)

    @property
    def tiles_per_block(self) -> int:
        """Tiles of every block but possibly the last ones."""
        if self.list_blocks:
            return -(-self.row_blocks * self.k_tiles // self.list_blocks)
        return -(-self.k_tiles // self.split_k)

    def k_range(self, split: int) -> tuple[int, int]:
        """First tile of a split and the one after its last."""
        first = min(split * self.tiles_per_block, self.k_tiles)
        return first, min(first + self.tiles_per_block, self.k_tiles)

    def stretches(self, blocks: IntArray) -> IntArray:
        """First tile of each block's stretch of the list and the one after its last, (blocks, 2)."""
        share, extra = divmod(self.row_blocks * self.k_tiles, self.list_blocks)
        place = blocks // self.column_blocks
        first = place * share + np.minimum(place, extra)
        return np.stack((first, first + share + (place < extra)), axis=1)


def choose_split_k(blocks: int, places: int, k_tiles: int, most: int) -> int:
    """Ways to share K among blocks: the fewest that fill the last wave to 90 %, else the best up to ``most``.

    Up to 10 it gives every hand-tuned value of the released Flash-LLM on an A100; ``places``, the blocks the whole GPU
    holds at once, carries it over to other GPUs.
    """
    best, best_fill = 1, 0.0
    for split in range(1, min(most, k_tiles) + 1):
        waves = blocks * split / places
        fill = waves / math.ceil(waves)
        if fill > best_fill + 1e-9:
            best, best_fill = split, fill
        if best_fill >= GOOD_WAVE:
            break
    return best


@dataclass(frozen=True)
class Load:
    """The blocks of the simulated SMs.

    Attributes
    ----------
    queue_start : ndarray
        (SMs + 1,) first block of each SM.
    offset : ndarray
        (blocks,) cycle at which a block of the first wave starts.
    weight : ndarray
        (SMs,) real SMs each simulated one stands for; they sum to the SMs in use.
    nonzeros : ndarray
        (blocks, tiles) stored non-zeros, padding included; 0 beyond a block's last tile.
    tiles : ndarray
        (blocks,) tiles of each block.
    """

    queue_start: IntArray
    offset: Array
    weight: Array
    nonzeros: Array
    tiles: IntArray


def representatives(blocks: int, sm_count: int, limit: int) -> list[tuple[int, float]]:
    """Pairs of a real SM and how many it stands for: those with one block more than the others, then the others."""
    quotient, busy = divmod(blocks, sm_count)
    groups = [range(busy), range(busy, sm_count if quotient else busy)]
    sizes = [len(group) for group in groups]
    chosen: list[tuple[int, float]] = []
    for group, size in zip(groups, sizes, strict=True):
        if size:
            count = min(size, max(1, round(limit * size / sum(sizes))))
            places = np.linspace(0, size, count, endpoint=False).astype(int)
            chosen += [(group[int(place)], size / count) for place in places]
    return chosen


def deal(grid: Grid, program: Program, parts: int, counts: TileCounts) -> Load:
    """Give the simulated SMs their blocks and each block its tiles."""
    per_sm = -(-grid.blocks // grid.sm_count)
    events_per_sm = per_sm * program.steps(grid.tiles_per_block) * parts
    if events_per_sm > MAX_EVENTS_PER_SM:
        raise ValueError(
            f"an SM would run {events_per_sm} stages, allowed are at most {MAX_EVENTS_PER_SM}: "
            "a product this large is bound by the Tensor Cores; use the closed-form model"
        )
    limit = int(np.clip(MAX_EVENTS // events_per_sm, 2, SIMULATED_SMS))
    chosen = representatives(grid.blocks, grid.sm_count, limit)
    ids = [np.arange(sm, grid.blocks, grid.sm_count) for sm, _ in chosen]
    blocks = np.concatenate(ids)
    if grid.list_blocks:
        row, ranges = np.zeros(len(blocks), np.int64), grid.stretches(blocks)
    else:
        split, place = np.divmod(blocks, grid.row_blocks * grid.column_blocks)
        row, ranges = place // grid.column_blocks, np.array([grid.k_range(int(s)) for s in split])
    return Load(
        queue_start=np.cumsum([0, *map(len, ids)]),
        offset=(blocks // program.streams).astype(np.float64) * BLOCK_INTERVAL_CYCLES,
        weight=np.array([weight for _, weight in chosen]),
        nonzeros=counts.of_blocks(row, ranges, grid.tiles_per_block),
        tiles=ranges[:, 1] - ranges[:, 0],
    )


@dataclass(frozen=True)
class TileCounts:
    """Non-zeros of the block tiles: sampled from a sparsity, or those of a real matrix.

    Attributes
    ----------
    rows, depth : int
        Tile of A that one block prepares in one step.
    density : float
        Probability that a weight is kept.
    seed : int or None
        Seed of the sample; None for the expected count in every tile.
    given : ndarray or None
        (row_blocks, k_tiles) counts of a real matrix.
    pad : int
        Counts are rounded up to a multiple of this.
    """

    rows: int
    depth: int
    density: float
    seed: int | None
    given: Array | None
    pad: int

    def of_blocks(self, row_block: IntArray, ranges: IntArray, width: int) -> Array:
        """Counts (blocks, width) of the tiles of each block; 0 beyond its range."""
        tile = ranges[:, :1] + np.arange(width)
        inside = tile < ranges[:, 1:]
        if self.given is not None:
            flat = row_block[:, None] * self.given.shape[1] + tile  # a stretch of a list goes on in the next row
            raw = self.given.ravel()[np.minimum(flat, self.given.size - 1)]
        else:
            raw = self._sampled(len(row_block), width)
        return np.where(inside, np.ceil(raw / self.pad) * self.pad, 0.0)

    def _sampled(self, blocks: int, width: int) -> Array:
        """Bernoulli weights: a normal deviate per tile, the same at every sparsity, so that times compare."""
        size = self.rows * self.depth
        mean = np.full((blocks, width), size * self.density)
        if self.seed is None:
            return mean
        deviate = np.random.default_rng(self.seed).standard_normal((blocks, width))
        spread = math.sqrt(size * self.density * (1 - self.density))
        return np.clip(np.round(mean + deviate * spread), 0, size)
