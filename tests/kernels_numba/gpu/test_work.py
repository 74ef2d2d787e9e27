"""Work done twice, for nothing, by the wrong instruction or with bank conflicts is found, however right the product."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace as changed
from typing import Any

import numpy as np
import pytest

from kernels_numba.formats import Dense, encode_bitmap, encode_csr, encode_tiled_csl
from kernels_numba.gpu import launch, work
from kernels_numba.gpu.compile import Variant, compile_ptx
from kernels_numba.gpu.emulate import emulate
from kernels_numba.ptx_emulator import PtxError
from tests.kernels_numba.problems import random_problem
from tests.kernels_numba.ptx_emulator.mutations import replace

WEIGHT_COPY = r"cp\.async\.cg\.shared\.global(\S* \[%r\d+\], \[%rd\d+\], 16; \})"
# name -> (encoder, split_k, mutation of the PTX, what the error must say)
BUGS: dict[str, tuple[Callable[..., Any], int | None, Callable[[str], str], str]] = {
    "tiles behind the end of K": (Dense, 2, replace(r"min(\.s32\s+%r\d+, %r\d+, %r\d+;)", r"max\1", 0), "FLOP of"),
    "outputs stored by all lanes": (
        encode_csr, None, replace(r"(setp)\.ne(\.s32\s+%p\d+, %r\d+, 0;\s+or\.pred)", r"\1.lt\2"), "outputs stored",
    ),
    "words through L1": (encode_tiled_csl, 1, replace(r"\.L1::no_allocate", ""), "words loaded by ld.global.nc.v4.u32"),
    "last words through L1": (
        encode_tiled_csl, 1, replace(r"(\n\s*)ld\.global\.nc\.L1::no_allocate", r"\1ld.global.nc"), "words loaded by",
    ),
    "records through L1": (encode_bitmap, 1, replace(WEIGHT_COPY, r"cp.async.ca.shared.global\1"), "records loaded by"),
    "X of CSR not as read-only data": (encode_csr, None, replace(r"ld\.global\.nc\.v4", "ld.global.v4"), "x loaded by"),
    "indices of CSR past L1": (
        encode_csr, None, replace(r"ld\.global\.nc\.u32", "ld.global.nc.L1::no_allocate.u32", 2), "col_idx loaded by",
    ),
    "tile cleared twice": (
        encode_tiled_csl, 1, replace(r"(st\.shared\.v4\.u32 \[[^]]*\], \{z,z,z,z\};)", r"\1 \1", 0), "cleared",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BUGS)
def test_wasted_work_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encode, split_k, mutate, message = BUGS[name]
    counts = []

    def with_bug(variant: Variant, arch: str) -> tuple[str, str]:
        ptx, entry = compile_ptx(variant, arch)
        counts.append(mutate(ptx) != ptx)
        return mutate(ptx), entry

    a, x = random_problem(100, 330, 8, 0.6)
    a[:, :64] = 1  # more words than registers hold
    emulate(encode(a), x, split_k=split_k)
    monkeypatch.setattr("kernels_numba.gpu.emulate.compile_ptx", with_bug)
    with pytest.raises(PtxError, match=message):
        emulate(encode(a), x, split_k=split_k)
    assert any(counts), "the kernel's PTX has changed and the bug is planted nowhere"


def test_bank_conflicts_of_fixed_places_are_found() -> None:
    """A wavefront more of any stage but the scatter."""
    a, x = random_problem(40, 70, 8, 0.3)
    weights = encode_tiled_csl(a)
    plan = launch.make_plan(weights, 8, split_k=1)
    out = np.zeros((40, 8), np.float16)
    jobs = launch.launches(plan, weights.buffers, x, out, None, None, as_fp32=False)
    _, results = emulate(weights, x, split_k=1)
    found = set()
    for (site, kind), traffic in results[0].block_counters[0, 0, 0].shared_traffic.items():
        traffic.wavefronts += 1
        faults = [f for f in work.faults(plan, weights, jobs, _frozen(results)) if "1 bank conflicts of stage" in f]
        found |= {work.stage(site.text, kind, "")} if faults else set()
        traffic.wavefronts -= 1
    assert found == {"clear", "copy_", "read_a", "read_x"}


def _frozen(results: list[Any]) -> list[Any]:
    """Results whose counters are the same object at each look."""
    return [type("Result", (), {"counters": result.block_counters[0, 0, 0]}) for result in results]


@pytest.mark.parametrize("split_k", range(1, 9))
@pytest.mark.parametrize("k_tiles", [1, 5, 6, 7, 16])
def test_a_plan_has_no_more_parts_than_asked_for(split_k: int, k_tiles: int) -> None:
    plan = launch.make_plan(Dense(np.ones((8, 64 * k_tiles), np.float16)), 8, split_k=split_k)
    assert list(work.split_faults(plan, split_k)) == []
    assert (plan.split_k - 1) * plan.k_tiles_per_split < k_tiles <= plan.split_k * plan.k_tiles_per_split
    (fault,) = work.split_faults(changed(plan, split_k=split_k + 1), split_k)
    assert fault == f"split_k: the plan has {split_k + 1}, allowed: at most the {split_k} asked for"
