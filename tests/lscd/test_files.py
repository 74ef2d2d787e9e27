"""No command destroys an input or lies about an output."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kernels_numba.files import readable, written_whole
from lscd.errors import shown
from tests.lscd.commands import GOOD_ROW, HEADER, run
from tests.lscd.hostile import commands, make_world, snapshot

WANDA = ["weights", "prune", "plain.safetensors", "OUT", "--method", "wanda", "--sparsity", "0.5", "--norms",
         "norms.safetensors"]  # fmt: skip
WRITERS = {
    "predict": ["predict", "--input", "products.csv", "--output", "OUT"],
    "e2e": ["e2e", "--input", "runs.csv", "--output", "OUT"],
    "serve": ["serve", "--input", "served.csv", "--output", "OUT"],
    "simulate": ["simulate", "flash-llm", "--gpu", "gpu.toml", "--m", "64", "--k", "64", "--n", "8", "--trace", "OUT"],
    "calibrate": ["calibrate", "--with", "own.csv", "--out", "OUT"],
    "prune": WANDA,
    "convert": ["weights", "convert", "plain.safetensors", "OUT"],
    "decode": ["weights", "convert", "encoded.safetensors", "OUT", "--decode"],
}
INPUTS = {
    "predict": "products.csv", "e2e": "runs.csv", "serve": "served.csv", "simulate": "gpu.toml", "calibrate": "own.csv",
    "prune": "norms.safetensors", "convert": "plain.safetensors", "decode": "encoded.safetensors",
}  # fmt: skip


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_world(tmp_path)
    with socket.socket(socket.AF_UNIX) as made:
        monkeypatch.chdir(tmp_path)
        made.bind("sock")
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked").chmod(0o555)
    (tmp_path / "stream").symlink_to("/dev/stdout")
    return tmp_path


def refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], world: Path, arguments: list[str]
) -> str:
    """The one line that says why; nothing has changed."""
    before = snapshot(world)
    code, _, err = run(monkeypatch, capsys, *arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert snapshot(world) == before
    return err


@pytest.mark.parametrize("command", WRITERS)
def test_no_output_is_an_input_under_any_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], world: Path, command: str
) -> None:
    own = INPUTS[command]
    (world / "soft.safetensors").symlink_to(own)
    (world / "hard.safetensors").hardlink_to(world / own)
    (world / "here").symlink_to(world)
    for name in (own, f"./folder/../{own}", f"here/{own}", str(world / own), "soft.safetensors", "hard.safetensors"):
        arguments = [name if word == "OUT" else word for word in WRITERS[command]]
        assert "is the input itself" in refused(monkeypatch, capsys, world, arguments)


@pytest.mark.parametrize("command", WRITERS)
def test_only_plain_files_are_outputs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], world: Path, command: str
) -> None:
    places = ["/dev/null", "/dev/full", "/dev/stdout", "/proc/self/fd/1", "stream", "pipe.csv", "sock", "loop.toml",
              "locked.csv", "locked/x.safetensors", "none/x.safetensors", "x" * 300 + ".safetensors", ""]  # fmt: skip
    for name in places:
        refused(monkeypatch, capsys, world, [name if word == "OUT" else word for word in WRITERS[command]])


def test_files_that_an_input_names_are_inputs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], world: Path
) -> None:
    (world / "rows.csv").write_text(f"{HEADER}\n{GOOD_ROW.replace('a100-80gb', 'gpu.toml')}\n")
    shard = world / "sharded" / "a.safetensors"
    for arguments in (
        ["predict", "--input", "rows.csv", "--output", "gpu.toml"],
        ["weights", "convert", "sharded", str(shard)],
        ["weights", "convert", "sharded/model.safetensors.index.json", str(shard)],
        ["simulate", "bitmap", "--gpu", "cpu.toml@1", "--m", "8", "--k", "8", "--n", "8", "--trace", "cpu.toml"],
    ):
        assert "is the input itself" in refused(monkeypatch, capsys, world, arguments)
    monkeypatch.setenv("LSCD_CALIBRATION", "fits.json")
    arguments = ["predict", "--input", "products.csv", "--output", "fits.json"]
    assert "is the input itself" in refused(monkeypatch, capsys, world, arguments)


@pytest.mark.parametrize("name", ["pipe.csv", "/dev/zero", "/dev/full", "endless.csv", "folder", "/proc/kmsg"])
def test_inputs_that_never_end_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], world: Path, name: str
) -> None:
    for arguments in (
        ["predict", "--input", name, "--output", "out.csv"],
        ["validate", "--with", name],
        ["weights", "inspect", name],
    ):
        assert Path(name).name in refused(monkeypatch, capsys, world, arguments)
    with pytest.raises(ValueError, match="allowed: "):
        readable(name, 1 << 20)


def test_a_full_disk_leaves_nothing(world: Path) -> None:
    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    command = [sys.executable, "-m", "lscd", *WRITERS["predict"][:-1], "new.csv"]
    before = snapshot(world)
    result = subprocess.run(command, capture_output=True, text=True, preexec_fn=small, check=False)
    assert (result.returncode, result.stderr) == (2, "lscd: new.csv was not written: File too large\n")
    assert snapshot(world) == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_nothing_half_written(world: Path, number: int, code: int) -> None:
    script = (
        "import signal, sys, time, lscd.simulate as s; from lscd.cli import main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # which shells take from what they put aside
        "s._write_trace = lambda result, path: (path.write_text('half'), print('now', flush=True), time.sleep(60))\n"
        f"sys.argv = ['lscd', *{[*WRITERS['simulate'][:-1], 'new.json']!r}]; main()"
    )
    before = snapshot(world)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"now\n"
        time.sleep(0.1)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (code, b"")
    assert snapshot(world) == before


def test_permissions_stay(world: Path) -> None:
    (world / "private.csv").write_text("old")
    (world / "private.csv").chmod(0o600)
    with written_whole("private.csv") as partial:
        partial.write_text("new")
    assert ((world / "private.csv").stat().st_mode & 0o777, (world / "private.csv").read_text()) == (0o600, "new")


def test_every_output_is_declared() -> None:
    from lscd.files import Checked, outputs_of

    found = {" ".join(words): set(outputs_of(command)) for words, command in commands().items()}
    assert all(isinstance(command, Checked) for command in commands().values())
    assert found["simulate"] == {"trace", "gantt"}
    assert found["measure"] == {"out", "rows"}
    names = ("out", "output", "output_csv", "trace", "gantt", "profile", "rows", "folder", "export")
    for words, command in commands().items():
        typed = {parameter.name for parameter in command.params if parameter.name in names}
        name = " ".join(words)
        assert name in ("sweep", "query") or typed == found[name]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("weights convert --decode a b --dtype float16", "--dtype does nothing with --decode"),
        ("weights convert --decode a b --format csr --json", "--format, --json do nothing with --decode"),
        ("weights inspect a --batch 4", "--batch does nothing without --gpu"),
        ("weights prune a b --sparsity 0.5 --samples 3", "--samples does nothing without --calibration"),
        ("weights prune a b --sparsity 0.5 --seed 3", "--seed does nothing without --method random"),
        ("e2e --model opt-13b --gpu h100 --batch 1 --acceptance 0.5", "--acceptance does nothing without --speculate"),
        ("e2e --model opt-13b --gpu h100 --batch 1 --offload-gb-per-s 5", "nothing without --offload"),
        ("serve --model opt-13b --gpu h100 --profile p --ttft 5", "--ttft does nothing with --profile"),
        ("plan --model opt-13b --gpu h100 --systems vllm --engine vllm", "--engine does nothing with --systems"),
        ("generate m --prompt a --seed 1", "--seed does nothing without --temperature"),
        ("measure --gpu --threads 1", "--threads does nothing with --gpu"),
        ("formats --n 4", "--n does nothing without --gpu"),
        ("calibrate --simulator --out x.json", "--simulator does nothing with --out"),
    ],
)
def test_options_that_do_nothing_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(monkeypatch, capsys, *arguments.split())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_calibrate_leaves_an_installed_package_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from perfmodel.catalog import data_directory, files

    monkeypatch.setattr(files, "INSTALLED", data_directory())
    code, out, err = run(monkeypatch, capsys, "calibrate")
    assert (code, out) == (2, "")
    assert "belong to an installed package; give --out FILE" in err


def test_columns_that_nobody_reads_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], world: Path
) -> None:
    (world / "more.csv").write_text(f"{HEADER},who,why\n{GOOD_ROW},me,fun\n")
    code, _, err = run(monkeypatch, capsys, "predict", "--input", "more.csv", "--output", "out.csv")
    assert (code, err) == (0, "lscd: more.csv: columns who, why kept as given, not read\n")
    assert "me,fun" in (world / "out.csv").read_text()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("a\nb\x1b[31m\udcff", r"a\nb\x1b[31m\xff"),
        (f"unknown {'x' * 5000!r}: known are a", f"unknown '{'x' * 59}…: known are a"),
        (f"unknown {'x y ' * 900!r}: known are a", f"unknown '{'x y ' * 14}x y…: known are a"),
        ("it's the kernels' own " + "word " * 60, ("it's the kernels' own " + "word " * 60).strip()),
    ],
)
def test_messages_are_one_short_line(words: str, line: str) -> None:
    assert shown(words) == line
    assert len(shown("word " * 5000)) < 2000


def test_any_exception_is_a_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from perfmodel import catalog

    def fail() -> tuple[str, ...]:
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr(catalog, "gpu_names", fail)
    monkeypatch.delenv("LSCD_DEBUG", raising=False)
    code, _, err = run(monkeypatch, capsys, "gpus")
    words = r"lscd: a fault of lscd, not of what was typed: ZeroDivisionError: by\nzero; LSCD_DEBUG=1 shows where"
    assert (code, err) == (70, f"{words}\n")


def test_pictures_do_not_change_from_run_to_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], world: Path
) -> None:
    for suffix in ("svg", "pdf", "png"):
        drawn = []
        for name in (f"a.{suffix}", f"b.{suffix}"):
            assert run(monkeypatch, capsys, *WRITERS["simulate"][:-2], "--gantt", name)[0] == 0
            drawn.append((world / name).read_bytes())
            monkeypatch.setenv("SOURCE_DATE_EPOCH", str(len(drawn)))
        assert drawn[0] == drawn[1]


def test_a_page_of_another_is_not_replaced(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], world: Path
) -> None:
    (world / "index.html").write_text("mine")
    assert "no report of ours" in refused(monkeypatch, capsys, world, ["report", "--out", os.fspath(world)])
