"""The largest problems, in pieces: the kernels are right, and addresses that wrap or leave their part are found."""

import re
from functools import cache

import numpy as np
import pytest

from kernels_numba import ptx_emulator
from kernels_numba.check import far
from kernels_numba.gpu import emulate
from kernels_numba.gpu.compile import compile_ptx
from kernels_numba.gpu.variants import all_variants
from kernels_numba.gpu.work import ARRAYS
from kernels_numba.ptx_emulator import PtxError, Rows
from tests.kernels_numba.ptx_emulator.mutations import replace, shift_parameter

# Variant -> arrays of which the part that exists lies beyond 2 GiB.
BEYOND = {
    "tiled_csl_n8_v4": ("words", "tile_offsets", "out"),
    "tiled_csl_n64_v4": ("words", "x", "out"),
    "dense_n8": ("weights", "out"),
    "dense_n64": ("x", "out"),
    "two_four_n64": ("x", "out"),
    "csr_n8_i32": ("col_idx", "values", "out"),
    "csr_n64_i32": ("col_idx", "values", "x", "out"),
    "csr_n64_i16": ("col_idx", "values", "x"),
    "condensed_pairs_n8": ("records", "offsets", "out", "sums"),
    "bitmap_n64": ("records", "x", "out", "sums"),
    "bitmap_int8_bulk_n8": ("records", "offsets", "out", "sums"),
    "bitmap_bulk_n64": ("records", "x", "out"),
    "reduce": ("partials", "out"),
}
NARROW = "{{ .reg .b64 base; ld.param.u64 base, [{parameter}]; sub.s64 {0}, {0}, base; cvt.s64.s32 {0}, {0}; "
NARROW += "add.s64 {0}, {0}, base; }}\n"


@cache
def traffic(name):
    """Instructions that access each array in the far problem of a variant, and its PTX."""
    found, variant = {}, all_variants()[name]
    original = ptx_emulator.launch

    def recorded(*arguments, **options):
        result = original(*arguments, **options)
        for site, array, _ in result.counters.global_traffic:
            found.setdefault(ARRAYS[variant.kernel][array], set()).update(re.findall(r"\[(%rd\d+)", site.text))
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ptx_emulator, "launch", recorded)
        assert far.run_far(variant, variant.oldest, 0) <= 1
    return found, compile_ptx(variant, variant.oldest)


def run_mutated(monkeypatch, name, mutate):
    ptx, entry = compile_ptx(all_variants()[name], all_variants()[name].oldest)
    mutated = mutate(ptx)
    assert mutated != ptx, "the kernel's PTX has changed and the mutation no longer applies"
    monkeypatch.setattr(emulate, "compile_ptx", lambda variant, arch: (mutated, entry))
    far.run_far(all_variants()[name], all_variants()[name].oldest, 0)


@pytest.mark.parametrize("name", BEYOND)
def test_the_kernels_themselves_are_right(name):
    assert set(BEYOND[name]) <= set(traffic(name)[0])


@pytest.mark.parametrize(("name", "array"), [(name, array) for name in BEYOND for array in BEYOND[name]])
def test_byte_offsets_of_32_bits_are_found(monkeypatch, name, array):
    """Before each access of an array, what is added to its address is cut to a signed number of 32 bits."""
    found, (_, entry) = traffic(name)
    place = ARRAYS[all_variants()[name].kernel].index(array)

    def narrow(ptx):
        lines = []
        for line in ptx.splitlines():
            used = re.search(r"\[(%rd\d+)", line)
            if used and used[1] in found[array] and ("global" in line):
                lines.append(NARROW.format(used[1], parameter=f"{entry}_param_{place}"))
            lines.append(line)
        return "\n".join(lines)

    with pytest.raises(PtxError, match="global access"):
        run_mutated(monkeypatch, name, narrow)


def guard(index):
    return shift_parameter(index, 1)


# name -> (variant, mutation): as fp16 where the variant has 8 columns, as float32 where it has more.
GUARDS = {
    "fp16 rows of tiled_csl": ("tiled_csl_n8_v4", guard(4)),
    "fp16 rows of dense": ("dense_n8", guard(3)),
    "float32 rows of dense": ("dense_n64", guard(3)),
    "float32 rows of two_four": ("two_four_n64", guard(3)),
    "fp16 rows of CSR": ("csr_n8_i16", guard(5)),
    "float32 rows of CSR": ("csr_n64_i32", guard(5)),
    "fp16 rows of records": ("condensed_pairs_n8", guard(6)),
    "float32 rows of records": ("bitmap_n64", guard(6)),
    "fp16 rows of streamed records": ("bitmap_int8_bulk_n8", guard(6)),
    "rows of X": ("dense_n64", guard(4)),
    "rows of X, sliced": ("bitmap_bulk_n64", guard(7)),
    "outputs of reduce": ("reduce", replace(r"setp\.ge\.s64", "setp.gt.s64", 0)),
    "columns with their sign": ("csr_n64_i16", replace(r"cvt\.u32\.u16", "cvt.s32.s16")),
    "no wait for copies": ("dense_n8", replace(r"cp\.async\.wait_group 1;", "")),
    "no barrier": ("dense_n8", replace(r"bar\.sync\s+0;", "")),
}


@pytest.mark.parametrize("name", GUARDS)
def test_accesses_past_a_guard_are_found(monkeypatch, name):
    with pytest.raises(PtxError):
        run_mutated(monkeypatch, *GUARDS[name])


# name -> (variant, mutation) that leaves a register or shared memory without a value.
UNINITIALISED = {
    "sums of dense": ("dense_n8", replace(r"mov\.f32\s+%f\d+, 0f00000000;", "")),
    "sums of records": ("condensed_pairs_n8", replace(r"mov\.f32\s+%f\d+, 0f00000000;", "")),
    "sums of streamed records": ("bitmap_int8_bulk_n8", replace(r"mov\.f32\s+%f\d+, 0f00000000;", "")),
    "sums of CSR": ("csr_n8_i32", replace(r"mov\.f32\s+%f\d+, 0f00000000;", "")),
    "tile of tiled_csl": ("tiled_csl_n8_v4", replace(r"st\.shared\.v4\.u32 \[[^]]*\], \{z,z,z,z\};", "")),
    "absent halves": ("bitmap_n64", replace(r"mov\.b32 r2, 0;", "")),
    "absent codes": ("bitmap_int8_bulk_n8", replace(r"mov\.b32 r0, 0;", "")),
    "words that are loaded under a guard": (
        "tiled_csl_n8_v4", replace(r"@p (ld\.global\.nc\.L1::no_allocate)", r"@!p \1", 1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNINITIALISED)
def test_missing_initial_values_are_found(monkeypatch, name):
    with pytest.raises(PtxError, match=r"undefined register|out of bounds"):
        run_mutated(monkeypatch, *UNINITIALISED[name])


def test_a_plan_without_its_last_blocks_is_found(monkeypatch):
    monkeypatch.setattr(far.Plan, "grid", property(lambda plan: (max(1, plan.m // 4), 1, 1)))
    with pytest.raises(AssertionError, match=r"the grid .* of the plan lacks block"):
        far.run_far(all_variants()["csr_n8_i32"], "sm_80", 0)


def test_rows_of_an_array_that_does_not_exist():
    """Place by hand: 3 rows of 8 bytes, 100 bytes apart, from byte 40 on."""
    from kernels_numba.ptx_emulator.memory import GlobalMemory

    memory = GlobalMemory()
    address = memory.add(Rows(np.arange(6, dtype=np.int32).reshape(3, 2), 40, 100), 0)
    (span,) = memory.spans(np.array([address + 40, address + 144, address + 240], np.uint64), 4, np.arange(3))
    assert span.offsets.tolist() == [0, 12, 16]
    for outside in (0, 36, 48, 136, 340, 2**33):
        with pytest.raises(PtxError, match=r"out of bounds: .* of the rows of array 0"):
            list(memory.spans(np.array([address + outside], np.uint64), 4, np.arange(1)))
