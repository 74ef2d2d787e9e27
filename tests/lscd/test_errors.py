"""How commands fail: exit code 2, one sentence, nothing half-written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lscd.errors import written_whole
from tests.lscd.commands import GOOD_ROW, HEADER, ONE, run

HUGE = str(10**30)


SIMULATE = ["simulate", "flash-llm", "--gpu", "h100", "--m", "64", "--k", "64", "--n", "8"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict"], "missing --gpu, --m, --k, --n"),
        (["predict", "--input", "x.csv"], "belong together"),
        (["predict", "--input", "none.csv", "--output", "out.csv"], "none.csv"),
        ([*ONE[:-1], "1.2"], "sparsity must lie in [0, 1], got 1.2"),
        ([*ONE, "--kernel", "cublass"], "did you mean cublas"),
        (["predict", "--gpu", "h10", *ONE[3:]], "did you mean h100"),
        (["predict", "--gpu", "a100-80gb", "--m", "-4", "--k", "8", "--n", "8"], "m must be at least 1, got -4"),
        (
            ["predict", "--gpu", "a100-80gb", "--m", "64", "--k", "64", "--n", "9", "--kernel", "flash-llm"],
            "pad N to 16",
        ),
        (["formats", "--sparsity", "80"], "did you mean 0.8"),
        (["plan", "--model", "opt-66b", "--gpu", "h100", "--sparsity", "80"], "did you mean 0.8"),
        (["predict", "--input", "a.csv", "--output", "b.csv", "--sparsity", "7", "--json"], "drop --sparsity, --json"),
        (["e2e", "--input", "a.csv", "--output", "b.csv", "--gpus", "4"], "drop --gpus"),
        (
            ["predict", "--gpu", "h100", "--m", "1" * 400, "--k", "8", "--n", "8"],
            "m must be at most 2**40, got inf",
        ),
        (["predict", "--gpu", "h100", "--m", HUGE, "--k", "8", "--n", "8"], "m must be at most 2**40, got 1e+30"),
        (["e2e", "--model", "opt-13b", "--gpu", "h100", "--batch", HUGE], "batch must be at most 2**40"),
        (
            ["choose", "--model", "opt-13b", "--gpu", "h100", "--batch", HUGE],
            "allowed are whole numbers from 1 to 2**20",
        ),
        (["plan", "--model", "opt-13b", "--gpu", "h100", "--output-len", HUGE], "output_len must be at most 2**40"),
        (["plan", "--model", "opt-13b", "--gpu", "h100", "--output-len", "4096"], "opt-13b knows 2048 positions"),
        (["plan", "--model", "opt-13b", "--gpu", ""], "unknown GPU ''"),
        ([*SIMULATE, "--bandwidth-scale", "1e-300"], "bandwidth_scale is 1e-300, allowed is 1e-6 to 1e6"),
        ([*SIMULATE, "--tile-k", HUGE], "allowed are multiples of 16 up to 4096"),
        ([*SIMULATE, "--trace", "a.json", "--gantt", "none/b.png"], "no such directory"),
        ([*SIMULATE, "--trace", "a.png", "--gantt", "a.png"], "--gantt: a.png is what --trace writes already"),
        (["validate", "--by", "kernel,kernel"], "--by is 'kernel,kernel'"),
        (["plan", "--model", "opt-13b", "--gpu", "h100", "--sparsity", "60%"], "--sparsity is '60%': "),
        (["plan", "--model", "opt-13b", "--gpu", "h100", "--input-len=0"], "--input-len is '0': "),
        (["plan"], "Missing option '--model'"),
        (["gpus", "--json"], "No such option"),
        (["predict", "--gpu", "h100", "--m", "0", "--k", "8", "--n", "8"], "m must be at least 1, got 0"),
        ([*ONE, "--kernel", ""], "unknown kernel ''"),
        ([*ONE, "--pattern", ""], "--pattern is '', allowed are 2:4"),
        (["e2e", "--model", "opt-13b", "--gpu", "h100", "--batch", "0"], "batch must be a whole number of at least 1"),
        (["choose", "--model", "opt-13b", "--gpu", "h100", "--batch", ""], "--batch is '', allowed are whole numbers"),
        (["choose", "--model", "opt-13b", "--gpu", "h100", "--batch", "8", "--formats", ""], "--formats is ''"),
        (["e2e", "--model", "opt-13b", "--gpu", "h100", "--batch", "8", "--system", "vllm+foo"], "format 'foo'"),
        (["predict", "--input", "/dev/zero", "--output", "o.csv"], "/dev/zero: no plain file but a device"),
        (["simulate", "two-four", *SIMULATE[2:]], "kernel 'two-four' is not simulated: "),
        (["sweep", "none.toml", "--out", "o.parquet"], "lscd: none.toml: No such file or directory"),
    ],
)
def test_bad_options_exit_2_with_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, stdout, stderr = run(monkeypatch, capsys, *arguments)
    assert code == 2
    assert stdout == ""
    assert message in stderr
    assert "Traceback" not in stderr
    assert not list(tmp_path.iterdir())


def test_output_folder_must_exist(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text(f"{HEADER}\n{GOOD_ROW}\n")
    code, _, stderr = run(
        monkeypatch, capsys, "predict", "--input", str(rows), "--output", str(tmp_path / "no" / "o.csv")
    )
    assert code == 2
    assert "no such directory" in stderr


def test_only_plain_files_are_written(tmp_path: Path) -> None:
    target, link = tmp_path / "real.csv", tmp_path / "link.csv"
    target.write_text("old")
    link.symlink_to(target)
    with written_whole(link) as partial:
        partial.write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    with pytest.raises(ValueError, match="no file that can be written"), written_whole("/dev/null"):
        pass


def test_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    target.write_text("old")

    def fail() -> None:
        with written_whole(target) as partial:
            partial.write_text("half")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("reader", "code", "message"),
    [("closed", 1, ""), ("/dev/full", 2, "lscd: No space left on device\n")],
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_cannot_be_written_ends_without_a_traceback(
    reader: str, code: int, message: str, unbuffered: str
) -> None:
    command = [sys.executable, "-m", "lscd", "kernels", "list"]
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    if reader == "closed":
        end, out = os.pipe()
        os.close(end)
    else:
        out = os.open(reader, os.O_WRONLY)
    result = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, env=environment, check=False)
    os.close(out)
    assert (result.returncode, result.stderr) == (code, message)


def test_links_that_lead_back_to_themselves_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    loop = tmp_path / "loop.toml"
    loop.symlink_to(loop)
    code, _, stderr = run(monkeypatch, capsys, *ONE[:1], "--gpu", str(loop), *ONE[3:])
    assert (code, stderr) == (2, f"lscd: {loop}: no such file\n")
    with pytest.raises(ValueError, match="is a link that leads back to itself"), written_whole(loop):
        pass
    assert loop.is_symlink()


def test_long_values_are_not_repeated_in_full(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, stderr = run(monkeypatch, capsys, *ONE, "--kernel", "x" * 5000)
    assert code == 2
    assert f"unknown kernel '{'x' * 59}…" in stderr
    assert "x" * 61 not in stderr
