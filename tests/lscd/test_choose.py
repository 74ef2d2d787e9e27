"""`lscd choose`: what the models choose, handed over to be measured."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest
from typer.testing import CliRunner

from kernels_numba.plan import FORMATS
from lscd.choose import OUR_FORMATS, measurable
from lscd.cli import app
from lscd.errors import InputError
from perfmodel.choice import choose
from perfmodel.kernels import KERNELS
from perfmodel.kernels.rivals import standing
from perfmodel.worth import worth
from perfmodel.worth_words import answer


def test_the_model_hands_over_what_has_a_kernel_here() -> None:
    """Time of one product, in our own names; the quantised kernels, which have no code here, are left out."""
    matrix = choose("opt-13b", "h100", batch=16, sparsity=0.8, unmeasured=True).free[0]
    candidates = {candidate.format: candidate.time_s for candidate in measurable(matrix)}
    assert len(measurable(matrix)) == len(candidates)  # streamed kernels have no format of their own
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
    arguments += ["--sparsity", "0.8"]
    text = CliRunner().invoke(app, arguments).stdout
    found = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert text.splitlines()[:2] == [found["worth"]["answer"], found["answer"]]
    assert "…" not in text  # nothing is cut
    assert found["totals"]["fastest"]["time_s"] <= found["totals"]["dense"]["time_s"]
    assert f"{found['totals']['dense']['weight_bytes'] / 1e9:.4g}" in text
    for matrix in found["matrices"]:
        assert matrix["name"] in text
        times = {candidate["kernel"]: candidate["time_s"] for candidate in matrix["candidates"]}
        assert matrix["fastest"] == min(times, key=times.__getitem__)
    assert set(found["one_kernel"]) == {"cublas", "flash-llm", "sparta", "sputnik", "bitmap", "two-four", "six-eight"}
    for name in found["one_kernel"]:
        if name != "cublas":
            assert re.search(rf"\n{name} alone +{standing(KERNELS[name])} ", text)
    for candidate in found["matrices"][0]["candidates"]:
        assert candidate["change"] == KERNELS[candidate["kernel"]].format.change
        assert candidate["standing"] == standing(KERNELS[candidate["kernel"]])


QUESTION = ["choose", "--model", "llama-3.1-8b", "--gpu", "h100", "--sparsity", "0.6"]


def answered(*options: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, [*QUESTION, *options, "--json"])
    assert result.exit_code == 0, result.exception
    return json.loads(result.stdout)


def test_the_verdict_stands_first_and_is_that_of_worth() -> None:
    found = answered("--batch", "16")
    expected = worth("llama-3.1-8b", "h100", batches=[16], sparsity=0.6)
    assert found["worth"] == {"verdict": str(expected.verdict), "answer": answer(expected), "batch": 16}
    assert found["worth"]["answer"].startswith("Worth it: ")
    assert found["batch"] == 16


def test_several_batches_are_one_line_each() -> None:
    """As each alone would answer; the verdict is that of all together."""
    found = answered("--batch", "1,4,64")
    assert [choice["batch"] for choice in found["batches"]] == [1, 4, 64]
    for choice in found["batches"]:
        alone = answered("--batch", str(choice["batch"]))
        alone.pop("worth")
        assert choice == alone
    expected = worth("llama-3.1-8b", "h100", batches=[1, 4, 64], sparsity=0.6)
    assert found["worth"]["answer"] == answer(expected)
    lines = CliRunner().invoke(app, [*QUESTION, "--batch", "1,4,64"]).stdout.splitlines()
    assert lines[0] == found["worth"]["answer"]
    assert lines[2].split()[0] == "batch"
    for line, choice in zip(lines[3:], found["batches"], strict=True):
        assert line.split()[0] == str(choice["batch"])
        assert f" {choice['speedup_vs_dense']['value']:.2f}x " in line
        assert {name if name != "cublas" else "dense" for name in choice["rivals"]} <= set(re.split(r",? +", line))
    powers = answered("--batch", "1:8")
    assert [choice["batch"] for choice in powers["batches"]] == [1, 2, 4, 8]


@pytest.mark.parametrize("batch", ["0", "x", "8:1", "1,,2", str(2**21), "1.5", "-4"])
def test_a_batch_that_is_none_is_refused(batch: str) -> None:
    result = CliRunner().invoke(app, [*QUESTION, f"--batch={batch}"])
    assert isinstance(result.exception, InputError)
    assert str(result.exception).startswith(f"--batch is {batch!r}, allowed are whole numbers from 1 to 2**20")


def test_remarks_tell_apart_what_becomes_of_the_weights() -> None:
    """Rounded, pruned to a pattern, both, and kernels that nobody has measured."""
    for options, words in (
        (["--formats", "int4"], "int4 rounds the weights."),
        (["--formats", "2:4"], "two-four drops 50.0% of the weights, as its pattern does."),
        (["--formats", "2:4-fp8"], "two-four-fp8 prunes and rounds the weights."),
        (["--formats", "lscd-bitmap"], "Nobody has measured lscd-bitmap and lscd-bitmap-bulk on a GPU"),
        (["--formats", "lscd-bitmap-8"], "Nobody has measured lscd-bitmap-8 on a GPU"),
    ):
        notes = answered("--batch", "16", *options)["remarks"]
        assert [note for note in notes if note.startswith(words)], (options, notes)
    notes = " ".join(answered("--batch", "16", "--formats", "2:4")["remarks"])
    assert "round" not in notes
    assert "measured" not in notes


def test_what_the_models_have_not_measured_is_never_chosen_by_default() -> None:
    for choice in answered("--batch", "1:64")["batches"]:
        for matrix in choice["matrices"]:
            assert all(candidate["measured"] for candidate in matrix["candidates"])
