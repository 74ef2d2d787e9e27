"""`lscd simulate`: prints, writes, and leaves no file after bad input."""

from __future__ import annotations

import json

from numpy.testing import assert_allclose
from typer import Typer
from typer.testing import CliRunner

from perfmodel.pipeline import WhatIf
from perfmodel.pipeline.words import RATES, WAITS, legend
from perfmodel.prediction import predict
from tests.perfmodel.pipeline.cases import time_of

TIMES_US = ("time_us", "lo_us", "hi_us")


def command(*arguments, kernel="flash-llm", n="8"):
    from lscd.simulate import simulate as run

    app = Typer()
    app.command()(run)
    return CliRunner().invoke(app, [kernel, "--gpu", "a100-80gb", "--m", "9216", "--k", "9216", "--n", n, *arguments])


def test_the_number_is_the_prediction_and_the_simulation_explains_it():
    p = predict("flash-llm", "a100-80gb", 9216, 9216, 8, 0.8)
    answer = json.loads(command("--sparsity", "0.8", "--json").stdout)
    assert_allclose([answer[name] for name in TIMES_US], [float(x) * 1e6 for x in (p.time_s, p.lo_s, p.hi_s)])
    assert_allclose(answer["simulated_us"], time_of() * 1e6)
    assert answer["within_interval"] is (answer["lo_us"] <= answer["simulated_us"] <= answer["hi_us"])
    assert set(RATES) - set(answer["busy"]) == {"alu", "fma", "xu"}  # of this kernel nobody counted them
    assert set(answer["waits"]) == set(WAITS)
    lines = command("--sparsity", "0.8").stdout.splitlines()
    assert lines[0].startswith(f"Predicted: {answer['time_us']:.1f} us (90 % interval")
    assert lines[1].startswith(f"Simulated: {answer['simulated_us']:.1f} us")
    assert lines[-1] == legend()


def test_a_changed_kernel_is_not_held_against_the_prediction(tmp_path):
    trace = tmp_path / "out.json"
    answer = json.loads(command("--sparsity", "0.8", "--json", "--no-reorder", "--trace", str(trace)).stdout)
    assert_allclose(answer["simulated_us"], time_of(what_if=WhatIf(reorder=False)) * 1e6)
    assert answer["within_interval"] is None
    assert json.loads(trace.read_text())["otherData"]["kernel"] == "flash-llm"


def test_what_has_no_closed_form_or_never_ran_says_so():
    none = command("--json", kernel="numba-dense")
    assert json.loads(none.stdout)["time_us"] is None
    assert "No closed form" in command(kernel="numba-dense").stdout
    assert "never run on a GPU" in command(kernel="numba-bitmap").stdout


def test_tokens_are_padded_as_the_kernel_does():
    answer = json.loads(command("--json", n="7").stdout)
    assert (answer["n"], answer["n_padded"]) == (7, 8)
    assert answer["within_interval"] is not None


def test_command_leaves_no_file_after_bad_input(tmp_path):
    out = tmp_path / "out.json"
    result = command("--sparsity", "7", "--trace", str(out))
    assert isinstance(result.exception, ValueError)
    assert not list(tmp_path.iterdir())
    assert "allowed are files ending in" in str(command("--gantt", "x.txt").exception)
