"""`lscd simulate`: prints, writes, and leaves no file after bad input."""

from __future__ import annotations

import json

from numpy.testing import assert_allclose
from typer import Typer
from typer.testing import CliRunner

from perfmodel.pipeline import WhatIf
from tests.perfmodel.pipeline.cases import time_of


def command(*arguments):
    from lscd.simulate import simulate as run

    app = Typer()
    app.command()(run)
    return CliRunner().invoke(
        app, ["flash-llm", "--gpu", "a100-80gb", "--m", "9216", "--k", "9216", "--n", "8", *arguments]
    )


def test_command_prints_and_writes(tmp_path):
    trace = tmp_path / "out.json"
    result = command("--sparsity", "0.8", "--json", "--no-reorder", "--trace", str(trace))
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert_allclose(answer["time_us"], time_of(what_if=WhatIf(reorder=False)) * 1e6)
    assert json.loads(trace.read_text())["otherData"]["kernel"] == "flash-llm"
    assert "waited for" in command().stdout


def test_command_leaves_no_file_after_bad_input(tmp_path):
    out = tmp_path / "out.json"
    result = command("--sparsity", "7", "--trace", str(out))
    assert isinstance(result.exception, ValueError)
    assert not list(tmp_path.iterdir())
    assert "allowed are files ending in" in str(command("--gantt", "x.txt").exception)
