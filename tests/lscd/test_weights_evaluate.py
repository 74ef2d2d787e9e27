"""`lscd weights evaluate`: the number first, then exactly what it is of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kernels_numba.checkpoints.tokenizer import load_tokenizer
from kernels_numba.decoder.load import load_decoder
from kernels_numba.decoder.perplexity import evaluate
from kernels_numba.decoder.texts import Text, sequences, topics
from tests.kernels_numba.checkpoints.ggufs import write_gguf
from tests.kernels_numba.checkpoints.test_gguf_reader import CONFIG
from tests.kernels_numba.decoder.models import weights_of
from tests.lscd.commands import run

TEXT = "hello hell 12 he said: (hello)? " * 8


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("evaluate")
    (where / "text.txt").write_text(TEXT, encoding="utf-8")
    return write_gguf(where / "x.gguf", CONFIG, weights_of(CONFIG))


def test_it_says_what_it_measured(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = model.parent / "text.txt"
    words = ("weights", "evaluate", str(model), "--text", str(text), "--length", "16", "--tokens", "70")
    code, out, _ = run(monkeypatch, capsys, *words)
    windows = sequences(Text(TEXT, ""), load_tokenizer(model), 16, 4)
    wanted = evaluate(load_decoder(model), windows)
    assert code == 0
    assert out.startswith(f"Perplexity {wanted.perplexity:.1f} ± {wanted.perplexity_error:.0f} on {text}.\n")
    assert f"\n60 tokens scored, mean log-likelihood {wanted.mean:.4f}" in out
    assert "4 windows of 16 tokens that do not overlap, the first of each not scored" in out
    found = json.loads(run(monkeypatch, capsys, *words, "--json")[1])
    assert found["perplexity"] == pytest.approx(wanted.perplexity)
    assert found["standard_error"] == pytest.approx(wanted.standard_error)
    assert (found["tokens"], found["windows"], found["text"]) == (60, 4, str(text))


def test_without_a_text_it_reads_what_never_calibrates(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("weights", "evaluate", str(model), "--length", "64", "--tokens", "64")
    code, out, _ = run(monkeypatch, capsys, *words)
    assert code == 0
    assert f" on {topics()[1].origin}.\n" in out
    assert "A single window: no standard error" in out
    assert json.loads(run(monkeypatch, capsys, *words, "--json")[1])["standard_error"] is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--length", "65"], "--length is 65, allowed are 2 to 64 tokens for this model"),
        (["--length", "1"], "--length is 1, allowed are 2 to 64"),
        (["--length", "64", "--tokens", "63"], "--tokens is 63, allowed is at least the 64 tokens of a window"),
        (["--length", "64", "--text", "short.txt"], "short.txt: 1 tokens; allowed: at least the 64 of one sequence"),
        (["--length", "64", "--text", "none.txt"], "none.txt: No such file"),
    ],
)
def test_errors_are_one_sentence(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    monkeypatch.chdir(model.parent)
    Path("short.txt").write_text("hello", encoding="utf-8")
    code, out, err = run(monkeypatch, capsys, "weights", "evaluate", str(model), *words)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
