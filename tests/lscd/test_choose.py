"""`lscd choose`: what the models choose, handed over to be measured."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from kernels_numba.plan import FORMATS
from lscd.choose import OUR_FORMATS, measurable
from lscd.cli import app
from perfmodel.choice import choose


def test_the_model_hands_over_what_has_a_kernel_here() -> None:
    """Time of one product, in our own names; the quantised kernels, which have no code here, are left out."""
    matrix = choose("opt-13b", "h100", batch=16, sparsity=0.8, unmeasured=True).free[0]
    candidates = {candidate.format: candidate.time_s for candidate in measurable(matrix)}
    assert set(candidates) == set(OUR_FORMATS.values()) == set(FORMATS["cuda"])
    flash = matrix.of("flash-llm")
    assert flash is not None
    assert candidates["tiled-csl"] == pytest.approx(flash.span.time_s / 40)


def run(*arguments: str):
    """The program itself, as a user starts it."""
    return subprocess.run(
        [sys.executable, "-m", "lscd", "choose", *arguments], capture_output=True, text=True, timeout=60
    )


def test_exit_code_and_stderr_of_the_program() -> None:
    result = run("--model", "opt-66b", "--gpu", "h100", "--batch", "16", "--sparsity", "2")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("lscd: sparsity must lie in [0, 1]")
    assert result.stderr.count("\n") == 1


def test_table_and_json_tell_the_same() -> None:
    arguments = ["choose", "--model", "opt-66b", "--gpu", "h100", "--batch", "13", "--gpus", "2", "--lossless-only"]
    text = CliRunner().invoke(app, arguments).stdout
    found = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert text.splitlines()[0] == found["answer"]
    assert "…" not in text  # nothing is cut
    assert found["totals"]["fastest"]["time_s"] <= found["totals"]["dense"]["time_s"]
    assert f"{found['totals']['dense']['weight_bytes'] / 1e9:.4g}" in text
    for matrix in found["matrices"]:
        assert matrix["name"] in text
        times = {candidate["kernel"]: candidate["time_s"] for candidate in matrix["candidates"]}
        assert matrix["fastest"] == min(times, key=times.__getitem__)
    assert set(found["one_kernel"]) == {"cublas", "flash-llm", "sparta", "sputnik", "bitmap"}
