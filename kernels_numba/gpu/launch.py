"""What to launch for one product: which variant, how many blocks, how K is split, and with which arguments.

All checks that a kernel relies on are made here, on the host, because a kernel reads out of bounds in silence. A plan
says nothing about where it runs: the same launches go to the PTX emulator (`spmm`) or to a GPU (`device`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels_numba.formats import TILE_K, TILE_M, Bitmap, Csr, Dense, Element, EncodedWeight, TiledCsl, TwoFour
from kernels_numba.formats.encoded import HALF_ELEMENTS, as_stored, check
from kernels_numba.formats.two_four_tiles import TwoFourTiles, pack
from kernels_numba.gpu import csr, reduce, variants
from kernels_numba.gpu.compile import Variant, compile_kernel

COLUMN_UNIT = 8  # 16 bytes of fp16: what one asynchronous copy moves
MAX_SPLIT_K = 32
MAX_GRID_Y = 65_535  # blocks along y and z
MAX_INT32 = 2**31 - 1
DEFAULT_ARCH = "sm_80"
DEFAULT_SM_COUNT = 108  # an A100, the paper's GPU, where there is no GPU to ask
# What the kernels that split K take first, by kernel.
WEIGHT_BUFFERS = {
    "tiled_csl": ("words", "tile_offsets"),
    "bitmap": ("masks", "values", "offsets"),
    "bitmap_pairs": ("masks", "values", "offsets"),
    "dense": ("values",),
    "two_four": ("tiles",),
}


@dataclass(frozen=True)
class Plan:
    """How one product ``(m, k) @ (k, n)`` is launched.

    n_padded : n rounded up to a multiple of 8; x and the output have this many columns on the device.
    split_k : blocks that share K, each taking ``k_tiles_per_split`` tiles of 64; 1 for CSR.
    residual : CSR variant for what does not fit the 2:4 pattern; None if all does, and for other formats.
    """

    variant: Variant
    m: int
    k: int
    n_padded: int
    split_k: int
    k_tiles_per_split: int
    residual: Variant | None = None

    @property
    def grid(self) -> tuple[int, int, int]:
        """Blocks along x, y, z: columns, rows and splits, so that blocks that share weights start together.

        Then L2 serves all but the first of them, and the weights cross device memory once however many columns there
        are. CSR has far more blocks of rows than may stand along y, and puts them first.
        """
        columns = ceil_div(self.n_padded, self.variant.tile_n)
        if self.variant.kernel == "csr":
            return ceil_div(self.m, csr.ROWS_PER_BLOCK), columns, 1
        return columns, ceil_div(self.m, TILE_M), self.split_k

    @property
    def outputs(self) -> int:
        """Elements of the output on the device."""
        return self.m * self.n_padded

    @property
    def partials(self) -> int:
        """Partial sums per output: one of each split, and one of the residual."""
        return self.split_k + (self.residual is not None)

    @property
    def workspace_shape(self) -> tuple[int, int, int]:
        """Shape of the float32 partial sums, needed if ``partials > 1``."""
        return self.partials, self.m, self.n_padded


@dataclass(frozen=True)
class Launch:
    """One kernel launch: arguments are integers or arrays, in the order of the kernel's parameters."""

    variant: Variant
    grid: tuple[int, int, int]
    arguments: tuple[Any, ...]


def ceil_div(a: int, b: int) -> int:
    """Smallest integer not below a / b."""
    return -(-a // b)


def whole_number(value: Any, name: str, most: int) -> int:
    """``value`` as an int, of any integer type but bool, if it is from 1 to ``most``; else ValueError."""
    fits = not isinstance(value, bool | np.bool_) and hasattr(value, "__index__") and 1 <= index(value) <= most
    check(fits, name, repr(value), f"an integer from 1 to {most}")
    return index(value)


def with_aligned_rows(weights: EncodedWeight) -> EncodedWeight:
    """Weights as their kernel can copy them in chunks of 16 bytes, and the same object if they already are.

    Dense weights get k padded to a multiple of 8, `TwoFour` is packed in tiles; both are copies.
    """
    if isinstance(weights, TwoFour):
        return pack(weights)
    if not isinstance(weights, Dense) or weights.values.shape[1] % COLUMN_UNIT == 0:
        return weights
    return Dense(np.pad(weights.values, ((0, 0), (0, -weights.values.shape[1] % COLUMN_UNIT))), weights.element)


def activations_for(weights: EncodedWeight, x: NDArray[Any]) -> NDArray[Any]:
    """Host activations as bits or fp16, refused if they are not of the weights' element type."""
    x, element = as_stored(x), weights.element
    allowed = "uint16 bit patterns of bfloat16" if element is Element.BFLOAT16 else "float16"
    wanted = element.storage if element in HALF_ELEMENTS else Element.FLOAT16.storage
    check(x.dtype == wanted, "dtype of x", x.dtype, f"{allowed} for GPU kernels of {element} weights")
    return x


def choose_split_k(output_tiles: int, k_tiles: int, tile_n: int, slots: int) -> int:
    """Number of blocks that should share K so that the SMs are full at little extra cost.

    Parameters
    ----------
    output_tiles : blocks without splitting.
    k_tiles : tiles along K, the work of one such block.
    tile_n : columns of a block's output.
    slots : blocks that run at once, SMs times blocks per SM.

    Notes
    -----
    Time of a split in units of one tile of work: ``waves * (tiles per block + 2 + exchange)``. A block start costs
    about two tiles (its pipeline fills), and so does every wave of blocks. Writing and reading the float32 partial sums
    moves ``8 * 128 * tile_n`` bytes, against about 6.5 KB for a tile at 80 % sparsity: ``exchange = tile_n / 6``.
    """

    def cost(split_k: int) -> float:
        exchange = tile_n / 6 if split_k > 1 else 0.0
        return ceil_div(output_tiles * split_k, slots) * (ceil_div(k_tiles, split_k) + 2 + exchange)

    return min(range(1, min(k_tiles, MAX_SPLIT_K) + 1), key=cost)


def choose_variant(weights: EncodedWeight, n: int) -> Variant:
    """Variant of the kernel that belongs to the format of ``weights``, for n columns.

    Raises
    ------
    ValueError
        If no GPU kernel takes the format or its element type.
    """
    element = getattr(weights, "element", None)
    check(element in HALF_ELEMENTS, "element type of weights", element, "float16 or bfloat16 (the GPU kernels' types)")
    return replace(_variant_of_format(weights, variants.tile_n_for(n)), element=Element(weights.element))


def _variant_of_format(weights: EncodedWeight, tile_n: int) -> Variant:
    if isinstance(weights, TiledCsl):
        n_tiles = weights.tile_offsets.size - 2
        return variants.tiled_csl(tile_n, variants.vectors_for(weights.words.size / n_tiles))
    if isinstance(weights, Csr):
        return variants.csr(tile_n, 8 * weights.col_idx.itemsize)
    if isinstance(weights, Bitmap):
        return variants.bitmap(tile_n, variants.capacity_for(weights.most_values), weights.width)
    if isinstance(weights, TwoFourTiles):
        return variants.two_four(tile_n)
    allowed = "TiledCsl, Bitmap, Csr, TwoFour or Dense"
    check(isinstance(weights, Dense), "format of weights", type(weights).__name__, allowed)
    return variants.dense(tile_n)


def make_plan(
    weights: EncodedWeight,
    n: int,
    *,
    split_k: int | None = None,
    arch: str = DEFAULT_ARCH,
    sm_count: int = DEFAULT_SM_COUNT,
) -> Plan:
    """Plan for the product of ``weights`` (m, k) with n columns.

    ``split_k=None`` asks `choose_split_k`; a number is an upper bound, lowered until no block is without work.

    Raises
    ------
    ValueError
        If sizes are beyond what the kernels index with 32 bits, or ``n`` or ``split_k`` is no integer in its range.
    """
    m, k = weights.shape
    n = whole_number(n, "n", MAX_INT32)
    split_k = None if split_k is None else whole_number(split_k, "split_k", MAX_GRID_Y)
    n_padded = ceil_div(n, COLUMN_UNIT) * COLUMN_UNIT
    check(k * n_padded <= MAX_INT32, "k * n", k * n_padded, f"at most {MAX_INT32}")
    check(m * n_padded <= MAX_INT32, "m * n", m * n_padded, f"at most {MAX_INT32}")
    variant = choose_variant(weights, n_padded)
    columns = MAX_GRID_Y * variant.tile_n
    check(n_padded <= columns, "n", n, f"at most {columns}")
    k_tiles = ceil_div(k, TILE_K)
    if isinstance(weights, Csr):
        check(split_k in (None, 1), "split_k", split_k, "1 for CSR, whose rows are not split")
        return Plan(variant, m, k, n_padded, 1, k_tiles)
    check(m <= MAX_GRID_Y * TILE_M, "m", m, f"at most {MAX_GRID_Y * TILE_M}")
    if split_k is None:
        slots = sm_count * compile_kernel(variant, arch).blocks_per_sm
        tiles = ceil_div(m, TILE_M) * ceil_div(n_padded, variant.tile_n)
        split_k = choose_split_k(tiles, k_tiles, variant.tile_n, slots)
    per_split = ceil_div(k_tiles, split_k)
    residual = None
    if isinstance(weights, TwoFourTiles) and weights.residual.nnz:
        residual = choose_variant(weights.residual, n_padded)
    return Plan(variant, m, k, n_padded, ceil_div(k_tiles, per_split), per_split, residual)


def launches(plan: Plan, buffers: dict[str, Any], x: Any, out: Any, workspace: Any, *, as_fp32: bool) -> list[Launch]:
    """Kernel launches of a plan.

    Parameters
    ----------
    buffers : arrays of the weights by name, where the kernel runs.
    x : (k, n_padded) of the plan's element type; out : (m, n_padded) of the same, or float32 if ``as_fp32``.
    workspace : float32 of the plan's ``workspace_shape``, or None if there is one partial sum only.
    """
    sizes = (plan.m, plan.n_padded, int(as_fp32))
    if plan.variant.kernel == "csr":
        arrays = (buffers["row_ptr"], buffers["col_idx"], buffers["values"], x, out)
        return [Launch(plan.variant, plan.grid, (*arrays, *sizes))]
    names = WEIGHT_BUFFERS[plan.variant.kernel]
    target = out if workspace is None else workspace
    fp32 = int(as_fp32 or workspace is not None)
    tail = (x, target, plan.m, plan.k, plan.n_padded, plan.k_tiles_per_split, fp32)
    first = Launch(plan.variant, plan.grid, (*(buffers[name] for name in names), *tail))
    if workspace is None:
        return [first]
    blocks = ceil_div(plan.outputs, reduce.THREADS * reduce.OUTPUTS_PER_THREAD)
    arguments = (workspace, out, plan.outputs, plan.partials, int(as_fp32))
    last = Launch(replace(variants.reduce(), element=plan.variant.element), (blocks, 1, 1), arguments)
    return [first, *_residual(plan, buffers, x, workspace), last]


def _residual(plan: Plan, buffers: dict[str, Any], x: Any, workspace: Any) -> list[Launch]:
    """Launch of the CSR part of a 2:4 plan into the last slice of the workspace; none if there is no such part."""
    if plan.residual is None:
        return []
    rest = replace(plan, variant=plan.residual, residual=None, split_k=1)
    names = {name: buffers[f"residual_{name}"] for name in ("row_ptr", "col_idx", "values")}
    return launches(rest, names, x, workspace[plan.split_k], None, as_fp32=True)
