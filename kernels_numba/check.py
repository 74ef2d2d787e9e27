"""Does every kernel still compute the right thing, and does the compiler still make good code of it?

Two kinds of checks, neither needs a GPU: the kernels' PTX runs on the emulator on fresh random problems and is compared
with float64; and the machine code for every architecture is searched for the instructions that must be there, and for
spills, which must not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from kernels_numba.formats import Dense, EncodedWeight, encode_bitmap, encode_csr, encode_tiled_csl, encode_two_four
from kernels_numba.gpu.compile import ARCHITECTURES, CompiledKernel, compile_kernel, runs_on
from kernels_numba.gpu.emulate import emulate
from kernels_numba.gpu.variants import all_variants
from kernels_numba.reference import check_product

# Opcodes that make the kernels what they are: Tensor Cores, matrix loads (plain and transposed), asynchronous copies
# past L1, 16-byte loads that leave L1 alone.
STREAMED = ("UBLKCP", "SYNCS.PHASECHK", "ELECT", "LDSM.16.MT88", "SHFL.UP")  # bulk copies and their barriers
REQUIRED = {
    "tiled_csl": ("HMMA.16816.F32", "LDSM.16.M88.4", "LDSM.16.MT88", "LDGSTS.E.BYPASS.128", "LDG.E.NA.128", "STS.U16"),
    "bitmap_pairs": ("HMMA.16816.F32", "LDSM.16.MT88", "LDGSTS.E.BYPASS.128", "LDS", "SHFL.UP"),
    "condensed": ("HMMA.SP.16832.F32", "LDSM.16.MT88", "LDGSTS.E.BYPASS.128", "LDS.U16", "SHFL.UP"),
    "condensed_pairs": ("HMMA.SP.16832.F32", "LDSM.16.MT88", "LDGSTS.E.BYPASS.128", "LDS", "SHFL.UP"),
    "bitmap": ("HMMA.16816.F32", "LDSM.16.MT88", "LDGSTS.E.BYPASS.128", "LDS.U16", "SHFL.UP"),
    **dict.fromkeys(("bitmap_bulk", "bitmap_pairs_bulk"), ("HMMA.16816.F32", *STREAMED)),
    **dict.fromkeys(("condensed_bulk", "condensed_pairs_bulk"), ("HMMA.SP.16832.F32", *STREAMED)),
    "dense": ("HMMA.16816.F32", "LDSM.16.M88.4", "LDSM.16.MT88", "LDGSTS.E.BYPASS.128"),
    "two_four": ("HMMA.SP.16832.F32", "LDSM.16.M88.4", "LDSM.16.MT88", "LDGSTS.E.BYPASS.128", "LDS.128"),
    "csr": ("LDG.E.128", "FFMA"),
    "reduce": ("LDG.E.128",),
}
# Local memory, and returns from functions that were not inlined. (A CALL without RET is how ptxas leaves some loops; a
# shuffle, as in CSR and bitmap, has a small function on sm_80 for warps that come to it diverged.)
FORBIDDEN = {
    "tiled_csl": ("LDL", "STL", "RET"),
    "bitmap_pairs": ("LDL", "STL", "STS"),
    "bitmap": ("LDL", "STL", "STS"),
    "condensed": ("LDL", "STL", "STS"),
    "condensed_pairs": ("LDL", "STL", "STS"),
    "dense": ("LDL", "STL", "RET"),
    "two_four": ("LDL", "STL", "RET"),
}
ALWAYS_FORBIDDEN = ("LDL", "STL")
DENSITIES = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)


@dataclass(frozen=True)
class Outcome:
    """Result of one check: what was checked, how it went, and a number or the reason."""

    name: str
    passed: bool
    detail: str


def machine_code_faults(kernel: CompiledKernel) -> list[str]:
    """What is wrong with the compiled code, in words; empty if nothing is."""
    variant, faults = kernel.variant, []
    for wanted in REQUIRED[variant.kernel]:
        if not any(_matches(opcode, wanted) for opcode in kernel.opcodes):
            faults.append(f"no {wanted}")
    faults += [
        f"has {opcode}"
        for opcode in kernel.opcodes
        if opcode.startswith(FORBIDDEN.get(variant.kernel, ALWAYS_FORBIDDEN))
    ]
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


def check_machine_code(archs: tuple[str, ...] = tuple(ARCHITECTURES)) -> Iterator[Outcome]:
    """Check the machine code of every variant for every architecture."""
    for variant in all_variants().values():
        for arch in filter(partial(runs_on, variant), archs):
            kernel = compile_kernel(variant, arch)
            faults = machine_code_faults(kernel)
            fine = f"{kernel.registers} registers, {kernel.blocks_per_sm} blocks per SM"
            yield Outcome(f"{variant.name} {arch}", not faults, "; ".join(faults) or fine)


def check_results(seed: int | None = None, problems: int = 24) -> Iterator[Outcome]:
    """Run random problems on the emulator; a new ``seed`` gives new shapes, densities, N and split-K.

    Odd shapes are as likely as even ones; the densities run from empty to full, in turn; every format gets its share.
    """
    rng = np.random.default_rng(seed)
    for i in range(problems):
        m, k, n = int(rng.integers(1, 300)), int(rng.integers(1, 300)), int(rng.integers(1, 80))
        density = DENSITIES[i % len(DENSITIES)]
        a = rng.standard_normal((m, k)).astype(np.float16)
        a[rng.random((m, k)) >= density] = 0
        x = rng.standard_normal((k, n)).astype(np.float16)
        weights = _encode(a, i)
        split_k = None if i % 3 == 0 or i % 4 == 3 else int(rng.integers(1, 5))
        out_dtype = (np.float16, np.float32)[i % 2]
        name = f"{type(weights).__name__} m={m} k={k} n={n} density={density} split_k={split_k} {out_dtype.__name__}"
        yield _check_one(name, weights, x, split_k, out_dtype)


def _encode(a: np.ndarray, i: int) -> EncodedWeight:
    if i % 4 == 3:
        return encode_csr(a[: min(24, len(a))].copy(), index_bits=16 if i % 8 == 3 else 32)
    if i % 4 == 2:
        # Few rows: the emulated residual runs a block for every four.
        return Dense(a) if i % 8 == 2 else encode_two_four(a[: min(140, len(a))].copy())
    if i % 8 in (0, 5):
        return encode_bitmap(a, width=2 if i % 8 else 1)
    return encode_tiled_csl(a, reorder=i % 8 < 2)


def _check_one(name: str, weights: EncodedWeight, x: np.ndarray, split_k: int | None, out_dtype: type) -> Outcome:
    try:
        out, _ = emulate(weights, x, split_k=split_k, out_dtype=out_dtype)
        used = check_product(out, weights, x)
    except (AssertionError, RuntimeError) as error:
        return Outcome(name, False, str(error).splitlines()[0])
    return Outcome(name, True, f"error {used:.2f} of what rounding allows")
