"""The sentence encoder all-MiniLM-L6-v2 in plain NumPy: WordPiece, six BERT layers, mean pooling, unit length.

Small enough to prune and run on a CPU in seconds, and trained for real: the model of the pruning study. Float32
throughout. Shapes: B sentences, T tokens, H = 384 hidden, 12 heads of 32.

References
----------
Devlin et al., "BERT", NAACL 2019. Wang et al., "MiniLM", NeurIPS 2020. Model: sentence-transformers/all-MiniLM-L6-v2,
Apache-2.0.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf, softmax

from kernels_numba.checkpoints.safetensors_reader import open_checkpoint

HEADS = 12
LAYER_NORM_EPSILON = 1e-12
MAX_TOKENS = 256
MAX_WORD_LETTERS = 100
BATCH = 32
MASKED = -1e9

Array = NDArray[np.float32]


class WordPiece:
    """BERT's uncased tokenizer: words and punctuation, then the longest known pieces from the left."""

    def __init__(self, vocabulary: Path) -> None:
        pieces = vocabulary.read_text(encoding="utf-8").split("\n")
        self.ids = {piece: index for index, piece in enumerate(pieces)}

    def encode(self, text: str) -> list[int]:
        """Token ids with [CLS] and [SEP], at most ``MAX_TOKENS``."""
        ids = [piece for word in _words(text) for piece in self._pieces(word)]
        return [self.ids["[CLS]"], *ids[: MAX_TOKENS - 2], self.ids["[SEP]"]]

    def _pieces(self, word: str) -> list[int]:
        found, start = [], 0
        while start < len(word) <= MAX_WORD_LETTERS:
            prefix = "##" if start else ""
            ends = range(len(word), start, -1)
            end = next((end for end in ends if prefix + word[start:end] in self.ids), None)
            if end is None:
                break
            found.append(self.ids[prefix + word[start:end]])
            start = end
        return found if start == len(word) else [self.ids["[UNK]"]]


class MiniLm:
    """Weights of the encoder, and the norms of the inputs its matrices have seen."""

    def __init__(self, path: Path) -> None:
        checkpoint = open_checkpoint(path)
        self.weights = {name: checkpoint.read(name) for name in checkpoint.tensors}
        self.layers = sum(name.endswith(".intermediate.dense.weight") for name in self.weights)
        self.squares: dict[str, NDArray[np.float64]] = {}

    def embed(self, sentences: Sequence[Sequence[int]]) -> Array:
        """Unit embeddings (B, H) of tokenised sentences, in batches of similar length."""
        order = np.argsort([len(tokens) for tokens in sentences], kind="stable")
        out = np.empty((len(sentences), self.weights["embeddings.LayerNorm.weight"].size), np.float32)
        for first in range(0, len(order), BATCH):
            rows = order[first : first + BATCH]
            out[rows] = self._embed_batch([sentences[row] for row in rows])
        return out

    def input_norms(self) -> dict[str, Array]:
        """L2 norm over all tokens so far of each input of each matrix, by the matrix's name: what Wanda asks for."""
        return {name: np.sqrt(squares).astype(np.float32) for name, squares in self.squares.items()}

    def _embed_batch(self, sentences: Sequence[Sequence[int]]) -> Array:
        width = max(map(len, sentences))
        ids = np.zeros((len(sentences), width), np.int64)
        mask = np.zeros(ids.shape, np.bool_)
        for row, tokens in enumerate(sentences):
            ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, True
        w = self.weights
        x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][:width]
        x = self._norm("embeddings", x + w["embeddings.token_type_embeddings.weight"][0])
        for layer in range(self.layers):
            x = self._layer(f"encoder.layer.{layer}", x, mask)
        pooled = (x * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)  # (B, H)
        return np.asarray(pooled / np.linalg.norm(pooled, axis=1, keepdims=True), np.float32)

    def _layer(self, name: str, x: Array, mask: NDArray[np.bool_]) -> Array:
        attended = self._linear(
            f"{name}.attention.output.dense", self._attention(f"{name}.attention.self", x, mask), mask
        )
        x = self._norm(f"{name}.attention.output", x + attended)
        hidden = self._linear(f"{name}.intermediate.dense", x, mask)
        hidden = np.float32(0.5) * hidden * (1 + erf(hidden / np.float32(np.sqrt(2))))  # GELU
        return self._norm(f"{name}.output", x + self._linear(f"{name}.output.dense", hidden, mask))

    def _attention(self, name: str, x: Array, mask: NDArray[np.bool_]) -> Array:
        batch, tokens, size = x.shape
        q, k, v = (
            self._linear(f"{name}.{part}", x, mask).reshape(batch, tokens, HEADS, -1).swapaxes(1, 2)
            for part in ("query", "key", "value")
        )  # (B, heads, T, 32)
        scores = q @ k.swapaxes(2, 3) / np.float32(np.sqrt(size // HEADS))
        scores = np.where(mask[:, None, None, :], scores, np.float32(MASKED))
        mixed: Array = softmax(scores, axis=-1) @ v
        return mixed.swapaxes(1, 2).reshape(batch, tokens, size)

    def _linear(self, name: str, x: Array, mask: NDArray[np.bool_]) -> Array:
        seen = np.square(x[mask], dtype=np.float64).sum(0)
        self.squares[f"{name}.weight"] = self.squares.get(f"{name}.weight", 0) + seen
        product: Array = x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]
        return product

    def _norm(self, name: str, x: Array) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scale = np.sqrt(np.square(centred).mean(-1, keepdims=True) + LAYER_NORM_EPSILON)
        result: Array = centred / scale * self.weights[f"{name}.LayerNorm.weight"] + self._shift(name)
        return result

    def _shift(self, name: str) -> Any:
        return self.weights[f"{name}.LayerNorm.bias"]


def _words(text: str) -> list[str]:
    """Lower-case words without accents; each punctuation mark and each Chinese character is a word."""
    letters = []
    for letter in unicodedata.normalize("NFD", text.lower()):
        category = unicodedata.category(letter)
        if category == "Mn" or (category.startswith("C") and not letter.isspace()):
            continue
        alone = category.startswith("P") or (letter.isascii() and category.startswith("S")) or "一" <= letter <= "鿿"
        letters.append(f" {letter} " if alone else letter)
    return "".join(letters).split()
