"""Compiled loops behind `quantised_condensed`: records of 16-bit values made records of codes, and back.

A code in a 16-bit value is its low byte; 4-bit codes are sign-extended there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from kernels_numba.formats.condensed_njit import TAIL_HEADER_ENTRIES, columns_entry, header_entries, mask_entry
from kernels_numba.formats.condensed_order_njit import ones
from kernels_numba.formats.layout import LANES, STRIP_M, UNIT_BYTES
from kernels_numba.jit import inlined, parallel, serial

WIDTH = 2  # of the masks
TAIL_HEADER_BYTES = 2 * TAIL_HEADER_ENTRIES
SCALE_BYTES = 2 * STRIP_M
Bytes = NDArray[np.uint8]


@inlined
def header_bytes(bits: int) -> int:
    """Bytes before the values: those of codes stand behind the strip's scales."""
    return 2 * header_entries(WIDTH) + (SCALE_BYTES if bits < 16 else 0)


@inlined
def padded_bytes(codes: int, bits: int) -> int:
    """Bytes of so many codes, rounded up to a multiple of 16."""
    return (codes * bits + 8 * UNIT_BYTES - 1) // (8 * UNIT_BYTES) * UNIT_BYTES


@inlined
def get_code(source: Bytes, at: int, i: int, bits: int) -> Any:
    """Low byte of value ``i`` of those that begin at byte ``at``."""
    if bits == 16:
        return source[at + 2 * i]
    if bits == 8:
        return source[at + i]
    nibble = source[at + i // 2] >> i % 2 * 4 & 15
    return np.uint8(nibble - 16 if nibble > 7 else nibble)


@inlined
def set_code(target: Bytes, at: int, i: int, bits: int, code: Any) -> None:
    """Write value ``i`` of those that begin at byte ``at``, of bytes that are zero."""
    if bits == 16:
        target[at + 2 * i] = code
    elif bits == 8:
        target[at + i] = code
    else:
        target[at + i // 2] |= np.uint8((code & 15) << i % 2 * 4)


@serial
def carry_strip(source: Bytes, from_bits: int, target: Bytes, to_bits: int) -> Any:
    """Copy a strip's record with values of other bits, but for its scales; bytes of both, or -1 if one is too short.

    With an empty ``target`` nothing is copied. Only lengths are checked.
    """
    copies = target.size > 0
    header, at, to = header_bytes(16), header_bytes(from_bits), header_bytes(to_bits)
    if source.size < at:
        return -1, -1
    entries = source[:header].view(np.uint16)
    stored = 0
    for lane in range(LANES):
        stored += WIDTH * ones(np.uint64(entries[mask_entry(lane, WIDTH)]))
    if copies:
        target[:header] = source[:header]
    for tail in range(1 + (np.int64(entries[columns_entry(0, WIDTH)]) >> 14)):
        if tail:
            first = at
            at += TAIL_HEADER_BYTES
            if source.size < at:
                return -1, -1
            masks = source[at - 2 * LANES : at].view(np.uint16)
            stored = 0
            for lane in range(LANES):
                stored += ones(np.uint64(masks[lane]))
            if copies:
                target[to : to + TAIL_HEADER_BYTES] = source[first:at]
            to += TAIL_HEADER_BYTES
        if source.size < at + padded_bytes(stored, from_bits):
            return -1, -1
        if copies:
            for i in range(stored):
                set_code(target, to, i, to_bits, get_code(source, at, i, from_bits))
        at += padded_bytes(stored, from_bits)
        to += padded_bytes(stored, to_bits)
    return at, to


@parallel
def measure_records(source: Bytes, begins: Any, from_bits: int, to_bits: int, sizes: Any) -> None:
    """Bytes that each record, which begins at ``begins[i]``, takes with values of other bits; -1 if it is too short."""
    for i in prange(sizes.size):
        size, other = carry_strip(source[begins[i] : begins[i + 1]], from_bits, np.empty(0, np.uint8), to_bits)
        sizes[i] = other if size == begins[i + 1] - begins[i] else -1


@parallel
def carry_records(source: Bytes, begins: Any, from_bits: int, target: Bytes, to: Any, to_bits: int) -> None:
    """Copy every record with values of other bits; ``target`` holds zeros, where record i begins at ``to[i]``."""
    for i in prange(begins.size - 1):
        carry_strip(source[begins[i] : begins[i + 1]], from_bits, target[to[i] : to[i + 1]], to_bits)
