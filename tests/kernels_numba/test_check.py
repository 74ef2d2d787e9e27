"""The proof of every kernel: faults of machine code are found, random problems pass."""

from __future__ import annotations

import dataclasses

from kernels_numba.check import check_results, machine_code_faults
from kernels_numba.gpu import variants
from kernels_numba.gpu.compile import compile_kernel


def test_a_dense_kernel_does_not_pass_as_the_sparse_one() -> None:
    impostor = dataclasses.replace(variants.dense(8), kernel="two_four", choice="n8_impostor")
    assert "no HMMA.SP.16832.F32" in machine_code_faults(compile_kernel(impostor, "sm_80"))


def test_faults_are_found() -> None:
    """A kernel squeezed into too few registers spills, and the check says so."""
    squeezed = dataclasses.replace(variants.tiled_csl(64, 8), blocks_per_sm=8)
    faults = machine_code_faults(compile_kernel(squeezed, "sm_80"))
    assert any("spills" in fault for fault in faults)
    assert any(fault.startswith("has STL") for fault in faults)


def test_missing_instructions_are_found() -> None:
    """A dense kernel that claims to be the sparse one has no scatter and no streaming loads."""
    impostor = dataclasses.replace(variants.dense(8), kernel="tiled_csl", choice="n8_impostor")
    faults = machine_code_faults(compile_kernel(impostor, "sm_80"))
    assert {"no STS.U16", "no LDG.E.NA.128"} <= set(faults)


def test_random_problems() -> None:
    for outcome in check_results(problems=12):
        assert outcome.passed, outcome
