"""Sparsity by layer: what `lscd weights inspect` counts comes back, and files of other models are refused."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lscd.cli import main
from perfmodel.catalog import load_model, load_sparsities, sparsities_from_text
from perfmodel.catalog.decoder import ATTENTION_OUTPUT, EXPERTS_IN, LATENT_DOWN, LM_HEAD, MLP_IN, MLP_OUT, QKV, QUERY
from tests.kernels_numba.checkpoints.files import save

HEADER = "layer,matrix,sparsity"


def written(path: Path, *rows: str, header: str = HEADER) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def entry(name: str, m: int, k: int, sparsity: float) -> dict[str, Any]:
    return {"name": name, "m": m, "k": k, "sparsity": sparsity, "bytes": {}}


def as_json(path: Path, *entries: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"path": "model", "sparsity": 0.5, "matrices": entries}), encoding="utf-8")
    return path


def test_our_names_in_a_table(tmp_path: Path) -> None:
    """One layer of four is sparser: a quarter of the weights."""
    rows = [f"{layer},mlp-in,{0.8 if layer == 3 else 0.6}" for layer in range(4)]
    found = load_sparsities(written(tmp_path / "own.csv", *rows))
    assert found.shares(MLP_IN) == ((0.6, 0.75), (0.8, 0.25))
    assert found.mean(MLP_IN) == pytest.approx(0.65)
    assert [entry.layer for entry in found.matrices[MLP_IN]] == [0, 1, 2, 3]


def test_a_matrix_that_the_file_lacks_is_dense(tmp_path: Path) -> None:
    found = load_sparsities(written(tmp_path / "own.csv", "0,mlp-in,0.6"))
    assert found.shares(QKV) == ((0.0, 1.0),)
    assert found.mean(QKV) == 0.0
    assert found.mean() == found.mean(MLP_IN, QKV) == 0.6


def test_thousandths_are_told_apart(tmp_path: Path) -> None:
    rows = [f"{i},qkv,{0.5 + i * 2e-4}" for i in range(10)]
    shares = load_sparsities(written(tmp_path / "own.csv", *rows)).shares(QKV)
    assert [sparsity for sparsity, _ in shares] == [0.5, 0.501, 0.502]
    assert math.fsum(fraction for _, fraction in shares) == pytest.approx(1)


def test_q_k_and_v_are_one_matrix(tmp_path: Path) -> None:
    """Q has four times the rows of K and of V."""
    layer = "model.layers.0.self_attn."
    path = as_json(
        tmp_path / "census.json",
        entry(f"{layer}q_proj.weight", 4096, 4096, 0.6),
        entry(f"{layer}k_proj.weight", 1024, 4096, 0.3),
        entry(f"{layer}v_proj.weight", 1024, 4096, 0.0),
    )
    assert load_sparsities(path).shares(QKV) == ((0.45, 1.0),)
    table = written(
        tmp_path / "own.csv", f",{layer}q_proj.weight,0.6,4", f",{layer}k_proj.weight,0.3,1", "0,v_proj,0,1",
        header=f"{HEADER},weights",
    )  # fmt: skip
    assert load_sparsities(table).shares(QKV) == ((0.45, 1.0),)


def test_experts_of_a_layer_are_averaged(tmp_path: Path) -> None:
    rows = [f",model.layers.0.mlp.experts.{i}.{x}_proj.weight,{0.2 * i}" for i in range(4) for x in ("gate", "up")]
    assert load_sparsities(written(tmp_path / "own.csv", *rows)).shares(EXPERTS_IN) == ((0.3, 1.0),)


def test_queries_before_latent_attention(tmp_path: Path) -> None:
    """Where ``kv_b_proj`` makes the keys, ``q_proj`` makes queries alone."""
    names = ("q_proj", "kv_a_proj_with_mqa", "kv_b_proj")
    path = as_json(tmp_path / "x.json", *(entry(f"model.layers.0.self_attn.{name}", 8, 8, 0.5) for name in names))
    assert set(load_sparsities(path).matrices) == {QUERY, LATENT_DOWN, "latent-up"}


def test_other_parts_of_a_checkpoint_are_passed_over(tmp_path: Path) -> None:
    path = as_json(
        tmp_path / "x.json",
        entry("model.embed_tokens.weight", 8, 8, 0.1),
        entry("visual.blocks.0.attn.qkv.weight", 8, 8, 0.1),
        entry("model.layers.0.mlp.down_proj.weight", 8, 8, -1e-17),
        entry("lm_head.weight", 8, 8, 0.25),
    )
    found = load_sparsities(path)
    assert set(found.matrices) == {MLP_OUT, LM_HEAD}
    assert (found.shares(MLP_OUT), found.shares(LM_HEAD)) == (((0.0, 1.0),), ((0.25, 1.0),))


@pytest.fixture(scope="module")
def layerwise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Census of a tiny Llama whose layers are as sparse as OWL would have them: 0.5, 0.75, 0.625."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("owl")
    shapes = {"self_attn.q_proj": (64, 64), "self_attn.k_proj": (16, 64), "self_attn.v_proj": (16, 64)}
    shapes |= {"self_attn.o_proj": (64, 64), "mlp.gate_proj": (128, 64), "mlp.up_proj": (128, 64)}
    shapes |= {"mlp.down_proj": (64, 128)}
    tensors = {}
    for layer, sparsity in enumerate((0.5, 0.75, 0.625)):
        for module, shape in shapes.items():
            values = rng.permutation(np.arange(shape[0] * shape[1])) >= sparsity * shape[0] * shape[1]
            tensors[f"model.layers.{layer}.{module}.weight"] = values.reshape(shape).astype(np.float16)
    tensors["model.embed_tokens.weight"] = np.ones((32, 64), np.float16)
    return save(folder / "model.safetensors", tensors, dict.fromkeys(tensors, "F16"))


LLAMA = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "max_position_embeddings": 64,
    "num_attention_heads": 4, "num_key_value_heads": 1, "num_hidden_layers": 3, "vocab_size": 32,
}  # fmt: skip


def test_what_inspect_counts_comes_back(
    layerwise: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["lscd", "weights", "inspect", str(layerwise), "--json"])
    with pytest.raises(SystemExit):
        main()
    path = tmp_path / "census.json"
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    found = load_sparsities(path)
    third = pytest.approx(1 / 3)
    for name in (QKV, ATTENTION_OUTPUT, MLP_IN, MLP_OUT):
        assert found.shares(name) == ((0.5, third), (0.625, third), (0.75, third))
        assert [entry.sparsity for entry in found.matrices[name]] == [0.5, 0.75, 0.625]
    assert found.matrices[QKV][0].weights == 96 * 64
    (tmp_path / "config.json").write_text(json.dumps(LLAMA), encoding="utf-8")
    model = load_model(tmp_path)
    found.check(model)
    assert found.mean() == pytest.approx(0.625)
    assert sum(entry.weights for entries in found.matrices.values() for entry in entries) == model.shape.weights()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([f"{i},qkv,0.5" for i in range(33)], r"own\.csv: layer of qkv is 32, allowed for Llama 3.1 8B are 0 to 31"),
        ([f"{i},qkv,0.5" for i in range(31)], r"own\.csv: number of layers with qkv is 31, allowed .* is 32"),
        (["0,experts-in,0.5"], r"own\.csv: unknown matrix of Llama 3.1 8B 'experts-in': .*Known are qkv, "),
    ],
)
def test_files_of_another_model(rows: list[str], message: str, tmp_path: Path) -> None:
    found = load_sparsities(written(tmp_path / "own.csv", *rows))
    with pytest.raises(ValueError, match=message):
        found.check(load_model("llama-3.1-8b"))


def test_a_file_of_matrices_of_another_size_is_refused(tmp_path: Path) -> None:
    """As many layers as Llama 3.1 8B, but Llama 2 7B's queries, keys and values."""
    rows = [f"{i},qkv,0.5,{3 * 4096 * 4096}" for i in range(32)]
    path = tmp_path / "own.csv"
    path.write_text("\n".join(["layer,matrix,sparsity,weights", *rows]), encoding="utf-8")
    message = "weights of qkv are 1,610,612,736, those of Llama 3.1 8B are 805,306,368"
    with pytest.raises(ValueError, match=message):
        load_sparsities(path).check(load_model("llama-3.1-8b"))


Q, K = "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["0,qkv,60"], r"row 1: sparsity of qkv is 60, allowed is a fraction from 0 to 1"),
        (["0,qkv,nan"], r"row 1: sparsity of qkv is nan"),
        (["0,qkv,"], r"row 1: sparsity is empty"),
        (["0,qkv,much"], r"row 1: sparsity is 'much', allowed is a number"),
        (["0.5,qkv,0.5"], r"row 1: layer is 0.5, allowed are whole numbers"),
        (["inf,qkv,0.5"], r"row 1: layer is inf, allowed are whole numbers"),
        (["0,qkv,0.5", "0,qkv,0.6"], r"row 2: matrix is 'qkv' a second time"),
        ([f"1,{Q},0.5"], r"row 1: layer is 1, allowed for model\.layers\.0\.self_attn\.q_proj is 0"),
        ([f",{Q},0.5", f",{K},0.6"], r"row 1: .*q_proj is a part of qkv, weights is empty, allowed is its number"),
        ([",model.layers.0.self_attn.rotary,0.5"], r"row 1: matrix is 'model\.layers\.0\.self_attn\.rotary', allowed"),
        (["0,model.embed_tokens.weight,0.5"], r"there is no matrix of a decoder"),
        (["0,,0.5"], r"row 1: matrix is ''"),
        ([], r"there is no matrix of a decoder"),
    ],
)
def test_rows_that_are_wrong(rows: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"own\.csv: {message}"):
        load_sparsities(written(tmp_path / "own.csv", *rows))


def test_files_that_are_wrong(tmp_path: Path) -> None:
    cases = {
        "missing.csv": r"missing\.csv: No such file",
        "missing.json": r"missing\.json: No such file",
        "model.safetensors": r"suffix is '\.safetensors', allowed are \.csv and \.json",
    }
    for name, message in cases.items():
        with pytest.raises(ValueError, match=message):
            load_sparsities(tmp_path / name)
    with pytest.raises(
        ValueError, match=r"own\.csv: missing column layer, allowed are layer, matrix, sparsity, weights"
    ):
        load_sparsities(written(tmp_path / "own.csv", header="matrix,sparsity"))
    with pytest.raises(ValueError, match=r"own\.csv: unknown column 'density'"):
        load_sparsities(written(tmp_path / "own.csv", header=f"{HEADER},density"))
    with pytest.raises(ValueError, match=r"weights of qkv is -1, allowed is a positive number"):
        load_sparsities(written(tmp_path / "own.csv", "0,qkv,0.5,-1", header=f"{HEADER},weights"))
    for text, message in (
        ("{}", r"x\.json: matrices is no list"),
        ('{"matrices": [{"name": "x"}]}', r"x\.json: matrices\[0\] lacks name, m, k or sparsity"),
        ('{"matrices": [{"name": "x", "m": 1, "k": 1, "sparsity": "a"}]}', r"matrices\[0\]\.sparsity is 'a'"),
    ):
        (tmp_path / "x.json").write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            load_sparsities(tmp_path / "x.json")


def test_an_upload_says_what_its_file_says(tmp_path: Path) -> None:
    table = written(tmp_path / "own.csv", "0,qkv,0.5", "1,qkv,0.6")
    listed = as_json(tmp_path / "own.json", entry(f"{Q}.weight", 4, 4, 0.25))
    for path in (table, listed):
        upload = sparsities_from_text(path.read_bytes(), path.name)
        assert upload.matrices == load_sparsities(path).matrices
        assert upload.source == path.name
    with pytest.raises(ValueError, match=r"^own\.csv: row 1: sparsity of qkv is 60, allowed is a fraction"):
        sparsities_from_text(f"{HEADER}\n0,qkv,60\n", "own.csv")
    with pytest.raises(ValueError, match=r"^own\.txt: suffix is '\.txt', allowed are \.csv and \.json"):
        sparsities_from_text("", "own.txt")
