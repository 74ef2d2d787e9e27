"""The stages that the Tensor-Core kernels share, as device functions.

How does a thread block turn tiles in shared memory into a piece of ``C = A @ X``? A block of 4 warps owns a tile of
128 x ``tile_n`` outputs and walks over K in steps of 64. Warp w owns the output rows 32 w ... 32 w + 31.

Letters: A (m, k) weights, X (k, n) activations, C (m, n) output; all row-major, all fp16 in memory.

Shared memory and its swizzle
    A tile: 128 rows of 128 bytes = 8 chunks of 16 bytes; chunk c of row r lies at place ``c ^ (r % 8)``.
    X tile: 64 rows of ``tile_n / 8`` chunks; chunk c of row r lies at place ``c ^ key(r)``, see `activation_place`.
    So the 8 rows that one phase of ``ldmatrix`` reads lie in 8 different bank groups.

All arguments are integers; ``tile_n`` is a compile-time constant of the calling kernel, so that the loops unroll and
the accumulators stay in registers. Addresses into shared memory are byte addresses in the shared window. Numba widens
every 32-bit sum to 64 bits; ``int32(...)`` around a named value brings it back to one register and one instruction.
"""

from __future__ import annotations

from typing import Any

from numba import cuda, int32, int64, uint32

from kernels_numba.formats import TILE_K, TILE_M
from kernels_numba.formats.layout import WARP_SIZE
from kernels_numba.gpu import ptx

THREADS = 128
ROWS_PER_WARP = TILE_M // (THREADS // WARP_SIZE)
A_TILE_BYTES = TILE_M * TILE_K * 2
A_ROW_BYTES = TILE_K * 2
MMA_K = 16
STEPS = TILE_K // MMA_K
TILE_N_CHOICES = (8, 16, 32, 64)
MAX_FRAGMENTS = TILE_N_CHOICES[-1] // 8 * 2
MAX_PANEL_FRAGMENTS = 2 * MAX_FRAGMENTS  # 32 rows of X instead of 16

# Inlined by Numba itself, which needs no driver; a called device function would ask for the present GPU.
device_function: Any = cuda.jit(device=True, inline="always")


def activation_tile_bytes(tile_n: int) -> int:
    """Bytes of the X tile (64 x tile_n, fp16) in shared memory."""
    return TILE_K * tile_n * 2


@device_function
def activation_place(row, chunk, tile_n):  # type: ignore[no-untyped-def]
    """Byte offset of 16-byte ``chunk`` of ``row`` in the swizzled X tile.

    A row is 16, 32, 64 or 128 bytes, so that 8, 4, 2 or 1 rows fill the 32 banks once; only rows further apart than
    that can collide, and those get different keys.
    """
    if tile_n == 8:
        key = 0
    elif tile_n == 16:
        key = (row >> 2) & 1
    elif tile_n == 32:
        key = (row >> 1) & 3
    else:
        key = row & 7
    return int32(row * (tile_n * 2) + (chunk ^ key) * 16)


@device_function
def fetch_activations(x_tile, x, tile, first_column, k, n, thread, tile_n):  # type: ignore[no-untyped-def]
    """Start the asynchronous copy of X tile ``tile`` (rows 64 tile ...) into shared memory at ``x_tile``.

    Rows from ``k`` on and columns from ``n`` on become zeros, so that no tile needs padding in device memory.
    """
    chunks = TILE_K * tile_n // 8
    log_chunks_per_row = (tile_n > 8) + (tile_n > 16) + (tile_n > 32)
    for i in range((chunks + THREADS - 1) // THREADS):
        index = int32(thread + i * THREADS)
        if index < chunks:  # the narrowest tile has only 64 chunks for 128 threads
            row = int32(index >> log_chunks_per_row)
            chunk = int32(index & (tile_n // 8 - 1))
            x_row = int32(tile * TILE_K + row)
            column = int32(first_column + chunk * 8)
            n_bytes = 16 if x_row < k and column < n else 0
            source = x + int64(int32(x_row * n + column)) * 2
            ptx.cp_async_16(x_tile + activation_place(row, chunk, tile_n), source, n_bytes)


@device_function
def load_activation_fragments(fragments, x_tile, step, lane, tile_n):  # type: ignore[no-untyped-def]
    """Load X rows 16 step ... 16 step + 15 as mma operands: two registers per group of 8 columns."""
    row = int32(step * MMA_K + (lane & 15))
    if tile_n == 8:
        b = ptx.ldmatrix_x2_trans(x_tile + activation_place(row, 0, tile_n))
        fragments[0] = b[0]
        fragments[1] = b[1]
    else:
        for pair in range(tile_n // 16):
            b4 = ptx.ldmatrix_x4_trans(x_tile + activation_place(row, pair * 2 + (lane >> 4), tile_n))
            fragments[4 * pair] = b4[0]
            fragments[4 * pair + 1] = b4[1]
            fragments[4 * pair + 2] = b4[2]
            fragments[4 * pair + 3] = b4[3]


@device_function
def panel_key(panel, tile_n):  # type: ignore[no-untyped-def]
    """What the rows of a panel of 8 columns are numbered exclusive-or with.

    The ``tile_n / 8`` chunks of a row, copied by neighbouring threads, then meet different groups of banks.
    """
    return panel * (64 // tile_n)


@device_function
def gather_panels(fragments, row, tile_n):  # type: ignore[no-untyped-def]
    """Load 32 rows of X as operands of ``mma.sp``: four registers per panel of 8 columns.

    ``row`` is the address of this lane's row in panel 0: any row, as long as those of 8 neighbouring lanes differ
    modulo 8, or they wait for each other.
    """
    for panel in range(tile_n // 8):
        b = ptx.ldmatrix_x4_trans((row ^ panel_key(panel, tile_n) * 16) + panel * (TILE_K * 16))
        fragments[4 * panel] = b[0]
        fragments[4 * panel + 1] = b[1]
        fragments[4 * panel + 2] = b[2]
        fragments[4 * panel + 3] = b[3]


@device_function
def multiply_operand(accumulators, a, fragments, stride, first, half, tile_n):  # type: ignore[no-untyped-def]
    """Add (16 x 16 operand ``a``) @ (16 x tile_n of X) to the accumulators of the upper or lower 16 rows.

    The two registers of X of each 8 columns stand ``stride`` apart, from ``first`` on.
    """
    for group in range(tile_n // 8):
        i = (half * (tile_n // 8) + group) * 4
        d = ptx.mma_m16n8k16(
            a[0], a[1], a[2], a[3], fragments[stride * group + first], fragments[stride * group + first + 1],
            accumulators[i], accumulators[i + 1], accumulators[i + 2], accumulators[i + 3],
        )  # fmt: skip
        accumulators[i] = d[0]
        accumulators[i + 1] = d[1]
        accumulators[i + 2] = d[2]
        accumulators[i + 3] = d[3]


@device_function
def multiply_tile(accumulators, a_tile, x_tile, warp, lane, tile_n):  # type: ignore[no-untyped-def]
    """Add (32 rows of the A tile) @ (X tile) to this warp's accumulators on the Tensor Cores.

    ``accumulators`` (tile_n,) float32 per thread: [16-row half][8-column group][4], in the layout of m16n8k16.
    """
    fragments = cuda.local.array(MAX_FRAGMENTS, uint32)
    row = int32(warp * ROWS_PER_WARP + (lane & 15))
    a_row = int32(a_tile + row * A_ROW_BYTES)
    for step in range(STEPS):
        load_activation_fragments(fragments, x_tile, step, lane, tile_n)
        place = int32(((step * 2 + (lane >> 4)) ^ (row & 7)) * 16)
        for half in range(2):
            a = ptx.ldmatrix_x4(a_row + half * (16 * A_ROW_BYTES) + place)
            multiply_operand(accumulators, a, fragments, 2, 0, half, tile_n)


@device_function
def store_tile(out, accumulators, first_row, first_column, m, n, lane, tile_n, as_fp32):  # type: ignore[no-untyped-def]
    """Write this warp's 32 x tile_n accumulators to ``out`` (m, n), as float32 or rounded to fp16.

    A lane holds two neighbouring columns of rows g, g + 8, g + 16, g + 24 with g = lane / 4.
    """
    column = int32(first_column + (lane & 3) * 2)
    bytes_each = 4 if as_fp32 else 2
    for part in range(4):
        row = int32(first_row + (lane >> 2) + part * 8)
        n_left = int32(n - column if row < m else 0)  # columns of this row that are still inside
        place = out + (int64(row) * n + column) * bytes_each
        accumulator = (part >> 1) * (tile_n // 2) + (part & 1) * 2
        if as_fp32:
            for group in range(tile_n // 8):
                i = accumulator + group * 4
                if group * 8 < n_left:
                    ptx.store_f32x2(place + group * 32, accumulators[i], accumulators[i + 1])
        else:
            for group in range(tile_n // 8):
                i = accumulator + group * 4
                if group * 8 < n_left:
                    ptx.store_u32(place + group * 16, ptx.pack_f16x2(accumulators[i + 1], accumulators[i]))
