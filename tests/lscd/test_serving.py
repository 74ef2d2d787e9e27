"""`lscd e2e` and `lscd plan` as scripts use them."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from lscd import serving as commands
from lscd.cli import app
from perfmodel.serving.planning import Plan, judge
from perfmodel.serving.rows import RESULT_COLUMNS, evaluate_rows
from perfmodel.serving.run import evaluate
from perfmodel.serving.systems import SYSTEMS
from tests.lscd.commands import RUNNER
from tests.perfmodel.serving.cases import A100, FLASH, RUN, invoke
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


def write_rows(path, **changes):
    row = {"model": "opt-66b", "gpu": "a100-80gb", "gpus": 2, "system": "flash-llm", "sparsity": 0.8, "batch": 8,
           "input_len": 64, "output_len": 512}  # fmt: skip
    oom = {**row, "system": "fastertransformer", "batch": 32}
    pd.DataFrame([row, oom, {**row, **changes}]).to_csv(path, index=False)
    return path


def test_json_of_one_run():
    result = invoke("e2e", "--model", "opt-66b", "--gpu", "a100-80gb", "--gpus", "2", "--batch", "8", "--json")
    answer = json.loads(result.stdout)
    expected = evaluate("opt-66b", A100, FLASH, **RUN, gpus=2, sparsity=0.8)
    assert answer["tokens_per_gpu_s"] == pytest.approx(float(expected.tokens_per_gpu_s))
    assert answer["fits"] is True
    assert answer["memory_bytes"]["total"] / 1e9 == answer["memory_gb"]


def test_intervals_are_printed_and_in_json():
    asked = ("e2e", "--model", "opt-66b", "--gpu", "a100-80gb", "--gpus", "2", "--batch", "8")
    answer = json.loads(invoke(*asked, "--json").stdout)
    for name in ("tokens_per_gpu_s", "ttft_ms", "tpot_ms"):
        assert answer[f"lo_{name}"] < answer[name] < answer[f"hi_{name}"]
    text = invoke(*asked).stdout
    assert text.count("(90 %: ") == 3
    assert f"(90 %: {answer['lo_tokens_per_gpu_s']:.1f} - {answer['hi_tokens_per_gpu_s']:.1f})" in text


@pytest.mark.parametrize("name", ["cusparse", "csr"])
def test_a_kernel_known_from_below_runs_no_model(name):
    """One sentence: a bound of a product is no throughput."""
    asked = ("--model", "opt-30b", "--gpu", "a100-80gb", "--batch", "8", "--system", f"fastertransformer+{name}")
    result = invoke("e2e", *asked)
    assert result.exit_code == 2
    assert "of cusparse only a lower bound of the time is known" in result.stderr


def test_out_of_memory_says_by_how_much():
    result = invoke("e2e", "--model", "opt-175b", "--gpu", "a100-80gb", "--gpus", "4", "--system", "deepspeed",
                    "--batch", "8")  # fmt: skip
    assert result.exit_code == 0
    assert "out of memory by" in result.stdout


def test_table_of_runs(tmp_path):
    rows, out = write_rows(tmp_path / "rows.csv", model="opt-30b", gpus=1), tmp_path / "out.csv"
    result = invoke("e2e", "--input", str(rows), "--output", str(out))
    assert result.exit_code == 0, result.stderr
    table = pd.read_csv(out)
    assert tuple(table.columns[8:]) == RESULT_COLUMNS
    assert table["fits"].tolist() == [True, False, True]
    assert table["tokens_per_gpu_s"].isna().tolist() == [False, True, False]
    parts = table[["matmul_gpu_s", "attention_gpu_s", "other_gpu_s", "comm_gpu_s"]].sum(axis=1)
    assert parts[0] == pytest.approx(8 * 512 / table["tokens_per_gpu_s"][0])
    assert table["tokens_per_gpu_s"][0] == pytest.approx(evaluate_rows(pd.read_csv(rows))["tokens_per_gpu_s"].iloc[0])


def test_pipeline_stages_are_a_column_too(tmp_path):
    rows, out = write_rows(tmp_path / "rows.csv"), tmp_path / "out.csv"
    pd.read_csv(rows).assign(gpus=4, pipeline_parallel=[1, 2, 4], mine="x").to_csv(rows, index=False)
    result = invoke("e2e", "--input", str(rows), "--output", str(out))
    assert result.exit_code == 0, result.stderr
    table = pd.read_csv(out)
    expected = evaluate("opt-66b", A100, FLASH, **RUN, gpus=4, sparsity=0.8, pipeline_parallel=4)
    assert table["tokens_per_gpu_s"][2] == pytest.approx(float(expected.tokens_per_gpu_s))
    assert table["mine"].tolist() == ["x"] * 3


@pytest.mark.parametrize("column", ["pipeline-parallel", "Pipeline_Parallel", "pipeline_paralel"])
def test_a_column_that_reads_like_another_is_refused(tmp_path, column):
    rows, out = write_rows(tmp_path / "rows.csv"), tmp_path / "out.csv"
    pd.read_csv(rows).assign(**{column: 2}).to_csv(rows, index=False)
    result = invoke("e2e", "--input", str(rows), "--output", str(out))
    assert (result.exit_code, out.exists()) == (2, False)
    assert f"unknown column '{column}': did you mean pipeline_parallel?" in result.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "opt66b"}, "line 4: unknown model 'opt66b': did you mean opt-66b"),
        ({"gpu": "a100"}, "line 4: unknown GPU 'a100'"),
        ({"system": "sglang"}, "line 4: unknown system 'sglang'"),
        ({"batch": "many"}, "line 4: batch is 'many', allowed is a whole number of at least 1"),
        ({"sparsity": 80}, "line 4: sparsity is '80.0', allowed is a number in [0, 1]"),
        ({"gpus": 5}, "line 4: opt-66b cannot be shared by 5 GPUs"),
        ({"pipeline_parallel": 0}, "line 4: pipeline_parallel is '0.0'"),
    ],
)
def test_broken_row_is_named_and_nothing_written(tmp_path, changes, message):
    rows, out = write_rows(tmp_path / "rows.csv", **changes), tmp_path / "out.csv"
    result = invoke("e2e", "--input", str(rows), "--output", str(out))
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == [rows]


def test_missing_column_is_named(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("model,gpu\nopt-30b,a100-80gb\n")
    result = invoke("e2e", "--input", str(path), "--output", str(tmp_path / "out.csv"))
    assert result.exit_code == 2
    assert "missing columns system, gpus, batch, input_len, output_len, sparsity" in result.stderr


def test_missing_options_are_named():
    result = invoke("e2e", "--gpu", "a100-80gb")
    assert result.exit_code == 2
    assert "missing --model, --batch" in result.stderr


def test_plan_on_the_command_line():
    asked = ("plan", "--model", "opt-30b", "--gpu", "a100-80gb")
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


def test_launch_is_an_option_and_a_column(tmp_path: Path) -> None:
    asked = ["e2e", "--model", "opt-30b", "--gpu", "a100-80gb", "--batch", "8", "--system", "fastertransformer"]
    asked += ["--sparsity", "0", "--json"]
    stream, graph = (json.loads(RUNNER.invoke(app, [*asked, "--launch", how]).output) for how in ("stream", "graph"))
    assert graph["tpot_ms"] < stream["tpot_ms"]
    rows = "model,gpu,gpus,system,sparsity,batch,input_len,output_len,launch\n"
    rows += "".join(f"opt-30b,a100-80gb,1,fastertransformer,0,8,64,512,{how}\n" for how in ("", "graph"))
    (tmp_path / "in.csv").write_text(rows, encoding="utf-8")
    done = RUNNER.invoke(app, ["e2e", "--input", str(tmp_path / "in.csv"), "--output", str(tmp_path / "out.csv")])
    assert done.exit_code == 0, done.output
    assert pd.read_csv(tmp_path / "out.csv")["tpot_ms"].tolist() == pytest.approx([stream["tpot_ms"], graph["tpot_ms"]])


def test_engines_launch_as_they_do_in_both_forms(tmp_path: Path) -> None:
    """vLLM replays graphs: by options, and in a table with and without a column for it."""
    asked = ["e2e", "--model", "llama-2-7b", "--gpu", "h100", "--batch", "8", "--system", "vllm", "--sparsity", "0"]
    one = json.loads(RUNNER.invoke(app, [*asked, "--json"]).output)
    assert one["launch"] == "graph"
    for column, cell in (("", ""), (",launch", ","), (",launch", ",graph")):
        rows = f"model,gpu,gpus,system,sparsity,batch,input_len,output_len{column}\n"
        (tmp_path / "in.csv").write_text(f"{rows}llama-2-7b,h100,1,vllm,0,8,64,512{cell}\n", encoding="utf-8")
        done = RUNNER.invoke(app, ["e2e", "--input", str(tmp_path / "in.csv"), "--output", str(tmp_path / "out.csv")])
        assert done.exit_code == 0, done.output
        assert pd.read_csv(tmp_path / "out.csv")["tpot_ms"].tolist() == pytest.approx([one["tpot_ms"]])


@pytest.mark.parametrize(
    ("system", "words"),
    [("vllm+mxfp4", "Kernel mxfp4: not measured."), ("vllm+lscd-bitmap-8", "Kernel lscd-bitmap-8: not written.")],
)
def test_whole_runs_say_what_nobody_measured(system: str, words: str) -> None:
    asked = ["e2e", "--model", "llama-3.1-8b", "--gpu", "b200", "--batch", "8", "--system", system]
    assert words in RUNNER.invoke(app, asked).output
    assert json.loads(RUNNER.invoke(app, [*asked, "--json"]).output)["change"] in words


@pytest.mark.parametrize(
    ("gpu", "system", "sparsity", "message"),
    [
        ("h100", "vllm+4:6", "0.25", "vllm+4:6 takes the sparsity of its pattern, 0.333, got 0.25"),
        ("v100", "vllm+4:6", "0.3333333333", "no 2:4 FP16 Tensor Cores"),
        ("v100", "vllm+6:8-fp8", "0.25", "no 2:4 FP8 Tensor Cores (peak.fp8_sparse), which format '6:8-fp8' needs"),
        ("a100-80gb", "vllm+mxfp8", "0", "no FP8 Tensor Cores (peak.fp8_tensor), which format 'mxfp8' needs"),
    ],
)
def test_formats_ask_for_their_tensor_cores_and_their_patterns(gpu, system, sparsity, message):
    result = invoke(
        "e2e", "--model", "llama-3.1-8b", "--gpu", gpu, "--batch", "8", "--system", system, "--sparsity", sparsity
    )
    assert result.exit_code == 2
    assert message in result.stderr


def test_more_bits_are_not_faster_in_the_family_of_patterns() -> None:
    rates = [
        json.loads(RUNNER.invoke(app, [
            "e2e", "--model", "llama-3.1-8b", "--gpu", "h100", "--batch", "16", "--system", f"vllm+{pattern}", "--json",
        ]).output)["tokens_per_gpu_s"]
        for pattern in ("2:4", "4:6", "6:8", "8:10")
    ]  # fmt: skip
    assert rates == sorted(rates, reverse=True)


def test_plan_says_tie_where_intervals_overlap() -> None:
    words = RUNNER.invoke(app, ["plan", "--model", "opt-66b", "--gpu", "a100-80gb"]).output
    assert "is the cheapest, batch 89; a tie with fastertransformer+int4, " in " ".join(words.split())
