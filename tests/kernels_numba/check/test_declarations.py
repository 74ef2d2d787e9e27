"""Inline assembly is declared as what it is; each declaration left out is found."""

import re

import pytest

from kernels_numba.check.declarations import emitted, faults

pytest.importorskip("kernels_numba.gpu.variants", reason="needs numba-cuda", exc_type=ImportError)
CALLS = emitted()
TOUCHING = [name for name, call in CALLS.items() if list(faults(call.replace("sideeffect ", "")))]
OF_A_WARP = [name for name, call in CALLS.items() if ".sync" in call]


@pytest.mark.parametrize("name", CALLS)
def test_declarations_are_complete(name):
    assert list(faults(CALLS[name])) == []


def test_what_touches_memory_and_what_whole_warps_execute():
    """By their names, which do not depend on how the text is searched."""
    pattern = r"ldmatrix|cp_async|store|shared|barrier|bulk_copy|release|acquire|read_|stream_v4_if|sync_warp"
    assert {name for name in CALLS if re.match(pattern, name)} - {"stream_v4_if"} == set(TOUCHING)
    assert {"mma_m16n8k16", "mma_sp_m16n8k32", "ldmatrix_x2_trans", "shuffle_xor", "elected", "hold"} <= set(OF_A_WARP)


@pytest.mark.parametrize("name", TOUCHING)
def test_a_missing_clobber_or_effect_is_found(name):
    assert len(list(faults(CALLS[name].replace(",~{memory}", "").replace('"~{memory}"', '""')))) == 1
    assert len(list(faults(CALLS[name].replace("sideeffect ", "")))) == 1


@pytest.mark.parametrize("name", OF_A_WARP)
def test_missing_convergence_is_found(name):
    (fault,) = faults(CALLS[name].replace(" convergent", ""))
    assert "not declared convergent" in fault
