"""Compiling for GPUs that are not there: right instructions, no spills, planned occupancy, one lowering for all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kernels_numba.check import machine_code_faults
from kernels_numba.gpu import toolchain, variants
from kernels_numba.gpu.compile import ARCHITECTURES, check_arch, compile_kernel, compile_ptx

# Every kernel on the paper's GPU at its narrowest and widest, the paper's on Hopper too; elsewhere those that need most
# registers. `lscd kernels check` looks at all widths on three architectures.
NARROW_ONLY = ("csr", "bitmap", "condensed_pairs_")
MIDDLE = ("n16", "n32")  # of the ring's kernels and of dense and 2:4 weights
EVERYWHERE = ["tiled_csl_n64_v8", "dense_n64"]
LEFT_OUT = [
    name
    for name in variants.all_variants()
    if "_bulk" in name or name.endswith(MIDDLE) or (name.startswith(NARROW_ONLY) and "n8" not in name)
]
CASES = [
    (name, arch)
    for name in variants.all_variants()
    for arch in ARCHITECTURES
    if name in EVERYWHERE
    or (arch == "sm_80" and name not in LEFT_OUT)
    or (arch == "sm_90" and name.startswith("tiled_csl"))
]


@pytest.mark.parametrize(("name", "arch"), CASES)
def test_machine_code_is_what_was_planned(name: str, arch: str) -> None:
    kernel = compile_kernel(variants.all_variants()[name], arch)
    assert machine_code_faults(kernel) == []


@pytest.mark.parametrize(
    ("platform", "remedy"), [("linux", r"pip install 'lscd-lab\[gpu\]'"), ("darwin", "not for this platform")]
)
def test_without_numba_cuda_it_says_what_to_install(
    platform: str, remedy: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LSCD_CUBINS", str(tmp_path))
    monkeypatch.setattr(toolchain, "find_spec", lambda name: None)
    monkeypatch.setattr(toolchain.sys, "platform", platform)
    with pytest.raises(toolchain.NoCompilerError, match=f"needs numba-cuda: .*{remedy}"):
        compile_ptx.__wrapped__(variants.dense(8), "sm_80")


def test_occupancy_by_hand() -> None:
    """34,816 + 1,024 bytes a block: 4 blocks in 164 KiB, 6 in 228 KiB, 2 in 100 KiB."""
    variant = variants.tiled_csl(8, 4)
    assert [compile_kernel(variant, arch).blocks_per_sm for arch in ("sm_80", "sm_90")] == [4, 6]
    assert compile_kernel(variant, "sm_90").occupancy == pytest.approx(6 * 4 / 64)


def test_entry_point_has_the_name_of_the_variant() -> None:
    ptx, entry = compile_ptx(variants.reduce(), "sm_80")
    assert entry == "reduce"
    assert ".visible .entry reduce(" in ptx
    assert ".target sm_80" in ptx


@pytest.mark.parametrize(
    ("variant", "arch"),
    [(variants.tiled_csl(8, 4), "sm_90"), (variants.two_four(8), "sm_80"), (variants.csr(8, 16), "sm_120")],
    ids=lambda value: getattr(value, "name", value),
)
def test_lowering_once_gives_the_code_of_lowering_for_each_architecture(
    variant: variants.Variant, arch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ptx, _ = compile_ptx(variant, arch)
    monkeypatch.setattr("kernels_numba.gpu.compile._lowered", lambda variant: None)
    public, _ = compile_ptx.__wrapped__(variant, arch)
    named = re.compile(r"^\.common .*NumbaEnv.*$", flags=re.MULTILINE)  # holds the number of the compilation
    assert named.sub("", ptx) == named.sub("", public)


def test_unknown_names_get_the_nearest_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown architecture 'sm90'.*sm_90"):
        check_arch("sm90")
    with pytest.raises(ValueError, match=r"unknown kernel 'tiled_cls'.*tiled_csl"):
        variants.find_variants("tiled_cls")
