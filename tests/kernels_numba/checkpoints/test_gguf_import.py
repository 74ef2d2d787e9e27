"""A GGUF file as a folder: the same model, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kernels_numba.checkpoints.gguf_import import import_gguf
from kernels_numba.checkpoints.gguf_reader import open_gguf
from kernels_numba.checkpoints.safetensors_reader import open_checkpoint
from kernels_numba.checkpoints.tokenizer import load_tokenizer
from kernels_numba.decoder.load import load_decoder
from tests.kernels_numba.checkpoints.ggufs import write_gguf
from tests.kernels_numba.checkpoints.test_gguf_reader import CONFIG, TIED
from tests.kernels_numba.decoder.models import TOKENS, weights_of


@pytest.mark.parametrize("config", [CONFIG, TIED], ids=["own head", "tied, biases"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_folder_holds_the_same_model(tmp_path: Path, config: dict[str, object], dtype: str) -> None:
    weights = weights_of(config)
    source = write_gguf(tmp_path / "x.gguf", config, weights)
    size = import_gguf(open_gguf(source), tmp_path / "out", dtype)
    checkpoint = open_checkpoint(tmp_path / "out")
    assert size == sum(info.nbytes for info in checkpoint.tensors.values())
    for name, values in weights.items():
        np.testing.assert_array_equal(checkpoint.read(name), values.astype(dtype))
    if dtype == "float32":
        found = load_decoder(tmp_path / "out").forward(TOKENS)
        np.testing.assert_array_equal(found, load_decoder(source).forward(TOKENS))
    assert load_tokenizer(tmp_path / "out").encode("hello 12").ids == load_tokenizer(source).encode("hello 12").ids
    assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())["eos_token"] == "<|im_end|>"


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    weights = weights_of(CONFIG)
    weights["lm_head.weight"][3, 5] = 1e6
    model = open_gguf(write_gguf(tmp_path / "x.gguf", CONFIG, weights))
    with pytest.raises(ValueError, match=r"x.gguf: tensor 'lm_head.weight': 1 values overflow .*--dtype float32"):
        import_gguf(model, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["x.gguf"]
    with pytest.raises(ValueError, match="dtype: 'int8'; allowed: float16, float32"):
        import_gguf(model, tmp_path / "out", "int8")
    with pytest.raises(ValueError, match="exists and is not empty; allowed: a new folder"):
        import_gguf(model, tmp_path)
    with pytest.raises(ValueError, match="no such directory"):
        import_gguf(model, tmp_path / "none" / "out")
