"""Tokenizers: text to tokens and back, as the file says."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernels_numba.checkpoints import tokenizer
from kernels_numba.checkpoints.gguf_reader import GgufModel, open_gguf
from kernels_numba.checkpoints.tokenizer import gguf_tokenizer, load_tokenizer
from tests.kernels_numba.checkpoints.ggufs import VOCABULARY, write_gguf
from tests.kernels_numba.checkpoints.test_gguf_reader import CONFIG
from tests.kernels_numba.decoder.models import weights_of


def model(path: Path, **fields: object) -> GgufModel:
    return open_gguf(write_gguf(path / "x.gguf", CONFIG, weights_of(CONFIG), **fields))


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("hello", ["hello"]),
        ("hello hello", ["hello", "Ġhello"]),  # no space is put before the first word
        ("12", ["1", "2"]),  # every digit alone, though there is a merge
        ("<|im_start|>he", ["<|im_start|>", "he"]),
        ("l\nl", ["l", "Ċ", "l"]),
    ],
)
def test_text_becomes_the_tokens_of_the_file_and_text_again(tmp_path: Path, text: str, tokens: list[str]) -> None:
    made = load_tokenizer(model(tmp_path).path)
    found = made.encode(text)
    assert found.tokens == tokens
    assert found.ids == [VOCABULARY.index(token) for token in tokens]
    assert made.decode(found.ids, skip_special_tokens=False) == text


def test_a_text_begins_as_the_file_says(tmp_path: Path) -> None:
    made = gguf_tokenizer(model(tmp_path, tokenizer__ggml__add_bos_token=True))
    assert made.encode("hello").tokens == ["<|im_start|>", "hello"]


def test_other_kinds_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = model(tmp_path)
    for key, value in (("model", "llama"), ("pre", "qwen2")):
        other = GgufModel(found.path, {**found.fields, f"tokenizer.ggml.{key}": value}, found.stored)
        with pytest.raises(ValueError, match=rf"x.gguf: tokenizer.ggml.{key}: '{value}'; allowed: "):
            gguf_tokenizer(other)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer.json: no tokenizer: "):
        load_tokenizer(tmp_path)
    monkeypatch.setattr(tokenizer, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs the package tokenizers: pip install 'lscd-lab\[generate\]'"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"no .*tokenizer.json; allowed: "):
        load_tokenizer(tmp_path)
    with pytest.raises(ValueError, match=r"nowhere: no such file or folder; allowed: .* or smollm2"):
        load_tokenizer(tmp_path / "nowhere")
