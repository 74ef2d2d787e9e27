"""What to launch for one product: which variant, how many blocks, how K is split, and with which arguments.

All checks that a kernel relies on are made here, on the host, because a kernel reads out of bounds in silence. A plan
says nothing about where it runs: the same launches go to the PTX emulator (`spmm`) or to a GPU (`device`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels_numba.formats import (
    TILE_K,
    TILE_M,
    Bitmap,
    Condensed,
    Csr,
    Dense,
    Element,
    EncodedWeight,
    QuantisedBitmap,
    QuantisedCondensed,
    TiledCsl,
    TwoFour,
)
from kernels_numba.formats.encoded import HALF_ELEMENTS, as_stored, check, whole_number
from kernels_numba.formats.layout import STRIP_M, WARP_SIZE
from kernels_numba.formats.records import BitmapRecords, QuantisedRecords, most_bytes, pack_bitmap, pack_quantised
from kernels_numba.formats.two_four_tiles import TwoFourTiles, pack
from kernels_numba.gpu import bulk, csr, reduce, ring, variants
from kernels_numba.gpu.compile import ARCHITECTURES, Variant, compile_kernel
from kernels_numba.gpu.stages import activation_tile_bytes

COLUMN_UNIT = 8  # 16 bytes of fp16: what one asynchronous copy moves
MAX_SPLIT_K = 32
MAX_GRID_Y = 65_535  # blocks along y and z
MAX_INT32 = 2**31 - 1
DEFAULT_ARCH = "sm_80"
DEFAULT_SM_COUNT = 108  # an A100, the paper's GPU, where there is no GPU to ask
CAPACITY_UNIT = 128  # bytes: X tiles behind a record's buffer must be aligned so
# What the kernels that split K take first, by kernel.
WEIGHT_BUFFERS = {
    "tiled_csl": ("words", "tile_offsets"),
    "dense": ("values",),
    "two_four": ("tiles",),
}
CodedRecords = QuantisedRecords | QuantisedCondensed
Records = BitmapRecords | Condensed | CodedRecords


@dataclass(frozen=True)
class Plan:
    """How one product ``(m, k) @ (k, n)`` is launched.

    n_padded : n rounded up to a multiple of 8; x and the output have this many columns on the device.
    split_k : blocks that share K, each taking ``k_tiles_per_split`` tiles of 64; 1 for CSR. For records, which a list
        of blocks shares, how many blocks there are for a row of tiles, rounded up.
    residual : CSR variant for what does not fit the 2:4 pattern; None if all does, and for other formats.
    blocks : of a list of tiles or strips, for each tile of columns and slice of K; 0 for kernels whose blocks own tiles
        of the output.
    capacity : bytes of the longest record, rounded up; 0 for kernels without records.
    slices : of K, each with ``k_tiles_per_split`` tiles, for the kernels that stream by bulk copies; 0 for others.
    """

    variant: Variant
    m: int
    k: int
    n_padded: int
    split_k: int
    k_tiles_per_split: int
    residual: Variant | None = None
    blocks: int = 0
    capacity: int = 0
    slices: int = 0

    @property
    def grid(self) -> tuple[int, int, int]:
        """Blocks along x, y, z: columns, rows and splits, so that blocks that share weights start together.

        Then L2 serves all but the first of them, and the weights cross device memory once however many columns there
        are. CSR has far more blocks of rows than may stand along y, and puts them first.
        """
        columns = ceil_div(self.n_padded, self.variant.tile_n)
        if self.variant.kernel == "csr":
            return ceil_div(self.m, csr.ROWS_PER_BLOCK), columns, 1
        if self.blocks:
            return columns, self.blocks, max(1, self.slices)
        return columns, ceil_div(self.m, TILE_M), self.split_k

    @property
    def outputs(self) -> int:
        """Elements of the output on the device."""
        return self.m * self.n_padded

    @property
    def partials(self) -> int:
        """Partial sums per output that a second launch adds: one of each split, and one of the residual."""
        return 1 if self.blocks else self.split_k + (self.residual is not None)

    @property
    def workspace_shape(self) -> tuple[int, ...]:
        """Shape of the float32 sums that blocks leave each other or a second launch; empty if there are none."""
        if self.slices:
            return self.flags, STRIP_M * self.variant.tile_n
        if self.blocks:
            return self.flags, TILE_M * self.variant.tile_n
        return (self.partials, self.m, self.n_padded) if self.partials > 1 else ()

    @property
    def flags(self) -> int:
        """Flags by which blocks tell each other that their sums are there: uint32, zero before and after a launch."""
        columns = ceil_div(self.n_padded, self.variant.tile_n)
        if self.slices:
            warps = self.blocks * self.variant.threads // WARP_SIZE
            return columns * self.slices * (ceil_div(self.m, STRIP_M) + warps)
        return columns * self.blocks

    @property
    def shared_bytes(self) -> int:
        """Dynamic shared memory of a block."""
        tile_n = self.variant.tile_n
        if self.slices:
            return bulk.shared_bytes(tile_n, self.capacity, self.k_tiles_per_split)
        return ring.shared_bytes(tile_n, self.capacity) if self.blocks else self.variant.shared_bytes


@dataclass(frozen=True)
class Launch:
    """One kernel launch: arguments are integers or arrays, in the order of the kernel's parameters."""

    variant: Variant
    grid: tuple[int, int, int]
    arguments: tuple[Any, ...]
    shared_bytes: int


def ceil_div(a: int, b: int) -> int:
    """Smallest integer not below a / b."""
    return -(-a // b)


def with_aligned_rows(weights: EncodedWeight) -> EncodedWeight:
    """Weights as their kernel can copy them in chunks of 16 bytes, and the same object if they already are.

    Dense weights get k padded to a multiple of 8, `TwoFour` is packed in tiles, bitmaps in records; all are copies.
    """
    if isinstance(weights, Bitmap):
        return pack_bitmap(weights)
    if isinstance(weights, QuantisedBitmap):
        return pack_quantised(weights)
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


def choose_variant(weights: EncodedWeight, n: int, *, streamed: bool = False) -> Variant:
    """Variant of the kernel that belongs to the format of ``weights``, for n columns; ``streamed`` as in `make_plan`.

    Raises
    ------
    ValueError
        If no GPU kernel takes the format or its element type.
    """
    element = getattr(weights, "element", None)
    check(element in HALF_ELEMENTS, "element type of weights", element, "float16 or bfloat16 (the GPU kernels' types)")
    coded = isinstance(weights, CodedRecords)
    check(not coded or element is Element.FLOAT16, "element type of weights", element, "float16 for codes")
    allowed = "Bitmap or Condensed, whose records are streamed"
    check(not streamed or isinstance(weights, Records), "streamed", type(weights).__name__, allowed)
    variant = _variant_of_format(weights, variants.tile_n_for(n), streamed)
    return replace(variant, element=Element(weights.element))


def _variant_of_format(weights: EncodedWeight, tile_n: int, streamed: bool) -> Variant:
    if isinstance(weights, TiledCsl):
        n_tiles = weights.tile_offsets.size - 2
        return variants.tiled_csl(tile_n, variants.vectors_for(weights.words.size / n_tiles))
    if isinstance(weights, Csr):
        return variants.csr(tile_n, 8 * weights.col_idx.itemsize)
    if isinstance(weights, Records):
        make = variants.streamed if streamed else variants.records
        return make(decoder_of(weights), tile_n)
    if isinstance(weights, TwoFourTiles):
        return variants.two_four(tile_n)
    allowed = "TiledCsl, Bitmap, Condensed, Csr, TwoFour or Dense"
    check(isinstance(weights, Dense), "format of weights", type(weights).__name__, allowed)
    return variants.dense(tile_n)


def decoder_of(weights: Records) -> str:
    """Name of the decoder that reads these records."""
    if isinstance(weights, QuantisedRecords):
        return f"bitmap_{weights.value_type}"
    if isinstance(weights, QuantisedCondensed):
        return f"condensed_pairs_{weights.value_type}"
    family = "bitmap" if isinstance(weights, BitmapRecords) else "condensed"
    return family + ("_pairs" if weights.width == 2 else "")


def make_plan(
    weights: EncodedWeight,
    n: int,
    *,
    split_k: int | None = None,
    arch: str = DEFAULT_ARCH,
    sm_count: int = DEFAULT_SM_COUNT,
    streamed: bool = False,
) -> Plan:
    """Plan for the product of ``weights`` (m, k) with n columns.

    ``split_k=None`` asks `choose_split_k`; a number is an upper bound, lowered until no block is without work.
    ``streamed`` takes the kernel that streams records by bulk copies, on sm_90 and newer.

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
    variant = choose_variant(weights, n_padded, streamed=streamed)
    columns = MAX_GRID_Y * variant.tile_n
    check(n_padded <= columns, "n", n, f"at most {columns}")
    k_tiles = ceil_div(k, TILE_K)
    if isinstance(weights, Csr):
        check(split_k in (None, 1), "split_k", split_k, "1 for CSR, whose rows are not split")
        return Plan(variant, m, k, n_padded, 1, k_tiles)
    check(m <= MAX_GRID_Y * TILE_M, "m", m, f"at most {MAX_GRID_Y * TILE_M}")
    if isinstance(weights, Records):
        whole = Plan(variant, m, k, n_padded, 1, k_tiles, capacity=capacity_of(weights))
        return _streamed(whole, split_k, arch, sm_count) if streamed else _of_tiles(whole, split_k, arch, sm_count)
    if split_k is None:
        slots = sm_count * compile_kernel(variant, arch).blocks_per_sm
        tiles = ceil_div(m, TILE_M) * ceil_div(n_padded, variant.tile_n)
        split_k = choose_split_k(tiles, k_tiles, variant.tile_n, slots)
    per_split = ceil_div(k_tiles, split_k)
    residual = None
    if isinstance(weights, TwoFourTiles) and weights.residual.nnz:
        residual = choose_variant(weights.residual, n_padded)
    return Plan(variant, m, k, n_padded, ceil_div(k_tiles, per_split), per_split, residual)


def has_bulk_copies(arch: str) -> bool:
    """Whether an architecture can stream records by bulk copies: Hopper and newer."""
    return ARCHITECTURES[arch].compute_capability >= (9, 0)


def capacity_of(weights: Records) -> int:
    """Bytes of a buffer for the longest record."""
    return ceil_div(most_bytes(weights.offsets), CAPACITY_UNIT) * CAPACITY_UNIT


def tiles_of_x(tile_n: int, capacity: int, arch: str) -> int:
    """Tiles of X that shared memory holds beside a block's rings of ``capacity`` bytes a record; below 1 if none."""
    room = ARCHITECTURES[arch].shared_bytes_per_block - bulk.shared_bytes(tile_n, capacity, 0)
    return room // activation_tile_bytes(tile_n)


def _of_tiles(plan: Plan, split_k: int | None, arch: str, sm_count: int) -> Plan:
    """Plan of the kernels whose blocks share a list of tiles: as many blocks as run at once, or ``split_k`` a row."""
    kernel, rows = compile_kernel(plan.variant, arch), ceil_div(plan.m, TILE_M)
    at_once = sm_count * kernel.blocks_with(ring.shared_bytes(plan.variant.tile_n, plan.capacity))
    tiles = rows * plan.k_tiles_per_split
    check(tiles <= MAX_INT32, "tiles of 128 x 64 weights", tiles, f"at most {MAX_INT32}")
    wanted = at_once // plan.grid[0] if split_k is None else rows * split_k
    blocks = min(tiles, MAX_GRID_Y, max(1, wanted))
    return replace(plan, blocks=blocks, split_k=ceil_div(blocks, rows))


def _streamed(plan: Plan, split_k: int | None, arch: str, sm_count: int) -> Plan:
    """Plan of the kernels that stream by bulk copies: a block on each SM, and K in slices that fit beside its rings.

    ``split_k`` asks for at least so many slices.
    """
    tile_n, k_tiles = plan.variant.tile_n, plan.k_tiles_per_split
    check(has_bulk_copies(arch), "arch", arch, "sm_90 or newer, for bulk copies")
    fitting = tiles_of_x(tile_n, plan.capacity, arch)
    check(fitting >= 1, "longest record", plan.capacity, "fewer bytes: its rings leave no room for X; streamed=False")
    per_slice = min(fitting, ceil_div(k_tiles, split_k or 1))
    per_slice = ceil_div(k_tiles, ceil_div(k_tiles, per_slice))
    slices = ceil_div(k_tiles, per_slice)
    check(slices <= MAX_GRID_Y, "slices of k", slices, f"at most {MAX_GRID_Y}; streamed=False takes any k")
    blocks = max(1, sm_count // (plan.grid[0] * slices))
    return replace(plan, blocks=blocks, slices=slices, split_k=slices, k_tiles_per_split=per_slice)


def launches(
    plan: Plan, buffers: dict[str, Any], x: Any, out: Any, workspace: Any, flags: Any, *, as_fp32: bool
) -> list[Launch]:
    """Kernel launches of a plan.

    Parameters
    ----------
    buffers : arrays of the weights by name, where the kernel runs.
    x : (k, n_padded) of the plan's element type; out : (m, n_padded) of the same, or float32 if ``as_fp32``.
    workspace : float32 of the plan's ``workspace_shape``, or None if that is empty.
    flags : uint32, as many zeros as the plan's ``flags``, or None if that is 0; zeros again after the launch.
    """
    sizes, shared = (plan.m, plan.n_padded, int(as_fp32)), plan.shared_bytes
    if plan.variant.kernel == "csr":
        arrays = (buffers["row_ptr"], buffers["col_idx"], buffers["values"], x, out)
        return [Launch(plan.variant, plan.grid, (*arrays, *sizes), shared)]
    if plan.blocks:
        slicing = (plan.k_tiles_per_split,) if plan.slices else ()
        numbers = (plan.m, plan.k, plan.n_padded, plan.capacity, *slicing, int(as_fp32))
        shares = (buffers["records"], buffers["offsets"], x, out, workspace, flags, *numbers)
        return [Launch(plan.variant, plan.grid, shares, shared)]
    names = WEIGHT_BUFFERS[plan.variant.kernel]
    target = out if workspace is None else workspace
    fp32 = int(as_fp32 or workspace is not None)
    tail = (x, target, plan.m, plan.k, plan.n_padded, plan.k_tiles_per_split, fp32)
    first = Launch(plan.variant, plan.grid, (*(buffers[name] for name in names), *tail), shared)
    if workspace is None:
        return [first]
    blocks = ceil_div(plan.outputs, reduce.THREADS * reduce.OUTPUTS_PER_THREAD)
    arguments = (workspace, out, plan.outputs, plan.partials, int(as_fp32))
    last = Launch(replace(variants.reduce(), element=plan.variant.element), (blocks, 1, 1), arguments, 0)
    return [first, *_residual(plan, buffers, x, workspace), last]


def _residual(plan: Plan, buffers: dict[str, Any], x: Any, workspace: Any) -> list[Launch]:
    """Launch of the CSR part of a 2:4 plan into the last slice of the workspace; none if there is no such part."""
    if plan.residual is None:
        return []
    rest = replace(plan, variant=plan.residual, residual=None, split_k=1)
    names = {name: buffers[f"residual_{name}"] for name in ("row_ptr", "col_idx", "values")}
    return launches(rest, names, x, workspace[plan.split_k], None, None, as_fp32=True)
