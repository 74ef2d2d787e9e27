"""`lscd serve` as scripts use it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from perfmodel.serving.profile import step_profile
from perfmodel.serving.rows import SERVED_COLUMNS, serve_rows
from perfmodel.serving.steady import serve
from tests.lscd.commands import run

ASKED = ("serve", "--model", "llama-3.1-8b", "--gpu", "h100")
ROW = {
    "model": "llama-3.1-8b", "gpu": "h100", "gpus": 1, "system": "vllm", "sparsity": 0.0, "users": 8, "input_len": 1024,
    "output_len": 256,
}  # fmt: skip


class Shell:
    """``lscd`` typed once and again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.fixtures = monkeypatch, capsys

    def out(self, *arguments: str) -> str:
        """What it prints."""
        code, out, err = run(*self.fixtures, *arguments)
        assert (code, err) == (0, "")
        return out

    def refusal(self, *arguments: str) -> str:
        """The one sentence on stderr."""
        code, out, err = run(*self.fixtures, *arguments)
        assert (code, out) == (2, "")
        assert len(err.strip().splitlines()) == 1
        return err.strip().removeprefix("lscd: ")

    def loads(self, *options: str) -> pd.DataFrame:
        """Loads of ``--json``, a row each."""
        return pd.DataFrame(json.loads(self.out(*ASKED, *options, "--json"))["loads"])


@pytest.fixture
def lscd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(monkeypatch, capsys)


def write_rows(path: Path, **changes: object) -> Path:
    pd.DataFrame([ROW, {**ROW, "system": "vllm+int4", "users": 64}, {**ROW, **changes}]).to_csv(path, index=False)
    return path


def test_json_holds_what_the_model_says(lscd: Shell) -> None:
    answer = json.loads(lscd.out(*ASKED, "--users", "1,16,64", "--json"))
    assert {name: answer[name] for name in ("model", "gpu", "system", "gpus", "input_len", "output_len")} == {
        "model": "llama-3.1-8b", "gpu": "h100", "system": "vllm", "gpus": 1, "input_len": 1024, "output_len": 256,
    }  # fmt: skip
    table = pd.DataFrame(answer["loads"])
    assert list(table.columns) == ["users", *SERVED_COLUMNS, "goodput_per_s"]
    expected = serve("llama-3.1-8b", "h100", "vllm", users=[1, 16, 64], input_len=1024, output_len=256)
    assert table["ttft_ms"].to_numpy() == pytest.approx(1e3 * expected.ttft_s)
    assert table["tpot_p90_ms"].to_numpy() == pytest.approx(1e3 * expected.tpot_p90_s)
    assert table["tokens_per_gpu_s"].to_numpy() == pytest.approx(expected.tokens_per_gpu_s)
    assert table["goodput_per_s"].to_numpy() == pytest.approx(expected.requests_per_s)  # no limit is asked for


def test_options_are_those_of_the_model(lscd: Shell) -> None:
    how = {"gpus": 2, "sparsity": 0.7, "cache_bits": 8.0, "input_len": 4096, "output_len": 64}
    found = lscd.loads(
        "--users", "32", "--gpus", "2", "--system", "vllm+bitmap", "--sparsity", "0.7", "--kv-bits", "8",
        "--input-len", "4096", "--output-len", "64", "--chunk", "1024",
    )  # fmt: skip
    expected = serve("llama-3.1-8b", "h100", "vllm+bitmap", users=32, chunk=1024, **how)
    assert found["tpot_ms"][0] == pytest.approx(1e3 * float(expected.tpot_s))
    assert found["room"][0] == float(expected.room)


def test_table_starts_with_its_best_line(lscd: Shell) -> None:
    limits = ("--ttft", "100", "--tpot", "15")
    text, found = lscd.out(*ASKED, *limits), lscd.loads(*limits)
    assert found["users"].tolist() == [2**i for i in range(9)]
    best = found.loc[found["goodput_per_s"].idxmax()]
    assert text.startswith(
        f"{best['goodput_per_s']:.2f} requests a second within TTFT 100 ms and TPOT 15 ms at {best['users']:g} users: "
        f"{best['tokens_per_gpu_s']:.0f} tokens per GPU-second, a token every {best['tpot_ms']:.1f} ms"
    )
    assert best["tpot_ms"] < 15
    assert (found["goodput_per_s"] <= found["requests_per_s"]).all()
    assert "llama-3.1-8b, 1 x h100, vllm, 1024 + 256 tokens" in text
    assert f"Room beside the weights for {found['room'][0]:.0f} sequences" in text
    lines = [line.split() for line in text.splitlines()]
    assert [f"{users:g}" for users in found["users"]] == [line[0] for line in lines if line and line[0].isdigit()]


def test_requests_at_a_rate_and_one_too_many(lscd: Shell) -> None:
    asked = ("--requests-per-s", "1,10,200")
    found = lscd.loads(*asked)
    assert found["requests_per_s"].tolist()[:2] == pytest.approx([1, 10], rel=2e-3)
    assert np.isnan(found["ttft_ms"][2])  # null: the queue has no end
    assert found["goodput_per_s"][2] == 0
    text = lscd.out(*ASKED, *asked)
    assert text.startswith("10.00 requests a second at 10 requests a second: ")
    assert [line.split()[0] for line in text.splitlines() if "no end" in line] == ["200"]


def test_experts_are_spread(lscd: Shell) -> None:
    asked = ("serve", "--model", "mixtral-8x7b", "--gpu", "h100", "--gpus", "4", "--users", "64", "--json")
    shared, spread = (
        json.loads(lscd.out(*asked, "--expert-parallel", count))["loads"][0]["tpot_ms"] for count in ("1", "4")
    )
    assert shared != spread


def test_a_file_of_sparsities(lscd: Shell, tmp_path: Path) -> None:
    lines = [
        f"{layer},{name},0.7" for layer in range(32) for name in ("qkv", "attention-output", "mlp-in", "mlp-out")
    ]  # fmt: skip
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(["layer,matrix,sparsity", *lines]), encoding="utf-8")
    asked = ("--system", "vllm+bitmap", "--users", "8")
    by_layer, flat = lscd.loads(*asked, "--sparsity-file", str(path)), lscd.loads(*asked, "--sparsity", "0.7")
    pd.testing.assert_frame_equal(by_layer, flat)


def test_table_of_servers(lscd: Shell, tmp_path: Path) -> None:
    rows, out = write_rows(tmp_path / "rows.csv", gpu="rtx-4090", users=256), tmp_path / "out.csv"
    lscd.out("serve", "--input", str(rows), "--output", str(out))
    table, expected = pd.read_csv(out), serve_rows(pd.read_csv(rows))
    assert list(table.columns) == [*ROW, *SERVED_COLUMNS, "bound"]
    pd.testing.assert_frame_equal(table[[*SERVED_COLUMNS, "bound"]], expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "llama3.1-8b"}, "line 4: unknown model 'llama3.1-8b': did you mean llama-3.1-8b"),
        ({"users": 0}, "line 4: users is '0', allowed is a whole number of at least 1"),
        ({"sparsity": 80}, "line 4: sparsity is '80.0', allowed is a number in [0, 1]"),
        ({"gpus": 5}, "line 4: llama-3.1-8b cannot be shared by 5 GPUs"),
        ({"pipeline_parallel": 2, "gpus": 2}, "line 4: pipeline_parallel must be 1 under load, got 2"),
    ],
)
def test_broken_row_is_named_and_nothing_written(
    lscd: Shell, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    rows = write_rows(tmp_path / "rows.csv", **changes)
    assert message in lscd.refusal("serve", "--input", str(rows), "--output", str(tmp_path / "out.csv"))
    assert list(tmp_path.iterdir()) == [rows]


def test_profile_is_a_folder_that_the_simulator_reads(lscd: Shell, tmp_path: Path) -> None:
    text = lscd.out(*ASKED, "--gpus", "2", "--profile", str(tmp_path / "mine"))
    folder = tmp_path / "mine" / "tp2"
    assert text.startswith(f"dense, per_sequence, attention in {folder}: a profile of LLMServingSim")
    assert {path.name for path in folder.iterdir()} == {"dense.csv", "per_sequence.csv", "attention.csv"}
    expected = step_profile("llama-3.1-8b", "h100", "vllm", gpus=2, input_len=1024, output_len=256)
    for name, table in expected.items():
        found = pd.read_csv(folder / f"{name}.csv")
        assert list(found.columns) == list(table.columns)
        assert found["time_us"].to_numpy() == pytest.approx(table["time_us"].to_numpy(), rel=1e-5)
    lscd.out(*ASKED, "--gpus", "2", "--profile", str(tmp_path / "mine"))  # again: replaced


def test_profile_of_layers_of_several_kinds_is_refused_and_nothing_written(lscd: Shell, tmp_path: Path) -> None:
    asked = ("serve", "--model", "gpt-oss-20b", "--gpu", "h100", "--profile", str(tmp_path / "mine"))
    assert lscd.refusal(*asked).startswith("gpt-oss-20b has layers of several kinds")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--users", "0"), "--users is '0', allowed are numbers above 0, joined by commas"),
        (("--users", "1,many"), "--users is '1,many', allowed are numbers above 0, joined by commas"),
        (("--users", "1,,2"), "--users is '1,,2', allowed are numbers above 0, joined by commas"),
        (("--users", "1.5"), "users must be a whole number of at least 1, got 1.5"),
        (("--requests-per-s", "inf"), "--requests-per-s is 'inf', allowed are numbers above 0, joined by commas"),
        (("--requests-per-s=-1",), "--requests-per-s is '-1', allowed are numbers above 0, joined by commas"),
        (("--users", "1", "--requests-per-s", "1"), "give --users or --requests-per-s, not both"),
        (("--sparsity", "0.7", "--sparsity-file", "mine.csv"), "give --sparsity or --sparsity-file, not both"),
        (("--sparsity", "70"), "did you mean 0.7"),
        (("--system", "vlm"), "unknown system 'vlm'"),
        (("--gpus", "3"), "llama-3.1-8b cannot be shared by 3 GPUs"),
        (("--kv-bits", "1"), "cache_bits is 1, allowed is a number from 2 to 16"),
        (("--chunk", "0"), "chunk must be a whole number of at least 1, got 0"),
        (("--expert-parallel", "2", "--gpus", "2"), "expert_parallel must be 1 for llama-3.1-8b"),
        (("--input-len", "200000"), "llama-3.1-8b knows 131072 positions, got 200256"),
        (("--input", "rows.csv"), "--input and --output belong together: give both, or neither"),
        (("--input", "rows.csv", "--output", "out.csv"), "--input takes everything from the file; drop --model, --gpu"),
    ],
)
def test_what_cannot_be_served_is_a_sentence(lscd: Shell, options: tuple[str, ...], message: str) -> None:
    assert message in lscd.refusal(*ASKED, *options)


def test_missing_options_and_too_large_a_model(lscd: Shell) -> None:
    assert lscd.refusal("serve", "--gpu", "h100").startswith("missing --model; for example --model llama-3.1-8b")
    refusal = lscd.refusal("serve", "--model", "llama-3.1-70b", "--gpu", "h100")
    assert refusal == "out of memory: llama-3.1-70b leaves no room for one sequence of 1280 tokens on 1 x h100"
