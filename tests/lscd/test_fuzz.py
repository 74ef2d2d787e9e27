"""Whatever is typed, and whatever a file holds: an answer, or one sentence with exit code 2 and nothing left behind.

Hostile values for every option of every command, found by walking the program, and hostile files. Ten times as many
each with LSCD_FUZZ=10 in the environment, then drawn anew; LSCD_FUZZ_LOG=FILE counts what was tried.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lscd.cli import main
from lscd.errors import BAD_INPUT
from tests.lscd.hostile import GOOD, VALUES, broken, commands, make_world, snapshot

TIMES = int(os.environ.get("LSCD_FUZZ", "1"))
LOG = os.environ.get("LSCD_FUZZ_LOG")
COMMANDS = commands()
LONGEST_MESSAGE = 2200
# What takes minutes, opens a port or reaches out is left to its own tests; the way to it is tried here.
LONG = (
    "lscd.explorer.server.serve", "lscd.report.build.build", "kernels_numba.check.check_kernels",
    "kernels_numba.bench.gpu.measure_here", "kernels_numba.bench.machine.measure_machine",
    "kernels_numba.gpu.compile.compile_kernel", "kernels_numba.gpu.trace.trace",
    "kernels_numba.bench.machine.measure_gpu",
    "perfmodel.evidence.kernel_fit.fit_all", "perfmodel.evidence.memory_fit.fit_memory",
    "perfmodel.sweep.cluster.cluster_client", "perfmodel.evidence.run_spread.judged_runs",
)  # fmt: skip


class TooLongError(ValueError):
    """Stands for an answer that would take minutes."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("world")
    make_world(folder)
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> Any:
        raise TooLongError("too long for this test")

    for name in LONG:
        monkeypatch.setattr(name, stop)


def configured(examples: int) -> Any:
    """Settings of a test: the same examples each time, unless more are asked for."""
    return settings(
        max_examples=examples * TIMES, derandomize=TIMES == 1, deadline=None, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


def outcome(arguments: list[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of ``lscd`` with these arguments."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors=errors) for errors in ("strict", "replace"))
    before, sys.argv = sys.argv, ["lscd", *arguments]
    code: object = 0
    with redirect_stdout(out), redirect_stderr(err), suppress(TooLongError):
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
    sys.argv = before
    out.flush()
    err.flush()
    told, said = (stream.buffer.getvalue().decode("utf-8", "replace") for stream in (out, err))  # type: ignore[attr-defined]
    return int(str(code)), told, said


def not_a_number(constant: str) -> None:
    raise AssertionError(f"{constant} in JSON")


def behaves(folder: Path, arguments: list[str]) -> None:
    """Call ``lscd``; fail unless it answers or refuses in a sentence, with all files as they were."""
    before = snapshot(folder)
    code, out, err = outcome(arguments)
    after = snapshot(folder)
    lines = [line for line in err.split("\n") if line]
    if LOG:
        with open(LOG, "a") as log:
            log.write(f"{' '.join(arguments[:2])!r}\t{code}\n")
    assert code in (0, BAD_INPUT), (arguments, err)
    assert all(line.startswith("lscd: ") and line.isprintable() for line in lines), (arguments, err)
    assert len(err) < LONGEST_MESSAGE, (arguments, err)
    if code == BAD_INPUT:
        assert len([line for line in lines if " not read" not in line]) <= 1, (arguments, err)
        assert after == before, (arguments, sorted(set(after) ^ set(before)))
    if code == 0 and "--json" in arguments and "--help" not in arguments and out:
        json.loads(out, parse_constant=not_a_number)
    new = set(after) - set(before)
    assert {name: after.get(name) for name in before} == before, arguments
    for name in sorted(new, reverse=True):
        path = folder / name
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


@st.composite
def calls(draw: st.DrawFn, words: tuple[str, ...]) -> list[str]:
    """A call of a command with one or two of its options hostile, most others good."""
    arguments = list(draw(st.sampled_from(GOOD.get(words, [[]]))))
    params = COMMANDS[words].params
    for parameter in draw(st.lists(st.sampled_from(params), min_size=1, max_size=2)) if params else ():
        option, value = parameter.opts[0], draw(VALUES)
        if not option.startswith("-"):
            arguments[:1] = [value]
        elif option in arguments:
            at = arguments.index(option) + 1
            arguments[at : at + 1] = [value]
        else:
            arguments += [option] if getattr(parameter, "is_flag", False) else [option, value]
    return [*words, *arguments]


@pytest.mark.parametrize("words", sorted(COMMANDS), ids=" ".join)
def test_hostile_options(world: Path, words: tuple[str, ...]) -> None:
    @configured(8)
    @given(calls(words))
    def check(arguments: list[str]) -> None:
        behaves(world, arguments)

    check()


FILES = {
    "gpu.toml": ("predict", "simulate", "formats"), "cpu.toml": ("predict",), "model.toml": ("e2e",),
    "products.csv": ("predict",), "runs.csv": ("e2e",), "served.csv": ("serve",), "zeros.csv": ("e2e",),
    "census.json": ("e2e",), "own.csv": ("validate",), "folder/config.json": ("e2e", "choose"),
    "plain.safetensors": ("weights inspect", "weights prune", "weights convert"),
    "encoded.safetensors": ("weights convert",), "norms.safetensors": ("weights prune",),
    "sharded/model.safetensors.index.json": ("weights inspect",), "fits.json": ("predict",),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_hostile_files(world: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    good, folder = (world / name).read_bytes(), name.partition("/")[0]
    using = [
        [*command.split(), *call] for command in FILES[name] for call in GOOD[tuple(command.split())]
        if folder in call or name == "fits.json"
    ]  # fmt: skip
    assert using
    if name == "fits.json":
        monkeypatch.setenv("LSCD_CALIBRATION", name)

    @configured(8)
    @given(st.sampled_from(using), broken(good))
    def check(arguments: list[str], data: bytes) -> None:
        (world / name).write_bytes(data)
        behaves(world, arguments)

    try:
        check()
    finally:
        (world / name).write_bytes(good)


# What needs a model with weights and a vocabulary, or a file of another program's, is tried up to there.
REFUSED = {("generate",), ("query",), ("weights", "evaluate"), ("weights", "import")}


@pytest.mark.parametrize("words", GOOD, ids=" ".join)
def test_good_calls_are_good(world: Path, words: tuple[str, ...]) -> None:
    for call in GOOD[words]:
        code, _, err = outcome([*words, *call])
        assert code == 0 or words in REFUSED or "too long for this test" in err, (words, call, err)
        clean(world)


def clean(folder: Path) -> None:
    for name in ("out.csv", "out.json", "out.toml", "out.parquet", "out.safetensors"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "profile", ignore_errors=True)
