"""The order of a strip's columns in which every row fits 2:4: a local search on words, compiled.

A strip's column is one word: bit r says whether row r holds a weight. So the rows in which four columns hold more than
two weights come from a dozen operations on words, however many rows a strip has, and trying a swap takes nanoseconds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from kernels_numba.formats.layout import STRIP_K, STRIP_M
from kernels_numba.jit import inlined, parallel, serial

GROUPS, GROUP, OCTET, RESIDUES = STRIP_K // 4, 4, 8, 8
TAIL_COLUMNS = 16
MOST_TAILS = 2  # half the columns: two of each group, and what is left of it fits
ATTEMPTS = 3  # the last without regard to banks
NEARLY = 8  # weights left over by the first attempt, up to which a second of its kind is worth its time
PROBE, HOPELESS = 100, 24  # moves after which a search ends that leaves more: those that fit leave up to 11 then
NOISE = 0.05  # of the moves make things worse: a search without them ends in a dead end three times as often


def _ones(_context: Any, _word: Any) -> Any:
    def emit(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        count = builder.module.declare_intrinsic("llvm.ctpop", (ir.IntType(64),))
        return builder.call(count, arguments)

    return types.int64(types.uint64), emit


ones: Any = intrinsic(_ones)  # bits set in a 64-bit word


@inlined
def surplus(a: Any, b: Any, c: Any, d: Any) -> Any:
    """Weights over two a row in a group of four columns."""
    three = (a & b & (c | d)) | (c & d & (a | b))
    return ones(three) + ones(a & b & c & d)


@inlined
def filled(a: Any, b: Any, c: Any, d: Any) -> Any:
    """Rows in which a group of four columns holds a weight: the registers that are stored."""
    return ones(a | b | c | d)


@inlined
def next_random(state: Any) -> Any:
    """Next state of Marsaglia's 64-bit xorshift generator."""
    state ^= state << np.uint64(13)
    state ^= state >> np.uint64(7)
    return state ^ (state << np.uint64(17))


@inlined
def partner(order: Any, i: Any, choice: Any, bank_free: bool) -> Any:
    """Place number ``choice`` to swap place ``i`` with: of 11 that keep X reads free of conflicts, or of all 60.

    Reads are free of them if the 8 columns of an octet differ modulo 8: a column may change with the one of its residue
    in another octet, or with one of its own octet's other group.
    """
    if not bank_free:
        return (i // GROUP * GROUP + GROUP + choice) % STRIP_K
    if choice >= RESIDUES - 1:
        return (i // GROUP ^ 1) * GROUP + choice - (RESIDUES - 1)
    octet = (i // OCTET + 1 + choice) % (STRIP_K // OCTET)
    for j in range(octet * OCTET, octet * OCTET + OCTET):
        if order[j] % RESIDUES == order[i] % RESIDUES:
            return j
    return i


@inlined
def others(words: Any, order: Any, i: Any) -> Any:
    """The other three columns of the group of place ``i``."""
    first = i // GROUP * GROUP
    return (
        words[order[first + (i + 1) % GROUP]], words[order[first + (i + 2) % GROUP]],
        words[order[first + (i + 3) % GROUP]],
    )  # fmt: skip


@inlined
def surplus_of_group(words: Any, order: Any, group: Any) -> Any:
    """`surplus` of the four columns at places 4 group and on."""
    a, b, c = others(words, order, GROUP * group)
    return surplus(words[order[GROUP * group]], a, b, c)


@serial
def fit(words: NDArray[np.uint64], order: NDArray[np.uint8], bank_free: bool, moves: int, seed: int) -> int:
    """Reorder a strip's columns until no group of four holds more than two weights of a row; return what is left over.

    Every move takes a column of a group that holds too much and swaps it with the partner that leaves least over, of
    equals one at random, also where that is no gain; now and then where it is a loss (`NOISE`).

    words : (64,) columns; order : (64,) column at each place, in place.
    """
    state = np.uint64(2 * seed + 1) * np.uint64(0x9E3779B97F4A7C15)
    choices = RESIDUES - 1 + GROUP if bank_free else STRIP_K - GROUP
    left = np.empty(GROUPS, np.int64)
    for one in range(GROUPS):
        left[one] = surplus_of_group(words, order, one)
    for _ in range(moves):
        total = left.sum()
        if total == 0:
            break
        state = next_random(state)
        group: Any = np.int64(state >> np.uint64(40)) % GROUPS
        while left[group] == 0:
            group = (group + 1) % GROUPS
        i = GROUP * group + np.int64(state >> np.uint64(20)) % GROUP
        a, b, c = others(words, order, i)
        chosen: Any = i
        best, equals = np.int64(1 << 30), 0
        for choice in range(choices):
            j = partner(order, i, choice, bank_free)
            d, e, f = others(words, order, j)
            change = surplus(a, b, c, words[order[j]]) + surplus(d, e, f, words[order[i]]) - left[group]
            change -= left[j // GROUP]
            if change <= best:
                equals = 1 if change < best else equals + 1
                state = next_random(state)
                if np.int64(state >> np.uint64(33)) % equals == 0:
                    chosen = j
                best = change
        state = next_random(state)
        if best <= 0 or np.float64(state >> np.uint64(11)) < NOISE * 2.0**53:
            order[i], order[chosen] = order[chosen], order[i]
            for changed in (group, chosen // GROUP):
                left[changed] = surplus_of_group(words, order, changed)
    return left.sum()


@serial
def gather_rows(words: NDArray[np.uint64], order: NDArray[np.uint8], bank_free: bool, trials: int, seed: int) -> None:
    """Reorder columns so that fewer registers hold anything and nothing more is left over: fewer bytes, fewer loads."""
    state = np.uint64(2 * seed + 1) * np.uint64(0x9E3779B97F4A7C15)
    choices = RESIDUES - 1 + GROUP if bank_free else STRIP_K - GROUP
    for _ in range(trials):
        state = next_random(state)
        i = np.int64(state >> np.uint64(40)) % STRIP_K
        j = partner(order, i, np.int64(state >> np.uint64(20)) % choices, bank_free)
        x, y = words[order[i]], words[order[j]]
        a, b, c = others(words, order, i)
        d, e, f = others(words, order, j)
        if filled(a, b, c, y) + filled(d, e, f, x) > filled(a, b, c, x) + filled(d, e, f, y):
            continue
        if surplus(a, b, c, y) + surplus(d, e, f, x) <= surplus(a, b, c, x) + surplus(d, e, f, y):
            order[i], order[j] = order[j], order[i]


@serial
def move_to_tails(words: NDArray[np.uint64], order: NDArray[np.uint8], tail: NDArray[np.uint8]) -> int:
    """Take columns out of groups that hold too much, the ones that relieve most first; return how many.

    words : (64,) columns; those taken out become 0. tail : (32,) numbers of the columns taken out.
    """
    count = 0
    for group in range(GROUPS):
        while surplus_of_group(words, order, group):
            least, worst = 1 << 30, 0
            for i in range(GROUP * group, GROUP * group + GROUP):
                a, b, c = others(words, order, i)
                rest = surplus(a, b, c, np.uint64(0)) if words[order[i]] else 1 << 29
                if rest < least:
                    least, worst = rest, i
            tail[count] = order[worst]
            words[order[worst]] = 0
            count += 1
    return count


@serial
def arrange(
    words: NDArray[np.uint64], order: NDArray[np.uint8], tail: NDArray[np.uint8], moves: int, trials: int, seed: int
) -> int:
    """Best order found for a strip's columns, and the columns it must leave to tails; return their number.

    First with X reads free of bank conflicts, twice if it nearly fits, then in any order if that is not hopeless: the
    first that leaves nothing over, else the first of those with the fewest tails. What is in ``words`` then is what the
    groups keep.
    """
    least, start = STRIP_K, words.copy()
    found, taken, kept = np.empty_like(order), np.empty_like(tail), np.empty_like(words)
    over = 0
    for attempt in range(ATTEMPTS):
        bank_free = attempt < ATTEMPTS - 1
        if attempt > 0 and over > (NEARLY if bank_free else HOPELESS):
            continue
        for place in range(STRIP_K):
            octet = (place // OCTET + attempt * place) % OCTET if bank_free else place // OCTET
            found[place] = OCTET * octet + place % OCTET
        most = moves if bank_free else moves // 3
        over = fit(start, found, bank_free, min(PROBE, most), seed + attempt)
        if 0 < over <= HOPELESS:
            over = fit(start, found, bank_free, max(0, most - PROBE), seed + attempt + ATTEMPTS)
        if over == 0:
            gather_rows(start, found, bank_free, trials, seed)
        kept[:] = start
        count = move_to_tails(kept, found, taken)
        if -(-count // TAIL_COLUMNS) < -(-least // TAIL_COLUMNS):
            least = count
            order[:], tail[:], words[:] = found, taken, kept
        if least == 0:
            break
    return least


@parallel
def arrange_strips(
    bits: NDArray[Any], magnitude: Any, moves: int, trials: int, orders: Any, tails: Any, counts: Any
) -> None:
    """Order of the columns of every strip of ``bits`` (m, k), and the columns left to tails.

    orders : (strips_m, strips_k, 64) uint8; tails : (strips_m, strips_k, 32) uint8, ``counts`` of them in use.
    """
    for row in prange(orders.shape[0]):
        words = np.empty(STRIP_K, np.uint64)
        for column in range(orders.shape[1]):
            columns_of_strip(bits, magnitude, row, column, words)
            counts[row, column] = arrange(words, orders[row, column], tails[row, column], moves, trials, seed_of(words))


@inlined
def seed_of(words: Any) -> Any:
    """Start of the random numbers, by the strip itself: equal strips are stored equally wherever they stand."""
    seed = np.uint64(0)
    for word in words:
        seed = next_random(seed ^ word ^ np.uint64(0x9E3779B97F4A7C15))
    return np.int64(seed >> np.uint64(2))


@inlined
def columns_of_strip(bits: Any, magnitude: Any, row: int, column: int, words: Any) -> None:
    """Fill ``words`` (64,) with the columns of a strip: bit r is set where row r holds a weight."""
    words[:] = 0
    for r in range(min(STRIP_M, bits.shape[0] - row * STRIP_M)):
        for j in range(min(STRIP_K, bits.shape[1] - column * STRIP_K)):
            if bits[row * STRIP_M + r, column * STRIP_K + j] & magnitude:
                words[j] |= np.uint64(1) << np.uint64(r)
