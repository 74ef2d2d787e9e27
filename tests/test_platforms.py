"""macOS has no CUDA compiler: what asks for one is marked, and all else asks for nothing that macOS lacks."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement

from kernels_numba.gpu.toolchain import NoCompilerError
from tests import conftest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CUDA = re.compile(r"cuda|nvidia|cupy")
# Of GNU make, after 3.81: one shell, shell and simple assignments, grouped targets, functions.
NEWER_MAKE = re.compile(r"\.ONESHELL|^\w+\s*(?:!=|::=)|&:|\$\((?:file|guile|let|intcmp)\b", flags=re.MULTILINE)
GNU_ONLY = re.compile(r"sed -i|readlink -f|cp -a|\bnproc\b|find [^|\n]*-printf|date -d|grep -P|touch -d|xargs -r")


@pytest.mark.parametrize("platform", ["darwin", "linux", "win32"])
def test_cuda_is_asked_for_where_it_is_published(platform: str) -> None:
    extras = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    wanted = [Requirement(line) for line in PROJECT["dependencies"] + extras]
    here = [each for each in wanted if each.marker is None or each.marker.evaluate({"sys_platform": platform})]
    asked = {each.name for each in here if CUDA.search(each.name)}
    published = {"numba-cuda", "cuda-toolkit", "nvidia-nvjitlink", "nvidia-cuda-nvdisasm"}
    assert asked == (set() if platform == "darwin" else published)
    assert {each.name for each in wanted} - {each.name for each in here} == published - asked


def test_the_makefile_runs_with_the_tools_of_macos() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert not NEWER_MAKE.findall(text)
    assert not GNU_ONLY.findall(text)


@pytest.mark.parametrize("compiler", [False, True])
def test_a_refused_compilation_skips_a_test_only_where_there_is_no_compiler(
    compiler: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conftest, "COMPILER", compiler)
    running = conftest.pytest_runtest_call(SimpleNamespace())  # type: ignore[arg-type]
    next(running)
    with pytest.raises(NoCompilerError if compiler else pytest.skip.Exception, match="needs"):
        running.throw(NoCompilerError("compiling a kernel needs numba-cuda"))


def test_tests_that_hide_the_refusal_exist() -> None:
    for place in conftest.COMPILING:
        path, _, name = place.partition("::")
        assert name.partition("[")[0] in (ROOT / "tests" / path).read_text(encoding="utf-8"), place
