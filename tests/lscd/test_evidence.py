"""`lscd validate` and `calibrate`, with one's own measurements too."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from lscd.cli import app
from perfmodel import predict
from perfmodel.evidence.runs import joined_runs
from tests.lscd.commands import RUNNER, run


@cache
def validated() -> str:
    """What `lscd validate` prints."""
    return RUNNER.invoke(app, ["validate"]).output


def test_validate_prints_the_errors_of_whole_models() -> None:
    lines = [line for line in validated().splitlines() if line.startswith("lmdeploy-a100 ")]
    assert len(lines) == joined_runs().query("source == 'lmdeploy-a100'")["model"].nunique() == 3
    assert all("held out" in line for line in lines)


def test_validate_sums_up_first() -> None:
    """A line for every kernel with held-out rows and every source of runs, then the right winners, then tables."""
    summary, table = validated().split("Error of the predicted time", 1)
    summary = " ".join(summary.split())
    for name in (
        "cublas",
        "flash-llm",
        "flash-llm-noreorder",
        "sparta",
        "sputnik",
        "bitmap",
        "macko",
        "spinfer-fig13-14",
    ):
        assert f" {name}: " in summary
    assert "worst" in summary
    assert "faster than dense, measured rows" in summary
    assert "flash-llm-noreorder pays on a100-40gb, N = 8, from 61% by spinfer-rerun-boxplot" in summary
    assert "held out, in L2" in table


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
        ("h200,flash-llm,64,64,12,0.8,5,,value,warm,mine,\n", "flash-llm takes N of"),
        ("h200,cublas,64,64,8,0,-5,,value,warm,mine,\n", "row 1: time_us is -5"),
        ("h200,cublas,64,64,8,0,nan,,value,warm,mine,\n", "needs rows of status 'value', each with a time"),
        ("h200,cublas,64,64,8,0,,,value,warm,mine,\n", "needs rows of status 'value', each with a time"),
        ("h200,cublas,64,64,8,0,5,,failed,warm,mine,\n", "needs rows of status 'value'"),
        (",cublas,64,64,8,0,5,,value,warm,mine,\n", "row 1: gpu is empty"),
        ("h200,cublas,64,64,8,0,5,,value,warm,flash-llm-fig9,\n", "is a published one"),
        ("h200,cusparse,64,64,8,0.5,5,,value,warm,mine,\n", "of cusparse no more than a bound is modelled"),
        ("", "needs rows of status 'value'"),
        (b"", "No columns to parse"),
        (b"\n\n", "No columns to parse"),
        (OWN_HEADER.replace(",time_us", "").encode(), "missing columns ['time_us']"),
        ((OWN_HEADER + OWN_ROW).encode("utf-16"), "no UTF-8 text"),
        ((OWN_HEADER + OWN_ROW.replace("mine,", "mine,caf\xe9")).encode("latin-1"), "no UTF-8 text"),
        (None, "own.csv: no plain file but a directory"),
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
