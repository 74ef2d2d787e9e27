"""Tokenizers of models on disk: tokenizer.json as it is, or built from what a GGUF file says. Needs ``tokenizers``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from kernels_numba.checkpoints.gguf_reader import INSTALL, SMOLLM2, GgufModel, model_path, open_gguf
from kernels_numba.files import LARGEST_TEXT_BYTES, readable
from kernels_numba.formats.encoded import check

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.pre_tokenizers import PreTokenizer

CONTROL, UNUSED = 3, 5  # token types of GGUF: never made from text
SPLITS = ("smollm", "gpt-2")  # how a GGUF may say text is cut; smollm sees every digit alone
BYTE_LEVEL = "gpt2"  # GGUF's name for byte-pair encoding of UTF-8


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Tokenizer of a model: a folder, a file with tokenizer.json beside it, or a GGUF file.

    Raises
    ------
    ValueError
        If there is none, it cannot be read, or the package tokenizers is missing; names the file.
    """
    path = model_path(path)
    check(path.exists(), str(path), "no such file or folder", f"a model's folder, a GGUF file, or {SMOLLM2}")
    if path.suffix == ".gguf":
        return gguf_tokenizer(open_gguf(path))
    file = (path if path.is_dir() else path.parent) / "tokenizer.json"
    check(file.is_file(), str(path), f"no {file}", "a tokenizer.json beside the weights")
    _require(file)
    from tokenizers import Tokenizer

    readable(file, LARGEST_TEXT_BYTES)
    with _failing_as(f"{file}: no tokenizer"):
        return Tokenizer.from_file(str(file))


def tokens_of(tokenizer: Tokenizer, text: str) -> list[int]:
    """Tokens of a text; ValueError if the tokenizer lacks what it needs for it."""
    with _failing_as("the tokenizer cannot split this text"):
        return list(tokenizer.encode(text).ids)


@contextmanager
def _failing_as(words: str) -> Iterator[None]:
    """Make a ValueError of whatever the package raises: Exception alone, and where it panics not even that."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise ValueError(f"{words}: {error}") from None


def gguf_tokenizer(model: GgufModel) -> Tokenizer:
    """Tokenizer that a GGUF file describes; ValueError if it is of another kind than byte-level BPE."""
    _require(model.path)
    from tokenizers import AddedToken, Tokenizer, decoders, models

    kind, tokens = model.fields.get("tokenizer.ggml.model"), model.fields.get("tokenizer.ggml.tokens") or []
    check(
        kind == BYTE_LEVEL and tokens, f"{model.path}: tokenizer.ggml.model", repr(kind), f"{BYTE_LEVEL}, with tokens"
    )
    merges = [tuple(pair.split(" ")) for pair in model.fields.get("tokenizer.ggml.merges") or []]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    with _failing_as(f"{model.path}: no tokenizer"):
        tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = _split(model)
    tokenizer.decoder = decoders.ByteLevel()
    types = model.fields.get("tokenizer.ggml.token_type") or [1] * len(tokens)
    special = [token for token, kind in zip(tokens, types, strict=True) if kind in (CONTROL, UNUSED)]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    if model.fields.get("tokenizer.ggml.add_bos_token", False):
        _prepend(tokenizer, model.fields["tokenizer.ggml.bos_token_id"])
    return tokenizer


def special_tokens(model: GgufModel) -> dict[str, str]:
    """Text of the tokens that begin, end and fill texts, by Hugging Face's name for their part."""
    tokens = model.fields["tokenizer.ggml.tokens"]
    names = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    found = {name: model.fields.get(f"tokenizer.ggml.{part}_token_id") for name, part in names.items()}
    return {name: tokens[index] for name, index in found.items() if index is not None}


def _split(model: GgufModel) -> PreTokenizer:
    """How text is cut before its bytes are joined to tokens."""
    from tokenizers import pre_tokenizers

    kind = model.fields.get("tokenizer.ggml.pre")
    check(kind in SPLITS, f"{model.path}: tokenizer.ggml.pre", repr(kind), ", ".join(SPLITS))
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Digits(individual_digits=True)
    return words if kind == "gpt-2" else pre_tokenizers.Sequence([digits, words])


def _prepend(tokenizer: Tokenizer, bos: int) -> None:
    from tokenizers import processors

    token = tokenizer.id_to_token(bos)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{token} $A", special_tokens=[(token, bos)])


def _require(file: Path) -> None:
    if find_spec("tokenizers") is None:
        raise ValueError(f"{file}: text needs the package tokenizers: {INSTALL}")
