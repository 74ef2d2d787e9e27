"""A kernel as a list of stages: what one step of a thread block's main loop asks of which resource, and in what order.

A thread block walks over the tiles of its share of K. Step ``i`` prepares tile ``i`` and multiplies tile
``i - (buffers - 1)``; the first steps only prepare, the last ones only multiply. Warps issue the stages of a step in
order; asynchronous work goes on behind their backs until a later stage waits for its result. That is all a software
pipeline is: double buffers, barriers and ``cp.async`` wait groups are such waits. The work of a stage is a constant
plus an amount per non-zero of its tile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import IntEnum, StrEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from perfmodel.units import WARP_SIZE

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]


class Resource(IntEnum):
    """What stages compete for; DRAM and L2 belong to the whole GPU, the rest to one SM.

    Units of work: bytes for DRAM, L2 and the SM's port to L2; multiply-adds for the Tensor Cores; wavefronts (128
    bytes) for shared memory; warp instructions for the issue slots and for the pipes that execute them: integer and
    logic (ALU), multiply-add (FMA), population counts and other slow ones (XU). The first four work behind the backs of
    the warps.
    """

    DRAM = 0
    L2 = 1
    PORT = 2
    TENSOR = 3
    SHARED = 4
    ISSUE = 5
    ALU = 6
    FMA = 7
    XU = 8


PIPES = (Resource.ISSUE, Resource.ALU, Resource.FMA, Resource.XU)


class Wait(StrEnum):
    """What the critical path waits for; `words.WAITS` says it in words."""

    DRAM = "dram"
    L2 = "l2"
    SHARED = "shared-memory"
    TENSOR = "tensor-core"
    ISSUE = "instruction-issue"
    BARRIER = "barrier"
    TAIL = "tail"
    REDUCTION = "reduction"
    LAUNCH = "launch"


# A wait for the SM's port is a wait for device memory: the port is full of requests in flight.
RESOURCE_WAIT = (Wait.DRAM, Wait.L2, Wait.DRAM, Wait.TENSOR, Wait.SHARED, *[Wait.ISSUE] * len(PIPES))


@dataclass(frozen=True)
class Work:
    """An amount of work: ``constant + per_nonzero * non-zeros of the tile``."""

    constant: float = 0.0
    per_nonzero: float = 0.0


NOTHING = Work()
INDEPENDENT_CYCLES = 2.0  # 16 lanes per scheduler since Volta: a warp instruction takes two cycles to issue
ONLY = -1  # in `Table.first`: the last step only; in `Table.last`: the first step only


@dataclass(frozen=True)
class Stage:
    """One stage of a step; stages stand in the order in which a warp issues their instructions.

    Attributes
    ----------
    name : str
        Unique in its program.
    row : str
        Row of the Gantt picture the stage is drawn in.
    work : mapping
        Work given to each resource but the `PIPES`; they serve it side by side.
    instructions : Work
        Instructions each warp issues, in order: one every ``issue_interval_cycles``, if a slot is free.
    pipes : mapping
        Share of the instructions that each of the `PIPES` executes; where it is not known, only the issue slots count.
    independent : bool
        True if these instructions do not wait for each other: then one every `INDEPENDENT_CYCLES`.
    after : tuple of (str, int)
        Stages whose results are waited for: name, and how many steps ago (0 = this step).
    cycles : float
        Further cycles before the next stage may issue: a barrier.
    latency_cycles : float
        Cycles from the end of service until the result is there.
    waits_for : Wait
        What is blamed when instructions or cycles, and no resource, end the stage.
    skip_first, skip_last : int
        Number of steps at the start and at the end in which the stage does nothing.
    only : str
        ``"first"`` or ``"last"`` for a stage of that step alone: what a block does before and after its main loop.
    prepares : bool
        True if the non-zeros are those of the tile being prepared, False for the tile being multiplied.
    parts : int
        Equal pieces served one after the other, so that blocks interleave as their warps do.
    """

    name: str
    row: str
    work: Mapping[Resource, Work] = field(default_factory=dict)
    instructions: Work = NOTHING
    pipes: Mapping[Resource, float] = field(default_factory=dict)
    independent: bool = False
    after: tuple[tuple[str, int], ...] = ()
    cycles: float = 0.0
    latency_cycles: float = 0.0
    waits_for: Wait = Wait.ISSUE
    skip_first: int = 0
    skip_last: int = 0
    only: Literal["", "first", "last"] = ""
    prepares: bool = True
    parts: int = 1


@dataclass(frozen=True)
class Tile:
    """Tile of A and C one thread block works on: ``rows x depth`` weights times ``depth x columns`` activations."""

    rows: int
    columns: int
    depth: int


@dataclass(frozen=True)
class Program:
    """A kernel of ``stages``: its tile, its needs, and what it does besides the main loop.

    Attributes
    ----------
    buffers : int
        Tiles a block holds; it runs ``tiles + buffers - 1`` steps.
    shared_bytes, registers_per_thread, threads : int
        Needs of one block, which limit how many are resident on an SM.
    streams, launched : int
        A block's warps may never wait for each other: then each of its ``streams`` warps is a block to grid, stages and
        ``threads``, ``shared_bytes`` are those of all, and so many real blocks are ``launched`` for a tile of columns.
    stages : tuple of Stage
        One step. A block ends when every stage of its last step has.
    reduces_in_kernel : bool
        True if partial sums of a split K are added without a second launch.
    max_split_k : int
        Most ways the kernel shares K among blocks.
    shares_list : bool
        True if as many blocks as run at once share one list of all tiles, whole rows or not.
    split_rule : callable, optional
        ``(blocks, places, tiles along K) -> ways``, the kernel's own rule; None for `grid.choose_split_k`.
    partial_bytes : int
        Bytes of a partial sum of a split K.
    pad_nonzeros : int
        Non-zeros of a tile are padded to a multiple of this.
    source : str
        Where the counts come from.
    """

    name: str
    tile: Tile
    buffers: int
    shared_bytes: int
    registers_per_thread: int
    threads: int
    stages: tuple[Stage, ...]
    source: str
    reduces_in_kernel: bool = False
    shares_list: bool = False
    streams: int = 1
    launched: int = 0
    max_split_k: int = 10
    split_rule: Callable[[int, int, int], int] | None = None
    partial_bytes: int = 2
    pad_nonzeros: int = 1

    def __post_init__(self) -> None:
        """Refuse a stage that waits for one which does not come before it."""
        seen: set[str] = set()
        names = {stage.name for stage in self.stages}
        for stage in self.stages:
            for name, lag in stage.after:
                if name not in (names if lag else seen):
                    raise ValueError(f"{self.name}: stage {stage.name!r} waits for {name!r}, known are {sorted(names)}")
            seen.add(stage.name)

    def steps(self, tiles: int) -> int:
        """Steps a block needs for its ``tiles``."""
        return tiles + self.buffers - 1

    def demand(self, tiles: int, nonzeros: float) -> Array:
        """Work given to each `Resource` by one block of ``tiles`` tiles with ``nonzeros`` in all, closed form."""
        total = np.zeros(len(Resource))
        for stage in self.stages:
            active = 1 if stage.only else self.steps(tiles) - stage.skip_first - stage.skip_last
            for resource, work in self.work_of(stage).items():
                total[resource] += work.constant * max(active, 0) + work.per_nonzero * nonzeros
        return total

    def work_of(self, stage: Stage) -> dict[Resource, Work]:
        """Work of a stage for every resource, issue slots and pipes included."""
        warps, count = self.threads // WARP_SIZE, stage.instructions
        shares = {Resource.ISSUE: 1.0, **stage.pipes}
        return {**stage.work} | {
            pipe: Work(count.constant * warps * share, count.per_nonzero * warps * share)
            for pipe, share in shares.items()
        }


@dataclass(frozen=True)
class Table:
    """A program as flat arrays, one entry per part of a stage, for the compiled engine.

    ``work`` (parts, resources, 2) and ``issue_cycles`` (parts, 2): constant and per non-zero. ``wait`` (parts + 1,) and
    ``wait_lag``: how many steps ago the results are from that each part waits for; ``next``, ``next_part`` and
    ``next_lag``: the parts that wait for each.
    """

    stage: IntArray
    work: Array
    issue_cycles: Array
    cycles: Array
    latency: Array
    first: IntArray
    last: IntArray
    prepares: NDArray[np.bool_]
    wait: IntArray
    wait_lag: IntArray
    next: IntArray
    next_part: IntArray
    next_lag: IntArray

    @property
    def arrays(self) -> tuple[NDArray[np.generic], ...]:
        """What the engine takes, in its order: all but ``stage``."""
        return tuple(getattr(self, f.name) for f in fields(self) if f.name != "stage")


def tabulate(program: Program, issue_interval_cycles: float) -> Table:
    """Cut the stages into their parts and lay them out as arrays."""
    stages = [(index, stage) for index, stage in enumerate(program.stages) for _ in range(stage.parts)]
    last_part = {stage.name: part for part, (_, stage) in enumerate(stages)}
    is_first = [part == 0 or stages[part - 1][0] != index for part, (index, _) in enumerate(stages)]
    waits = [
        [(last_part[name], lag) for name, lag in stage.after] if is_first[part] else []
        for part, (_, stage) in enumerate(stages)
    ]
    nexts: list[list[tuple[int, int]]] = [[] for _ in stages]
    for part, wanted in enumerate(waits):
        for other, lag in wanted:
            nexts[other].append((part, lag))
    work = np.zeros((len(stages), len(Resource), 2))
    for part, (_, stage) in enumerate(stages):
        for resource, amount in program.work_of(stage).items():
            work[part, resource] = amount.constant / stage.parts, amount.per_nonzero / stage.parts
    intervals = np.array([INDEPENDENT_CYCLES if s.independent else issue_interval_cycles for _, s in stages])
    return Table(
        stage=np.array([index for index, _ in stages]),
        work=work,
        issue_cycles=np.array(
            [(s.instructions.constant / s.parts, s.instructions.per_nonzero / s.parts) for _, s in stages]
        )
        * intervals[:, None],
        cycles=np.array([s.cycles / s.parts for _, s in stages]),
        latency=np.array(
            [s.latency_cycles if last_part[s.name] == part else 0.0 for part, (_, s) in enumerate(stages)]
        ),
        first=np.array([ONLY if s.only == "last" else s.skip_first for _, s in stages]),
        last=np.array([ONLY if s.only == "first" else s.skip_last for _, s in stages]),
        prepares=np.array([s.prepares for _, s in stages]),
        wait=_starts(waits),
        wait_lag=_column(waits, 1),
        next=_starts(nexts),
        next_part=_column(nexts, 0),
        next_lag=_column(nexts, 1),
    )


def _starts(rows: list[list[tuple[int, int]]]) -> IntArray:
    return np.cumsum([0, *map(len, rows)])


def _column(rows: list[list[tuple[int, int]]], column: int) -> IntArray:
    return np.array([pair[column] for row in rows for pair in row], dtype=np.int64)
