"""`lscd kernels leaderboard`: a table, JSON, a CSV, one's own rows beside the others."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from lscd.cli import app
from perfmodel.evidence.leaderboard import TIE, leaderboard
from perfmodel.evidence.leaderboard_words import LEVELS
from tests.lscd.commands import RUNNER, run
from tests.lscd.test_evidence import OWN_HEADER

COMMAND = ["kernels", "leaderboard"]


def told(*arguments: str) -> str:
    result = RUNNER.invoke(app, [*COMMAND, *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def my_rows(path: Path, dense: bool = True) -> Path:
    rows = ["a100-80gb,my-kernel,28672,8192,8,0.73,100,,value,warm,mine,\n"]
    rows += ["a100-80gb,cublas,28672,8192,8,0,250,,value,warm,mine,\n"] * dense
    path.write_text(OWN_HEADER + "".join(rows))
    return path


def test_the_table_names_source_call_and_what_comes_next() -> None:
    text = told("--gpu", "a100-80gb", "--n", "8")
    line = next(line for line in text.splitlines() if "flash-llm-fig9" in line and " wide " in line and "0.90" in line)
    assert line.split()[:5] == ["a100-80gb", "wide", "0.90", "8", "flash-llm"]
    assert line.split()[-4:] == ["flash-llm-fig9", "warm,", "stream", "measured"]
    assert f"= is a tie, within {TIE:.0%}" in text
    assert "ranked nowhere: aiconfigurator-gemm" in text
    assert "rtx-4090" not in text


def test_json_and_csv_hold_every_place(tmp_path: Path) -> None:
    found = json.loads(told("--gpu", "rtx-4090", "--n", "16", "--json"))
    places = leaderboard().query("gpu == 'rtx-4090' and n == 16")
    assert sum(len(each["kernels"]) for each in found["comparisons"]) == len(places)
    assert {each["sparsity"] for each in found["comparisons"]} - set(LEVELS), (
        "all sparsities, unless some are asked for"
    )
    assert found["tie"] == TIE
    said = told("--gpu", "rtx-4090", "--sparsity", "0.5", "--output", str(tmp_path / "places.csv"))
    assert said.startswith("wrote ")
    written = pd.read_csv(tmp_path / "places.csv")
    assert set(written["sparsity"]) == {0.5}
    assert set(written["gpu"]) == {"rtx-4090"}


@pytest.mark.parametrize("dense", [True, False])
def test_own_rows_stand_beside_the_others(tmp_path: Path, dense: bool) -> None:
    text = told("--with", str(my_rows(tmp_path / "my.csv", dense)))
    mine = text.partition("Yours:\n")[2]
    cells = mine.splitlines()[1].split()
    assert cells[:5] == ["my-kernel", "a100-80gb", "tall", "0.73", "8"]
    assert ("2.50" in cells, "measured" in cells) == (dense, dense)
    assert ("is our model's, not measured" in mine) == (not dense)
    assert "slidesparse" not in text.partition("x dense:")[0], "the GPUs of the file alone"


def test_a_kernel_without_a_model_is_validated_as_measured_only(tmp_path: Path) -> None:
    own = my_rows(tmp_path / "my.csv")
    text = RUNNER.invoke(app, ["validate", "--with", str(own)]).output
    assert "\ncublas" in text, "what has a model is judged"
    assert "my-kernel has no model: measured only, nothing is predicted" in text
    assert "2.50" in text
    own.write_text(own.read_text().replace("cublas", "cublass"))
    assert "did you mean cublas?" in RUNNER.invoke(app, ["validate", "--with", str(own)]).output


def test_nothing_measured_is_said_so() -> None:
    assert "Nobody has published" in told("--gpu", "l40s")
    assert json.loads(told("--gpu", "l40s", "--json"))["comparisons"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpu", "h2000"], "unknown GPU 'h2000'"),
        (["--sparsity", "70"], "sparsity must lie in [0, 1], got 70; sparsity is a fraction, did you mean 0.7?"),
        (["--n", "0"], "--n is '0'"),
        (["--with", "nowhere.csv"], "nowhere.csv: No such file"),
    ],
)
def test_bad_input_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    code, stdout, stderr = run(monkeypatch, capsys, *COMMAND, *arguments)
    assert (code, stdout, stderr.count("\n")) == (2, "", 1)
    assert message in stderr


def test_a_fit_needs_a_model_and_rows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    own, out = my_rows(tmp_path / "my.csv", dense=False), str(tmp_path / "my.json")
    code, _, stderr = run(monkeypatch, capsys, "calibrate", "--with", str(own), "--out", out)
    assert (code, stderr.count("\n")) == (2, 1)
    assert "my-kernel has no model" in stderr
    assert "LSCD_KERNELS" in stderr
    my_rows(own)
    for held, message in (("9", "--hold-out is 9, allowed are tokens N of"), ("8", "leaves no row of cublas")):
        code, _, stderr = run(monkeypatch, capsys, "calibrate", "--with", str(own), "--out", out, "--hold-out", held)
        assert code == 2
        assert message in stderr
    code, _, stderr = run(monkeypatch, capsys, "calibrate", "--out", out, "--hold-out", "8")
    assert (code, "--hold-out does nothing without --with" in stderr) == (2, True)
    assert list(tmp_path.iterdir()) == [own]
