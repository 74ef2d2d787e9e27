"""Compiled loops behind `condensed`: the records of strips, written, read and checked; rows of strips run in parallel.

Register r of lane ``4 g + t`` in chunk ``2 * step + half`` holds the two kept weights of group
``8 step + 4 (r // 2) + t`` (four columns, side by side in the strip's order) in row ``16 half + 8 (r % 2) + g``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from kernels_numba.formats.condensed_order_njit import (
    GROUP,
    GROUPS,
    TAIL_COLUMNS,
    columns_of_strip,
    filled,
    ones,
    others,
)
from kernels_numba.formats.layout import LANES, REGISTERS, STRIP_K, STRIP_M
from kernels_numba.jit import inlined, parallel, serial

CHUNKS = 4  # operands of 16 rows x 8 groups: two halves of the rows, then two steps of 32 columns
METADATA_ENTRIES = 128
TAIL_HEADER_ENTRIES = TAIL_COLUMNS // 2 + LANES  # numbers of columns, and 16 bits of mask a lane
COLUMN_MASK = 0x3F  # of a column's byte; the two bits above it, in the columns from place 32 on, number the tails
Record = NDArray[np.uint16]


@inlined
def register_row(chunk: int, lane: int, register: int) -> int:
    """Row in its strip of a register."""
    return 16 * (chunk & 1) + 8 * (register & 1) + (lane >> 2)


@inlined
def register_group(chunk: int, lane: int, register: int) -> int:
    """Group of four columns whose kept weights a register holds."""
    return 8 * (chunk >> 1) + 4 * (register >> 1) + (lane & 3)


@inlined
def tail_place(lane: int, register: int) -> int:
    """First of the two tail columns that a register of a 16 x 16 operand holds."""
    return 8 * (register >> 1) + 2 * (lane & 3)


@inlined
def kept_places(present: int) -> Any:
    """Places of a group's kept weights in the order of 2:4 metadata, first < second, and which of the two hold one.

    ``present`` has a bit for each of the four columns, at most two of them set.
    """
    first, second = -1, -1
    for place in range(GROUP):
        if present >> place & 1:
            if first < 0:
                first = place
            else:
                second = place
    if first < 0:
        return 0, 1, 0
    if second >= 0:
        return first, second, 3
    if first == GROUP - 1:
        return 0, first, 2
    return first, GROUP - 1, 1


@inlined
def presence(words: Any, order: Any, group: int, row: int) -> Any:
    """A bit for each column of a group that holds a weight in ``row``."""
    present = np.int64(0)
    for place in range(GROUP):
        present |= np.int64(words[order[GROUP * group + place]] >> np.uint64(row) & np.uint64(1)) << place
    return present


@inlined
def stored_halves(slots: int, width: int) -> int:
    """Which of a register's two halves are stored, as two bits; with a bit a register both or none."""
    return slots if width == 1 or slots == 0 else 3


@inlined
def padded(entries: int) -> int:
    """Entries of two bytes rounded up to 16 bytes."""
    return (entries + 7) // 8 * 8


@inlined
def split_tails(words: Any, tail: Any, count: int, kept: Any) -> None:
    """Copy ``words`` to ``kept`` without the tails' columns."""
    kept[:] = words
    for i in range(count):
        kept[tail[i]] = 0


@inlined
def tails_of(count: int) -> int:
    """Steps of 16 columns that ``count`` columns left over need."""
    return (count + TAIL_COLUMNS - 1) // TAIL_COLUMNS


@inlined
def header_entries(width: int) -> int:
    """Entries of two bytes before the values of a strip: masks, columns and metadata."""
    return LANES * (2 // width) + LANES + METADATA_ENTRIES


@inlined
def mask_entry(lane: int, width: int) -> int:
    """First entry of a lane's mask of 8 or 4 bits for each of 4 chunks; a short one shares a word with the columns."""
    return 2 * lane


@inlined
def columns_entry(lane: int, width: int) -> int:
    """Entry of the columns at places ``lane`` (low byte) and ``lane + 32``."""
    return 2 * lane + 1 if width == 2 else 2 * LANES + lane


@inlined
def metadata_entry(step: int, group: int, row: int, width: int) -> int:
    """Entry of a row's metadata for groups 4 (group // 4) and on; words lie as ``mma.sp`` takes them from its lanes.

    Lane 4 g + p, p = 0 or 1, has one word a step and half: rows g (low entry) and g + 8, groups 4 p ... 4 p + 3.
    """
    g, upper, half, provider = row % 8, row // 8 % 2, row // 16, group % 8 // 4
    word = (g * 2 + provider) * 4 + step * 2 + half
    return header_entries(width) - METADATA_ENTRIES + 2 * word + upper


@inlined
def set_bit(record: Any, first: int, bit: int) -> None:
    """Set a bit of a mask that begins at entry ``first``."""
    record[first + bit // 16] |= np.uint16(1 << bit % 16)


@inlined
def get_bit(record: Any, first: int, bit: int) -> Any:
    """Bit of a mask that begins at entry ``first``."""
    return np.int64(record[first + bit // 16]) >> bit % 16 & 1


@parallel
def measure_strips(
    bits: NDArray[Any], magnitude: Any, width: int, orders: Any, tails: Any, counts: Any, sizes: Any
) -> None:
    """Entries of two bytes of every strip's record, a multiple of 8: ``sizes`` (strips_m, strips_k) int64."""
    for row in prange(orders.shape[0]):
        words, kept = np.empty(STRIP_K, np.uint64), np.empty(STRIP_K, np.uint64)
        for column in range(orders.shape[1]):
            columns_of_strip(bits, magnitude, row, column, words)
            order, tail, count = orders[row, column], tails[row, column], counts[row, column]
            split_tails(words, tail, count, kept)
            stored = 0
            for group in range(GROUPS):
                a, b, c = others(kept, order, GROUP * group)
                d = kept[order[GROUP * group]]
                stored += 2 * filled(a, b, c, d) if width == 2 else ones(a) + ones(b) + ones(c) + ones(d)
            entries = padded(header_entries(width) + stored)
            for first in range(0, count, TAIL_COLUMNS):
                there = 0
                for i in range(first, min(count, first + TAIL_COLUMNS)):
                    there += ones(words[tail[i]])
                entries += padded(TAIL_HEADER_ENTRIES + there)
            sizes[row, column] = entries


@parallel
def write_records(
    bits: NDArray[Any], magnitude: Any, width: int, orders: Any, tails: Any, counts: Any, begins: Any,
    records: Record,
) -> None:  # fmt: skip
    """Write the record of every strip from entry ``begins`` on; ``records`` holds zeros."""
    for row in prange(orders.shape[0]):
        words, kept = np.empty(STRIP_K, np.uint64), np.empty(STRIP_K, np.uint64)
        for column in range(orders.shape[1]):
            columns_of_strip(bits, magnitude, row, column, words)
            tail, count = tails[row, column], counts[row, column]
            split_tails(words, tail, count, kept)
            i, j = row * STRIP_M, column * STRIP_K
            strip = bits[i : i + STRIP_M, j : j + STRIP_K]
            record = records[begins[row, column] :]
            at = write_groups(strip, width, orders[row, column], kept, tails_of(count), record)
            for first in range(0, count, TAIL_COLUMNS):
                at = write_tail(strip, words, tail[first : min(count, first + TAIL_COLUMNS)], record, at)


@serial
def write_groups(strip: Any, width: int, order: Any, words: Any, n_tails: int, record: Record) -> int:
    """Write header and values of the groups of four columns; return the next free entry."""
    for lane in range(LANES):
        columns = np.int64(order[lane]) | np.int64(order[lane + LANES]) << 8 | n_tails << 14
        record[columns_entry(lane, width)] = columns
    at = header_entries(width)
    bits_per_chunk = 8 // width
    for chunk in range(CHUNKS):
        for lane in range(LANES):
            for register in range(REGISTERS):
                row = register_row(chunk, lane, register)
                group = register_group(chunk, lane, register)
                first, second, slots = kept_places(presence(words, order, group, row))
                nibble = (first | second << 2) << group % 4 * 4
                record[metadata_entry(chunk >> 1, group, row, width)] |= np.uint16(nibble)
                stored = stored_halves(slots, width)
                for half in range(2):
                    if stored >> half & 1:
                        bit = chunk * bits_per_chunk + (register if width == 2 else 2 * register + half)
                        set_bit(record, mask_entry(lane, width), bit)
                        if slots >> half & 1:
                            place = second if half else first
                            record[at] = strip[row, order[GROUP * group + place]]
                        at += 1
    return padded(at)


@serial
def write_tail(strip: Any, words: Any, columns: Any, record: Record, at: int) -> int:
    """Write up to 16 columns as they are: numbers, a bit for each position, values; return the next free entry."""
    for i in range(TAIL_COLUMNS):
        record[at + i // 2] |= np.uint16(np.int64(columns[min(i, columns.size - 1)]) << i % 2 * 8)
    masks = at + TAIL_COLUMNS // 2
    at = masks + LANES
    for half in range(2):
        for lane in range(LANES):
            for slot in range(2 * REGISTERS):
                row, i = register_row(half, lane, slot // 2), tail_place(lane, slot // 2) + slot % 2
                if i < columns.size and words[columns[i]] >> np.uint64(row) & np.uint64(1):
                    set_bit(record, masks + lane, 8 * half + slot)
                    record[at] = strip[row, columns[i]]
                    at += 1
    return padded(at)


@parallel
def read_records(records: Record, begins: Any, width: int, out: NDArray[Any]) -> None:
    """Write the weights of every record to their places in ``out`` (m, k), which holds zeros."""
    for row in prange(begins.shape[0]):
        for column in range(begins.shape[1]):
            strip = out[row * STRIP_M : row * STRIP_M + STRIP_M, column * STRIP_K : column * STRIP_K + STRIP_K]
            record = records[begins[row, column] :]
            at = read_groups(record, width, strip)
            for _ in range(np.int64(record[columns_entry(0, width)]) >> 14):
                at = read_tail(record, at, strip)


@serial
def read_groups(record: Record, width: int, strip: NDArray[Any]) -> int:
    """Inverse of `write_groups` for one strip; zeros beside a stored weight leave ``strip`` as it is."""
    at, bits_per_chunk = header_entries(width), 8 // width
    for chunk in range(CHUNKS):
        for lane in range(LANES):
            first = chunk * bits_per_chunk
            mask = np.int64(record[mask_entry(lane, width) + first // 16]) >> first % 16 & (1 << bits_per_chunk) - 1
            if mask == 0:
                continue
            for slot in range(2 * REGISTERS):
                register = slot // 2
                if not mask >> (register if width == 2 else slot) & 1:
                    continue
                row = register_row(chunk, lane, register)
                group = register_group(chunk, lane, register)
                pairs = np.int64(record[metadata_entry(chunk >> 1, group, row, width)]) >> group % 4 * 4
                place = GROUP * group + (pairs >> slot % 2 * 2 & 3)
                columns = np.int64(record[columns_entry(place % LANES, width)])
                column = columns >> place // LANES * 8 & COLUMN_MASK
                if record[at] and row < strip.shape[0] and column < strip.shape[1]:
                    strip[row, column] = record[at]
                at += 1
    return padded(at)


@serial
def read_tail(record: Record, at: int, strip: NDArray[Any]) -> int:
    """Inverse of `write_tail`."""
    columns, masks = at, at + TAIL_COLUMNS // 2
    at = masks + LANES
    for half in range(2):
        for lane in range(LANES):
            for slot in range(2 * REGISTERS):
                if not get_bit(record, masks + lane, 8 * half + slot):
                    continue
                row, i = register_row(half, lane, slot // 2), tail_place(lane, slot // 2) + slot % 2
                column = np.int64(record[columns + i // 2]) >> i % 2 * 8 & COLUMN_MASK
                if row < strip.shape[0] and column < strip.shape[1]:
                    strip[row, column] = record[at]
                at += 1
    return padded(at)


FAULTS = (
    "", "shorter than its header", "more than 2 tails", "columns that are no order of 64",
    "metadata whose places do not ascend", "a column above 63 in a tail", "a length that its masks do not explain",
    "a weight beyond the matrix",
)  # fmt: skip


@serial
def first_fault(records: Record, offsets: Any, width: int, m: int, k: int) -> Any:
    """Number of the first strip whose record a reader could trip over, and what is wrong as an index of `FAULTS`."""
    strips_k = (k + STRIP_K - 1) // STRIP_K
    strip = np.zeros((STRIP_M, STRIP_K), np.uint16)
    for i in range(offsets.size - 2):
        record = records[8 * np.int64(offsets[i]) : 8 * np.int64(offsets[i + 1])]
        fault = fault_of_header(record, width)
        if fault == 0:
            fault = fault_of_length(record, width)
        if fault == 0:
            strip[:] = 0
            at = read_groups(record, width, strip)
            for _ in range(np.int64(record[columns_entry(0, width)]) >> 14):
                at = read_tail(record, at, strip)
            inside_m, inside_k = m - i // strips_k * STRIP_M, k - i % strips_k * STRIP_K
            if strip[min(STRIP_M, max(0, inside_m)) :].any() or strip[:, min(STRIP_K, inside_k) :].any():
                fault = 7
        if fault:
            return i, fault
    return 0, 0


@serial
def fault_of_header(record: Record, width: int) -> int:
    """What is wrong with a record's columns, tails or metadata; 0 if nothing is."""
    if record.size < header_entries(width):
        return 1
    if np.int64(record[columns_entry(0, width)]) >> 14 > 2:
        return 2
    seen = np.uint64(0)
    for place in range(STRIP_K):
        pair = np.int64(record[columns_entry(place % LANES, width)])
        column = pair >> place // LANES * 8 & COLUMN_MASK
        seen |= np.uint64(1) << np.uint64(column)
    if ones(seen) != STRIP_K:
        return 3
    for row in range(STRIP_M):
        for group in range(GROUPS):
            entry = metadata_entry(group // 8, group, row, width)
            places = np.int64(record[entry]) >> group % 4 * 4 & 15
            if places & 3 >= places >> 2:
                return 4
    return 0


@serial
def fault_of_length(record: Record, width: int) -> int:
    """What is wrong with a record's tails or length, whose header is right; 0 if nothing is."""
    stored = 0
    for lane in range(LANES):
        for entry in range(2 // width):
            stored += width * ones(np.uint64(record[mask_entry(lane, width) + entry]))
    at = padded(header_entries(width) + stored)
    for _ in range(np.int64(record[columns_entry(0, width)]) >> 14):
        masks = at + TAIL_COLUMNS // 2
        values = masks + LANES
        if values > record.size:
            return 6
        for i in range(TAIL_COLUMNS):
            if np.int64(record[at + i // 2]) >> i % 2 * 8 & 255 > COLUMN_MASK:
                return 5
        there = 0
        for entry in range(masks, values):
            there += ones(np.uint64(record[entry]))
        at = padded(values + there)
    return 0 if at == record.size else 6
