"""All that one thread block sees while it runs: registers, memories and counters."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .counters import (
    SECTOR_BYTES,
    Counters,
    GlobalTraffic,
    SharedTraffic,
    Site,
    count_sectors,
    count_wavefronts,
    warps_of,
)
from .errors import PtxError
from .mbarrier import MBarriers
from .memory import GENERIC_LOCAL, GENERIC_SHARED, WINDOW_BITS, GlobalMemory, LocalMemory, Span, pack_parameters
from .parse import Instruction, Kernel, Symbol
from .publication import Publication, order_of
from .registers import Active, Geometry, Registers, integer
from .scalar_types import Array
from .shared import SHARED_BASE, SharedMemory

Operation = Callable[[Active], None]
Builder = Callable[[Instruction, "BlockState"], Operation]

MAX_SHARED_BYTES = 227 * 1024  # the most a block may have on sm_90
SPACES = ("global", "shared", "local", "param", "const")
BUILDERS: dict[str, Builder] = {}
CARRIED: dict[str, tuple[int, ...]] = {}


def builder(*opcodes: str, carries: tuple[int, ...] = ()) -> Callable[[Builder], Builder]:
    """Register a function that decodes instructions with these opcodes into operations.

    Operands at the positions ``carries`` may be undefined: the operation itself says what that does to its results. All
    others must have a value.
    """

    def register(build: Builder) -> Builder:
        BUILDERS.update(dict.fromkeys(opcodes, build))
        CARRIED.update(dict.fromkeys(opcodes, carries))
        return build

    return register


class Access(NamedTuple):
    """What is known of a memory instruction before it runs: itself, its state space, bytes per lane, and its order."""

    site: Site
    space: str
    width: int
    order: str = ""


@dataclass
class BlockState:
    """State of the block that is running; made once a launch, ``reset`` for every block.

    ``publication`` follows what blocks write for each other; None does not check. ``touched`` marks the sectors this
    block used, by array and kind of access; ``footprint`` those of all blocks.
    """

    registers: Registers
    global_memory: GlobalMemory
    shared: SharedMemory
    local: LocalMemory
    parameters: bytes
    parameter_offsets: dict[str, int]
    publication: Publication | None
    counters: Counters = field(default_factory=Counters)
    touched: dict[tuple[int | str, str], Array] = field(default_factory=dict)
    footprint: dict[tuple[int | str, str], Array] = field(default_factory=dict)
    steps: int = 0

    def __post_init__(self) -> None:
        self.mbarriers = MBarriers(self.shared)

    def reset(self, block_index: tuple[int, int, int]) -> None:
        """Begin a block with fresh registers, memories and counters."""
        self.registers.reset(block_index)
        self.shared.reset()
        self.mbarriers.reset()
        self.local.reset()
        if self.publication is not None:
            self.publication.reset()
        self.counters = Counters(blocks=1)
        self.touched = {}
        self.steps = 0

    def barrier(self) -> None:
        """Order everything before against everything after, for all threads of the block."""
        self.shared.barrier()
        if self.publication is not None:
            self.publication.barrier()

    def warp_barrier(self, warps: Array) -> None:
        """Order accesses of each of these warps among its own lanes."""
        self.shared.warp_barrier(warps)
        if self.publication is not None:
            self.publication.warp_barrier(warps)

    def count_global(self, access: Access, kind: str, span: Span, threads: Array, n_bytes: int) -> None:
        """Add one access of ``threads`` to one array; ``n_bytes`` is what its active lanes really move."""
        if self.publication is not None:
            self.publication.note(kind, access.order, span, threads, access.width)
        traffic = self.counters.global_traffic.setdefault((access.site, span.array.label, kind), GlobalTraffic())
        traffic.requests += warps_of(threads)
        traffic.bytes += n_bytes
        traffic.sectors += count_sectors(span.offsets, threads)
        key = (span.array.label, kind)
        if key not in self.touched:
            self.touched[key] = np.zeros(-(-span.array.data.size // SECTOR_BYTES), bool)
        self.touched[key][span.offsets // SECTOR_BYTES] = True

    def count_shared(self, access: Access, kind: str, offsets: Array, threads: Array) -> None:
        """Add one access; for ``ldmatrix`` the threads are those that give row addresses."""
        traffic = self.counters.shared_traffic.setdefault((access.site, kind), SharedTraffic())
        needed, ideal = count_wavefronts(offsets, access.width, threads, merge=kind != "atomic")
        traffic.requests += warps_of(threads)
        traffic.bytes += access.width * offsets.size
        traffic.wavefronts += needed
        traffic.ideal_wavefronts += ideal

    def finish(self) -> Counters:
        """Counters of the block, complete with its unique sectors."""
        for key, touched in self.touched.items():
            self.counters.unique_sectors[key] = int(np.count_nonzero(touched))
            self.footprint[key] = self.footprint[key] | touched if key in self.footprint else touched
        return self.counters


def make_state(kernel: Kernel, geometry: Geometry, args: Sequence[Any], *, check_races: bool) -> BlockState:
    """Memory of a launch: arguments mapped, constant tables placed, shared and local memory laid out.

    Raises
    ------
    ValueError
        If arguments do not fit, or shared memory exceeds what a block may have.
    """
    memory = GlobalMemory()
    parameters, offsets = pack_parameters(kernel, args, memory)
    addresses = {
        s.name: memory.add(_table(s), s.name) for s in kernel.symbols.values() if s.space in ("global", "const")
    }
    shared_addresses, shared_size = _lay_out_shared(kernel, geometry.dynamic_shared_bytes)
    local_addresses, local_size = _lay_out([s for s in kernel.symbols.values() if s.space == "local"], 0)
    registers = Registers(kernel, geometry, addresses | shared_addresses | local_addresses)
    cell = _smallest_shared_access(kernel)
    mbarriers = any(instruction.opcode == "mbarrier" for instruction in kernel.instructions)
    shared = SharedMemory(shared_size, geometry.padded_threads, cell, check_races=check_races, mbarriers=mbarriers)
    local = LocalMemory(geometry.padded_threads, -(-local_size // 16) * 16)
    publication = Publication(geometry.padded_threads) if check_races else None
    return BlockState(registers, memory, shared, local, parameters, offsets, publication)


def _table(symbol: Symbol) -> Array:
    """Array of a .global or .const object: its listed values, zeros after them."""
    dtype = symbol.element.dtype
    table: Array = np.zeros(symbol.size // np.dtype(dtype).itemsize, dtype)
    if symbol.initial:
        if not all(re.fullmatch(r"-?(0x[0-9a-fA-F]+|\d+)U?", v) for v in symbol.initial):
            raise PtxError(f"unsupported initial value of {symbol.name}: {symbol.initial}")
        table[: len(symbol.initial)] = [integer(v) for v in symbol.initial]
    table.flags.writeable = symbol.space == "global"
    return table


def _lay_out(symbols: Sequence[Symbol], start: int) -> tuple[dict[str, int], int]:
    addresses, end = {}, start
    for symbol in symbols:
        end = -(-end // symbol.align) * symbol.align
        addresses[symbol.name] = end
        end += symbol.size
    return addresses, end


def _lay_out_shared(kernel: Kernel, dynamic_bytes: int) -> tuple[dict[str, int], int]:
    """Addresses of shared objects in the shared window, and the bytes in use; dynamic memory comes last."""
    objects = [s for s in kernel.symbols.values() if s.space == "shared"]
    fixed, end = _lay_out([s for s in objects if s.size], SHARED_BASE)
    dynamic = [s for s in objects if not s.size]
    align = max((s.align for s in dynamic), default=1)
    start = -(-end // align) * align
    size = start + dynamic_bytes - SHARED_BASE
    if size > MAX_SHARED_BYTES:
        raise ValueError(f"{size} bytes of shared memory; a block may have at most {MAX_SHARED_BYTES}")
    return fixed | {s.name: start for s in dynamic}, size


def _smallest_shared_access(kernel: Kernel) -> int:
    """Bytes of the smallest access that may reach shared memory; races are tracked in cells of this size."""
    sizes = [16]
    for instruction in kernel.instructions:
        if instruction.opcode in ("ld", "st", "atom", "red") and not {"global", "param"} & set(instruction.modifiers):
            sizes.append(instruction.type.bits // 8)
        if instruction.name.startswith("cp.async.c"):  # .ca or .cg
            sizes.append(4)
        if instruction.opcode == "mbarrier":
            sizes.append(8)
    return min(sizes)


def access_of(instruction: Instruction, width: int) -> Access:
    """Access record of a memory instruction."""
    order = order_of(instruction.modifiers, instruction.opcode)
    return Access(Site(instruction.position, instruction.text), space_of(instruction), width, order)


def generic_space(addresses: Array, threads: Array) -> tuple[str, int]:
    """Space that generic addresses point to, and the base to subtract; all lanes must agree."""
    windows = addresses >> np.uint64(WINDOW_BITS)
    bases = {"local": GENERIC_LOCAL, "shared": GENERIC_SHARED}
    for space, base in bases.items():
        inside = windows == np.uint64(base >> WINDOW_BITS)
        if inside.all():
            return space, base
        if inside.any():
            raise PtxError("unsupported generic access: lanes point to different spaces", thread=int(threads[0]))
    return "global", 0


def space_of(instruction: Instruction) -> str:
    """Named state space, or generic."""
    words = {word.split("::")[0] for word in instruction.modifiers}
    if "shared::cluster" in instruction.modifiers and instruction.opcode != "cp":
        raise PtxError(f"unsupported instruction {instruction.name}: clusters are not emulated")
    return next((space for space in SPACES if space in words), "generic")
