"""`lscd e2e` as scripts use it."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from lscd.cli import app
from perfmodel.serving.rows import RESULT_COLUMNS, evaluate_rows
from perfmodel.serving.run import evaluate
from tests.lscd.commands import RUNNER
from tests.perfmodel.serving.cases import A100, FLASH, RUN, invoke


def write_rows(path, **changes):
    row = {"model": "opt-66b", "gpu": "a100-80gb", "gpus": 2, "system": "flash-llm", "sparsity": 0.8, "batch": 8,
           "input_len": 64, "output_len": 512}  # fmt: skip
    oom = {**row, "system": "fastertransformer", "batch": 32}
    pd.DataFrame([row, oom, {**row, **changes}]).to_csv(path, index=False)
    return path


def test_json_of_one_run():
    result = invoke("e2e", "--model", "opt-66b", "--gpu", "a100-80gb", "--gpus", "2", "--batch", "8",
                    "--sparsity", "0.8", "--json")  # fmt: skip
    answer = json.loads(result.stdout)
    expected = evaluate("opt-66b", A100, FLASH, **RUN, gpus=2, sparsity=0.8)
    assert answer["tokens_per_gpu_s"] == pytest.approx(float(expected.tokens_per_gpu_s))
    assert answer["fits"] is True
    assert answer["memory_bytes"]["total"] / 1e9 == answer["memory_gb"]


def test_intervals_are_printed_and_in_json():
    asked = ("e2e", "--model", "opt-66b", "--gpu", "a100-80gb", "--gpus", "2", "--batch", "8", "--sparsity", "0.8")
    answer = json.loads(invoke(*asked, "--json").stdout)
    for name in ("tokens_per_gpu_s", "ttft_ms", "tpot_ms"):
        assert answer[f"lo_{name}"] < answer[name] < answer[f"hi_{name}"]
    text = invoke(*asked).stdout
    assert text.count("(90 %: ") == 5  # tokens, speed-up, first token, between tokens, joules
    assert f"(90 %: {answer['lo_tokens_per_gpu_s']:.1f} - {answer['hi_tokens_per_gpu_s']:.1f})" in text


@pytest.mark.parametrize("name", ["cusparse", "csr"])
def test_a_kernel_known_from_below_runs_no_model(name):
    """One sentence: a bound of a product is no throughput."""
    asked = ("--model", "opt-30b", "--gpu", "a100-80gb", "--batch", "8", "--system", f"fastertransformer+{name}")
    result = invoke("e2e", *asked)
    assert result.exit_code == 2
    assert "of cusparse only a lower bound of the time is known" in result.stderr


BOUND = ("--model", "llama-2-7b", "--gpu", "a100-80gb", "--system", "vllm+gqsa-w4s50")


def test_a_format_without_a_kernel_is_a_bound_in_words_and_in_json() -> None:
    """Nothing says how much slower a real kernel is, so one end of every interval is open."""
    answer = json.loads(invoke("e2e", *BOUND, "--batch", "8", "--json").stdout)
    assert answer["bound"] is True
    assert (answer["lo_tokens_per_gpu_s"], answer["hi_ttft_ms"], answer["hi_tpot_ms"]) == (0, None, None)
    assert answer["speedup"][1] == 0
    text = invoke("e2e", *BOUND, "--batch", "8").stdout
    assert text.startswith(f"at most {answer['tokens_per_gpu_s']:.1f} tokens per GPU-second (90 %: up to ")
    assert f"a token every at least {answer['tpot_ms']:.2f} ms (90 %: from {answer['lo_tpot_ms']:.2f})" in text
    assert "A real one is slower." in text


def test_a_bound_is_one_in_tables_plans_and_servers(tmp_path: Path) -> None:
    rows, out = write_rows(tmp_path / "in.csv", system="fastertransformer+df11", sparsity=0), tmp_path / "out.csv"
    invoke("e2e", "--input", rows, "--output", out)
    assert pd.read_csv(out)["bound"].tolist() == [False, False, True]
    plan = json.loads(invoke("plan", *BOUND[:4], "--systems", "vllm,vllm+df11", "--json").stdout)
    assert {o["system"]: (o["bound"], o["tokens_per_gpu_s_interval"][0] > 0) for o in plan["options"]} == {
        "vllm": (False, True), "vllm+df11": (True, False),
    }  # fmt: skip
    assert "a bound" in invoke("plan", *BOUND[:4], "--systems", "vllm,vllm+df11").stdout
    served = RUNNER.invoke(app, ["serve", *BOUND, "--users", "4"]).stdout
    assert served.startswith("at most ")
    assert "A real one is slower." in served


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
        ({"system": "sglng"}, "line 4: unknown system 'sglng': did you mean sglang"),
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
    [("vllm+mxfp4", "Kernel mxfp4: not measured."), ("vllm+lscd-bitmap-8", "Kernel lscd-bitmap-8: not measured.")],
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


def run_json(*options: str) -> dict:
    found = RUNNER.invoke(app, ["e2e", "--model", "llama-3.1-8b", "--gpu", "h100", "--batch", "16", *options, "--json"])
    assert found.exit_code == 0, found.output
    return json.loads(found.output)


def test_no_sparsity_is_assumed() -> None:
    plain = run_json()
    assert (plain["system"], plain["sparsity"], plain["speedup"]) == ("vllm", 0.0, None)
    pruned = run_json("--sparsity", "0.7")
    assert (pruned["system"], pruned["sparsity"], pruned["compared_with"]) == ("flash-llm", 0.7, "fastertransformer")


def test_the_speedup_is_over_the_same_engine_dense() -> None:
    dense, fp8 = run_json(), run_json("--system", "vllm+fp8")
    value, low, high = fp8["speedup"]
    assert value == pytest.approx(fp8["tokens_per_gpu_s"] / dense["tokens_per_gpu_s"])
    assert low < value < high


def test_weights_kept_dense_are_said_and_always_sparse_turns_it_off() -> None:
    asked = ["--sparsity", "0.4"]
    kept, never = run_json(*asked), run_json(*asked, "--always-sparse")
    assert any("below 50% sparsity stay dense" in remark for remark in kept["remarks"])
    assert not any("stay dense" in remark for remark in never["remarks"])
    assert kept["speedup"][0] == pytest.approx(1.0)
    assert never["memory_bytes"]["weights"] > kept["memory_bytes"]["weights"]  # 4 bytes a weight that is kept


def test_a_file_of_sparsities_is_what_each_layer_has(tmp_path: Path) -> None:
    shares = [0.5 + 0.4 * layer / 31 for layer in range(32)]  # OWL-like: a different one in each layer
    matrices = ("qkv", "attention-output", "mlp-in", "mlp-out")
    lines = [f"{layer},{matrix},{share:.3f}" for layer, share in enumerate(shares) for matrix in matrices]
    path = tmp_path / "owl.csv"
    path.write_text("\n".join(["layer,matrix,sparsity", *lines]), encoding="utf-8")
    by_layer = run_json("--sparsity-file", str(path), "--system", "vllm+flash-llm")
    flat = run_json("--sparsity", "0.7", "--system", "vllm+flash-llm")
    assert by_layer["sparsity"] == pytest.approx(0.7, abs=1e-3)
    assert by_layer["tokens_per_gpu_s"] == pytest.approx(flat["tokens_per_gpu_s"], rel=0.05)
    assert by_layer["tokens_per_gpu_s"] != flat["tokens_per_gpu_s"]
    for command in (["choose", "--batch", "16"], ["worth", "--batch", "16"], ["plan"]):
        asked = [*command, "--model", "llama-3.1-8b", "--gpu", "h100", "--sparsity-file", str(path)]
        assert RUNNER.invoke(app, asked).exit_code == 0
    foreign = RUNNER.invoke(app, ["plan", "--model", "opt-30b", "--gpu", "h100", "--sparsity-file", str(path)])
    assert "owl.csv: number of layers with qkv is 32, allowed for OPT-30B is 48" in str(foreign.exception)


def test_what_ifs_stand_beside_a_published_number() -> None:
    base = run_json("--input-len", "8192")
    assert run_json("--input-len", "8192", "--kv-bits", "8")["tpot_ms"] < base["tpot_ms"]
    pruned = run_json("--input-len", "8192", "--kv-sparsity", "0.7")
    assert pruned["memory_bytes"]["kv_cache"] == pytest.approx(0.45 * base["memory_bytes"]["kv_cache"], rel=0.01)
    assert any("cache-sparsity" in remark and "0.45" in remark for remark in pruned["remarks"])
    few, many = (
        run_json("--system", "fastertransformer", "--speculate", "3", "--batch", batch)["speedup"][0]
        for batch in ("4", "256")
    )
    assert few > 1.9 > many  # where products are bound by memory, checking tokens is free
    slow = run_json("--offload", "0.5")
    assert slow["tpot_ms"] > 5 * run_json()["tpot_ms"]
    assert run_json("--activation-sparsity", "0.5", "--batch", "1")["tpot_ms"] < run_json("--batch", "1")["tpot_ms"]
