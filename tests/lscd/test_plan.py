"""`lscd plan` as scripts use it."""

from __future__ import annotations

import json

import pytest

from lscd import plan as commands
from lscd.cli import app
from perfmodel.serving.planning import Plan, judge
from perfmodel.serving.systems import SYSTEMS
from tests.lscd.commands import RUNNER
from tests.perfmodel.serving.cases import invoke
from tests.perfmodel.serving.test_planning import option


@pytest.mark.parametrize(
    ("faster", "words"),
    [
        ({1: True, 2: True}, "Flash-LLM is faster at every batch tried on 1 GPU."),
        ({1: False, 2: False}, "Flash-LLM is slower at every batch tried on 1 GPU."),
        ({1: True, 2: False}, "Flash-LLM is faster at batch 1 (of 1 to 2) on 1 GPU."),
        (
            {1: True, 2: True, 4: False, 8: True, 16: False},
            "Flash-LLM is faster at batch 1 to 2 and 8 (of 1 to 16) on 1 GPU.",
        ),
        ({}, "No batch could be tried on 1 GPU."),
    ],
)
def test_where_sparse_is_faster_in_words(faster, words):
    assert commands._faster_words("batch", faster, "on 1 GPU") == words


def test_plan_on_the_command_line():
    asked = ("plan", "--model", "opt-30b", "--gpu", "a100-80gb", "--sparsity", "0.8")
    text = invoke(*asked).stdout
    assert "is the cheapest" in text
    found = json.loads(invoke(*asked, "--json").stdout)
    pruned = [option for option in found["options"] if option["change"] == "pruned"]
    best = max(pruned, key=lambda option: option["tokens_per_gpu_s"])
    assert text.startswith(f"Worth it: {found['verdict']}. {best['system']} on ")
    systems = {option["system"] for option in found["options"]}
    assert set(SYSTEMS) < systems
    assert not any("macko" in system for system in systems)  # one token: it reads no prompt
    changes = {option["system"]: option["change"] for option in found["options"]}
    assert changes["fastertransformer+two-four-int8"] == "pruned and rounded"
    rows = [line.split()[0] for line in text.splitlines() if "  " in line][1:]
    assert sorted(rows) == sorted(systems)
    every = invoke(*asked, "--all").stdout
    assert len([line for line in every.splitlines() if "  " in line]) == len(found["options"]) + 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            [("flash-llm", "pruned", 200), ("fastertransformer", "lossless", 100)],
            "Worth it: yes. flash-llm on 1 GPU yields",
        ),
        ([("flash-llm", "pruned", 100)], "and nothing that keeps all weights fits."),
        ([("deepspeed", "lossless", 100)], "Worth it: no. No kernel that prunes and keeps 16-bit values"),
        (
            [("flash-llm", "pruned", 100), ("fastertransformer+fp8", "rounded", 105)],
            "fastertransformer+fp8 on 1 GPU yields 105 tokens per GPU-second (90 %: 94 - 116) and keeps all weights: "
            "their intervals overlap.",
        ),
        (
            [("flash-llm", "pruned", 100), ("a", "rounded", 105), ("b", "pruned and rounded", 200)],
            "Pruned and rounded, b on 1 GPU yields 200 tokens per GPU-second (90 %: 180 - 220): ahead of all else.",
        ),
        ([], "Worth it: no. Out of memory on every number of GPUs tried."),
    ],
)
def test_the_verdict_in_words(options, words):
    made = tuple(option(change, rate, system) for system, change, rate in options)
    assert words in commands.verdict_words(Plan(judge(made), made, None, {}, {}))


def test_plan_says_tie_where_intervals_overlap() -> None:
    words = RUNNER.invoke(app, ["plan", "--model", "opt-66b", "--gpu", "a100-80gb", "--sparsity", "0.8"]).output
    assert "is the cheapest, batch 89; a tie with fastertransformer+" in " ".join(words.split())


def asked_plan(*options: str) -> dict:
    found = RUNNER.invoke(app, ["plan", "--model", "llama-3.1-8b", "--gpu", "h100", *options, "--json"])
    assert found.exit_code == 0, found.output
    return json.loads(found.output)


def test_nothing_is_pruned_unless_told() -> None:
    assert {option["change"] for option in asked_plan()["options"]} <= {"lossless", "rounded"}


def test_limits_hold() -> None:
    free, held = asked_plan(), asked_plan("--tpot", "12", "--ttft", "200", "--max-gpus", "2")
    assert max(option["gpus"] for option in free["options"]) == 8
    assert held["options"]
    assert all(o["gpus"] <= 2 and o["tpot_s"] <= 0.012 and o["ttft_s"] <= 0.2 for o in held["options"])
    assert max(o["batch"] for o in held["options"]) < max(o["batch"] for o in free["options"])


def test_systems_formats_and_engines_are_chosen() -> None:
    named = asked_plan("--systems", "vllm,vllm+fp8,vllm+flash-llm", "--sparsity", "0.7")
    assert {option["system"] for option in named["options"]} == {"vllm", "vllm+fp8", "vllm+flash-llm"}
    hosted = asked_plan("--engine", "sglang", "--formats", "int4,fp8-row")
    assert {option["system"] for option in hosted["options"]} == {"sglang", "sglang+int4", "sglang+fp8"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--max-gpus", "9"), "max_gpus must be from 1 to 8, got 9"),
        (("--tpot", "0"), "--tpot must be above 0 milliseconds, got 0"),
        (("--formats", "fp9"), "unknown format 'fp9': did you mean fp"),
        (("--formats", "csr"), "no system compared stores weights in csr"),
        (("--engine", "vlm"), "unknown system 'vlm"),
    ],
)
def test_what_no_plan_can_be_made_of_is_a_sentence(options: tuple[str, ...], message: str) -> None:
    result = invoke("plan", "--model", "llama-3.1-8b", "--gpu", "h100", *options)
    assert result.exit_code == 2
    assert message in result.stderr
