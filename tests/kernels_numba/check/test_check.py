"""The proof of every kernel: faults of machine code are found, random problems pass, in one process or several."""

from __future__ import annotations

import dataclasses

import pytest

from kernels_numba import check
from kernels_numba.check import FAMILIES, Task, check_kernels, check_results, machine_code_faults, tasks
from kernels_numba.formats import Element
from kernels_numba.formats.encoded import HALF_ELEMENTS
from kernels_numba.gpu import variants
from kernels_numba.gpu.compile import compile_kernel
from kernels_numba.gpu.decoders import OF_CODES


def takes_bfloat16(kernel: str) -> bool:
    """Whether a kernel has a form for bfloat16, as all have that decode no codes."""
    return kernel.removesuffix(variants.BULK) not in OF_CODES


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


def test_every_variant_belongs_to_one_task() -> None:
    assert list(FAMILIES) == variants.kernel_names()
    listed = [(task.kernel, task.tile_n) for task in tasks(("sm_80",), 0, 1)]
    assert len(listed) == len(set(listed))
    assert {(v.kernel, v.tile_n) for v in variants.all_variants().values()} == set(listed)
    brain = {(v.kernel, v.tile_n) for v in variants.all_variants(Element.BFLOAT16).values()}
    assert brain == {(kernel, tile_n) for kernel, tile_n in listed if takes_bfloat16(kernel)}


# Codes differ in how they become numbers alone: one of each layout here, all in `lscd kernels check`.
CODES = {"bitmap_int8", "condensed_pairs_int4", "bitmap_e4m3_bulk", "condensed_pairs_e5m2_bulk"}
RANDOM = [name for name, family in FAMILIES.items() if family.formats and (takes_bfloat16(name) or name in CODES)]


@pytest.mark.parametrize("kernel", RANDOM)
def test_random_problems_cover_formats_and_elements(kernel: str) -> None:
    arch = "sm_90" if FAMILIES[kernel].streamed else "sm_80"
    outcomes = list(check_results(Task(kernel, 8, (arch,), 3, 1)))
    assert all(outcome.passed for outcome in outcomes), outcomes
    elements = HALF_ELEMENTS if takes_bfloat16(kernel) else (Element.FLOAT16,)
    found = [tuple(outcome.name.split()[:3]) for outcome in outcomes]
    assert found == [(name, element, arch) for name in FAMILIES[kernel].formats for element in elements]


def test_streamed_problems_have_room_where_shared_memory_is_short() -> None:
    """99 KiB on sm_120 hold no rings of dense strips: such problems get sparser until they fit."""
    outcomes = list(check.check_results(check.Task("bitmap_bulk", 8, ("sm_120",), 0, 7)))
    assert len(outcomes) == 7 * len(HALF_ELEMENTS)
    assert all(outcome.passed for outcome in outcomes), outcomes


def test_a_wrong_product_is_an_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    def off_by_one(*arguments, **options):
        out, results = check_emulate(*arguments, **options)
        return out + out.dtype.type(1), results

    check_emulate = check.emulate
    monkeypatch.setattr(check, "emulate", off_by_one)
    outcomes = list(check_results(Task("dense", 8, ("sm_80",), 1, 1)))
    assert [outcome.passed for outcome in outcomes] == [False, False]
    assert all("elements are wrong" in outcome.detail for outcome in outcomes)


def test_processes_report_in_the_order_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    todo = [Task("dense", 8, ("sm_80",), 5, 1), Task("reduce", 0, ("sm_90", "sm_80"), 5, 1)]
    monkeypatch.setattr(check, "tasks", lambda archs, seed, problems: todo)
    alone = list(check_kernels())
    assert [outcome.name for outcome in alone[-4:]] == [
        f"reduce{suffix} {arch}" for suffix in ("", "_bf16") for arch in ("sm_90", "sm_80")
    ]
    assert list(check_kernels(jobs=2)) == alone
