"""Small products of the kernels that stream records, to plant bugs in: what is run, and how wrong it is.

The problems are the smallest in which nothing is idle:

* ring: 200 x 400 weights, 24 columns: 14 tiles for 4 blocks, stretches of 4, 4, 3 and 3; the second block completes one
  row of tiles and begins the next, which three blocks share. Rows, columns and K end inside a tile; strips have a tail.
* rows: the same for one block, which goes on from one row of tiles to the next.
* pieces: 1,400 x 130 weights, 8 columns: 132 strips for 32 warps in two blocks; rows that a warp has whole and rows of
  two warps, the warps of the second block wait for one of the first; rings go round once.
* slices: 480 x 600 weights, 16 columns: two slices of 75 strips for 16 warps each, rows of two warps in either.
* int8, int4, e4m3, e5m2: 72 x 200 bitmaps of such codes, 8 columns, on the ring: 12 strips for 2 blocks; rows, K and
  the second group of scales end inside a strip.
* int8 streamed: the same by bulk copies, for 16 warps of one block.
"""

import re
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest

from kernels_numba.formats import (
    ValueType,
    encode_bitmap,
    encode_condensed,
    encode_quantised_bitmap,
    encode_quantised_condensed,
)
from kernels_numba.ptx_emulator import PtxError, launch
from tests.kernels_numba.problems import random_matrix

variants = pytest.importorskip("kernels_numba.gpu.variants", reason="needs numba-cuda", exc_type=ImportError)

TOLERANCE, MAX_STEPS = 1e-6, 12_000
ROWS, DEPTH, CAPACITY = 6, 7, 9  # positions of parameters of both kernels
CODED = 72, 200, 8, 0.4  # m, k, n and density of the problems with codes for values


class Case(NamedTuple):
    """A product: its variant, architecture, weights as records, x, the result in float64, and its plan."""

    variant: object
    arch: str
    weights: object
    x: object
    reference: object
    plan: object


def codes(value_type, encode=encode_quantised_bitmap):
    """Encoder of a matrix whose rows differ in size, so that no two scales are the same."""

    def encode_rows(a):
        sizes = np.linspace(0.5, 2, a.shape[0])[:, None].astype(np.float16)
        return encode(a * sizes, value_type)

    return encode_rows


def condensed_codes(value_type):
    """The same in condensed strips; with tails, so dense are they."""
    encode = codes(value_type, encode_quantised_condensed)
    return variants.records(f"condensed_pairs_{value_type}", 8), "sm_80", encode, *CODED, 2, 0


@cache
def case(name):
    from kernels_numba.formats.records import most_bytes
    from kernels_numba.gpu.launch import CAPACITY_UNIT, Plan, ceil_div, with_aligned_rows

    make, arch, encode, m, k, n, density, blocks, slices = {
        "rows": (variants.records("condensed_pairs", 32), "sm_80", encode_condensed, 200, 400, 24, 0.4, 1, 0),
        "ring": (variants.records("condensed_pairs", 32), "sm_80", encode_condensed, 200, 400, 24, 0.4, 4, 0),
        "pieces": (variants.streamed("condensed_pairs", 8), "sm_90", encode_condensed, 1400, 130, 8, 0.2, 2, 1),
        "slices": (variants.streamed("bitmap", 16), "sm_90", encode_bitmap, 480, 600, 16, 0.2, 1, 2),
        **{
            value_type: (variants.records(f"bitmap_{value_type}", 8), "sm_80", codes(value_type), *CODED, 2, 0)
            for value_type in ValueType
        },
        **{f"condensed {value_type}": condensed_codes(value_type) for value_type in ValueType},
        "int8 streamed": (variants.streamed("bitmap_int8", 8), "sm_90", codes("int8"), *CODED, 1, 1),
    }[name]
    a, x = random_matrix(m, k, density), random_matrix(k, n, 1.0, 1)
    weights = with_aligned_rows(encode(a))
    capacity = ceil_div(most_bytes(weights.offsets), CAPACITY_UNIT) * CAPACITY_UNIT
    k_tiles = ceil_div(ceil_div(k, 64), max(1, slices))
    plan = Plan(make, m, k, n, max(1, slices), k_tiles, blocks=blocks, capacity=capacity, slices=slices)
    return Case(make, arch, weights, x, weights.decode().astype(np.float64) @ x.astype(np.float64), plan)


@cache
def kernel_ptx(name):
    from kernels_numba.gpu.compile import compile_ptx

    # Comments stand around each line of inline assembly.
    return re.sub(r"\s*//[^\n]*", "", compile_ptx(case(name).variant, case(name).arch)[0])


def relative_error(name, ptx=None, *, weights=None, plan=None, blocks=None):
    """Error of the product of other PTX, weights or plan; infinite if it is NaN or a flag stays raised."""
    from kernels_numba.gpu.launch import launches

    one = case(name)
    plan, weights = plan or one.plan, weights or one.weights
    out = np.full(one.reference.shape, np.nan, np.float32)
    sums, flags = np.full(one.plan.workspace_shape, np.nan, np.float32), np.zeros(one.plan.flags, np.uint32)
    (job,) = launches(plan, weights.buffers, one.x, out, sums, flags, as_fp32=True)
    launch(
        ptx or kernel_ptx(name), grid=job.grid, block=job.variant.threads, args=job.arguments, max_steps=MAX_STEPS,
        dynamic_shared_bytes=one.plan.shared_bytes, blocks=blocks,
    )  # fmt: skip
    error = np.linalg.norm(out - one.reference) / np.linalg.norm(one.reference)
    return error if np.isfinite(error) and not flags.any() else np.inf


def check_caught(message, name, **changes):
    """Raise unless a product with these changes is refused, with ``message`` if there is one, or wrong."""
    if message is not None:
        with pytest.raises(PtxError, match=message):
            relative_error(name, **changes)
        return
    try:
        error = relative_error(name, **changes)
    except PtxError:
        return
    assert error > 1000 * TOLERANCE
