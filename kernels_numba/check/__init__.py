"""Does every kernel still compute the right thing, and does the compiler still make good code of it?

Four kinds of checks, none needs a GPU: the kernels' PTX runs on the emulator on fresh random problems and is compared
with float64; the last blocks of the largest problems run too, on pieces of arrays that no machine holds (`far`); the
machine code is searched for the instructions that must be there, and for spills, which must not; and inline assembly
must be declared as what it is (`declarations`). The first and third for every kernel, format, tile and element type,
for each architecture asked for; the second for the narrowest and the widest tile on the oldest architecture.

`FAMILIES` lists the kernels once. A task is a kernel with one width of tiles; tasks run in processes of their own,
which compile what they check, and report in the order of the list.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np

from kernels_numba.check import declarations, far
from kernels_numba.formats import (
    Csr,
    Dense,
    Element,
    EncodedWeight,
    ValueType,
    encode_csr,
    encode_tiled_csl,
    encode_two_four,
)
from kernels_numba.formats.encoded import HALF_ELEMENTS, narrowed
from kernels_numba.gpu.compile import CompiledKernel, Variant, compile_kernel, runs_on
from kernels_numba.gpu.decoders import ENCODERS
from kernels_numba.gpu.emulate import emulate
from kernels_numba.gpu.launch import Records, capacity_of, tiles_of_x, with_aligned_rows
from kernels_numba.gpu.stages import TILE_N_CHOICES
from kernels_numba.gpu.variants import all_variants
from kernels_numba.reference import check_product

ARCHITECTURES = ("sm_80", "sm_90", "sm_120")  # what is checked unless asked otherwise: one of each generation
DENSITIES = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
# Weights far beyond fp16's range, and subnormal ones.
SCALES = {Element.FLOAT16: (1.0,), Element.BFLOAT16: (1.0, 1e30, 1e-39)}
SPILLS = ("LDL", "STL")
FAR_TILES = (0, TILE_N_CHOICES[0], TILE_N_CHOICES[-1])
MOST_ROWS_DEEP = 130
# Columns of weights: any; as many as go round every ring twice in one block; and those whose last part is shorter than
# the others however K is split.
COLUMNS, DEEP, RAGGED = (1, 300), (450, 580), (257, 320)


@dataclass(frozen=True)
class Family:
    """How one kernel is checked.

    formats : encoders of the weights that it multiplies, by name; none for a kernel that adds up others' results.
    required : opcodes that make the kernel what it is: Tensor Cores, matrix loads (plain and transposed), asynchronous
        copies past L1, 16-byte loads that leave L1 alone.
    forbidden : local memory; returns, where no function may be left (a shuffle, as in CSR and bitmap, has a small one
        on sm_80 for warps that come to it diverged); stores to shared memory, where all is decoded in registers.
    most_rows : of a random problem.
    streamed : by bulk copies.
    """

    formats: dict[str, Callable[..., EncodedWeight]]
    required: tuple[str, ...]
    forbidden: tuple[str, ...] = SPILLS
    most_rows: int = 300
    streamed: bool = False


_COPIED = ("LDSM.16.MT88", "LDGSTS.E.BYPASS.128")
_STREAMED = ("UBLKCP", "SYNCS.PHASECHK", "ELECT", "LDSM.16.MT88", "SHFL.UP")  # bulk copies and their barriers
_DENSE, _SPARSE = "HMMA.16816.F32", "HMMA.SP.16832.F32"
# Kernels that decode records: the product of each, and how it loads what it gathers.
_RECORDS = {
    "bitmap": (_DENSE, "LDS.U16"),
    "bitmap_pairs": (_DENSE, "LDS"),
    "condensed": (_SPARSE, "LDS.U16"),
    "condensed_pairs": (_SPARSE, "LDS"),
    **{f"bitmap_{t}": (_DENSE, "LDS.U8" if t.bits == 8 else "SHF.R") for t in ValueType},
    **{f"condensed_pairs_{t}": (_SPARSE, f"LDS.U{2 * t.bits}") for t in ValueType},
}
FAMILIES = {
    "tiled_csl": Family(
        {"tiled-csl": encode_tiled_csl, "tiled-csl-by-row": partial(encode_tiled_csl, reorder=False)},
        ("HMMA.16816.F32", "LDSM.16.M88.4", *_COPIED, "LDG.E.NA.128", "STS.U16"),
        (*SPILLS, "RET"),
    ),
    **{
        name: Family({name: ENCODERS[name]}, (product, gather, *_COPIED, "SHFL.UP"), (*SPILLS, "STS"))
        for name, (product, gather) in _RECORDS.items()
    },
    **{
        f"{name}_bulk": Family({name: ENCODERS[name]}, (product, gather, *_STREAMED), SPILLS, streamed=True)
        for name, (product, gather) in _RECORDS.items()
    },
    "dense": Family({"dense": Dense}, ("HMMA.16816.F32", "LDSM.16.M88.4", *_COPIED), (*SPILLS, "RET")),
    # Few rows: the emulated residual, and CSR itself, run a block for every four.
    "two_four": Family(
        {"two-four": encode_two_four, "two-four-16": partial(encode_two_four, index_bits=16)},
        ("HMMA.SP.16832.F32", "LDSM.16.M88.4", *_COPIED, "LDS.128"),
        (*SPILLS, "RET"),
        most_rows=140,
    ),
    "csr": Family(
        {"csr": encode_csr, "csr-16": partial(encode_csr, index_bits=16)}, ("LDG.E.128", "FFMA"), most_rows=24
    ),
    "reduce": Family({}, ("LDG.E.128",)),
}


@dataclass(frozen=True)
class Outcome:
    """Result of one check: what was checked, how it went, and a number or the reason."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Task:
    """What one process checks at a time: a kernel's variants of one width, with ``problems`` for each way to run it."""

    kernel: str
    tile_n: int
    archs: tuple[str, ...]
    seed: int
    problems: int


def check_kernels(
    archs: tuple[str, ...] = ARCHITECTURES, seed: int = 0, problems: int = 1, jobs: int = 1
) -> Iterator[Outcome]:
    """Check every kernel's results and machine code, in an order that does not depend on the processes.

    Parameters
    ----------
    archs : architectures to compile for.
    seed : a new one gives new shapes, densities, N and split-K.
    problems : random problems for each kernel, width of tiles, format, element type and architecture.
    jobs : processes; 1 stays in this one.
    """
    yield from check_declarations()
    todo = tasks(archs, seed, problems)
    if jobs == 1:
        yield from itertools.chain.from_iterable(map(run_task, todo))
        return
    # Spawned, because a fork would copy the locks of Numba's threads.
    with ProcessPoolExecutor(min(jobs, len(todo)), get_context("spawn")) as pool:
        yield from itertools.chain.from_iterable(pool.map(run_task, todo))


def tasks(archs: tuple[str, ...], seed: int, problems: int) -> list[Task]:
    """Every kernel and width of tiles that there is a variant of."""
    widths = dict.fromkeys((variant.kernel, variant.tile_n) for variant in all_variants().values())
    return [Task(kernel, tile_n, archs, seed, problems) for kernel, tile_n in widths]


def run_task(task: Task) -> list[Outcome]:
    """Outcomes of one task: problems first, then the machine code of each variant."""
    return [*check_results(task), *check_far(task), *check_machine_code(task)]


def check_declarations() -> Iterator[Outcome]:
    """Check that inline assembly is declared as what it is."""
    calls = declarations.emitted()
    found = [f"{name} {fault}" for name, call in calls.items() for fault in declarations.faults(call)]
    yield Outcome("declarations of inline assembly", not found, "; ".join(found) or f"{len(calls)} instructions")


def check_far(task: Task) -> Iterator[Outcome]:
    """Run the last blocks of the largest problems, for each variant of the task."""
    if task.tile_n in FAR_TILES:
        for variant in all_variants().values():
            archs = [arch for arch in task.archs if runs_on(variant, arch)]
            if (variant.kernel, variant.tile_n) == (task.kernel, task.tile_n) and archs:
                what = f"sizes near 2**31: {variant.name} {archs[0]}"
                yield _outcome(what, partial(far.run_far, variant, archs[0], task.seed))


def _outcome(what: str, error: Callable[[], float]) -> Outcome:
    """Outcome of a product, from a function that gives its error in units of what rounding allows."""
    try:
        return Outcome(what, True, f"error {error():.2f} of what rounding allows")
    except (AssertionError, RuntimeError, ValueError) as fault:
        return Outcome(what, False, str(fault).splitlines()[0])


def machine_code_faults(kernel: CompiledKernel) -> list[str]:
    """What is wrong with the compiled code, in words; empty if nothing is."""
    variant = kernel.variant
    family = FAMILIES[variant.kernel]
    found = [any(_matches(opcode, wanted) for opcode in kernel.opcodes) for wanted in family.required]
    faults = [f"no {wanted}" for wanted, there in zip(family.required, found, strict=True) if not there]
    faults += [f"has {opcode}" for opcode in kernel.opcodes if opcode.startswith(family.forbidden)]
    faults += [f"{opcode} is not for {variant.element}" for opcode in kernel.opcodes if _misreads(variant, opcode)]
    if kernel.spill_bytes:
        faults.append(f"{kernel.spill_bytes} bytes of spills")
    allowed = 65_536 // (variant.threads * variant.blocks_per_sm) // 8 * 8
    if kernel.registers > allowed:
        faults.append(
            f"{kernel.registers} registers, {allowed} allow the planned {variant.blocks_per_sm} blocks per SM"
        )
    return faults


def _matches(opcode: str, wanted: str) -> bool:
    """Whether ``opcode`` has every dot-separated part of ``wanted``, in order: LDG.E.CONSTANT.128 matches LDG.E.128."""
    parts = iter(opcode.split("."))
    return all(part in parts for part in wanted.split("."))


def _misreads(variant: Variant, opcode: str) -> bool:
    """Whether an instruction takes 16-bit values for another type than the variant's."""
    interprets = opcode.startswith(("HMMA", "F2FP", "HADD2.F32"))
    return interprets and ("BF16" in opcode.split(".")) != (variant.element is Element.BFLOAT16)


def check_machine_code(task: Task) -> Iterator[Outcome]:
    """Check the machine code of the task's variants, of each element type for each architecture."""
    for element, arch in itertools.product(HALF_ELEMENTS, task.archs):
        for variant in all_variants(element).values():
            if (variant.kernel, variant.tile_n) == (task.kernel, task.tile_n) and runs_on(variant, arch):
                kernel = compile_kernel(variant, arch)
                faults = machine_code_faults(kernel)
                fine = f"{kernel.registers} registers, {kernel.blocks_per_sm} blocks per SM"
                yield Outcome(f"{variant.name} {arch}", not faults, "; ".join(faults) or fine)


def check_results(task: Task) -> Iterator[Outcome]:
    """Run the task's random problems on the emulator.

    Odd shapes are as likely as even ones. In turn, over all widths of a kernel: the densities run from empty to full,
    outputs are of the element type and float32, and K is any, so long that a block goes round its rings, or split into
    unequal parts.
    """
    rng = np.random.default_rng([task.seed, task.tile_n, list(FAMILIES).index(task.kernel)])
    formats = FAMILIES[task.kernel].formats
    first = next(v for v in all_variants().values() if (v.kernel, v.tile_n) == (task.kernel, task.tile_n))
    archs = [arch for arch in task.archs if runs_on(first, arch)]
    elements = [e for e in HALF_ELEMENTS if any(v.kernel == task.kernel for v in all_variants(e).values())]
    ways = itertools.product(range(task.problems), formats, elements, archs)
    for i, (_, name, element, arch) in enumerate(ways):
        turn = i + TILE_N_CHOICES.index(task.tile_n)
        out = (element, Element.FLOAT32)[(i.bit_count() + turn - i) % 2]
        depth = (COLUMNS, DEEP, RAGGED)[turn % 3]
        yield _random_product(task, name, element, arch, DENSITIES[turn % len(DENSITIES)], out, rng, depth)


def _has_room(weights: EncodedWeight, tile_n: int, arch: str) -> bool:
    """Whether shared memory holds records as long as these and a tile of X."""
    records = with_aligned_rows(weights)
    assert isinstance(records, Records)
    return tiles_of_x(tile_n, capacity_of(records), arch) >= 1


def _random_product(
    task: Task,
    name: str,
    element: Element,
    arch: str,
    density: float,
    out: Element,
    rng: np.random.Generator,
    depth: tuple[int, int] = COLUMNS,
) -> Outcome:
    """Outcome of one product of random sizes whose columns ask for the task's width of tiles.

    ``depth``: from how many to how many columns the weights have; no two blocks share a K that is `DEEP`.
    """
    family = FAMILIES[task.kernel]
    narrower = max((width for width in TILE_N_CHOICES if width < task.tile_n), default=0)
    widest = task.tile_n if task.tile_n < TILE_N_CHOICES[-1] else 80
    deep = depth == DEEP
    rows = (1, min(family.most_rows, MOST_ROWS_DEEP) if deep else family.most_rows)
    m, k, n = (int(rng.integers(a, b + 1)) for a, b in (rows, depth, (narrower + 1, widest)))
    scale = float(rng.choice(SCALES[element]))
    a = rng.standard_normal((m, k)) * scale
    a[rng.random((m, k)) >= density] = 0
    weights = family.formats[name](narrowed(a, element), element=element)
    while family.streamed and not _has_room(weights, task.tile_n, arch):
        density /= 2
        a[rng.random((m, k)) < 0.5] = 0
        weights = family.formats[name](narrowed(a, element), element=element)
    x = narrowed(rng.standard_normal((k, n)), element)
    split_k = None if rng.random() < 0.5 else int(rng.integers(1, 5))
    split_k = 1 if deep else int(rng.integers(2, 5)) if depth == RAGGED else split_k
    split_k = None if isinstance(weights, Csr) else split_k
    what = f"{name} {element} {arch} m={m} k={k} n={n} density={density} scale={scale:g} split_k={split_k} {out}"
    sm_count = 1 if deep else int(rng.integers(1, 9))
    asked: dict[str, Any] = {"split_k": split_k, "out_dtype": out, "arch": arch, "sm_count": sm_count}
    streamed = family.streamed
    return _outcome(what, lambda: check_product(emulate(weights, x, streamed=streamed, **asked)[0], weights, x))
