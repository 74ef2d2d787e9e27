"""The compiled heart of the simulator: thread blocks on SMs, stages in the order in which they become ready.

Every part of a stage is an event. It is ready when the part before it has been issued and all results it waits for are
there. It is then served by each of its resources, first come first served. The next part may issue when its
instructions and its turn at shared memory have ended; device memory, L2 and the Tensor Cores go on alone, and the
result is there when they too have ended and the latency has passed. Nothing is preempted; parts are small enough for
that not to matter.

Letters: b block, s SM, i step, p part, r resource; events are numbered ``base[b] + i * parts + p``.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

import numpy as np
from numba import njit

GLOBAL_RESOURCES = 2  # DRAM and L2 come first in `Resource` and belong to the whole GPU
ASYNCHRONOUS = 4  # these two, the SM's port and the Tensor Cores do not hold up the warps
ISSUING = -2  # blamed when no resource ended a part but its instructions or cycles
NOTHING = -1  # blamed when a part had nothing to do
ONLY = -1  # `program.ONLY`


def _compiled(function: Callable[..., Any]) -> Any:
    """``function``, compiled anew in each process where there is no place to keep machine code."""
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # what Numba raises where neither the package nor the user's cache can be written
        return njit(nogil=True)(function)


@_compiled
def is_active(i: Any, steps: Any, first: Any, last: Any) -> Any:
    """True if a part with these limits does something in step ``i`` of ``steps``."""
    if first == ONLY:
        return i == steps - 1
    if last == ONLY:
        return i == 0
    return first <= i < steps - last


@_compiled
def start_block(first_event: Any, steps: Any, at: Any, cause: Any, wait: Any, wait_lag: Any, log: Any) -> Any:
    """Set up the waits of a block's events: one for the event before it, one for each result of an earlier part."""
    ready, pending, critical = log
    parts = len(wait) - 1
    for i in range(steps):
        for p in range(parts):
            event = first_event + i * parts + p
            count = 1 if event > first_event else 0
            for w in range(wait[p], wait[p + 1]):
                count += wait_lag[w] <= i
            pending[event], ready[event], critical[event] = count, at, cause


@_compiled
def serve(at: Any, cycles: Any, s: Any, free: Any, busy: Any, weight: Any) -> Any:
    """Queue one part at its resources.

    Returns its start, the ends inside the SM and in all, and the resources that set them.
    """
    start, issued, done, issued_by, done_by = at, at, at, NOTHING, NOTHING
    for r in range(len(cycles)):
        if cycles[r] <= 0.0:
            continue
        owner = 0 if r < GLOBAL_RESOURCES else s
        begin = max(at, free[owner, r])
        end = begin + (cycles[r] * weight[s] if r < GLOBAL_RESOURCES else cycles[r])
        free[owner, r] = end
        busy[s, r] += cycles[r]
        if end > done:
            start, done, done_by = begin, end, r
        if r >= ASYNCHRONOUS and end > issued:
            issued, issued_by = end, r
    return start, issued, done, issued_by, done_by


@_compiled
def wake(event: Any, at: Any, cause: Any, heap: Any, log: Any) -> Any:
    """Tell ``event`` that one thing it waits for is there."""
    ready, pending, critical = log
    if at >= ready[event]:
        ready[event], critical[event] = at, cause
    pending[event] -= 1
    if pending[event] == 0:
        heappush(heap, (ready[event], event))


@_compiled
def first_events(tiles: Any, buffers: Any, parts: Any) -> Any:
    """Steps of each block, the number of its first event, and the block of each event."""
    steps = tiles + buffers - 1
    base = np.zeros(len(steps) + 1, dtype=np.int64)
    base[1:] = np.cumsum(steps * parts)
    block_of = np.zeros(base[-1], dtype=np.int64)
    for b in range(len(steps)):
        block_of[base[b] : base[b + 1]] = b
    return steps, base, block_of


@_compiled
def run(
    table: Any, cycles_per_unit: Any, queue_start: Any, offset: Any, weight: Any, resident: Any,
    nonzeros: Any, tiles: Any, buffers: Any,
) -> Any:  # fmt: skip
    """Simulate all blocks; ``table`` holds the arrays of `program.Table`, the others are those of `grid.Load`.

    ``cycles_per_unit`` is (resources,). Blocks ``queue_start[s] ... queue_start[s + 1] - 1`` belong to SM s, which runs
    ``resident`` of them at once.

    Returns
    -------
    base, ready, start, issued, done : ndarray
        First event of each block; times of each event in cycles.
    blamed, critical : ndarray
        (events, 2) what ended its issue and its result; (events,) the event it waited for longest (-1: the start).
    busy, finish : ndarray
        Cycles each SM kept each resource busy (its own share of the global ones); end of each SM.
    """
    work, issue_cycles, extra, latency, first, last, prepares, wait, wait_lag, next_, next_part, next_lag = table
    parts, resources, n_sm = work.shape[0], work.shape[1], len(queue_start) - 1
    steps, base, block_of = first_events(tiles, buffers, parts)
    events = base[-1]
    ready, start, issued, done = np.zeros(events), np.zeros(events), np.zeros(events), np.zeros(events)
    critical, blamed = np.full(events, -1), np.full((events, 2), NOTHING)
    log = (ready, np.zeros(events, dtype=np.int64), critical)
    free, busy, finish = np.zeros((n_sm, resources)), np.zeros((n_sm, resources)), np.zeros(n_sm)
    sm_of, upcoming, cycles = np.zeros(len(steps), dtype=np.int64), queue_start[:-1] + resident, np.zeros(resources)
    heap = [(0.0, np.int64(0)) for _ in range(0)]
    for s in range(n_sm):
        sm_of[queue_start[s] : queue_start[s + 1]] = s
        for b in range(queue_start[s], min(upcoming[s], queue_start[s + 1])):
            start_block(base[b], steps[b], offset[b], -1, wait, wait_lag, log)
            heappush(heap, (offset[b], base[b]))
    while len(heap) > 0:
        at, event = heappop(heap)
        b = block_of[event]
        s, (i, p) = sm_of[b], divmod(event - base[b], parts)
        start[event] = issued[event] = done[event] = at
        if is_active(i, steps[b], first[p], last[p]):
            tile = i if prepares[p] else i - (buffers - 1)
            amount = nonzeros[b, tile] if 0 <= tile < tiles[b] else 0.0
            for r in range(resources):
                cycles[r] = (work[p, r, 0] + work[p, r, 1] * amount) * cycles_per_unit[r]
            start[event], until, end, blamed[event, 0], blamed[event, 1] = serve(at, cycles, s, free, busy, weight)
            least = at + issue_cycles[p, 0] + issue_cycles[p, 1] * amount + extra[p]
            if least > until:
                until, blamed[event, 0] = least, ISSUING
            if until >= end:
                end, blamed[event, 1] = until, blamed[event, 0]
            issued[event], done[event] = until, end + latency[p]
        if event + 1 < base[b + 1]:
            wake(event + 1, issued[event], event, heap, log)
        else:  # the last part of a program waits for all results
            finish[s] = max(finish[s], done[event])
            if upcoming[s] < queue_start[s + 1]:
                start_block(base[upcoming[s]], steps[upcoming[s]], done[event], event, wait, wait_lag, log)
                heappush(heap, (done[event], base[upcoming[s]]))
                upcoming[s] += 1
        for w in range(next_[p], next_[p + 1]):
            if i + next_lag[w] < steps[b]:
                wake(base[b] + (i + next_lag[w]) * parts + next_part[w], done[event], event, heap, log)
    return base, ready, start, issued, done, blamed, critical, busy, finish
