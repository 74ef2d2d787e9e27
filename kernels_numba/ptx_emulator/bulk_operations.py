"""Bulk copies from global to shared memory that complete on a mbarrier, and cache policies."""

from __future__ import annotations

import numpy as np

from .counters import SECTOR_BYTES, SharedTraffic
from .errors import PtxError
from .mbarrier import BulkCopy
from .mbarrier_operations import mbarrier_offsets
from .memory import Span
from .parse import Instruction
from .registers import Active
from .scalar_types import TYPES
from .state import Access, BlockState, Operation, access_of, builder

ALIGN = 16
WAVEFRONT_BYTES = 128
U32, B64 = TYPES["u32"], TYPES["b64"]
PRIORITIES = {f"L2::evict_{name}" for name in ("first", "last", "normal", "unchanged")}


@builder("cp.async.bulk")
def _copy_bulk(instruction: Instruction, state: BlockState) -> Operation:
    """``[destination], [source], bytes, [mbarrier] {, cache policy}``; thread after thread."""
    words, operands, registers = instruction.modifiers, instruction.operands, state.registers
    hint = words[-1:] == ("L2::cache_hint",)
    form = ("async", "bulk", words[2], "global", "mbarrier::complete_tx::bytes", "L2::cache_hint")
    if words[2] not in ("shared::cluster", "shared::cta") or words != form[: 5 + hint] or len(operands) != 4 + hint:
        raise PtxError(f"unsupported instruction {instruction.name} with {len(operands)} operands")
    destination, source = registers.address(operands[0]), registers.address(operands[1])
    offsets = mbarrier_offsets(instruction, operands[3], state, "shared")
    n_bytes = registers.read(operands[2], U32)
    if hint:
        registers.read(operands[4], B64)
    access = access_of(instruction, ALIGN)

    def run(active: Active) -> None:
        sizes, sources, mbarriers = n_bytes(), source(), offsets(active.threads).tolist()
        places = state.shared.offsets(destination()[active.threads], ALIGN, active.threads).tolist()
        for thread, place, mbarrier in zip(active.threads.tolist(), places, mbarriers, strict=True):
            who = np.array([thread])
            size = _checked_size(int(sizes[thread]), place, thread, state)
            barrier = state.mbarriers.at(mbarrier, who, "bulk copy")
            (span,) = state.global_memory.spans(sources[who], size, who, align=ALIGN)
            _check_unwritten(span, size, thread, state)
            _count(access, span, size, thread, state)
            start = int(span.offsets[0])
            data = span.array.data[start : start + size].copy()
            state.mbarriers.copy(barrier, BulkCopy(place, data, instruction.position), thread)

    return run


def _checked_size(size: int, place: int, thread: int, state: BlockState) -> int:
    if size % ALIGN:
        raise PtxError(f"bulk copy of {size} bytes; allowed are multiples of {ALIGN}", thread=thread)
    if place + size > state.shared.size:
        where = f"offset {place} + {size} bytes of {state.shared.size}"
        raise PtxError(f"shared access out of bounds: {where}", thread=thread, address=place)
    return size


def _check_unwritten(span: Span, size: int, thread: int, state: BlockState) -> None:
    """Data that this launch wrote would need proxy fences of global memory, which are not followed."""
    start = int(span.offsets[0])
    sectors = slice(start // SECTOR_BYTES, -(-(start + size) // SECTOR_BYTES))
    for marks in (state.touched, state.footprint):
        for kind in ("store", "atomic"):
            if (span.array.label, kind) in marks and marks[span.array.label, kind][sectors].any():
                message = f"unsupported: bulk copy of data of array {span.array.label} that this launch has written"
                raise PtxError(message, thread=thread)


def _count(access: Access, span: Span, size: int, thread: int, state: BlockState) -> None:
    """One request: the sectors it reads, and full wavefronts of the data it writes to shared memory."""
    start = int(span.offsets[0])
    sectors = np.arange(start // SECTOR_BYTES * SECTOR_BYTES, start + size, SECTOR_BYTES)
    if size:
        threads = np.full(sectors.size, thread)
        state.count_global(access, "load", Span(span.array, slice(None), sectors), threads, size)
    wavefronts = -(-size // WAVEFRONT_BYTES)
    key, traffic = (access.site, "cp.async.bulk"), SharedTraffic(1, size, wavefronts, wavefronts)
    state.counters.shared_traffic[key] = state.counters.shared_traffic.get(key, SharedTraffic()) + traffic


@builder("cp.async.mbarrier")
def _arrive_after_copies(instruction: Instruction, state: BlockState) -> Operation:
    """``cp.async.mbarrier.arrive{.noinc} [mbarrier]``: without noinc the arrival is pending in addition."""
    _, _, kind, *words = instruction.modifiers
    if kind != "arrive" or not set(words) <= {"noinc", "shared", "shared::cta", "b64"}:
        raise PtxError(f"unsupported instruction {instruction.name}")
    offsets = mbarrier_offsets(instruction, instruction.operands[0], state)
    extra = "noinc" not in words

    def run(active: Active) -> None:
        for thread, offset in zip(active.threads.tolist(), offsets(active.threads).tolist(), strict=True):
            barrier = state.mbarriers.at(offset, np.array([thread]), instruction.name)
            state.mbarriers.arrive_after_copies(barrier, thread, extra=extra)

    return run


@builder("createpolicy")
def _create_policy(instruction: Instruction, state: BlockState) -> Operation:
    """A cache policy is opaque, and changes nothing here."""
    kind, *priorities, _ = instruction.modifiers
    if kind != "fractional" or not set(priorities) <= PRIORITIES:
        raise PtxError(f"unsupported instruction {instruction.name}")
    put = state.registers.write(instruction.operands[0], B64)
    policy = np.full(state.registers.n, 1, np.uint64)
    return lambda active: put(policy, active)
