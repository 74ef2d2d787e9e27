"""The command line as scripts use it: columns, exit codes, one-sentence errors, nothing half-written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from lscd.cli import app, main
from lscd.errors import InputError, written_whole
from perfmodel import predict

RUNNER = CliRunner()
ONE = ["predict", "--gpu", "a100-80gb", "--m", "36864", "--k", "9216", "--n", "8", "--sparsity", "0.8"]
HEADER = "gpu,m,k,n,sparsity,kernel"
HUGE = str(10**30)
SIMULATE = ["simulate", "flash-llm", "--gpu", "h100", "--m", "64", "--k", "64", "--n", "8"]
GOOD_ROW = "a100-80gb,36864,9216,8,0.8,flash-llm"


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of ``lscd`` with these arguments."""
    monkeypatch.setattr(sys, "argv", ["lscd", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    out, err = capsys.readouterr()
    code = stop.value.code
    return (code if isinstance(code, int) else 0), out, err


def test_predict_prints_every_kernel() -> None:
    result = RUNNER.invoke(app, ONE)
    assert result.exit_code == 0
    for kernel in ("cublas", "flash-llm", "sparta", "sputnik", "cusparse"):
        assert f"\n{kernel} " in result.output
    assert "with FP16 weights flash-llm (1.90x)" in result.output


def test_predict_json_has_time_bound_and_evidence() -> None:
    result = RUNNER.invoke(app, [*ONE, "--kernel", "flash-llm", "--json"])
    found = json.loads(result.output)
    kernel = found["kernels"][0]
    assert kernel["time_us"] == pytest.approx(218.6, rel=0.03)
    assert kernel["bound"] == "shared-memory"
    assert kernel["evidence"]["exact"] is True
    assert kernel["extrapolated"] is False


def test_answers_say_how_far_to_trust_them() -> None:
    assert "Extrapolated, outside what their models were fitted on: bitmap." in RUNNER.invoke(app, ONE).output
    run = ["e2e", "--model", "opt-66b", "--gpu", "a100-80gb", "--gpus", "2", "--batch", "8", "--system"]
    known, unknown, too_big = (
        RUNNER.invoke(app, [*run, system, *more]).output
        for system, *more in (["flash-llm"], ["fastertransformer+bitmap"], ["flash-llm", "--batch", "900"])
    )
    assert re.search(r"Mean error against published runs, all on a100-80gb: \d\.\d% over 4 held-out runs", known)
    assert "No published run of fastertransformer+bitmap shows how far this is off." in unknown
    assert too_big.startswith("out of memory by ")
    assert "published" not in too_big


def test_all_kernels_at_an_awkward_n_pad_where_needed() -> None:
    result = RUNNER.invoke(app, ["predict", "--gpu", "h100", "--m", "4096", "--k", "4096", "--n", "12"])
    assert result.exit_code == 0
    assert "N padded to 16" in result.output.replace("\n", " ") or "padded" in result.output


@pytest.mark.parametrize(
    ("command", "names"),
    [
        (["gpus"], ["a100-80gb", "h200", "rtx-2080-super", "v100"]),
        (["models"], ["opt-175b", "llama-3.1-405b", "mixtral-8x7b"]),
        (["formats"], ["tiled-csl", "bitmap", "gqsa-w4s50"]),
        (["kernels", "list"], ["cublas", "flash-llm", "sparta", "sputnik", "cusparse"]),
    ],
)
def test_lists_put_the_name_first(command: list[str], names: list[str]) -> None:
    result = RUNNER.invoke(app, command)
    assert result.exit_code == 0
    first = [line.split()[0] for line in result.output.splitlines()]
    assert set(names) <= set(first)


def test_formats_give_the_time_that_dram_sets_at_least() -> None:
    """12288 x 12288 FP16 weights, 8 columns in and out, at the 3.35 TB/s of an H100."""
    lines = RUNNER.invoke(app, ["formats", "--gpu", "h100", "--n", "8"]).output.splitlines()
    assert "us at least, N = 8" in lines[0]
    dense = next(line.split() for line in lines if line.startswith("dense "))
    assert float(dense[3]) == pytest.approx(2 * (12288**2 + 2 * 8 * 12288) / 3.35e12 * 1e6, abs=0.06)
    assert "at least" not in RUNNER.invoke(app, ["formats"]).output


def test_batch_adds_columns_and_keeps_order(tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text(f"{HEADER},tag\n{GOOD_ROW},x\nh100,4096,4096,16,0.5,sputnik,y\na100-80gb,7168,7168,8,0,cublas,z\n")
    out = tmp_path / "out.csv"
    result = RUNNER.invoke(app, ["predict", "--input", str(rows), "--output", str(out)])
    assert result.exit_code == 0, result.output
    table = pd.read_csv(out)
    added = ["time_us", "speedup_vs_dense", "bound", "extrapolated"]
    assert list(table.columns)[: 7 + len(added)] == [*HEADER.split(","), "tag", *added]
    assert list(table["tag"]) == ["x", "y", "z"]
    assert table["time_us"].gt(0).all()
    assert list(table["extrapolated"]) == [False, True, False]
    assert table.loc[2, "speedup_vs_dense"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("gpu,m,k,n,sparsity\n", "missing column kernel"),
        (f"{HEADER}\n", "no rows"),
        (f"{HEADER}\n{GOOD_ROW}\na100-80gb,x,9216,8,0.8,flash-llm\n", "line 3: m is 'x'"),
        (
            f"{HEADER}\n{GOOD_ROW}\na100-80gb,1.5,9216,8,0.8,flash-llm\n",
            "line 3: m is '1.5', allowed is a whole number",
        ),
        (f"{HEADER}\n{GOOD_ROW}\na100-80gb,36864,9216,8,80,flash-llm\n", "line 3: sparsity is '80'"),
        (f"{HEADER}\n{GOOD_ROW}\na100-80gb,36864,9216,8,nan,flash-llm\n", "line 3: sparsity is 'nan'"),
        (f"{HEADER}\n{GOOD_ROW}\na100-80gb,36864,9216,0,0.8,flash-llm\n", "line 3: n is '0'"),
        (f"{HEADER}\n{GOOD_ROW}\na100-80gb,36864,9216,12,0.8,flash-llm\n", "line 3: flash-llm takes N of"),
        (f"{HEADER}\n{GOOD_ROW}\na100-80,36864,9216,8,0.8,flash-llm\n", "line 3: unknown GPU 'a100-80'"),
        (f"{HEADER}\n{GOOD_ROW}\na100-80gb,36864,9216,8,0.8,flashllm\n", "line 3: unknown kernel 'flashllm'"),
        (f"{HEADER}\n{GOOD_ROW}\na100-80gb,36864\n", "line 3"),
        (f"{HEADER}\n{GOOD_ROW}\n{GOOD_ROW},1,2\n", "line 3"),
        (f"{HEADER}\n{GOOD_ROW}\n\n{GOOD_ROW}\n", "line 3"),
        (f"{HEADER},kernel\n{GOOD_ROW},sparta\n", "column kernel stands twice"),
        (f"{HEADER}\n{GOOD_ROW}\n,36864,9216,8,0.8,flash-llm\n", "line 3: gpu is empty"),
        (f"{HEADER}\n{GOOD_ROW}\na100-80gb,{10**20},9216,8,0.8,flash-llm\n", "line 3: m is"),
        ("\xff\xfe", "not a CSV"),
    ],
)
def test_batch_refuses_broken_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, message: str
) -> None:
    rows, out = tmp_path / "rows.csv", tmp_path / "out.csv"
    rows.write_bytes(text.encode("latin-1"))
    code, stdout, stderr = run(monkeypatch, capsys, "predict", "--input", str(rows), "--output", str(out))
    assert code == 2
    assert stdout == ""
    assert stderr.count("\n") == 1
    assert message in stderr
    assert list(tmp_path.iterdir()) == [rows]


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
        (["predict", "--gpu", "h100", "--m", "1" * 400, "--k", "8", "--n", "8"], "too large"),
        (["predict", "--gpu", "h100", "--m", HUGE, "--k", "8", "--n", "8"], "m must be at most 2**40, got 1e+30"),
        (["e2e", "--model", "opt-13b", "--gpu", "h100", "--batch", HUGE], "batch must be at most 2**40"),
        (["choose", "--model", "opt-13b", "--gpu", "h100", "--batch", HUGE], "n must be at most 2**40"),
        (["plan", "--model", "opt-13b", "--gpu", "h100", "--output-len", HUGE], "output_len must be at most 2**40"),
        (["plan", "--model", "opt-13b", "--gpu", "h100", "--output-len", "4096"], "opt-13b knows 2048 positions"),
        (["plan", "--model", "opt-13b", "--gpu", ""], "unknown GPU ''"),
        ([*SIMULATE, "--bandwidth-scale", "1e-300"], "bandwidth_scale is 1e-300, allowed is 1e-6 to 1e6"),
        ([*SIMULATE, "--tile-k", HUGE], "allowed are multiples of 16 up to 4096"),
        ([*SIMULATE, "--trace", "a.json", "--gantt", "none/b.png"], "no such directory"),
        ([*SIMULATE, "--trace", "a.png", "--gantt", "a.png"], "are both a.png"),
        (["validate", "--by", "kernel,kernel"], "--by is 'kernel,kernel'"),
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
    with pytest.raises(InputError, match="no file that can be written"), written_whole("/dev/null"):
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


def test_help_imports_nothing_heavy() -> None:
    heavy = ("numpy", "pandas", "scipy", "numba", "matplotlib", "pyarrow")
    code = f"import sys; from lscd.cli import app; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


OWN_HEADER = "gpu,kernel,m,k,n,sparsity,time_us,time_err_us,status,cache,source,note\n"


def own_measurements(path: Path, factor: float) -> Path:
    """A table of made-up H200 times: the model's own, times ``factor``."""
    lines = [OWN_HEADER]
    for m, k in ((36864, 9216), (12288, 12288), (9216, 36864)):
        time_us = float(predict("cublas", "h200", m=m, k=k, n=8).time_s) * 1e6 * factor
        lines.append(f"h200,cublas,{m},{k},8,0,{time_us:.3f},,value,warm,mine,\n")
    path.write_text("".join(lines))
    return path


def test_own_measurements_are_validated_and_fitted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own, out = own_measurements(tmp_path / "own.csv", factor=1.2), tmp_path / "mine.json"
    shown = RUNNER.invoke(app, ["validate", "--with", str(own)])
    assert "-16.7%" in shown.output
    before = predict("cublas", "h200", m=28672, k=7168, n=8)
    assert RUNNER.invoke(app, ["calibrate", "--with", str(own), "--out", str(out)]).exit_code == 0
    monkeypatch.setenv("LSCD_CALIBRATION", str(out))
    after = predict("cublas", "h200", m=28672, k=7168, n=8)
    assert 1.05 < float(after.time_s / before.time_s) < 1.25
    assert not after.extrapolated
    assert " fitted " in RUNNER.invoke(app, ["validate", "--with", str(own)]).output


def test_rows_that_no_fit_can_meet_widen_the_interval(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own, out = tmp_path / "own.csv", tmp_path / "mine.json"
    rows = [f"h200,flash-llm,{m},9216,8,0.8,{t},,value,warm,mine,\n" for m, t in ((6000, 300), (6100, 10))]
    own.write_text(OWN_HEADER + "".join(rows))
    assert RUNNER.invoke(app, ["calibrate", "--with", str(own), "--out", str(out)]).exit_code == 0
    monkeypatch.setenv("LSCD_CALIBRATION", str(out))
    p = predict("flash-llm", "h200", m=6000, k=9216, n=8, sparsity=0.8)
    assert float(p.hi_s / p.lo_s) > 5


OWN_ROW = "h200,cublas,64,64,8,0,5,,value,warm,mine,\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("h2000,cublas,64,64,8,0,5,,value,warm,mine,\n", "unknown GPU 'h2000'"),
        ("5,cublas,64,64,8,0,5,,value,warm,7,\n", "unknown GPU '5'"),
        ("h200,cublass,64,64,8,0,5,,value,warm,mine,\n", "did you mean cublas"),
        ("h200,flash-llm,64,64,12,0.8,5,,value,warm,mine,\n", "flash-llm takes N of"),
        ("h200,cublas,64,64,8,0,-5,,value,warm,mine,\n", "row 1: time_us is -5"),
        ("h200,cublas,64,64,8,0,nan,,value,warm,mine,\n", "needs rows of status 'value', each with a time"),
        ("h200,cublas,64,64,8,0,,,value,warm,mine,\n", "needs rows of status 'value', each with a time"),
        ("h200,cublas,64,64,8,0,5,,failed,warm,mine,\n", "needs rows of status 'value'"),
        (",cublas,64,64,8,0,5,,value,warm,mine,\n", "row 1: gpu is empty"),
        ("h200,cublas,64,64,8,0,5,,value,warm,flash-llm-fig9,\n", "is a published one"),
        ("", "needs rows of status 'value'"),
        (b"", "No columns to parse"),
        (b"\n\n", "No columns to parse"),
        (OWN_HEADER.replace(",time_us", "").encode(), "missing columns ['time_us']"),
        ((OWN_HEADER + OWN_ROW).encode("utf-16"), "no CSV in UTF-8"),
        ((OWN_HEADER + OWN_ROW.replace("mine,", "mine,caf\xe9")).encode("latin-1"), "no CSV in UTF-8"),
        (None, "own.csv: Is a directory"),
    ],
)
def test_own_measurements_must_be_sound(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    content: str | bytes | None,
    message: str,
) -> None:
    own = tmp_path / "own.csv"
    if content is None:
        own.mkdir()
    else:
        own.write_bytes((OWN_HEADER + content).encode() if isinstance(content, str) else content)
    for command in (["validate"], ["calibrate", "--out", str(tmp_path / "x.json")]):
        code, stdout, stderr = run(monkeypatch, capsys, *command, "--with", str(own))
        assert (code, stdout, stderr.count("\n")) == (2, "", 1)
        assert "own.csv: " in stderr
        assert message in stderr
    assert list(tmp_path.iterdir()) == [own]


def test_a_fit_never_replaces_the_measurements_it_is_made_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    own = tmp_path / "own.csv"
    own.write_text(OWN_HEADER + OWN_ROW)
    for out, message in ((own, "is the input itself"), (tmp_path, "is a directory"), (own / "x", "no such directory")):
        code, stdout, stderr = run(monkeypatch, capsys, "calibrate", "--with", str(own), "--out", str(out))
        assert (code, stdout) == (2, "")
        assert message in stderr
    assert own.read_text() == OWN_HEADER + OWN_ROW


def test_own_measurements_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    own = tmp_path / "own.csv"
    own.write_text(OWN_HEADER + OWN_ROW, encoding="utf-8-sig")
    assert RUNNER.invoke(app, ["validate", "--with", str(own)]).exit_code == 0
