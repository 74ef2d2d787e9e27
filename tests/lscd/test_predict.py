"""`lscd predict` as scripts use it: columns, JSON, evidence, broken files named by line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from lscd.cli import app
from lscd.errors import InputError
from perfmodel.catalog import load_gpu
from perfmodel.inverse import (
    bandwidth_for_speedup,
    bandwidths_for_speedup,
    product_speedup,
    sparsity_for_speedup,
    tokens_for_speedup,
)
from perfmodel.kernels import GPU_KERNELS, KERNELS
from perfmodel.kernels.fits import unmeasured_kernels
from perfmodel.kernels.rivals import STANDINGS, standing
from perfmodel.prediction import left_out, predict
from tests.lscd.commands import GOOD_ROW, HEADER, ONE, RUNNER, run
from tests.perfmodel.cases import OURS


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


def test_commands_name_them_and_say_so() -> None:
    question = ("--gpu", "h100", "--m", "36864", "--k", "9216", "--n", "16", "--sparsity", "0.6")
    answered = json.loads(printed("predict", *question, "--json"))
    found = {row["kernel"]: row for row in answered["kernels"]}
    assert {name for name, row in found.items() if not row["measured"]} == set(unmeasured_kernels()) & set(
        GPU_KERNELS
    ) - set(answered["refused"])
    assert found[OURS]["time_us"] < found["flash-llm"]["time_us"]
    answer = printed("predict", *question)
    assert f"never measured, but might reach: {OURS} " in answer
    assert f"{OURS} is the fastest" not in answer
    assert "none at all" in answer
    assert f"no evidence: {', '.join(unmeasured_kernels())}" in printed("validate")
    assert OURS in printed("kernels", "list")
    listed = printed("formats")
    assert all(f"\n{name} " in listed for name in (OURS, f"{OURS}-8", f"{OURS}-4"))
    assert "(extrapolated)" in printed(
        "e2e", "--model", "opt-30b", "--gpu", "a100-80gb", "--batch", "16", "--system", f"fastertransformer+{OURS}"
    )


def test_predict_prints_every_kernel() -> None:
    result = RUNNER.invoke(app, ONE)
    assert result.exit_code == 0
    for kernel in ("cublas", "flash-llm", "sparta", "sputnik", "cusparse"):
        assert f"\n{kernel} " in result.output
    assert re.search(r"with FP16 weights flash-llm \(1\.\d\dx dense\) ties with two-four, sparta", result.output)
    assert re.search(r"\ncusparse +at least \d+ +- +at most 0\.\d\dx", result.output)


def test_predict_json_has_time_bound_and_evidence() -> None:
    result = RUNNER.invoke(app, [*ONE, "--kernel", "flash-llm", "--json"])
    found = json.loads(result.output)
    kernel = found["kernels"][0]
    assert kernel["time_us"] == pytest.approx(218.6, rel=0.03)
    assert kernel["bound"] == "shared-memory"
    assert kernel["evidence"]["exact"] is True
    assert kernel["extrapolated"] is False
    assert kernel["at_least"] is False
    bound = json.loads(RUNNER.invoke(app, [*ONE, "--kernel", "cusparse", "--json"]).output)["kernels"][0]
    assert (bound["at_least"], bound["hi_us"], bound["lo_us"]) == (True, None, bound["time_us"])


def test_launch_and_cache_are_options_and_columns(tmp_path: Path) -> None:
    asked = ["predict", "--gpu", "rtx-4090", "--m", "4096", "--k", "4096", "--n", "8", "--kernel", "cublas", "--json"]
    warm = json.loads(RUNNER.invoke(app, [*asked, "--launch", "graph", "--cache", "warm"]).output)
    cold = json.loads(RUNNER.invoke(app, asked).output)
    assert (warm["launch"], warm["cache"], cold["launch"], cold["cache"]) == ("graph", "warm", "stream", "cold")
    assert (warm["kernels"][0]["in_l2"], cold["kernels"][0]["in_l2"]) == (True, False)
    assert warm["kernels"][0]["time_us"] < cold["kernels"][0]["time_us"] / 1.5
    rows = ["graph,warm,", "stream,cold,", ",,", ",,4"]
    given = "\n".join(
        ["gpu,m,k,n,sparsity,kernel,launch,cache,split_k", *(f"rtx-4090,4096,4096,8,0,cublas,{r}" for r in rows)]
    )
    (tmp_path / "in.csv").write_text(given + "\n", encoding="utf-8")
    files = ["--input", str(tmp_path / "in.csv"), "--output", str(tmp_path / "out.csv")]
    assert RUNNER.invoke(app, ["predict", *files]).exit_code == 0
    found = pd.read_csv(tmp_path / "out.csv")["time_us"]
    expected = [warm["kernels"][0]["time_us"]] + 3 * [cold["kernels"][0]["time_us"]]
    assert found.tolist() == pytest.approx(expected)
    (tmp_path / "in.csv").write_text(given.replace("graph,warm", "graph,hot"), encoding="utf-8")
    refused = RUNNER.invoke(app, ["predict", *files])
    assert isinstance(refused.exception, InputError)
    assert "line 2: cache is 'hot', allowed are cold, warm" in str(refused.exception)


def test_evidence_is_exact_only_for_the_same_call() -> None:
    """A product timed in a loop, its weights in the L2, is not the one asked for with weights in memory."""
    asked = ["predict", "--gpu", "rtx-4090", "--m", "4096", "--k", "4096", "--n", "8", "--sparsity", "0.4"]
    asked += ["--kernel", "flash-llm-noreorder"]
    for how, exact, words in (
        ([], False, "weights in the L2"),
        (["--cache", "warm", "--split-k", "7"], True, "held out"),
        (["--cache", "warm", "--split-k", "2"], False, "split-K 7"),
        (["--cache", "warm", "--launch", "graph"], False, "launched from a stream"),
    ):
        answer = json.loads(RUNNER.invoke(app, [*asked, *how, "--json"]).output)["kernels"][0]["evidence"]
        assert answer["exact"] is exact
        assert (answer["in_l2"], answer["launch"], answer["split_k"]) == (True, "stream", 7)
        assert words in " ".join(RUNNER.invoke(app, [*asked, *how]).output.split())


def test_a_bound_alone_is_said_to_be_one() -> None:
    assert "of cusparse no more than a bound is known." in RUNNER.invoke(app, [*ONE, "--kernel", "cusparse"]).output


def test_results_never_replace_a_column_of_the_only_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(f"{HEADER},time_us\n{GOOD_ROW},123\n", encoding="utf-8")
    kept = path.read_bytes()
    refused = RUNNER.invoke(app, ["predict", "--input", str(path), "--output", str(path)])
    assert "is the input itself" in str(refused.exception)
    assert path.read_bytes() == kept
    assert RUNNER.invoke(app, ["predict", "--input", str(path), "--output", str(tmp_path / "out.csv")]).exit_code == 0


def test_answers_say_how_far_to_trust_them() -> None:
    far = re.search(r"Extrapolated, outside what their models were fitted on: (.*)\.", RUNNER.invoke(app, ONE).output)
    assert far is not None
    assert {"flash-llm-noreorder", "cusparse", "bitmap", "two-four"} <= set(far[1].split(", "))
    assert {"flash-llm", "sparta", "cublas"}.isdisjoint(far[1].split(", "))
    run = ["e2e", "--model", "opt-66b", "--gpu", "a100-80gb", "--gpus", "2", "--batch", "8", "--system"]
    known, unknown, too_big = (
        RUNNER.invoke(app, [*run, system, *more]).output
        for system, *more in (["flash-llm"], ["fastertransformer+int8"], ["flash-llm", "--batch", "900"])
    )
    assert re.search(r"Mean error against published runs, all on a100-80gb: \d\.\d% over 8 held-out runs", known)
    assert "No published run of fastertransformer+int8; of " in unknown
    assert too_big.startswith("out of memory by ")
    assert "published" not in too_big


def test_all_kernels_at_an_awkward_n_pad_where_needed() -> None:
    result = RUNNER.invoke(app, ["predict", "--gpu", "h100", "--m", "4096", "--k", "4096", "--n", "12"])
    assert result.exit_code == 0
    assert "N padded to 16" in result.output.replace("\n", " ") or "padded" in result.output


def test_batch_adds_columns_and_keeps_order(tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text(f"{HEADER},tag\n{GOOD_ROW},x\nh100,4096,4096,16,0.5,sputnik,y\na100-80gb,7168,7168,8,0,cublas,z\n")
    out = tmp_path / "out.csv"
    result = RUNNER.invoke(app, ["predict", "--input", str(rows), "--output", str(out)])
    assert result.exit_code == 0, result.output
    table = pd.read_csv(out)
    added = ["time_us", "speedup_vs_dense", "bound", "extrapolated"]
    assert list(table.columns)[: 7 + len(added)] == [*HEADER.split(","), "tag", *added]
    assert list(table["tag"]) == ["x", "y", "z"]
    assert table["time_us"].gt(0).all()
    assert list(table["extrapolated"]) == [False, True, False]
    assert table.loc[2, "speedup_vs_dense"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("gpu,m,k,n,sparsity\n", "missing column kernel"),
        (f"{HEADER}\n", "no rows"),
        (f"{HEADER}\n{GOOD_ROW}\na100-80gb,x,9216,8,0.8,flash-llm\n", "line 3: m is 'x'"),
        (
            f"{HEADER}\n{GOOD_ROW}\na100-80gb,1.5,9216,8,0.8,flash-llm\n",
            "line 3: m is '1.5', allowed is a whole number",
        ),
        (f"{HEADER}\n{GOOD_ROW}\na100-80gb,36864,9216,8,80,flash-llm\n", "line 3: sparsity is '80'"),
        (f"{HEADER}\n{GOOD_ROW}\na100-80gb,36864,9216,8,nan,flash-llm\n", "line 3: sparsity is 'nan'"),
        (f"{HEADER}\n{GOOD_ROW}\na100-80gb,36864,9216,0,0.8,flash-llm\n", "line 3: n is '0'"),
        (f"{HEADER}\n{GOOD_ROW}\na100-80gb,36864,9216,12,0.8,flash-llm\n", "line 3: flash-llm takes N of"),
        (f"{HEADER}\n{GOOD_ROW}\na100-80,36864,9216,8,0.8,flash-llm\n", "line 3: unknown GPU 'a100-80'"),
        (f"{HEADER}\n{GOOD_ROW}\na100-80gb,36864,9216,8,0.8,flashllm\n", "line 3: unknown kernel 'flashllm'"),
        (
            f"{HEADER}\n{GOOD_ROW}\na100-80gb,36864,9216,8,0,fp8\n",
            "line 3: NVIDIA A100-SXM4-80GB has no FP8",
        ),
        (f"{HEADER}\n{GOOD_ROW}\na100-80gb,8,8,8,0.8,two-four\n", "line 3: two-four takes the sparsity of its pattern"),
        (
            f"{HEADER}\nh100,8,8,8,0.5,two-four\na100-80gb,8,8,9,0.5,flash-llm\nh100,8,8,8,0.4,two-four\n",
            "line 3: flash-llm takes N of",
        ),
        (f"{HEADER},activations\n{GOOD_ROW},int8\n", "line 2: activations is 'int8', allowed are fp16, quantised"),
        (f"{HEADER}\n{GOOD_ROW}\na100-80gb,36864\n", "line 3"),
        (f"{HEADER}\n{GOOD_ROW}\n{GOOD_ROW},1,2\n", "line 3"),
        (f"{HEADER}\n{GOOD_ROW}\n\n{GOOD_ROW}\n", "line 3"),
        (f"{HEADER},kernel\n{GOOD_ROW},sparta\n", "column kernel stands twice"),
        (f"{HEADER}\n{GOOD_ROW}\n,36864,9216,8,0.8,flash-llm\n", "line 3: gpu is empty"),
        (f"{HEADER}\n{GOOD_ROW}\na100-80gb,{10**20},9216,8,0.8,flash-llm\n", "line 3: m is"),
        ("\xff\xfe", "no UTF-8 text"),
    ],
)
def test_batch_refuses_broken_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, message: str
) -> None:
    rows, out = tmp_path / "rows.csv", tmp_path / "out.csv"
    rows.write_bytes(text.encode("latin-1"))
    code, stdout, stderr = run(monkeypatch, capsys, "predict", "--input", str(rows), "--output", str(out))
    assert code == 2
    assert stdout == ""
    assert stderr.count("\n") == 1
    assert message in stderr
    assert list(tmp_path.iterdir()) == [rows]


LARGE = ["predict", "--m", "28672", "--k", "8192", "--n", "16"]


def asked(gpu: str, *options: str) -> dict[str, Any]:
    result = RUNNER.invoke(app, [*LARGE, "--gpu", gpu, *options, "--json"])
    assert result.exit_code == 0, result.exception
    return json.loads(result.output)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            "--kernel two-four --sparsity 0.8",
            "two-four takes the sparsity of its pattern, 0.5 (2:4), got 0.8 as --sparsity; leave it out, or give "
            "--pattern 2:4",
        ),
        ("--kernel two-four --pattern 4:6", "two-four takes 2:4 only, got --pattern 4:6; use six-eight"),
        ("--kernel six-eight --pattern 2:4", "six-eight takes 6:8 or 4:6 or 8:10, got --pattern 2:4; use two-four"),
        ("--kernel fp8 --pattern 6:8", "fp8 has no pattern, got --pattern 6:8; kernels of 6:8 are six-eight, "),
        ("--pattern 3:4", "--pattern is '3:4', allowed are 2:4, 4:6, 6:8, 8:10"),
        ("--pattern 2:4 --sparsity 0.6", "--sparsity is 0.6, but --pattern 2:4 has 0.5; leave one of them out"),
        ("--pattern 2:4 --sparsity nan", "--sparsity is nan, but --pattern 2:4 has 0.5"),
        ("--kernel two-four --sparsity 50", "sparsity must lie in [0, 1], got 50"),
        ("--sparsity 80", "sparsity must lie in [0, 1], got 80; sparsity is a fraction, did you mean 0.8?"),
        ("--kernel nvfp4", "has no FP4 Tensor Cores (peak.fp4_tensor), which kernel 'nvfp4' needs"),
        ("--kernel two-for", "unknown kernel 'two-for': did you mean two-four"),
        ("--activations int8", "activations is 'int8', allowed are fp16, quantised"),
        ("--speedup 0", "--speedup is 0, allowed is a number above 0"),
        ("--speedup nan", "--speedup is nan, allowed is a number above 0"),
        ("--speedup inf", "--speedup is inf, allowed is a number above 0"),
        ("--speedup 2 --kernel macko", "macko takes N of 1, got 16"),
        ("--speedup 2 --kernel nvfp4", "has no FP4 Tensor Cores"),
        ("--speedup 2 --kernel two-four --sparsity 0.4", "two-four takes the sparsity of its pattern"),
        ("--speedup 2 --n 5000", "--n is 5000, allowed with --speedup is at most 4096"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: str, message: str
) -> None:
    code, stdout, stderr = run(monkeypatch, capsys, *LARGE, "--gpu", "h100", *options.split())
    assert (code, stdout) == (2, "")
    assert stderr.count("\n") == 1
    assert message in stderr


def test_the_sparsity_is_the_patterns_where_a_kernel_has_one() -> None:
    """Nothing asked: dense, or the pattern kernel's own; a pattern asked for: its own, for every kernel."""
    for options, kernel, expected in (
        ((), "flash-llm", 0.0),
        (("--sparsity", "0.8"), "flash-llm", 0.8),
        (("--kernel", "two-four"), "two-four", 0.5),
        (("--kernel", "six-eight"), "six-eight", 0.25),
        (("--kernel", "six-eight", "--pattern", "4:6"), "six-eight", 1 / 3),
        (("--kernel", "two-four-int8", "--pattern", "8:10", "--sparsity", "0.2"), "two-four-int8", 0.2),
        (("--pattern", "4:6"), "flash-llm", 1 / 3),
        (("--pattern", "4:6"), "two-four-fp8", 1 / 3),
        (("--pattern", "4:6"), "two-four", 0.5),
    ):
        rows = {row["kernel"]: row for row in asked("h100", *options)["kernels"]}
        assert rows[kernel]["sparsity"] == pytest.approx(expected)
        p = predict(kernel, "h100", 28672, 8192, 16, expected)
        assert rows[kernel]["time_us"] == pytest.approx(float(p.time_s) * 1e6)
    text = RUNNER.invoke(app, [*LARGE, "--gpu", "h100", "--pattern", "4:6"]).output
    assert re.search(r"\nsix-eight .* pruned, 4:6 \(0\.333\) ", text)
    assert re.search(r"\ntwo-four .* pruned, 2:4 \(0\.5\) ", text)


def test_the_table_says_what_becomes_of_the_weights_and_who_is_missing() -> None:
    text = RUNNER.invoke(app, [*LARGE, "--gpu", "a100-80gb"]).output
    left = "Left out: N of 1 only: macko; no FP8 Tensor Cores: fp8, fp8-block; no FP4 Tensor Cores: nvfp4, mxfp4"
    streamed = "lscd-bitmap-bulk, lscd-bitmap-pairs-bulk, lscd-condensed-bulk, lscd-condensed-pairs-bulk"
    assert f"{left}; no 2:4 FP8 Tensor Cores: two-four-fp8; compute capability below 9.0: {streamed}." in text
    lines = {line.split()[0]: line for line in text.splitlines()}
    found = asked("a100-80gb")
    for row in found["kernels"]:
        words = standing(KERNELS[row["kernel"]])
        assert words in STANDINGS
        assert f" {words}" in lines[row["kernel"]]
        assert row["change"] == KERNELS[row["kernel"]].format.change
    assert found["refused"] == left_out("a100-80gb", 16)
    lacking = {"macko", "fp8", "fp8-block", "nvfp4", "mxfp4", "two-four-fp8"}
    assert set(found["refused"]) == lacking | set(streamed.split(", "))
    amd = RUNNER.invoke(app, [*LARGE, "--gpu", "mi300x"])
    assert "not modelled on AMD's GPUs: flash-llm, " in amd.output
    assert asked("a100-80gb", "--kernel", "int8")["refused"] == {}


def test_activations_that_come_quantised_save_a_launch(tmp_path: Path) -> None:
    slow, fast = (asked("h100", "--activations", how)["kernels"] for how in ("fp16", "quantised"))
    for before, after in zip(slow, fast, strict=True):
        multiplies = KERNELS[before["kernel"]].precision
        assert (after["time_us"] < before["time_us"]) is (multiplies != "fp16"), before["kernel"]
    (tmp_path / "in.csv").write_text(
        f"{HEADER},activations\n" + "".join(f"h100,28672,8192,16,0,fp8,{how}\n" for how in ("quantised", "fp16", "")),
        encoding="utf-8",
    )
    files = ["--input", str(tmp_path / "in.csv"), "--output", str(tmp_path / "out.csv")]
    assert RUNNER.invoke(app, ["predict", *files]).exit_code == 0
    before, after = (next(row["time_us"] for row in rows if row["kernel"] == "fp8") for rows in (slow, fast))
    assert pd.read_csv(tmp_path / "out.csv")["time_us"].tolist() == pytest.approx([after, before, before])
    text = RUNNER.invoke(app, [*LARGE, "--gpu", "h100", "--activations", "quantised"]).output
    assert "cold cache, activations quantised already" in text


PRODUCT = {"m": 28672, "k": 8192, "n": 16}


def test_the_inverse_question_is_answered_by_the_functions_and_confirmed_by_the_models() -> None:
    found = asked("h100", "--speedup", "1.5", "--sparsity", "0.8")
    rows = {row["kernel"]: row for row in found["kernels"]}
    flash = rows["flash-llm"]
    confirmed = predict("flash-llm", "h100", **PRODUCT, sparsity=flash["needed_sparsity"])
    assert float(confirmed.speedup_vs_dense) == pytest.approx(1.5, rel=1e-6)
    assert flash["needed_sparsity"] == sparsity_for_speedup("flash-llm", "h100", 1.5, **PRODUCT)
    asked_of = ("flash-llm", "h100", 1.5)
    assert tuple(flash["needed_n"].values()) == tokens_for_speedup(*asked_of, **PRODUCT, sparsity=0.8)
    low, high = flash["needed_bandwidth_bytes_per_s"].values()
    assert low is None
    assert bandwidths_for_speedup(*asked_of, **PRODUCT, sparsity=0.8) == (0.0, high)
    assert high == pytest.approx(bandwidth_for_speedup(*asked_of, **PRODUCT, sparsity=0.8))
    assert rows["fp8"]["needed_sparsity"] is None
    assert not rows["fp8"]["any_sparsity"]
    assert rows["six-eight"]["sparsity"] == 0.25
    assert rows["cusparse"]["at_least"]
    assert (rows["cusparse"]["speedup_vs_dense"], rows["cusparse"]["needed_n"]) == (None, None)
    assert {"nvfp4", "macko"} < set(found["refused"])
    assert "cublas" not in rows
    text = RUNNER.invoke(app, [*LARGE, "--gpu", "h100", "--speedup", "1.5", "--sparsity", "0.8"]).output
    assert text.splitlines()[0] == found["answer"]
    assert "flash-llm needs the least, 0.72." in found["answer"]
    assert not [name for name in unmeasured_kernels() if name in found["answer"]]
    assert re.search(r"\nflash-llm +pruned +1\.\d\dx +from 0\.72 +1 - 64 +3\.9\d down\n", text)
    assert re.search(r"\nsix-eight +pruned, 6:8 \(0\.25\) +1\.\d\dx +- +never +never\n", text)
    assert re.search(r"\ncusparse +pruned( +unknown){4}\n", text)
    assert "never" not in RUNNER.invoke(app, [*LARGE, "--gpu", "h100", "--speedup", "0.001"]).output


def test_the_inverse_question_for_one_kernel() -> None:
    options = ["--gpu", "h100", "--speedup", "1.5", "--sparsity", "0.8", "--kernel"]
    for kernel, words in (
        ("flash-llm", "flash-llm is 1.72x dense at N = 16 and sparsity 0.8; 1.5x at: sparsity from 0.72, N 1 - 64, "),
        ("fp8", "1.5x at: N 1 - "),
        ("cusparse", "Of cusparse no more than a bound is known at N = 16."),
        ("lscd-bitmap", "lscd-bitmap, which nobody has measured, is "),
    ):
        result = RUNNER.invoke(app, [*LARGE, *options, kernel])
        assert result.exit_code == 0
        assert words in result.output.splitlines()[0]
    assert "no measured kernel reaches it; no kernel that takes any sparsity does at one." in (
        RUNNER.invoke(app, [*LARGE, "--gpu", "h100", "--speedup", "99"]).output
    )


def test_tokens_for_speedup_holds_at_every_n_of_the_run() -> None:
    """Padding included: 9 tokens cost Flash-LLM what 16 do."""
    asked_of, at = ("flash-llm", "a100-80gb"), {"m": 36864, "k": 9216, "sparsity": 0.8}
    run_of_n = tokens_for_speedup(*asked_of, 1.5, **at, n=8)
    assert run_of_n is not None
    first, last = run_of_n
    gains = {n: product_speedup(*asked_of, **at, n=n) or 0.0 for n in range(max(first - 1, 1), last + 2)}
    assert all(gains[n] >= 1.5 for n in range(first, last + 1))
    assert gains[last + 1] < 1.5
    assert tokens_for_speedup(*asked_of, 1.5, **at, n=last + 300) == run_of_n, "the nearest run"
    assert tokens_for_speedup(*asked_of, 50.0, **at, n=8) is None
    assert tokens_for_speedup(*asked_of, 1e-3, **at, n=8) == (1, 4096)
    assert tokens_for_speedup("macko", "rtx-4090", 1.0, **at, n=1) == (1, 1)
    assert tokens_for_speedup("cusparse", "a100-80gb", 50.0, **at, n=8) is None
    assert sparsity_for_speedup(*asked_of, 1e-3, m=36864, k=9216, n=8) == 0.0
    assert bandwidths_for_speedup(*asked_of, 1e-3, **at, n=8) == (0.0, float("inf"))
    assert bandwidths_for_speedup(*asked_of, 50.0, **at, n=8) is None


def test_inverse_functions_refuse() -> None:
    at = {"m": 4096, "k": 4096, "n": 8}
    with pytest.raises(ValueError, match="two-four has the sparsity of its pattern"):
        sparsity_for_speedup("two-four", "h100", 1.5, **at)
    with pytest.raises(ValueError, match="has no FP8 Tensor Cores"):
        sparsity_for_speedup("fp8", "a100-80gb", 1.5, **at)
    with pytest.raises(ValueError, match="two-four takes the sparsity of its pattern"):
        tokens_for_speedup("two-four", load_gpu("h100"), 1.5, **at, sparsity=0.8)
    with pytest.raises(ValueError, match="of cusparse no more than a lower bound of the time is known at N = 8"):
        bandwidths_for_speedup("cusparse", "a100-80gb", 1.5, **at, sparsity=0.8)
    with pytest.raises(ValueError, match="macko takes N of 1, got 8"):
        product_speedup("macko", "a100-80gb", **at, sparsity=0.8)
    with pytest.raises(ValueError, match="n is 5000, allowed is at most 4096"):
        tokens_for_speedup("fp8", "h100", 1.5, m=8, k=8, n=5000, sparsity=0)
    for speedup in (0.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="speedup must be a number above 0"):
            tokens_for_speedup("fp8", "h100", speedup, **at, sparsity=0)


def test_a_prediction_prints_a_line_a_point_and_becomes_a_table() -> None:
    p = predict("flash-llm", "a100-80gb", 36864, 9216, [[8, 16], [32, 64]], 0.8)
    lines = str(p).splitlines()
    assert len(lines) == 4
    assert re.fullmatch(
        r"flash-llm on a100-80gb: 36864 x 9216, N = 8, sparsity 0\.8: [\d.]+ us \([\d.]+ - [\d.]+\), 1\.\d\dx dense, "
        r"bound by shared-memory",
        lines[0],
    )
    frame = p.to_frame()
    assert frame["n"].tolist() == [8, 16, 32, 64]
    assert frame["time_us"].tolist() == pytest.approx((p.time_s * 1e6).ravel())
    assert frame["speedup_vs_dense"].tolist() == pytest.approx(p.speedup_vs_dense.ravel())
    assert len(str(predict("fp8", "h100", 4096, 4096, range(1, 20))).splitlines()) == 11
    assert str(predict("fp8", "h100", 4096, 4096, range(1, 20))).endswith("\n…")
    bound = predict("cusparse", "a100-80gb", 36864, 9216, 8, 0.8)
    assert "at least " in str(bound)
    assert bound.to_frame()["hi_us"].isna().all()
    assert str(predict("lscd-bitmap", "h100", 4096, 4096, 8, 0.8)).endswith(", not measured")
    assert "sparsity 0.333" in str(predict("six-eight", "h100", 4096, 4096, 8, 0.33))
