"""Condensed weights: columns of a strip in an order in which random sparsity becomes 2:4, and a bitmap of what is kept.

How can decoding an unstructured matrix cost half? The Sparse Tensor Cores take two of every four columns, so a lane has
half the slots to test, load and step over, if no row has more than two weights in any group of four. The columns of a
strip may stand in any order (the kernel gathers the rows of X to match, by address, at no cost), and from 75 % sparsity
on there is an order for 32 rows that leaves nothing over: `condensed_order_njit` finds it, docs/condensed.md says why.

A strip is 32 rows x 64 columns. Its record, a multiple of 16 bytes, copied as it stands:

    masks      a bit for each slot (``width`` 1), or for each register of two slots (2), by lane, chunk
    columns    64 numbers, those of places l and l + 32 side by side; two spare bits say how many tails there are
    metadata   which two of its four columns each group keeps, in the words that ``mma.sp`` takes
    values     float16, by chunk, lane, slot
    tails      up to 2 steps of 16 columns that fitted no group: their numbers, a bit for each position, values

A *chunk* is an operand of ``mma.sp.m16n8k32``: 16 rows x 8 groups. A strip that does not fit leaves whole columns to
tails, which the kernel multiplies like a bitmap's. Two columns of each group always fit, so that two tails make the
format exact at every density. The order prefers one in which the rows of X are read without bank conflicts.

Bytes: ``384 + 4 * registers`` a strip of 32 rows with a bit for each register, ``448 + 2 * nnz`` with one for each
slot; 4 an offset; without tails. -0.0 counts as zero. Positions beyond the matrix hold nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from kernels_numba.formats.encoded import (
    INT32_MAX,
    Element,
    EncodedWeight,
    as_matrix,
    bits_of,
    check,
    check_shape,
    half_element_of,
    one_of,
    whole_number,
    zeros,
)
from kernels_numba.formats.layout import MAGNITUDE_16, STRIP_K, record_grid
from kernels_numba.formats.records import UNIT, check_records

WIDTHS = (1, 2)
MOVES = 700  # of each search for an order; at 70 % sparsity 98 of 100 strips of 32 rows then fit
TRIALS = 2000  # swaps tried to leave more registers empty: a tenth of them at 80 % sparsity, a fifth at 90 %
TAIL_COLUMNS = 16


@dataclass(frozen=True, eq=False)
class Condensed(EncodedWeight):
    """Strips with columns in an order of their own, as records of 2:4 slots.

    shape : (m, k) of the true matrix; strips of 32 x 64 cover it and fill tiles of 128 rows, numbered row by row.
    records : (entries,) uint16; the record of each strip, as the module says.
    offsets : (strips + 2,) int32; where each record begins, in units of 16 bytes; one empty record at the end, so that
        a kernel may always look one strip ahead.
    width : slots that a bit of the masks stands for, 1 or 2.
    """

    shape: tuple[int, int]
    records: NDArray[np.uint16]
    offsets: NDArray[np.int32]
    width: int = 2
    element: Element = Element.FLOAT16

    @property
    def begins(self) -> NDArray[np.int64]:
        """(strips_m, strips_k) first entries of the records."""
        return self.offsets[:-2].astype(np.int64).reshape(record_grid(self.shape)) * UNIT

    @property
    def nnz(self) -> int:
        """Stored non-zeros; padding and zero partners not counted."""
        return int(np.count_nonzero(self.decode().view(np.uint16) & MAGNITUDE_16))

    @property
    def tails(self) -> NDArray[np.int64]:
        """(strips_m, strips_k) tails of each strip."""
        from kernels_numba.formats.condensed_njit import columns_entry

        return (self.records[self.begins + columns_entry(0, self.width)] >> 14).astype(np.int64)

    def decode(self) -> NDArray[Any]:
        """Dense matrix (m, k)."""
        from kernels_numba.formats.condensed_njit import read_records

        out = zeros(self.shape, np.uint16)
        read_records(self.records, self.begins, self.width, out)
        return out.view(self.element.storage)

    def validate(self) -> Self:
        """Return self, or raise ValueError naming what is corrupt."""
        from kernels_numba.formats.condensed_njit import FAULTS, first_fault

        m, k = check_shape(self.shape)
        check(self.element in (Element.FLOAT16, Element.BFLOAT16), "element", self.element, "float16 or bfloat16")
        check(self.width in WIDTHS, "width", self.width, "1 or 2")
        check_records(self.records, self.offsets, self.shape)
        strip, fault = first_fault(self.records, self.offsets, self.width, m, k)
        check(fault == 0, f"record of strip {strip}", FAULTS[fault], "what an encoder writes")
        return self


def encode_condensed(
    a: NDArray[Any], width: int = 2, *, moves: int = MOVES, trials: int = TRIALS,
    element: Element | None = None,
) -> Condensed:  # fmt: skip
    """Condensed encoding of a 16-bit matrix (m, k); every bit pattern is kept, but -0.0 becomes +0.0.

    Parameters
    ----------
    width : slots that a bit stands for: 1 takes fewer bytes, 2 fewer instructions to decode.
    moves : most moves of a search for an order, of which there are up to three.
    trials : swaps tried afterwards to leave more registers empty.

    Raises
    ------
    ValueError
        If ``a`` is not a matrix of the element type with at least one element, or too large for 32-bit offsets, or
        ``width`` is neither 1 nor 2.
    """
    from kernels_numba.formats.condensed_njit import write_records

    width, element = one_of(width, "width", *WIDTHS), half_element_of(a, element)
    moves, trials = whole_number(moves, "moves", INT32_MAX, 0), whole_number(trials, "trials", INT32_MAX, 0)
    bits = bits_of(as_matrix(a, element))
    grid = record_grid(bits.shape)
    orders, tails, counts = _arranged(bits, moves, trials)
    sizes = _entries(bits, width, orders, tails, counts)
    ends = np.cumsum(sizes).reshape(grid)
    check(ends[-1, -1] // UNIT <= INT32_MAX, "units of 16 bytes", int(ends[-1, -1]) // UNIT, f"at most {INT32_MAX}")
    records = np.zeros(int(ends[-1, -1]), np.uint16)
    write_records(bits, MAGNITUDE_16, width, orders, tails, counts, ends - sizes, records)
    offsets = np.concatenate(([0], ends.reshape(-1), ends[-1, -1:])) // UNIT
    return Condensed(bits.shape, records, offsets.astype(np.int32), width, element)


def bytes_of_records(bits: NDArray[np.uint16]) -> dict[int, int]:
    """Bytes of the records that `encode_condensed` writes for 16-bit patterns (m, k), by width; without offsets."""
    arranged = _arranged(bits, MOVES, TRIALS)
    return {width: 2 * int(_entries(bits, width, *arranged).sum()) for width in WIDTHS}


def _arranged(bits: NDArray[np.uint16], moves: int, trials: int) -> tuple[NDArray[Any], ...]:
    """Orders (strips_m, strips_k, 64) of the columns, those left to tails (strips_m, strips_k, 32), and how many."""
    from kernels_numba.formats.condensed_order_njit import arrange_strips

    grid = record_grid(bits.shape)
    orders, tails = np.empty((*grid, STRIP_K), np.uint8), np.empty((*grid, 2 * TAIL_COLUMNS), np.uint8)
    counts = np.empty(grid, np.int64)
    arrange_strips(bits, MAGNITUDE_16, moves, trials, orders, tails, counts)
    return orders, tails, counts


def _entries(bits: NDArray[np.uint16], width: int, orders: Any, tails: Any, counts: Any) -> NDArray[np.int64]:
    """(strips_m, strips_k) entries of two bytes that the records take."""
    from kernels_numba.formats.condensed_njit import measure_strips

    sizes = np.empty(counts.shape, np.int64)
    measure_strips(bits, MAGNITUDE_16, width, orders, tails, counts, sizes)
    return sizes
