"""Compilers found where nothing names them; registers read from machine code; linkers that refuse to report."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

import pytest

from kernels_numba.gpu import toolchain, variants
from kernels_numba.gpu.compile import ARCHITECTURES, assemble, compile_kernel, compile_ptx


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_machine_code_says_what_the_assembler_says(arch: str) -> None:
    for variant in (variants.reduce(), variants.dense(8)):
        kernel = compile_kernel(variant, arch)
        assert toolchain.resources(kernel.cubin) == (kernel.registers, 0)


def test_spilled_registers_show_as_a_stack_frame() -> None:
    """A kernel of 128 registers with room for 40."""
    ptx, _ = compile_ptx(variants.tiled_csl(64, 8), "sm_80")
    crowded = ptx.replace(".maxntid", ".maxnreg 40 // .maxntid", 1)
    cubin, log = assemble(crowded, "sm_80")
    registers, frame = toolchain.resources(cubin)
    assert registers == 40
    assert f"{frame} bytes stack frame" in log
    assert frame > 0


def test_a_linker_that_refuses_the_report_is_asked_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuda.core with the driver's linker: the option is refused, and the log is empty."""
    import cuda.core as core

    options, asked = core.LinkerOptions, []

    def refusing(**given: Any) -> Any:
        asked.append(given)
        if "ptxas_options" in given:
            raise ValueError("ptxas_options is not supported by the driver backend")
        return options(**given)

    ptx, _ = compile_ptx(variants.reduce(), "sm_80")
    cubin, log = assemble(ptx, "sm_80")
    monkeypatch.setattr(core, "LinkerOptions", refusing)
    assert toolchain.resources(assemble(ptx, "sm_80")[0]) == toolchain.resources(cubin)
    assert len(asked) == 2
    registers = toolchain.resources(cubin)[0]
    assert f"Used {registers} registers" in assemble(ptx, "sm_80")[1]
    assert f"Used {registers} registers" in log


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """NVIDIA's search finds nothing; there are no packages, and toolkits below a folder of the test's own."""
    loaded: list[str] = []

    def nothing(name: str) -> None:
        raise RuntimeError(f"DynamicLibNotFoundError: {name}")

    monkeypatch.setattr("cuda.pathfinder.load_nvidia_dynamic_lib", nothing)
    monkeypatch.setattr(ctypes, "CDLL", lambda path, mode: loaded.append(path))
    monkeypatch.setattr(toolchain, "TOOLKITS", tmp_path)
    monkeypatch.setattr(toolchain.sys, "path", [])
    monkeypatch.delenv("CUDA_HOME", raising=False)
    return loaded


def library(folder: Path, name: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()
    return str(folder / name)


def test_a_toolkit_that_nothing_names_is_found(lost: list[str], tmp_path: Path) -> None:
    library(tmp_path / "cuda-12.4" / "nvvm" / "lib64", "libnvvm.so.4")
    new = tmp_path / "cuda-13.0"
    wanted = [library(new / "nvvm" / "lib64", "libnvvm.so.4"), library(new / "lib64", "libnvJitLink.so.13")]
    toolchain.find_libraries.__wrapped__()
    assert lost == wanted
    assert os.environ["CUDA_HOME"] == str(new)


def test_packages_of_another_layout_are_found(lost: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain.sys, "path", [str(tmp_path)])
    package = tmp_path / "nvidia" / "cuda_nvcc" / "nvvm" / "lib64"
    wanted = [library(package, "libnvvm.so"), library(tmp_path / "nvidia" / "nvjitlink" / "lib", "libnvJitLink.so.12")]
    toolchain.find_libraries.__wrapped__()
    assert lost == wanted
    assert os.environ["CUDA_HOME"] == str(tmp_path / "nvidia" / "cuda_nvcc")


def test_what_is_nowhere_is_one_sentence(lost: list[str]) -> None:
    with pytest.raises(
        ValueError, match=r"libnvvm is neither in .* nor below CUDA_HOME, nor .*: pip install nvidia-nvvm"
    ):
        toolchain.find_libraries.__wrapped__()
