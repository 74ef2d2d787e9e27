"""Runs a kernel: the counterpart of a CUDA launch for PTX text and NumPy arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from .counters import Counters, sum_counters
from .execute import ThreadBlock
from .parse import Kernel, parse_kernel
from .registers import Geometry
from .state import make_state

MAX_THREADS = 1024

Index = tuple[int, int, int]


@dataclass(frozen=True)
class LaunchResult:
    """Counters of every block that ran, by block index (x, y, z), and what all of them touched together.

    ``footprint_sectors`` counts each 32-byte sector once a launch, by array and kind of access: the DRAM traffic
    with a perfect cache. `Counters.unique_sectors`, summed over blocks, is that without sharing between blocks.
    """

    kernel: str
    block_counters: dict[Index, Counters]
    footprint_sectors: dict[tuple[int | str, str], int]

    @property
    def counters(self) -> Counters:
        """Sum over the blocks."""
        return sum_counters(self.block_counters.values())


def launch(
    ptx: str,
    *,
    grid: int | Sequence[int],
    block: int | Sequence[int],
    args: Sequence[Any],
    dynamic_shared_bytes: int = 0,
    kernel: str | None = None,
    check_races: bool = True,
    blocks: Iterable[int | Sequence[int]] | None = None,
    max_steps: int = 2_000_000,
) -> LaunchResult:
    """Execute a PTX kernel on the CPU, block after block, checking every access.

    Parameters
    ----------
    ptx : str
        Text of a PTX module.
    grid, block : int or sequence of up to 3 int
        Blocks of the grid and threads of a block.
    args : sequence
        One for each kernel parameter: a C-contiguous NumPy array (global memory, changed in place; where it is
        read-only, writing to it is an error), `Rows` of an array too large to exist, a scalar, or ``bytes`` for a
        structure passed by value.
    dynamic_shared_bytes : int
        Dynamic shared memory of a block, bytes.
    kernel : str, optional
        Entry to run; needed if the module has several.
    check_races : bool
        Whether to check shared memory for races, and for fences and synchronisation before bulk copies.
    blocks : iterable of block indices, optional
        Run only these blocks of the grid.
    max_steps : int
        Instructions that a block may issue (counted once for threads that execute together).

    Returns
    -------
    LaunchResult
        Exact counters, by block and in sum.

    Raises
    ------
    PtxError
        If the kernel misbehaves, or uses what the emulator does not know; names instruction, thread and address.
    ValueError
        If the launch itself is wrong: sizes, arguments, kernel name.
    """
    parsed = parse_kernel(ptx, kernel)
    grid3, block3 = _dimensions(grid, "grid"), _dimensions(block, "block")
    geometry = Geometry(grid3, block3, dynamic_shared_bytes)
    _check_threads(parsed, geometry)
    indices = _chosen_blocks(grid3, blocks)
    state = make_state(parsed, geometry, args, check_races=check_races)
    runner = ThreadBlock(parsed, geometry, state, max_steps)
    counters = {index: runner.run(index) for index in indices}
    footprint = {key: int(np.count_nonzero(touched)) for key, touched in state.footprint.items()}
    return LaunchResult(parsed.name, counters, footprint)


def _dimensions(value: int | Sequence[int], what: str) -> Index:
    sizes = (value,) if isinstance(value, int) else tuple(int(v) for v in value)
    if not 1 <= len(sizes) <= 3 or min(sizes) < 1:
        raise ValueError(f"{what} is {value!r}; allowed are 1 to 3 positive sizes")
    padded = (*sizes, 1, 1)
    return padded[0], padded[1], padded[2]


def _check_threads(kernel: Kernel, geometry: Geometry) -> None:
    n = geometry.n_threads
    if n > MAX_THREADS:
        raise ValueError(f"{n} threads in a block; allowed are 1 to {MAX_THREADS}")
    if kernel.required_threads is not None and geometry.block != _dimensions(kernel.required_threads, "reqntid"):
        raise ValueError(f"block is {geometry.block}; kernel {kernel.name} requires {kernel.required_threads}")
    if kernel.maximum_threads is not None:
        x, y, z = _dimensions(kernel.maximum_threads, "maxntid")
        if n > x * y * z:
            raise ValueError(f"{n} threads in a block; kernel {kernel.name} allows {x * y * z}")


def _chosen_blocks(grid: Index, blocks: Iterable[int | Sequence[int]] | None) -> list[Index]:
    if blocks is None:
        return [(x, y, z) for z, y, x in product(range(grid[2]), range(grid[1]), range(grid[0]))]
    chosen = []
    for block in blocks:
        given = (block,) if isinstance(block, int) else tuple(block)
        x, y, z = (*given, 0, 0)[:3]
        if not (0 <= x < grid[0] and 0 <= y < grid[1] and 0 <= z < grid[2]):
            raise ValueError(f"block index {block!r} lies outside the grid {grid}")
        chosen.append((x, y, z))
    return chosen
