"""Machine code on disk: found by all that decides it and nothing else, never trusted when broken, carried as it is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kernels_numba.gpu import build, compile, cubins, toolchain, variants
from kernels_numba.gpu.compile import compile_kernel, compile_ptx

REDUCE = variants.reduce()
compiled = compile_kernel.__wrapped__  # without the memory of this process


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LSCD_CUBINS", str(tmp_path / "cubins"))
    return tmp_path / "cubins"


def test_kept_code_is_what_was_compiled_and_needs_no_compiler(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = compiled(REDUCE, "sm_90")
    monkeypatch.setattr(compile, "compile_ptx", None)
    again = compiled(REDUCE, "sm_90")
    assert (again.cubin, again.log, again.entry) == (first.cubin, first.log, first.entry)
    assert (again.registers, again.blocks_per_sm) == (first.registers, first.blocks_per_sm)
    assert sum(path.is_file() for path in directory.iterdir()) == 2


def test_kept_ptx_is_what_was_compiled_and_needs_no_compiler(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lowered = compile_ptx.__wrapped__  # without the memory of this process
    first = lowered(REDUCE, "sm_90")
    monkeypatch.setattr(compile, "_numba_ptx", None)
    assert lowered(REDUCE, "sm_90") == first
    (path,) = (directory / cubins.PTX).iterdir()
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(TypeError):
        lowered(REDUCE, "sm_90")


@pytest.mark.parametrize("field", ["threads", "shared_bytes", "blocks_per_sm", "parameters", "choice"])
def test_another_variant_is_another_key(field: str) -> None:
    other = replace(REDUCE, **{field: (1,) if field == "parameters" else "x" if field == "choice" else 64})
    keys = {cubins.key(variant.identity, "sm_90", {}) for variant in (REDUCE, other)}
    assert len(keys) == 2


def test_other_architectures_compilers_and_sources_are_other_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    key, versions = cubins.key, toolchain.versions()
    keys = {key(REDUCE.identity, "sm_90", versions), key(REDUCE.identity, "sm_80", versions)}
    keys.add(key(REDUCE.identity, "sm_90", versions | {"nvidia-nvvm": "14"}))
    monkeypatch.setattr(cubins, "code_hash", lambda: "other sources")
    keys.add(key(REDUCE.identity, "sm_90", versions))
    assert len(keys) == 4


def test_all_sources_that_decide_a_kernel_are_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for room, name in (("gpu", "stages.py"), ("formats", "layout.py")):
        path = tmp_path / "package" / room / name
        path.parent.mkdir(parents=True)
        path.write_text("SIZE = 64\n")
    monkeypatch.setattr(cubins, "__file__", str(tmp_path / "package" / "gpu" / "cubins.py"))
    hashes = {cubins.code_hash.__wrapped__()}
    for path in (tmp_path / "package").glob("*/*.py"):
        path.write_text("SIZE = 32\n")
        hashes.add(cubins.code_hash.__wrapped__())
    assert len(hashes) == 3


@pytest.mark.parametrize("suffix", [".cubin", ".json"])
def test_broken_files_are_compiled_again(directory: Path, suffix: str) -> None:
    first = compiled(REDUCE, "sm_80")
    (path,) = directory.glob(f"*{suffix}")
    path.write_bytes(path.read_bytes()[:-2])
    assert cubins.load(REDUCE.identity, "sm_80") is None
    assert compiled(REDUCE, "sm_80").cubin == first.cubin
    assert cubins.load(REDUCE.identity, "sm_80") is not None


def test_a_directory_that_cannot_be_written_is_no_error(directory: Path) -> None:
    directory.write_text("a file")
    assert compiled(REDUCE, "sm_80").registers > 0


def test_others_kernels_are_not_kept(directory: Path) -> None:
    def make() -> Any:
        return REDUCE.make()

    compiled(replace(REDUCE, make=make), "sm_80")
    assert not directory.exists()


def test_a_carried_directory_serves_where_other_compilers_are_and_none(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = compiled(REDUCE, "sm_90")
    cubins.write_manifest(directory, ["sm_90"], ["reduce"])
    told = json.loads((directory / "manifest.json").read_text())
    assert told["compilers"] == toolchain.versions()
    assert (told["architectures"], told["variants"]) == (["sm_90"], ["reduce"])
    monkeypatch.setattr(toolchain, "versions", lambda: {"numba-cuda": None})
    monkeypatch.setattr(toolchain, "find_spec", lambda name: None)
    monkeypatch.setattr(compile, "compile_ptx", compile_ptx.__wrapped__)
    assert compiled(REDUCE, "sm_90").cubin == first.cubin
    with pytest.raises(ValueError, match=r"has no machine code of reduce for sm_80 from these sources"):
        compiled(REDUCE, "sm_80")


def test_nothing_is_added_to_a_carried_directory(directory: Path) -> None:
    directory.mkdir()
    cubins.write_manifest(directory, [], [])
    compiled(REDUCE, "sm_80")
    assert [path.name for path in directory.iterdir()] == ["manifest.json"]


def test_the_directory_is_the_one_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cubins.cubin_directory() == tmp_path / "cubins"
    monkeypatch.setenv("LSCD_CUBINS", "")
    monkeypatch.setenv("LSCD_CACHE", str(tmp_path / "own"))
    assert cubins.cubin_directory() == tmp_path / "own" / "cubins"


def test_everything_is_built_in_processes_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "carried"
    arguments = ["--output", str(out), "--only", "reduce", "--only", "bitmap_bulk_n8", "--jobs", "2"]
    assert build.main([*arguments, "--arch", "sm_80", "--arch", "sm_90"]) == 0
    assert capsys.readouterr().out.endswith(f"wrote 2 x 2 kernels to {out}\n")
    assert not (out / cubins.PTX).exists()
    assert len(list(out.glob("*.cubin"))) == 2 * 2 + 2  # of two element types; bulk copies only where there are any
    for arch in ("sm_80", "sm_90"):
        assert cubins.load(REDUCE.identity, arch) is not None
    assert build.main(["--output", str(out), "--arch", "sm_70"]) == build.BAD_INPUT
    assert "gpu.build: unknown architecture 'sm_70'" in capsys.readouterr().err


def test_what_does_not_compile_is_told_and_costs_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = dict(build.build(["reduce", "no_such"], ["sm_80"], 1))
    assert outcomes == {"reduce": "", "no_such": "KeyError: 'no_such'"}
