"""House rules, checked by machine: the plan of the rooms, no circle, one list of packages, no prints in models."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from tests.conftest import SLOW

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("perfmodel", "kernels_numba", "lscd")
PLAN = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
# Doors for users, beside the plan: the packages themselves and the names of the first layout.
DOORS = {"perfmodel", "kernels_numba", "perfmodel/moved", "kernels_numba/moved"}
MATPLOTLIB_HOMES = {"perfmodel/plotting"}
# The store of sweeps: results too large to hand over in memory are streamed to and from Parquet.
FILE_READERS = {"perfmodel/catalog/files.py", *(f"perfmodel/sweep/{name}.py" for name in ("store", "seal", "lock"))}
# Modules named by a string: users' doors, which no room uses, and packages whose docstrings a study reads.
IMPORT_BY_STRING = {"perfmodel/__init__.py", "perfmodel/moved.py", "kernels_numba/moved.py", "lscd/study/pruning.py"}
# Distribution on PyPI -> package on conda-forge, where the names differ.
CONDA_NAMES = {
    "cuda-toolkit": "cuda-version",
    "nvidia-nvjitlink": "libnvjitlink",
    "nvidia-cuda-nvdisasm": "cuda-nvdisasm",
    "torch": "pytorch",
    "duckdb": "python-duckdb",
    "distributed": "distributed",
    "typst": "typst-py",
}
CONDA_ONLY = {"python", "pip"}
Graph = Mapping[str, set[str]]


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported_names(path: Path) -> Iterator[str]:
    """Full names of everything a file imports, wherever the import stands: at the top, in a function, for types."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            home = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
            base = ".".join([*home, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


@cache
def file_graph() -> Graph:
    """Modules of ours and the modules of ours that each imports."""
    paths = {module_name(path): path for package in PACKAGES for path in sources(package)}

    def owner(name: str) -> str:
        while name and name not in paths:
            name = name.rpartition(".")[0]
        return name

    return {module: {owner(name) for name in imported_names(path)} - {module, ""} for module, path in paths.items()}


def room(module: str) -> str:
    """Folder of a package, or file at its top; the commands of ``lscd`` are one room."""
    package, *rest = module.split(".")
    if not rest or (package == "lscd" and not (ROOT / package / rest[0]).is_dir()):
        return package
    return f"{package}/{rest[0]}"


@cache
def room_graph() -> Graph:
    found: dict[str, set[str]] = {}
    for module, imported in file_graph().items():
        here = found.setdefault(room(module), set())
        here |= {room(other) for other in imported} - {room(module)}
    return found


@cache
def drawn() -> Graph:
    """Arrows of the picture in CONTRIBUTING.md."""
    picture = re.search(r"```mermaid\n(.*?)```", PLAN, flags=re.DOTALL)
    assert picture
    arrows: dict[str, set[str]] = {}
    nodes = re.sub(r"\[[^\]]*\]", "", picture[1])  # without what is written in the boxes
    for start, ends in re.findall(r"^ *(\S+) --> (.+)$", nodes, flags=re.MULTILINE):
        arrows.setdefault(start, set()).update(end.strip() for end in ends.split("&"))
    return arrows


def reachable(graph: Graph, start: str) -> set[str]:
    seen: set[str] = set()
    todo = list(graph.get(start, ()))
    while todo:
        node = todo.pop()
        if node not in seen:
            seen.add(node)
            todo += graph.get(node, ())
    return seen


@pytest.mark.parametrize("graph", [file_graph, room_graph, drawn], ids=["files", "rooms", "picture"])
def test_nothing_runs_in_a_circle(graph: object) -> None:
    arrows = graph()  # type: ignore[operator]
    assert [node for node in arrows if node in reachable(arrows, node)] == []


def test_a_circle_would_be_seen() -> None:
    """The search itself: lazy imports and imports for types count, through any number of files."""
    assert "a" in reachable({"a": {"b"}, "b": {"c"}, "c": {"a"}}, "a")
    assert "perfmodel.catalog" in file_graph()["perfmodel"], "an import for types and at first use"
    assert "kernels_numba.formats.csr_njit" in file_graph()["kernels_numba.formats.csr"], "an import in a function"
    assert "kernels_numba.ptx_emulator.parse" in file_graph()["kernels_numba.ptx_emulator.launch"], "a relative import"


@pytest.mark.parametrize("start", sorted(set(room_graph()) - DOORS))
def test_arrows_go_as_the_plan_draws_them(start: str) -> None:
    allowed = reachable(drawn(), start)
    assert room_graph()[start] <= allowed, f"{start} imports {room_graph()[start] - allowed}, which the plan forbids"


def test_the_plan_draws_what_there_is() -> None:
    rooms = set(room_graph()) - DOORS
    named = set(drawn()) | {end for ends in drawn().values() for end in ends}
    assert named == rooms
    for start, ends in drawn().items():
        assert ends <= room_graph()[start], f"no file of {start} imports {ends - room_graph()[start]}"
    assert set(re.findall(r"^\| `([\w/]+)` \| \S", PLAN, flags=re.MULTILINE)) == rooms, "one sentence a room"


def test_the_two_packages_meet_only_in_data() -> None:
    for start, imported in room_graph().items():
        if not start.startswith("lscd"):
            assert {end.split("/")[0] for end in imported} <= {start.split("/")[0]}, start


def test_rooms_do_not_use_the_users_doors() -> None:
    for start, imported in room_graph().items():
        assert start in DOORS or not imported & DOORS, start


def test_no_module_is_imported_by_a_string() -> None:
    for path in (path for package in PACKAGES for path in sources(package)):
        if path.relative_to(ROOT).as_posix() not in IMPORT_BY_STRING:
            assert not re.search(r"\bimport_module\(|\b__import__\(", path.read_text(encoding="utf-8")), path


def test_models_draw_only_in_plotting_and_never_touch_cuda() -> None:
    for path in sources("perfmodel"):
        names = set(imported_names(path))
        home = path.relative_to(ROOT).parent.as_posix()
        assert home in MATPLOTLIB_HOMES or not any(name.startswith("matplotlib") for name in names), path
        assert not any(name.startswith("numba.cuda") for name in names), path


def test_only_the_catalogue_reads_data() -> None:
    for path in sources("perfmodel"):
        if path.relative_to(ROOT).as_posix() in FILE_READERS:
            continue
        assert not re.search(r"read_csv|read_parquet|\bopen\(|read_text\(|tomllib|json\.load\(", path.read_text()), path


# Topics of tests that go across the modules of a room.
ACROSS = {
    "kernels_numba": {"bad_arrays"},
    "kernels_numba/ptx_emulator": {
        "checks", "counters", "emulator", "evidence", "mutations", "quantised_mutations", "record_mutations", "warp",
    },
    "lscd": {"fuzz"},
    "lscd/explorer": {"accessible", "commands"},
    "lscd/report": {"figures"},
    "perfmodel": {"bad_arguments"},
    "perfmodel/plotting": {"boxes"},
}  # fmt: skip


@pytest.mark.parametrize("package", PACKAGES)
def test_a_changed_file_finds_its_test_by_its_path(package: str) -> None:
    """Tests mirror the rooms: each is named after a module of its room, or after the room itself."""
    for path in sources(f"tests/{package}"):
        home = path.parent.relative_to(ROOT / "tests")
        assert (ROOT / home).is_dir(), f"{path}: no room {home}"
        if path.name.startswith("test_"):
            topic = path.stem.removeprefix("test_")
            names = {module.stem for module in (ROOT / home).glob("*.py")} | {home.name}
            names |= ACROSS.get(home.as_posix(), set())
            assert topic in names, f"{path}: {home} has no {topic}.py"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_room_has_tests(package: str) -> None:
    rooms = {path.parent.relative_to(ROOT).as_posix() for path in sources(package)}
    untested = {home for home in rooms if not list((ROOT / "tests" / home).glob("test_*.py"))}
    assert untested == set()


# What README, docs and notebooks of the first layout told users to import.
TOLD = {
    "kernels_numba": "gpu_stages gpu_tiled_csl",
    "kernels_numba.census": "TILE_M take_census",
    "kernels_numba.checkpoint": "weight_matrices",
    "kernels_numba.compile": "compile_kernel",
    "kernels_numba.container": "convert_checkpoint open_encoded verify",
    "kernels_numba.cpu": "spmm",
    "kernels_numba.encoded": "EncodedWeight",
    "kernels_numba.formats": "encode_csr encode_tiled_csl encode_two_four",
    "kernels_numba.launch": "make_plan",
    "kernels_numba.plan": "Candidate plan",
    "kernels_numba.pruning": "magnitudes smallest_of_rows",
    "kernels_numba.reference": "check_product",
    "kernels_numba.safetensors_io": "open_checkpoint",
    "kernels_numba.safetensors_writer": "header_room written",
    "kernels_numba.spmm": "emulate spmm",
    "kernels_numba.trace": "trace",
    "perfmodel": "load_gpu load_model predict",
    "perfmodel.analysis": "bandwidth_for_speedup crossover_surface pareto_front prediction_sensitivity",
    "perfmodel.calibration": "calibrated extrapolated fit_all",
    "perfmodel.catalog": "data_directory gpu_names load_calibration load_kernel_times",
    "perfmodel.choice": "choose",
    "perfmodel.collectives": "all_reduce_time",
    "perfmodel.evidence": "kernel_evidence",
    "perfmodel.formats": "FORMATS WeightFormat break_even_sparsity",
    "perfmodel.hf_config": "supported_model_types",
    "perfmodel.kernels": "KERNELS",
    "perfmodel.memory": "memory",
    "perfmodel.pipeline": "WhatIf simulate",
    "perfmodel.pipeline.timeline": "stall_table timeline",
    "perfmodel.planning": "plan",
    "perfmodel.serving": "evaluate",
    "perfmodel.serving_calibration": "predict_runs published_runs",
    "perfmodel.specs": "Gpu LanguageModel",
    "perfmodel.sweep": "Plan run",
    "perfmodel.systems": "load_system",
    "perfmodel.transformer": "Part kv_bytes_per_token layer_matrices",
    "perfmodel.uncertainty": "coverage half_width interval",
    "perfmodel.validation": "crossovers error_statistics join_predictions",
}


@pytest.mark.parametrize("module", TOLD)
@pytest.mark.filterwarnings("ignore:.* is now :DeprecationWarning")
def test_names_that_users_were_told_still_import(module: str) -> None:
    for name in TOLD[module].split():
        names: dict[str, object] = {}
        exec(f"from {module} import {name}", names)
        assert names[name] is not None


def test_an_old_name_says_where_its_module_is_now() -> None:
    script = "import warnings; warnings.simplefilter('error'); import perfmodel.validation"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "DeprecationWarning: perfmodel.validation is now perfmodel.evidence.validation" in run.stderr
    for package in ("perfmodel", "kernels_numba"):
        for old, homes in import_module(f"{package}.moved").MOVED.items():
            assert all((ROOT / package / f"{home.replace('.', '/')}.py").is_file() for home in homes), old
            assert not (ROOT / package / f"{old.replace('.', '/')}.py").is_file(), f"{old} is no old name"


def test_an_old_name_can_still_be_run() -> None:
    command = [sys.executable, "-m", "kernels_numba.bench_gpu", "--help"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "python -m kernels_numba.bench.gpu" in run.stdout


def requirements(lines: list[str]) -> dict[str, str]:
    """Package name -> version range, brackets and platforms dropped, names lower-case."""
    found = {}
    for line in lines:
        match = re.fullmatch(r"([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?\s*(.*)", line.partition(";")[0].strip())
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
        line for extra in ("gpu", "generate", "dev") for line in project["optional-dependencies"][extra]
    ]
    pinned = {
        line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    }
    assert set(requirements(lines)) <= pinned


def test_what_counts_as_slow_exists() -> None:
    assert [path for path in SLOW if not (ROOT / "tests" / path).exists()] == []
