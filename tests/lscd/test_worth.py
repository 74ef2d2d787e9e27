"""`lscd worth` as people and scripts use it: the verdict first, the same in words, table and JSON."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from lscd.cli import app
from lscd.errors import InputError
from lscd.worth import parse_batches
from perfmodel.kernels import KERNELS
from perfmodel.kernels.fits import unmeasured_kernels
from perfmodel.worth import Verdict, worth
from perfmodel.worth_words import answer
from tests.lscd.commands import RUNNER, run

QUESTION = ["worth", "--model", "llama-3.1-8b", "--gpu", "h100", "--sparsity", "0.6"]


def printed(*options: str) -> str:
    result = RUNNER.invoke(app, [*QUESTION, *options])
    assert result.exit_code == 0, result.exception
    return result.stdout


@pytest.mark.parametrize(
    ("text", "batches"),
    [
        ("16", (16,)),
        ("1,4,16", (1, 4, 16)),
        ("16,1,16", (16, 1)),
        ("1:64", (1, 2, 4, 8, 16, 32, 64)),
        ("3:20", (3, 4, 8, 16, 20)),
        ("5:5", (5,)),
        ("1048576", (2**20,)),
    ],
)
def test_batches_are_numbers_lists_or_powers_of_two(text: str, batches: tuple[int, ...]) -> None:
    assert parse_batches(text) == batches


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "x", "1,,2", "4:1", "1:2:4", "0:4", ":", "1048577", "nan"])
def test_other_batches_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"--batch is {text!r}, allowed are whole numbers from 1 to 2**20")):
        parse_batches(text)


def test_words_table_and_json_tell_the_same() -> None:
    options = ("--batch", "1,16,64")
    found: dict[str, Any] = json.loads(printed(*options, "--json"))
    model = worth("llama-3.1-8b", "h100", batches=[1, 16, 64], sparsity=0.6)
    text = printed(*options)
    assert text.splitlines()[0] == found["answer"] == answer(model)
    assert found["answer"].startswith(f"Worth it: {found['verdict']}. At batch {found['batch']} ")
    assert [at["batch"] for at in found["batches"]] == [1, 16, 64]
    for at in found["batches"]:
        rivals = {rival["kernel"]: rival for rival in at["rivals"]}
        assert at["verdict"] in list(Verdict)
        assert rivals["cublas"]["speedup_vs_dense"] == {"value": 1.0, "lo": 1.0, "hi": 1.0}
        for rival in rivals.values():
            assert rival["change"] == KERNELS[rival["kernel"]].format.change
            assert rival["speedup_vs_dense"]["lo"] <= rival["speedup_vs_dense"]["value"]
        for which in ("sparse", "quantised", "both"):
            rival = rivals[at["best"][which]]
            assert re.search(rf" {rival['kernel']} +{rival['step_s'] * 1e3:.2f} ", text)
    assert re.search(r"\n +16  dense +dense +\d+\.\d\d +1\.00x", text)


def test_nobody_recommends_what_nobody_has_measured() -> None:
    found = json.loads(printed("--batch", "1:64", "--json"))
    named = {rival["kernel"] for at in found["batches"] for rival in at["rivals"]}
    assert named.isdisjoint(unmeasured_kernels())
    assert "two-four" in named


def test_a_pattern_in_front_leaves_the_need_to_unstructured_sparse() -> None:
    asked = ["worth", "--model", "opt-6.7b", "--gpu", "rtx-a6000", "--gpus", "4", "--batch", "128", "--sparsity", "0.8"]
    words = RUNNER.invoke(app, asked).stdout
    assert "At batch 128 2:4 is " in words
    assert " Unstructured sparse needs " in words


def test_patterns_that_drop_more_than_asked_take_no_part() -> None:
    result = RUNNER.invoke(app, [*QUESTION[:-1], "0.3", "--batch", "16", "--json"])
    named = {rival["kernel"] for rival in json.loads(result.stdout)["batches"][0]["rivals"]}
    assert "six-eight" in named
    assert "two-four" not in named


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch", "4:1"], "--batch is '4:1', allowed are whole numbers"),
        (["--sparsity", "60"], "sparsity must lie in [0, 1], got 60; sparsity is a fraction, did you mean 0.6?"),
        (["--gpus", "3"], "llama-3.1-8b cannot be shared by 3 GPUs"),
        (["--gpu", "h1000"], "unknown GPU 'h1000': did you mean h100"),
        (["--model", "llama-3.1-9b"], "unknown model 'llama-3.1-9b'"),
        (["--kernels", "fp9"], "unknown kernel 'fp9'"),
        (["--kernels", "flash-llm-noreorder"], "takes no part: it is a slower variant of flash-llm, which does"),
        (["--input-len", "0"], "input_len must be a whole number of at least 1, got 0"),
        (["--model", ""], "unknown model ''"),
        (["--sparsity", "nan"], "sparsity must lie in [0, 1], got nan"),
        (["--sparsity", "60%"], "--sparsity is '60%': "),
        (["--kernels", "fp8,,int4"], "--kernels is 'fp8,,int4', allowed are names joined by commas"),
        (["--batch", ",".join(map(str, range(1, 66)))], "--batch names 65 numbers, allowed are at most 64"),
        (["--gpu", "x" * 5000], "allowed is a name or a path that a file may have"),
    ],
)
def test_bad_input_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    code, stdout, stderr = run(monkeypatch, capsys, *QUESTION, *options)
    assert (code, stdout) == (2, "")
    assert stderr.count("\n") == 1
    assert message in stderr
