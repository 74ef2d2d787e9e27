"""House rules, checked by machine: import arrows, one list of packages, sizes, no prints in models."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"perfmodel", "kernels_numba", "lscd", "reports"}
# A: B means A may import B; nothing else of ours.
ARROWS = {
    "perfmodel": {"perfmodel"},
    "kernels_numba": {"kernels_numba"},
    "reports": {"reports", "perfmodel", "kernels_numba"},
    "lscd": {"lscd", "reports", "perfmodel", "kernels_numba"},
}
MATPLOTLIB_HOMES = {"perfmodel/plotting", "reports"}
# The store of sweeps: results too large to hand over in memory are streamed to and from Parquet.
FILE_READERS = {"perfmodel/catalog.py", "perfmodel/sweep/store.py"}
# Distribution on PyPI -> package on conda-forge, where the names differ.
CONDA_NAMES = {
    "cuda-toolkit": "cuda-version",
    "nvidia-nvjitlink": "libnvjitlink",
    "nvidia-cuda-nvdisasm": "cuda-nvdisasm",
    "torch": "pytorch",
    "duckdb": "python-duckdb",
    "distributed": "distributed",
}
CONDA_ONLY = {"python", "pip"}


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            home = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
            found.add(".".join([*home, node.module or ""]))
    return found


@pytest.mark.parametrize("package", sorted(ARROWS))
def test_imports_follow_the_arrows(package: str) -> None:
    for path in sources(package):
        ours = {name.split(".")[0] for name in imports(path)} & PACKAGES
        assert ours <= ARROWS[package], f"{path} imports {ours - ARROWS[package]}"


def test_models_draw_only_in_plotting_and_never_touch_cuda() -> None:
    for path in sources("perfmodel"):
        tops = {name.split(".")[0] for name in imports(path)}
        home = path.relative_to(ROOT).as_posix()
        assert "matplotlib" not in tops or home.startswith("perfmodel/plotting"), path
        assert not any(name.startswith("numba.cuda") for name in imports(path)), path


def test_only_the_catalogue_reads_data() -> None:
    for path in sources("perfmodel"):
        if path.relative_to(ROOT).as_posix() in FILE_READERS:
            continue
        assert not re.search(r"read_csv|read_parquet|\bopen\(|read_text\(|tomllib|json\.load", path.read_text()), path


def requirements(lines: list[str]) -> dict[str, str]:
    """Package name -> version range, brackets dropped, names lower-case."""
    found = {}
    for line in lines:
        match = re.fullmatch(r"([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?\s*(.*)", line.strip())
        assert match, line
        found[match.group(1).lower()] = match.group(2).replace(" ", "")
    return found


def test_environment_and_project_ask_for_the_same() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [line for name, lines in project["optional-dependencies"].items() for line in lines]
    wanted = requirements(project["dependencies"] + extras)
    wanted = {CONDA_NAMES.get(name, name): version for name, version in wanted.items()}
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    offered = requirements([line for line in environment["dependencies"] if isinstance(line, str)])
    assert offered.pop("python") == project["requires-python"]
    assert {name: version for name, version in offered.items() if name not in CONDA_ONLY} == wanted


def test_constraints_pin_every_requirement() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + [
        line for extra in ("gpu", "dev") for line in project["optional-dependencies"][extra]
    ]
    pinned = {
        line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    }
    assert set(requirements(lines)) <= pinned
