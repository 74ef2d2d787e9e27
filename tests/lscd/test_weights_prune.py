"""`lscd weights prune` on a whole model: what calibration needs, what it writes, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kernels_numba.checkpoints.gguf_import import import_gguf
from kernels_numba.checkpoints.gguf_reader import open_gguf
from kernels_numba.checkpoints.pruning import Allocation, Method, PruningRule
from kernels_numba.checkpoints.safetensors_reader import open_checkpoint
from kernels_numba.checkpoints.tokenizer import load_tokenizer
from kernels_numba.decoder.calibrate import prune_decoder
from kernels_numba.decoder.load import load_decoder
from kernels_numba.decoder.texts import read_text, sequences
from kernels_numba.formats import Element
from tests.kernels_numba.checkpoints.ggufs import write_gguf
from tests.kernels_numba.checkpoints.test_gguf_reader import CONFIG
from tests.kernels_numba.decoder.models import weights_of
from tests.lscd.commands import run

TEXT = "hello hell 12 he said: (hello)? " * 40


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a small random Llama in float16, with a text beside it."""
    where = tmp_path_factory.mktemp("prune")
    import_gguf(open_gguf(write_gguf(where / "x.gguf", CONFIG, weights_of(CONFIG))), where / "model")
    (where / "text.txt").write_text(TEXT, encoding="utf-8")
    (where / "latin.txt").write_bytes(b"\xe4")
    return where / "model"


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (("--method", "sparsegpt", "--sparsity", 0.5), PruningRule(Method.SPARSEGPT, 0.5)),
        (
            ("--method", "wanda", "--sparsity", 0.6, "--allocation", "owl"),
            PruningRule(Method.WANDA, 0.6, allocation=Allocation.OWL),
        ),
        (("--method", "sparsegpt", "--n", 2), PruningRule(Method.SPARSEGPT, 0.5, 2, 4)),
        (("--method", "nm"), PruningRule(Method.NM, 0.5)),
    ],
    ids=["sparsegpt", "wanda owl", "sparsegpt 2:4", "nm"],
)
def test_a_calibrated_folder_opens_as_the_model_it_says(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: tuple[object, ...],
    rule: PruningRule,
) -> None:
    text = model.parent / "text.txt"
    words = (model, tmp_path / "out-0.5", *options, "--calibration", text, "--samples", 5, "--length", 20)
    code, out, err = run(monkeypatch, capsys, "weights", "prune", *map(str, words))
    assert (code, err.strip()) == (0, "")
    assert f"\nCalibrated on 5 pieces of 20 tokens of {text}.\n" in out
    tokens = sequences(read_text(text, calibrating=True), load_tokenizer(model), 20, 5)
    source, pruned = open_checkpoint(model), open_checkpoint(tmp_path / "out-0.5")
    names = [name for name in source.tensors if "_proj" in name]
    wanted = prune_decoder(load_decoder(model), rule, tokens, elements=dict.fromkeys(names, Element.FLOAT16))
    found = load_decoder(tmp_path / "out-0.5")
    for name in source.tensors:
        np.testing.assert_array_equal(found.weights[name], wanted.weights[name], err_msg=name)
        assert pruned.info(name).dtype == "F16"
    assert all(
        source.read(name).tobytes() == pruned.read(name).tobytes() for name in source.tensors if name not in names
    )
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "out-0.5" / name).read_bytes() == (model / name).read_bytes()
    mark = json.loads(pruned.metadata["lscd_pruned"])
    assert (mark["method"], mark["matrices"]) == (rule.method, len(names))
    assert mark["calibration"] == {"text": str(text), "samples": 5, "length": 20}


def test_a_file_is_written_where_a_file_is_asked_for(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (model, tmp_path / "x.safetensors", "--sparsity", 0.5, "--allocation", "erk", "--json")
    code, out, _ = run(monkeypatch, capsys, "weights", "prune", *map(str, words))
    assert code == 0
    assert json.loads(out)["calibration"] is None
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]
    again = run(monkeypatch, capsys, "weights", "prune", str(model), str(tmp_path), "--sparsity", "0.5")
    assert "exists and is not empty; allowed: a new folder" in again[2]


ERRORS = {
    "--method sparsegpt --sparsity 0.5": "--method sparsegpt judges weights by their inputs: give --calibration, a",
    "--method wanda --sparsity 0.5": "topics (a half of Python's help texts), or --norms, a file of input norms",
    "--sparsity 0.5 --allocation owl": "--allocation owl judges weights by their inputs: give --calibration",
    "--sparsity 0.5 --allocation own": "unknown allocation 'own': did you mean owl",
    "--sparsity 0.5 --calibration text.txt": "--calibration: --method magnitude does not look at inputs; drop it",
    "--method wanda --sparsity 0.5 --norms x --calibration text.txt": "say the same twice; drop one",
    "--method sparsegpt --sparsity 0.5 --norms x": "--norms is for --method wanda and nm",
    "--sparsity 0.5 --n 2": "--n and --m belong to --method nm, wanda or sparsegpt",
    "--method wanda --n 2 --allocation owl --calibration text.txt": "allocation of 2:4: owl; allowed: uniform",
    "--method random --sparsity 0.5 --allocation erk": "method: random; allowed: magnitude, wanda, sparsegpt with erk",
    "--method nm --calibration none.txt": "none.txt: No such file",
    "--method nm --calibration latin.txt": "latin.txt: no UTF-8 text: byte 0 is 0xe4",
    "--method nm --calibration text.txt --length 5000": "text.txt: 761 tokens; allowed: at least the 5000 of one",
    "--method nm --calibration text.txt --length 65": "tokens of a sequence: 65; allowed: at most 64",
    "--method nm --calibration text.txt --samples 0": "sequences: 0; allowed: at least 1",
    "--method nm --m 5 --calibration text.txt --length 20": "q_proj.weight': columns: 32; allowed: a multiple of 5",
    "--method nm --calibration text.txt --length 20 --include *embed*": "'model.embed_tokens.weight': no matrix of a",
}


@pytest.mark.parametrize(("words", "message"), ERRORS.items(), ids=ERRORS)
def test_errors_are_one_sentence_and_leave_nothing(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str, message: str
) -> None:
    monkeypatch.chdir(model.parent)
    before = sorted(model.parent.iterdir())
    code, out, err = run(monkeypatch, capsys, "weights", "prune", "model", "out", *words.split())
    assert (code, out) == (2, "")
    assert [line for line in err.splitlines() if line.strip()] == [err.strip()]
    assert message in err
    assert sorted(model.parent.iterdir()) == before
