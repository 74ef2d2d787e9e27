"""The encoder against an oracle without batches, the tokenizer by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from lscd.study.minilm import HEADS, MiniLm, WordPiece
from tests.comparison import assert_close
from tests.lscd.study.small_bert import LAYERS, PIECES, SIZE, TEXTS


def embed_slowly(w: dict[str, np.ndarray], tokens: list[int]) -> np.ndarray:
    """One sentence in float64, head by head and token by token."""

    def linear(name, rows):
        return [w[f"{name}.weight"] @ row + w[f"{name}.bias"] for row in rows]

    def norm(name, rows):
        scale, shift = w[f"{name}.LayerNorm.weight"], w[f"{name}.LayerNorm.bias"]
        return [(row - row.mean()) / math.sqrt(row.var() + 1e-12) * scale + shift for row in rows]

    words, places = w["embeddings.word_embeddings.weight"], w["embeddings.position_embeddings.weight"]
    kind = w["embeddings.token_type_embeddings.weight"][0]
    x = norm("embeddings", [words[token] + places[i] + kind for i, token in enumerate(tokens)])
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        q, k, v = (linear(f"{name}.attention.self.{part}", x) for part in ("query", "key", "value"))
        mixed = []
        for query in q:
            heads = []
            for head in range(HEADS):
                part = slice(head * SIZE // HEADS, (head + 1) * SIZE // HEADS)
                weight = np.array([math.exp(query[part] @ key[part] / math.sqrt(SIZE // HEADS)) for key in k])
                heads.append(sum(p * value[part] for p, value in zip(weight / weight.sum(), v, strict=True)))
            mixed.append(np.concatenate(heads))
        x = norm(f"{name}.attention.output", np.add(x, linear(f"{name}.attention.output.dense", mixed)))
        hidden = linear(f"{name}.intermediate.dense", x)
        hidden = [np.array([0.5 * h * (1 + math.erf(h / math.sqrt(2))) for h in row]) for row in hidden]
        x = norm(f"{name}.output", np.add(x, linear(f"{name}.output.dense", hidden)))
    mean = np.mean(x, axis=0)
    return mean / np.linalg.norm(mean)


def test_batched_embeddings_equal_the_oracle(folder: Path) -> None:
    """Sentences of unequal length: padding must not leak."""
    tokenizer, model = WordPiece(folder / "vocab.txt"), MiniLm(folder)
    sentences = [tokenizer.encode(text) for text in TEXTS]
    assert len({len(tokens) for tokens in sentences}) > 2
    exact = {name: values.astype(np.float64) for name, values in model.weights.items()}
    expected = [embed_slowly(exact, tokens) for tokens in sentences]
    assert_close(model.embed(sentences), expected, relative=0, absolute=1e-5)


def test_input_norms_add_up_over_tokens(folder: Path) -> None:
    """The first matrices see the embeddings' LayerNorm: norms of two sentences join in quadrature."""
    tokenizer = WordPiece(folder / "vocab.txt")
    apart = []
    for text in TEXTS[:2]:
        model = MiniLm(folder)
        model.embed([tokenizer.encode(text)])
        apart.append(model.input_norms())
    both = MiniLm(folder)
    both.embed([tokenizer.encode(text) for text in TEXTS[:2]])
    assert len(both.input_norms()) == 6 * LAYERS
    for name, norms in both.input_norms().items():
        assert norms.shape == (both.weights[name].shape[1],)
        assert_close(norms, np.hypot(apart[0][name], apart[1][name]), relative=1e-5)


def test_word_pieces_by_hand(folder: Path) -> None:
    tokenizer = WordPiece(folder / "vocab.txt")

    def pieces(text: str) -> list[str]:
        return [PIECES[index] for index in tokenizer.encode(text)[1:-1]]

    assert pieces("Naïve") == ["naive"]
    assert pieces("UNBELIEVABLE,cats") == ["un", "##believ", "##able", ",", "cat", "##s"]
    assert pieces("中中 don't") == ["中", "中", "don", "'", "t"]
    assert pieces("dog \x00 " + "s" * 101) == ["[UNK]", "[UNK]"]
    long = tokenizer.encode("cat " * 999)
    assert (len(long), PIECES[long[0]], PIECES[long[-1]]) == (256, "[CLS]", "[SEP]")
