"""`lscd predict` as scripts use it: columns, JSON, evidence, broken files named by line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from lscd.cli import app
from lscd.errors import InputError
from perfmodel.kernels.fits import unmeasured_kernels
from tests.lscd.commands import GOOD_ROW, HEADER, ONE, RUNNER, run
from tests.perfmodel.cases import OURS


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


def test_commands_name_them_and_say_so() -> None:
    question = ("--gpu", "h100", "--m", "36864", "--k", "9216", "--n", "16", "--sparsity", "0.6")
    found = {row["kernel"]: row for row in json.loads(printed("predict", *question, "--json"))["kernels"]}
    assert {name for name, row in found.items() if not row["measured"]} == set(unmeasured_kernels())
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
    assert re.search(r"with FP16 weights flash-llm \(1\.\d\dx dense\) ties with sparta", result.output)
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
    assert "whose column time_us it would replace" in str(refused.exception)
    assert path.read_bytes() == kept
    assert RUNNER.invoke(app, ["predict", "--input", str(path), "--output", str(tmp_path / "out.csv")]).exit_code == 0


def test_answers_say_how_far_to_trust_them() -> None:
    far = "Extrapolated, outside what their models were fitted on: flash-llm-noreorder, cusparse, bitmap."
    assert far in RUNNER.invoke(app, ONE).output
    run = ["e2e", "--model", "opt-66b", "--gpu", "a100-80gb", "--gpus", "2", "--batch", "8", "--system"]
    known, unknown, too_big = (
        RUNNER.invoke(app, [*run, system, *more]).output
        for system, *more in (["flash-llm"], ["fastertransformer+int8"], ["flash-llm", "--batch", "900"])
    )
    assert re.search(r"Mean error against published runs, all on a100-80gb: \d\.\d% over 8 held-out runs", known)
    assert "No published run of fastertransformer+int8 shows how far this is off." in unknown
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
        (f"{HEADER}\n{GOOD_ROW}\na100-80gb,36864\n", "line 3"),
        (f"{HEADER}\n{GOOD_ROW}\n{GOOD_ROW},1,2\n", "line 3"),
        (f"{HEADER}\n{GOOD_ROW}\n\n{GOOD_ROW}\n", "line 3"),
        (f"{HEADER},kernel\n{GOOD_ROW},sparta\n", "column kernel stands twice"),
        (f"{HEADER}\n{GOOD_ROW}\n,36864,9216,8,0.8,flash-llm\n", "line 3: gpu is empty"),
        (f"{HEADER}\n{GOOD_ROW}\na100-80gb,{10**20},9216,8,0.8,flash-llm\n", "line 3: m is"),
        ("\xff\xfe", "not a CSV"),
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
