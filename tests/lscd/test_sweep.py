"""`lscd sweep` as a process: stopped, out of disk, resumed, refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from lscd.cli import app, main
from perfmodel.sweep import Plan
from perfmodel.sweep.table import chunk_table

ROOT = Path(__file__).resolve().parents[2]


RUNNER = CliRunner()


MANY = """[sweep]
target = "predict"
[axes]
gpu = "a100-80gb"
kernel = ["flash-llm", "sputnik"]
m = {start = 1024, stop = 20480, step = 1024}
k = {start = 1024, stop = 20480, step = 1024}
n = [8, 16, 32, 64]
sparsity = {start = 0.0, stop = 0.998, step = 0.002}
"""


def start_sweep(tmp_path: Path, out: Path) -> subprocess.Popen[str]:
    """The command line with small chunks in a process of its own."""
    spec = tmp_path / "many.toml"
    spec.write_text(MANY)
    code = (
        "import sys; from perfmodel.sweep import grid; grid.CHUNK_POINTS = 1 << 15; from lscd.cli import main; "
        f"sys.argv = ['lscd', 'sweep', {str(spec)!r}, '--out', {str(out)!r}]; main()"
    )
    return subprocess.Popen([sys.executable, "-c", code], text=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE)


def wait_for_chunks(process: subprocess.Popen[str], parts: Path, chunks: int) -> None:
    deadline = time.monotonic() + 30
    while not parts.exists() or len(list(parts.glob("chunk-*"))) < chunks:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no chunk appeared in 30 s"
        time.sleep(0.005)


def finish(process: subprocess.Popen[str]) -> None:
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_resume_after_a_stop_gives_the_same_file(tmp_path: Path, how: signal.Signals) -> None:
    out = tmp_path / "out.parquet"
    parts = tmp_path / "out.parquet.parts"
    process = start_sweep(tmp_path, out)
    wait_for_chunks(process, parts, 3)
    process.send_signal(how)
    _, said = process.communicate(timeout=30)
    assert process.returncode == (-signal.SIGKILL if how is signal.SIGKILL else 130), said
    if how is signal.SIGINT:
        assert "chunks are stored, the same command goes on from there" in said
    done = {path.name: path.stat().st_mtime_ns for path in parts.glob("chunk-*")}
    assert len(done) >= 3
    assert not out.exists()
    again = start_sweep(tmp_path, out)
    wait_for_chunks(again, parts, len(done) + 1)
    # What was stored is not computed again.
    assert done.items() <= {path.name: path.stat().st_mtime_ns for path in parts.glob("chunk-*")}.items()
    finish(again)
    whole = tmp_path / "whole.parquet"
    finish(start_sweep(tmp_path, whole))
    assert out.read_bytes() == whole.read_bytes()
    assert not parts.exists()


def test_a_second_process_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    first = start_sweep(tmp_path, out)
    wait_for_chunks(first, tmp_path / "out.parquet.parts", 1)
    first.send_signal(signal.SIGSTOP)  # it holds on while it sleeps
    second = start_sweep(tmp_path, out)
    _, said = second.communicate(timeout=60)
    assert (second.returncode, said.count("\n")) == (2, 1), said
    assert "out.parquet is being written by another process" in said
    first.send_signal(signal.SIGCONT)
    finish(first)
    assert pq.read_metadata(out).num_rows == 2 * 20 * 20 * 4 * 500
    assert sorted(path.name for path in tmp_path.iterdir()) == ["many.toml", "out.parquet"]


@pytest.mark.parametrize(("limit", "chunks"), [(50_000, 0), (2_000_000, 80)], ids=["first chunk", "join"])
def test_a_full_disk_leaves_whole_chunks_and_a_hint(tmp_path: Path, limit: int, chunks: int) -> None:
    """A limit on file size stands in for the full disk: writes fail midway just the same."""
    spec, out = tmp_path / "many.toml", tmp_path / "out.parquet"
    spec.write_text(MANY)
    code = (
        "import resource, signal, sys; from perfmodel.sweep import grid; grid.CHUNK_POINTS = 1 << 15\n"
        "from lscd.cli import main\n"
        f"sys.argv = ['lscd', 'sweep', {str(spec)!r}, '--out', {str(out)!r}]\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))\n"
        "main()"
    )
    stopped = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert stopped.returncode == 2, stopped
    assert "File too large" in stopped.stderr
    assert "the same command goes on from there" in stopped.stderr
    assert not out.exists()
    left = sorted(path.name for path in tmp_path.glob("out.parquet.parts/*"))
    assert left == [f"chunk-{index:08d}.parquet" for index in range(chunks)] + ["plan.json"] * (chunks > 0)
    assert (tmp_path / "out.parquet.parts").exists() == (chunks > 0)
    finish(start_sweep(tmp_path, out))
    assert pq.read_metadata(out).num_rows == 2 * 20 * 20 * 4 * 500


@pytest.mark.parametrize("text", ["not toml", "[sweep]\ntarget = 'predict'\n"])
def test_sweep_names_the_broken_spec(tmp_path: Path, text: str) -> None:
    spec = tmp_path / "s.toml"
    spec.write_text(text)
    refused(spec, tmp_path / "o.parquet", r"s.toml: (Expected|missing axes gpu, kernel, m, k, n, sparsity)")
    assert list(tmp_path.iterdir()) == [spec]


def refused(spec: Path, out: Path, message: str) -> None:
    with pytest.raises((ValueError, OSError), match=message):
        RUNNER.invoke(app, ["sweep", str(spec), "--out", str(out)], catch_exceptions=False)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("/dev/zero", "/dev/zero: no plain file but a device"),
        ("/dev/null", "/dev/null: no plain file but a device"),
        ("fifo", "fifo: no plain file but a device, pipe or stream"),
        (".", "no plain file but a directory"),
        ("loop", "Too many levels of symbolic links"),
        ("missing", "No such file"),
        (os.fsdecode(b"\xff.toml"), "No such file"),
        ("deep", "deep: its keys nest too deeply"),
        ("dotted", "dotted: its keys nest too deeply"),
        ("latin", "latin: no UTF-8 text: byte 9 is 0xe9"),
        ("long", "long: 200,001 bytes, allowed are at most 200,000"),
        ("digits", "digits: Exceeds the limit"),
    ],
)
def test_specs_that_cannot_be_read_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, message: str
) -> None:
    monkeypatch.setattr("perfmodel.catalog.files.LARGEST_BYTES", 200_000)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "deep").write_text("x = " + "[" * 90_000)
    (tmp_path / "dotted").write_text(" . ".join("a" * 40_000) + " = 1")
    (tmp_path / "latin").write_bytes(b"title = '\xe9'")
    (tmp_path / "long").write_bytes(b"\n" * 200_001)
    (tmp_path / "digits").write_text("m = " + "9" * 5000)
    before = sorted(tmp_path.iterdir())
    refused(tmp_path / spec, tmp_path / "o.parquet", message)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("kind", ["loop", "/dev/null", "fifo", "missing/o.parquet"])
def test_outputs_that_are_no_files_are_refused_before_work(tmp_path: Path, kind: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "s.toml").write_text(MANY)
    before = sorted(tmp_path.iterdir())
    refused(
        tmp_path / "s.toml",
        tmp_path / kind,
        "leads back to itself|is a (device|pipe), no file|no such directory",
    )
    assert sorted(tmp_path.iterdir()) == before


def test_a_name_that_is_no_text_is_written_and_asked(tmp_path: Path) -> None:
    spec, out = tmp_path / os.fsdecode(b"\xfe.toml"), tmp_path / os.fsdecode(b"\xff.parquet")
    spec.write_text(MANY.replace("stop = 20480", "stop = 1024").replace("step = 0.002", "step = 0.499"))
    made = RUNNER.invoke(app, ["sweep", str(spec), "--out", str(out)], catch_exceptions=False)
    assert r"\xff.parquet: 24 rows of 24 points" in made.output
    assert "24" in RUNNER.invoke(app, ["query", str(out), "SELECT count(*) FROM results"]).output
    assert sorted(tmp_path.iterdir()) == [spec, out]


def test_every_example_spec_runs(tmp_path: Path) -> None:
    import tomllib

    specs = sorted((ROOT / "data" / "sweeps").glob("*.toml"))
    assert len(specs) >= 5
    for path in specs:
        made = Plan.of(tomllib.loads(path.read_text()))
        assert made.spec.grid.points <= 2_000_000, path
        rows = chunk_table(made, 0)
        assert rows.num_rows > 0, path
        assert json.loads(made.identity)["points"] == made.spec.grid.points


def test_a_finished_file_of_this_folder_may_be_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Options that were left empty name nothing, least of all the folder with the output."""
    monkeypatch.chdir(tmp_path)
    Path("s.toml").write_text(MANY.replace("stop = 20480", "stop = 1024").replace("step = 0.002", "step = 0.499"))
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", ["lscd", "sweep", "s.toml", "--out", "o.parquet"])
        with pytest.raises(SystemExit) as ended:
            main()
        assert (ended.value.code, capsys.readouterr().err) == (0, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.parquet", "s.toml"]
