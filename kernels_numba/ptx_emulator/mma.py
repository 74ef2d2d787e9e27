"""Matrix multiply-accumulate of a warp: ``mma.sync`` and the 2:4-sparse ``mma.sp``.

Numerics: products are exact, sums are formed in float64 and rounded once to the accumulator type. A GPU sums in
fewer bits in an unspecified order, so results agree to rounding, not bit for bit.

Fragments (g = lane // 4, t = lane % 4; each register holds two 16-bit elements e = 0, 1, low half first):

* A, register i: row g + 8 (i % 2), column 2 t + 8 (i // 2) + e
* B, register i: row 2 t + 8 i + e, column g
* C and D: element j of a lane is row g + 8 (j // 2), column 2 t + j % 2

A sparse A stores, in the same layout, the two kept elements of each group of four columns. Their places in the
group are 2-bit numbers of the metadata register, which one lane in four (k = 16) or two in four (k = 32) provide:
lane 4 g + s, for selector s, serves k = 16; lanes 4 g + 2 s and 4 g + 2 s + 1 serve columns 0-15 and 16-31 of
k = 32. Its low half describes row g, its high half row g + 8, first columns in the lowest bits.

References
----------
NVIDIA, "PTX ISA 9.0", sections "Matrix Fragments for mma.m16n8k16 with floating point type" and "Sparse matrix
storage".
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from .errors import PtxError
from .parse import Instruction
from .registers import WARP_SIZE, Active, Registers, integer
from .scalar_types import TYPES, Array, ScalarType
from .state import BlockState, Operation, builder

ROWS, COLUMNS = 16, 8


def gather_fragment(registers: list[Array]) -> Array:
    """Matrix halves of a fragment: values (registers, threads, 2) as (warps, registers, 8, 8) [g, 2 t + e]."""
    stacked = np.stack(registers)
    return stacked.reshape(len(registers), -1, 8, 8).transpose(1, 0, 2, 3)


def a_matrix(registers: list[Array]) -> Array:
    """A of each warp, shape (warps, 16, 4 registers), from its registers of two values each."""
    parts = gather_fragment(registers)  # (warps, [column half, row half], g, column)
    halves = parts.reshape(-1, len(registers) // 2, 2, 8, 8)
    return halves.transpose(0, 2, 3, 1, 4).reshape(-1, ROWS, 4 * len(registers))


def b_matrix(registers: list[Array]) -> Array:
    """B of each warp, shape (warps, 8 registers, 8)."""
    parts = gather_fragment(registers)  # (warps, k block, column, k)
    return parts.transpose(0, 1, 3, 2).reshape(-1, 8 * len(registers), COLUMNS)


def c_matrix(values: Array) -> Array:
    """C of each warp, shape (warps, 16, 8), from values of shape (threads, 4)."""
    return values.reshape(-1, 8, 4, 2, 2).transpose(0, 3, 1, 2, 4).reshape(-1, ROWS, COLUMNS)


def c_fragment(matrix: Array) -> Array:
    """Inverse of ``c_matrix``: shape (threads, 4)."""
    return matrix.reshape(-1, 2, 8, 4, 2).transpose(0, 2, 3, 1, 4).reshape(-1, 4)


def expand_sparse(stored: Array, metadata: Array, selector: int, *, ordered: bool) -> Array:
    """Dense A of each warp, shape (warps, 16, k), from the kept half (warps, 16, k / 2) and the metadata words.

    Parameters
    ----------
    stored : array, shape (warps, 16, k / 2)
        Kept elements.
    metadata : array of uint32, shape (warps, 32)
        Metadata register of every lane.
    selector : int
        Which lanes provide it: 0-3 for k = 16, 0-1 for k = 32.
    ordered : bool
        Whether the two places must increase (``.sp::ordered_metadata``); they must always differ.
    """
    n_warps, _, half = stored.shape
    providers = half // 8
    if not 0 <= selector < 4 // providers:
        raise PtxError(f"sparsity selector {selector}; allowed are 0 to {4 // providers - 1}")
    words = metadata.reshape(n_warps, 8, 4)[:, :, selector * providers : (selector + 1) * providers]
    shifts = np.arange(0, 16, 2, dtype=np.uint32)
    low = (words[..., None] >> shifts) & np.uint32(3)
    high = (words[..., None] >> (shifts + np.uint32(16))) & np.uint32(3)
    places = np.stack([low, high], axis=1).reshape(n_warps, ROWS, half // 2, 2).astype(np.int64)
    first, second = places[..., 0], places[..., 1]
    if (first == second).any() or (ordered and (first > second).any()):
        warp = int(np.argmax(((first == second) | (ordered & (first > second))).any(axis=(1, 2))))
        raise PtxError("sparse metadata names places that are equal or not in order", thread=warp * WARP_SIZE)
    dense = np.zeros((n_warps, ROWS, half // 2, 4))
    np.put_along_axis(dense, places, stored.reshape(n_warps, ROWS, half // 2, 2), axis=3)
    return dense.reshape(n_warps, ROWS, 2 * half)


@builder("mma", carries=(1, 2, 3, 4))
def _multiply_accumulate(instruction: Instruction, state: BlockState) -> Operation:
    words, registers = instruction.modifiers, state.registers
    shape = next((m for w in words if (m := re.fullmatch(r"m16n8k(\d+)", w))), None)
    sparse = words[0] in ("sp", "sp::ordered_metadata")
    k = int(shape[1]) if shape else 0
    d_type, a_type, b_type, c_type = _matrix_types(instruction)
    if not _supported(a_type, b_type, d_type, c_type, k, sparse=sparse):
        raise PtxError(f"unsupported instruction {instruction.name}")
    fragments = [registers.vector(operand) for operand in instruction.operands[:4]]
    expected = [4 if d_type.bits == 32 else 2, k // (8 if sparse else 4), k // 8, 4 if c_type.bits == 32 else 2]
    if [len(f) for f in fragments] != expected:
        raise PtxError(f"{instruction.name} takes {expected} registers for D, A, B and C")
    read_a, read_b = (_half_reader(registers, f, t) for f, t in zip(fragments[1:3], (a_type, b_type), strict=True))
    read_c, write_d = (
        _accumulator_reader(registers, fragments[3], c_type),
        _accumulator_writer(registers, fragments[0], d_type),
    )
    expand = _expansion(instruction, state) if sparse else None
    flops = 2 * ROWS * COLUMNS * k
    unknown = _Unknown(instruction, registers, fragments, sparse=sparse)

    def run(active: Active) -> None:
        warps = active.whole_warps(instruction.name)
        marks = unknown.results() if unknown.any() else None
        a = a_matrix(read_a())
        if expand is not None:
            a = expand(a, warps)
        product = np.matmul(a, b_matrix(read_b()))
        write_d(c_fragment(product + c_matrix(read_c())), active)
        if marks is not None:
            unknown.mark(marks, active)
        state.counters.mma[instruction.name] += warps.size
        state.counters.mma_flops += flops * warps.size

    return run


class _Unknown:
    """Undefined elements of a product: of the rows where A or its metadata are, the columns where B is, and where C is.

    A product with a zero is no exception.
    """

    def __init__(
        self, instruction: Instruction, registers: Registers, fragments: list[list[str]], *, sparse: bool
    ) -> None:
        self.undefined, self.fragments = registers.undefined, fragments
        self.metadata = instruction.operands[4] if sparse else ""
        self.providers = slice(0)
        if sparse:
            selector, n = integer(instruction.operands[5]), len(fragments[1]) // 2
            self.providers = slice(selector * n, (selector + 1) * n)
        self.names = {name for part in fragments[1:] for name in part} | {self.metadata}

    def any(self) -> bool:
        """Whether any source is undefined somewhere."""
        return not self.undefined.masks.keys().isdisjoint(self.names)

    def results(self) -> Array:
        """Mask of the results, shape (threads, 4)."""
        a, b, c = ([np.repeat(self.undefined.of(name)[:, None], 2, axis=1) for name in f] for f in self.fragments[1:])
        sums = np.stack([half[:, 0] for half in c], axis=1) if len(c) == 4 else np.concatenate(c, axis=1)
        rows = a_matrix(a).any(axis=2, keepdims=True)
        lanes = self.undefined.of(self.metadata).reshape(-1, 1, 8, 4)[..., self.providers].any(axis=3)
        rows |= np.repeat(lanes, 2, axis=1).reshape(-1, ROWS, 1)
        return c_fragment(rows | b_matrix(b).any(axis=1, keepdims=True) | c_matrix(sums))

    def mark(self, results: Array, active: Active) -> None:
        """Make the registers of D undefined in these places."""
        targets = self.fragments[0]
        masks: Array = np.logical_or.reduce(results.reshape(len(results), len(targets), -1), axis=2)
        for target, mask in zip(targets, masks.T, strict=True):
            self.undefined.mark(target, mask & active.mask)


def _matrix_types(instruction: Instruction) -> tuple[ScalarType, ScalarType, ScalarType, ScalarType]:
    if len(instruction.types) != 4 or not {"row", "col", "aligned"} <= set(instruction.modifiers):
        raise PtxError(f"unsupported instruction {instruction.name}")
    d, a, b, c = instruction.types
    return d, a, b, c


def _supported(a: ScalarType, b: ScalarType, d: ScalarType, c: ScalarType, k: int, *, sparse: bool) -> bool:
    accumulators = {"f16": ("f16", "f32"), "bf16": ("f32",)}.get(a.name, ())
    return a == b and d.name in accumulators and c.name in accumulators and k in ((16, 32) if sparse else (8, 16))


def _half_reader(registers: Registers, names: list[str], kind: ScalarType) -> Callable[[], list[Array]]:
    packed = TYPES[f"{kind.name}x2"]
    reads = [registers.read(name, packed) for name in names]
    return lambda: [read() for read in reads]


def _accumulator_reader(registers: Registers, names: list[str], kind: ScalarType) -> Callable[[], Array]:
    if kind.name == "f32":
        reads = [registers.read(name, kind) for name in names]
        return lambda: np.stack([read() for read in reads], axis=1).astype(np.float64)
    halves = _half_reader(registers, names, kind)
    return lambda: np.concatenate(halves(), axis=1)


def _accumulator_writer(registers: Registers, names: list[str], kind: ScalarType) -> Callable[[Array, Active], None]:
    per_register = 1 if kind.name == "f32" else 2
    stored = kind if per_register == 1 else TYPES["f16x2"]
    puts = [registers.write(name, stored) for name in names]

    def write(values: Array, active: Active) -> None:
        for i, put in enumerate(puts):
            column = values[:, per_register * i : per_register * (i + 1)]
            put(column[:, 0] if per_register == 1 else column, active)

    return write


def _expansion(instruction: Instruction, state: BlockState) -> Callable[[Array, Array], Array]:
    """Function that expands a stored A for the executing warps, from the metadata and selector operands."""
    read = state.registers.read(instruction.operands[4], TYPES["b32"])
    selector = integer(instruction.operands[5])
    ordered = instruction.modifiers[0] == "sp::ordered_metadata"

    def expand(stored: Array, warps: Array) -> Array:
        dense = np.zeros((*stored.shape[:2], 2 * stored.shape[2]))
        metadata = read().reshape(-1, WARP_SIZE)[warps]
        dense[warps] = expand_sparse(stored[warps], metadata, selector, ordered=ordered)
        return dense

    return expand
