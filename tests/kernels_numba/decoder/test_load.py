"""Decoders from every kind of file, and files that lack something."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kernels_numba.checkpoints.checkpoint import weight_matrices
from kernels_numba.checkpoints.container import convert_checkpoint
from kernels_numba.checkpoints.safetensors_reader import open_checkpoint
from kernels_numba.decoder.load import load_decoder
from kernels_numba.formats import Bitmap
from kernels_numba.formats.encoded import Element, narrowed, widened
from tests.comparison import assert_close
from tests.kernels_numba.checkpoints.files import save
from tests.kernels_numba.decoder.models import CONFIGS, LLAMA, TOKENS, weights_of, write_model


def test_shards_of_16_bit_types_are_read(tmp_path: Path) -> None:
    weights = weights_of(LLAMA)
    bits = {name: narrowed(values, Element.BFLOAT16) for name, values in weights.items()}
    names = list(bits)
    parts = {"a.safetensors": names[:7], "b.safetensors": names[7:]}
    for file, part in parts.items():
        save(tmp_path / file, {name: bits[name] for name in part}, dict.fromkeys(part, "BF16"))
    where = {name: file for file, part in parts.items() for name in part}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    decoder = load_decoder(tmp_path)
    for name, found in decoder.weights.items():
        np.testing.assert_array_equal(found, widened(bits[name], Element.BFLOAT16))


def test_a_container_is_multiplied_as_it_is_stored(folders: dict[str, Path], tmp_path: Path) -> None:
    source = open_checkpoint(folders["llama"])
    convert_checkpoint(source, tmp_path / "bitmap.safetensors", "bitmap", weight_matrices(source))
    (tmp_path / "config.json").write_text((folders["llama"] / "config.json").read_text())
    decoder = load_decoder(tmp_path / "bitmap.safetensors")
    assert isinstance(decoder.weights["model.layers.0.mlp.up_proj.weight"], Bitmap)
    plain = load_decoder(folders["llama"]).forward(TOKENS)
    assert_close(decoder.forward(TOKENS), plain, relative=0.02, absolute=0.02)
    again = load_decoder(tmp_path / "bitmap.safetensors", format="panel-csr")
    assert {type(again.weights[name]).__name__ for name in again.config.matrices(1)} == {"PanelCsr"}


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("name", [None, "cpu-bitmap"])
def test_joined_weights_give_the_same_scores(folders: dict[str, Path], kind: str, name: str | None) -> None:
    """One product for q, k and v, and one for gate and up, biases too: the same bytes, the same sums."""
    alone, joined = (load_decoder(folders[kind], format=name, joined=together) for together in (False, True))
    gated = kind != "opt"
    assert len(joined.config.stored(joined.weights)) == 2 * 4
    assert len(alone.config.stored(alone.weights)) == 2 * (7 if gated else 6)
    assert "model.layers.0.self_attn.q_proj.weight" not in joined.weights
    if name is None:
        assert joined.step_bytes == alone.step_bytes
    assert_close(joined.forward(TOKENS), alone.forward(TOKENS), relative=1e-4, absolute=1e-5)


def test_encoded_weights_are_joined_only_where_they_are_encoded_anew(folders: dict[str, Path], tmp_path: Path) -> None:
    source = open_checkpoint(folders["llama"])
    convert_checkpoint(source, tmp_path / "bitmap.safetensors", "bitmap", weight_matrices(source))
    (tmp_path / "config.json").write_text((folders["llama"] / "config.json").read_text())
    decoder = load_decoder(tmp_path / "bitmap.safetensors", joined=True)
    assert set(decoder.config.stored(decoder.weights)) == set(decoder.config.all_matrices)
    again = load_decoder(tmp_path / "bitmap.safetensors", format="cpu-bitmap", joined=True)
    assert "model.layers.1.self_attn.qkv_proj.weight" in again.weights
    alone = load_decoder(tmp_path / "bitmap.safetensors", format="cpu-bitmap")
    assert_close(again.forward(TOKENS), alone.forward(TOKENS), relative=1e-4, absolute=1e-5)


def test_what_is_missing_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    weights = weights_of(LLAMA)
    lost = "model.layers.1.mlp.up_proj.weight"
    with pytest.raises(ValueError, match=rf"model.safetensors: lacks tensor '{lost}'"):
        load_decoder(write_model(tmp_path / "a", LLAMA, {name: w for name, w in weights.items() if name != lost}))
    with pytest.raises(ValueError, match=rf"tensor '{lost}': shape \(32, 56\); allowed: \(56, 32\)"):
        load_decoder(write_model(tmp_path / "b", LLAMA, weights | {lost: weights[lost].T.copy()}))
    (tmp_path / "b" / "config.json").unlink()
    with pytest.raises(ValueError, match=r"no .*config\.json; allowed: a config.json beside the weights"):
        load_decoder(tmp_path / "b")
    with pytest.raises(ValueError, match=r"nowhere: no such file"):
        load_decoder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"format: 'zip'; allowed: tiled-csl, .*panel-csr"):
        load_decoder(folders["llama"], format="zip")


def test_overflow_is_refused(tmp_path: Path) -> None:
    weights = weights_of(LLAMA)
    weights["model.layers.0.mlp.up_proj.weight"][0, 0] = 1e5
    with pytest.raises(ValueError, match=r"up_proj.weight': 1 values overflow float16"):
        load_decoder(write_model(tmp_path / "a", LLAMA, weights), format="dense")
    integers = weights | {"lm_head.weight": np.zeros((61, 32), np.int32)}
    save(tmp_path / "a" / "model.safetensors", integers, dict.fromkeys(weights, "F32") | {"lm_head.weight": "I32"})
    with pytest.raises(ValueError, match=r"matrix 'lm_head.weight' is packed weights, which .*weight I32"):
        load_decoder(tmp_path / "a")


def test_quantised_matrices_are_decoded_and_layouts_unknown_refused(tmp_path: Path) -> None:
    weights, name = weights_of(LLAMA), "model.layers.0.mlp.up_proj.weight"
    stem = name.removesuffix(".weight")
    codes = np.random.default_rng(0).integers(-128, 128, weights[name].shape).astype(np.int8)
    scales = np.full((len(codes), 1), 0.01, np.float32)
    config = LLAMA | {"quantization_config": {"quant_method": "compressed-tensors", "format": "int-quantized"}}
    folder = write_model(tmp_path / "a", config, weights | {name: codes * scales})
    whole = load_decoder(folder)
    types = dict.fromkeys(weights, "F32")
    quantised = weights | {name: codes, f"{stem}.weight_scale": scales}
    save(folder / "model.safetensors", quantised, types | {name: "I8", f"{stem}.weight_scale": "F32"})
    decoded = load_decoder(folder)
    for key, values in whole.weights.items():
        np.testing.assert_array_equal(decoded.weights[key], values)
    del quantised[name], quantised[f"{stem}.weight_scale"]
    save(folder / "model.safetensors", quantised | {f"{stem}.W_q": codes}, types | {f"{stem}.W_q": "I8"})
    with pytest.raises(ValueError, match=r"'model.layers.0.mlp.up_proj.weight' is HQQ, which is not decoded here"):
        load_decoder(folder)
