"""`simulate`: the time of a kernel on a GPU from its counted work, with the reasons.

The number of a kernel is its closed form's (`PREDICTED_BY`). A simulation explains where that time goes, and its own
time tests the closed form's interval.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.catalog import load_gpu
from perfmodel.catalog.specs import Bound, Gpu, Launch
from perfmodel.formats import check_sparsity
from perfmodel.kernels import KERNELS
from perfmodel.pipeline.grid import Grid, Load, TileCounts, choose_split_k, deal
from perfmodel.pipeline.machine import Machine
from perfmodel.pipeline.parameters import PipelineParameters, load_parameters
from perfmodel.pipeline.program import PIPES, RESOURCE_WAIT, Program, Resource, Table, Wait, tabulate
from perfmodel.pipeline.programs import PUBLISHED
from perfmodel.pipeline.stages import Builder, Product, WhatIf, covered
from perfmodel.pipeline.traced import (
    DECODING,
    numba_dense,
    numba_tiled_csl,
)
from perfmodel.units import FP16_BYTES

Array = NDArray[np.float64]
PROGRAMS: dict[str, Builder] = {
    **PUBLISHED,
    "numba-tiled-csl": numba_tiled_csl,
    **DECODING,
    "numba-dense": numba_dense,
}
# Closed form that predicts what a program simulates; the others have none, and nobody has timed them.
PREDICTED_BY = {
    **{name: name for name in PUBLISHED},
    **{name: name.replace("numba", "lscd") for name in DECODING},
}
SHOWN_RESOURCES = tuple(resource for resource in Resource if resource is not Resource.PORT)
COUNTED_PIPES = (Resource.ALU, Resource.FMA, Resource.XU)  # shown where a program says who executes its instructions


@dataclass(frozen=True)
class Events:
    """Everything that happened on the simulated SMs, one entry per part of a stage.

    ``sm, block, step, part`` say what; the cycles when it could begin, when its slowest resource began, when the next
    part could issue and when its result was there. ``blamed`` (events, 2) is what ended its issue and its result: an
    index of `Resource`, -2 its instructions, -1 nothing. ``critical`` is the event it waited for, -1 none.
    """

    sm: NDArray[np.int64]
    block: NDArray[np.int64]
    step: NDArray[np.int64]
    part: NDArray[np.int64]
    ready_cycles: Array
    start_cycles: Array
    issued_cycles: Array
    done_cycles: Array
    blamed: NDArray[np.int64]
    critical: NDArray[np.int64]


@dataclass(frozen=True)
class Simulation:
    """What came out of one simulation.

    Attributes
    ----------
    time_s : float
        Launch, main kernel and reduction.
    launch_s, kernel_s, reduction_s : float
        Its three parts.
    mean_finish_s : float
        When the average SM of those in use has run out of blocks; from there on to ``kernel_s`` is the tail.
    busy : dict
        `words.MEANINGS`, by resource; the rates are `words.RATES`. Without pipes on which the program counts nothing.
    dram_bytes : float
        Bytes over DRAM as simulated, of the whole GPU.
    """

    program: Program
    grid: Grid
    machine: Machine
    time_s: float
    launch_s: float
    kernel_s: float
    reduction_s: float
    mean_finish_s: float
    busy: dict[str, float]
    dram_bytes: float
    load: Load
    table: Table
    events: Events

    @property
    def alone_s(self) -> dict[Bound, float]:
        """Seconds each resource would take alone, as `KernelTime.terms` has them; launches are the latency."""
        seconds = {name: share * self.time_s for name, share in self.busy.items()}
        launches = 1 if self.reduction_s == 0 else 2
        return {
            Bound.MEMORY: seconds["dram"],
            Bound.L2: seconds["l2"],
            Bound.SHARED_MEMORY: seconds["shared"],
            Bound.COMPUTE: max(seconds["tensor"], *(seconds.get(pipe.name.lower(), 0.0) for pipe in PIPES)),
            Bound.LATENCY: launches * self.launch_s,
        }

    @property
    def bound(self) -> Bound:
        """`words.MEANINGS`: the longest of `alone_s`."""
        alone_s = self.alone_s
        return max(alone_s, key=lambda resource: alone_s[resource])

    @cached_property
    def waits(self) -> dict[str, float]:
        """`words.MEANINGS`: share of the time by `Wait`; sums to 1.

        The path runs backwards from the last event to end, each time to the event it waited for longest. What lies
        after the average SM's end counts as tail.
        """
        seconds = dict.fromkeys(map(str, Wait), 0.0)
        seconds[Wait.LAUNCH] += self.launch_s
        seconds[Wait.REDUCTION] += self.reduction_s
        cycle_s = 1 / self.machine.clock_hz
        e = self.events
        seconds[Wait.TAIL] += self.kernel_s - self.mean_finish_s
        event = int(np.argmax(e.done_cycles))
        until = float(e.done_cycles[event])
        while event >= 0:
            begin, result = float(e.ready_cycles[event]), int(until > e.issued_cycles[event])
            span = min(until * cycle_s, self.mean_finish_s) - begin * cycle_s
            seconds[self.wait(event, result)] += max(span, 0.0)
            event, until = int(e.critical[event]), begin
        seconds[Wait.LAUNCH] += until * cycle_s  # the grid's blocks start one after the other
        return {name: value / self.time_s for name, value in seconds.items()}

    def wait(self, event: int, result: int) -> Wait:
        """What ended the issue (0) or the result (1) of one event."""
        blamed = int(self.events.blamed[event, result])
        if blamed >= 0:
            return RESOURCE_WAIT[blamed]
        return self.program.stages[self.table.stage[self.events.part[event]]].waits_for


def runs_on(kernel: str, gpu: str) -> bool:
    """Whether a GPU has what a simulated kernel needs, as its closed form says; True where it has none."""
    return _lacking(kernel, load_gpu(gpu)) is None


def _lacking(kernel: str, gpu: Gpu) -> str | None:
    """What a GPU lacks that a simulated kernel needs, as its closed form says; None where it has none."""
    return KERNELS[PREDICTED_BY[kernel]].refusal(gpu) if kernel in PREDICTED_BY else None


def refusal(
    kernel: str, gpu: str | Gpu, m: int, k: int, n: int, sparsity: float = 0.0, *, what_if: WhatIf | None = None
) -> str | None:
    """Why a GPU cannot run a simulated kernel on this product, in a sentence; None if it can.

    Raises
    ------
    ValueError
        Unknown names, sizes or values out of range.
    """
    record = load_gpu(gpu)
    product = checked_product(m, k, n, sparsity)
    build = program_of(kernel)
    if (lacking := _lacking(kernel, record)) is not None:
        return lacking
    machine = Machine.of(record, load_parameters(kernel), shared_scale=(what_if or WhatIf()).shared_scale)
    try:
        make_grid(build(machine, product, what_if or WhatIf()), machine, product, None)
    except ValueError as error:
        return str(error)
    return None


def simulate(
    kernel: str, gpu: str | Gpu, m: int, k: int, n: int, sparsity: float = 0.0, *, split_k: int | None = None,
    what_if: WhatIf | None = None, nnz_per_tile: ArrayLike | None = None, seed: int | None = 0,
    parameters: PipelineParameters | None = None, launch: Launch = Launch.STREAM,
) -> Simulation:  # fmt: skip
    """Simulate ``C[m, n] = A[m, k] @ B[k, n]`` on one kernel and GPU.

    Parameters
    ----------
    kernel : str
        Name in `PROGRAMS`.
    gpu : str or Gpu
        Catalogue name, path of a TOML file, or a record.
    m, k, n : int
        Rows and columns of the weights; tokens. At least 1.
    sparsity : float
        Fraction of zero weights, 0 to 1.
    split_k : int, optional
        Ways to share K among blocks; by default the kernel's own choice.
    what_if : WhatIf, optional
        Changes to kernel and GPU.
    nnz_per_tile : array_like, optional
        (row_blocks, k_tiles) non-zeros of a real matrix per tile of the kernel; replaces ``sparsity``.
    seed : int or None
        Seed of the sampled non-zeros; None for the expected count in every tile.
    parameters : PipelineParameters, optional
        Instead of the calibrated ones.
    launch : Launch
        From a stream or a graph, if the parameters are the calibrated ones.

    Returns
    -------
    Simulation

    Raises
    ------
    ValueError
        Unknown names, sizes or values out of range, a GPU that the kernel does not run on or that a block does not fit;
        names value and range.
    """
    build = program_of(kernel)
    product = checked_product(m, k, n, sparsity)
    change = what_if or WhatIf()
    record = load_gpu(gpu)
    if (lacking := _lacking(kernel, record)) is not None:
        raise ValueError(lacking)
    machine = Machine.of(
        record, parameters or load_parameters(kernel, launch),
        bandwidth_scale=change.bandwidth_scale, shared_scale=change.shared_scale,
    )  # fmt: skip
    program = build(machine, product, change)
    grid = make_grid(program, machine, product, split_k)
    counts = _tile_counts(program, grid, product, nnz_per_tile, seed)
    return run_program(program, machine, grid, counts, product)


def program_of(kernel: str) -> Builder:
    """Builder of a kernel's program; ValueError with the nearest name if there is none."""
    if kernel in PROGRAMS:
        return PROGRAMS[kernel]
    near = difflib.get_close_matches(kernel, PROGRAMS, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]}? " if near else ""
    what = f"kernel {kernel!r} is not simulated" if kernel in KERNELS else f"unknown kernel {kernel!r}"
    raise ValueError(f"{what}: {hint}Simulated are {', '.join(PROGRAMS)}")


def checked_product(m: int, k: int, n: int, sparsity: float) -> Product:
    """The product asked for; ValueError if a size or the sparsity is out of range."""
    for name, size in (("m", m), ("k", k), ("n", n)):
        if not (isinstance(size, int | np.integer) and size >= 1):
            raise ValueError(f"{name} is {size}, allowed is an integer of at least 1")
    return Product(int(m), int(k), int(n), float(check_sparsity(sparsity)))


def make_grid(program: Program, machine: Machine, product: Product, split_k: int | None) -> Grid:
    """Blocks of ``product`` and how many an SM holds."""
    tile = program.tile
    resident = program.streams * machine.resident_blocks(
        program.shared_bytes, program.registers_per_thread, program.threads * program.streams
    )
    row_blocks, columns = math.ceil(product.m / tile.rows), math.ceil(product.n / tile.columns)
    k_tiles = math.ceil(product.k / tile.depth)
    if split_k is not None and not 1 <= split_k <= k_tiles:
        raise ValueError(f"split_k is {split_k}, allowed is 1 to {k_tiles} (tiles along K)")
    if program.launched:
        if split_k is not None:
            raise ValueError(f"split_k is {split_k}, but {program.name} cuts K as its shared memory asks: leave it out")
        list_blocks = min(program.launched * program.streams, row_blocks * k_tiles)
        in_use = min(machine.sm_count, program.launched * columns)
        return Grid(row_blocks, columns, math.ceil(list_blocks / row_blocks), k_tiles, resident, in_use, list_blocks)
    if program.shares_list:
        places = machine.sm_count * resident // columns
        list_blocks = max(1, min(places if split_k is None else row_blocks * split_k, row_blocks * k_tiles))
        ways = math.ceil(list_blocks / row_blocks)
        return Grid(row_blocks, columns, ways, k_tiles, resident, machine.sm_count, list_blocks)
    if split_k is None:
        choose = program.split_rule or partial(choose_split_k, most=program.max_split_k)
        split_k = choose(row_blocks * columns, machine.sm_count * resident, k_tiles)
    tiles_per_block = math.ceil(k_tiles / split_k)
    with_tiles = math.ceil(k_tiles / tiles_per_block)  # a split without a tile is not launched
    return Grid(row_blocks, columns, with_tiles, k_tiles, resident, machine.sm_count)


def _tile_counts(
    program: Program, grid: Grid, product: Product, nnz_per_tile: ArrayLike | None, seed: int | None
) -> TileCounts:
    tile, given = program.tile, None
    if nnz_per_tile is not None:
        given = np.asarray(nnz_per_tile, dtype=np.float64)
        shape, size = (grid.row_blocks, grid.k_tiles), tile.rows * tile.depth
        if given.shape != shape:
            raise ValueError(f"nnz_per_tile has shape {given.shape}, allowed is {shape}: tiles of {tile}")
        if not (given.min() >= 0 and given.max() <= size):
            raise ValueError(f"nnz_per_tile is {given.min():g} to {given.max():g}, allowed is 0 to {size}")
    return TileCounts(
        tile.rows, tile.depth, covered(product, tile) * (1 - product.sparsity), seed, given, program.pad_nonzeros
    )


def run_program(program: Program, machine: Machine, grid: Grid, counts: TileCounts, product: Product) -> Simulation:
    """Simulate a program on a grid: the step between counted work and seconds."""
    from perfmodel.pipeline import engine

    table = tabulate(program, machine.parameters.issue_interval_cycles)
    load = deal(grid, program, len(table.stage), counts)
    base, *columns, busy, finish = engine.run(
        table.arrays, machine.cycles_per_unit, load.queue_start, load.offset,
        load.weight, grid.resident, load.nonzeros, load.tiles, program.buffers,
    )  # fmt: skip
    events = _events(base, load, len(table.stage), *columns)
    share = load.weight / machine.sm_count
    kernel_s = float(finish.max()) / machine.clock_hz
    reduction_s = reduction_time(program, machine, grid, product)
    launch_s = machine.parameters.launch_s
    time_s = launch_s + kernel_s + reduction_s
    total = share @ busy
    total[: engine.GLOBAL_RESOURCES] *= machine.sm_count
    dram_bytes = float(total[Resource.DRAM] / machine.cycles_per_unit[Resource.DRAM])
    return Simulation(
        program=program, grid=grid, machine=machine, time_s=time_s, launch_s=launch_s, kernel_s=kernel_s,
        reduction_s=reduction_s, mean_finish_s=float(np.average(finish, weights=load.weight)) / machine.clock_hz,
        busy={
            r.name.lower(): float(total[r] / machine.clock_hz / time_s)
            for r in SHOWN_RESOURCES
            if total[r] > 0 or r not in COUNTED_PIPES
        },
        dram_bytes=dram_bytes, load=load, table=table, events=events,
    )  # fmt: skip


def _events(base: NDArray[np.int64], load: Load, parts: int, *columns: Array) -> Events:
    lengths = np.diff(base)
    block = np.repeat(np.arange(len(lengths)), lengths)
    inside = np.arange(len(block)) - base[:-1][block]
    sm = np.searchsorted(load.queue_start, block, side="right") - 1
    return Events(sm, block, inside // parts, inside % parts, *columns)  # type: ignore[arg-type]


def reduction_time(program: Program, machine: Machine, grid: Grid, product: Product) -> float:
    """Seconds of the second kernel that adds the partial sums of a split K; 0 without one."""
    if grid.split_k == 1 or program.reduces_in_kernel:
        return 0.0
    n_bytes = product.m * product.n * (program.partial_bytes * grid.split_k + FP16_BYTES)
    fits = n_bytes < machine.gpu.l2.size_bytes
    cycles = n_bytes * machine.cycles_per_unit[Resource.L2 if fits else Resource.DRAM]
    return machine.parameters.launch_s + float(machine.dram_cycles + cycles) / machine.clock_hz
