"""The pruning study: encoder against an oracle without batches, tokenizer by hand, and the measured table."""

import math
from pathlib import Path

import numpy as np
import pytest

from kernels_numba.checkpoints.checkpoint import Method
from kernels_numba.checkpoints.pruning import PruningRule
from lscd.report.pruning_table import LARGE_MATRIX, markdown, trade_off
from lscd.study import pruning as pruning_study
from lscd.study.minilm import HEADS, MiniLm, WordPiece
from lscd.study.pruning import Embeddings, quality
from perfmodel.catalog import load_table
from perfmodel.prediction import predict
from tests.comparison import assert_close
from tests.kernels_numba.checkpoints.files import save

PIECES = (
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "naive", "un", "##believ", "##able", ",", "中", "cat", "s", "##s", "don",
    "'", "t",
)  # fmt: skip
SIZE, HIDDEN, LAYERS = 2 * HEADS, 32, 2
TEXTS = ["naive cats", "unbelievable, cats", "cats don't", "naive, naive cats"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with random weights, and its vocabulary."""
    rng = np.random.default_rng(2)
    shapes = {
        "embeddings.word_embeddings.weight": (len(PIECES), SIZE),
        "embeddings.position_embeddings.weight": (300, SIZE),
        "embeddings.token_type_embeddings.weight": (2, SIZE),
        "embeddings.LayerNorm.weight": (SIZE,),
        "embeddings.LayerNorm.bias": (SIZE,),
        "pooler.dense.weight": (SIZE, SIZE),
    }
    for layer in range(LAYERS):
        linear = {"attention.self.query": (SIZE, SIZE), "attention.self.key": (SIZE, SIZE)}
        linear |= {"attention.self.value": (SIZE, SIZE), "attention.output.dense": (SIZE, SIZE)}
        linear |= {"intermediate.dense": (HIDDEN, SIZE), "output.dense": (SIZE, HIDDEN)}
        for name, shape in linear.items():
            shapes[f"encoder.layer.{layer}.{name}.weight"] = shape
            shapes[f"encoder.layer.{layer}.{name}.bias"] = shape[:1]
        for name in ("attention.output", "output"):
            shapes[f"encoder.layer.{layer}.{name}.LayerNorm.weight"] = (SIZE,)
            shapes[f"encoder.layer.{layer}.{name}.LayerNorm.bias"] = (SIZE,)
    tensors = {name: rng.standard_normal(shape).astype(np.float32) * 0.5 for name, shape in shapes.items()}
    where = tmp_path_factory.mktemp("minilm")
    save(where / "model.safetensors", tensors, dict.fromkeys(tensors, "F32"))
    (where / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    return where


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


def test_quality_by_hand() -> None:
    """Three functions; one pruned summary turns to another description."""
    original = Embeddings(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32))
    turned = np.eye(3, dtype=np.float32)
    turned[0] = (0.6, 0.8, 0)
    found = quality(Embeddings(turned, np.eye(3, dtype=np.float32)), original)
    assert found["top1_accuracy"] == found["top1_agreement"] == pytest.approx(2 / 3)
    assert found["mean_cosine"] == pytest.approx((0.6 + 5) / 6)
    assert found["mean_reciprocal_rank"] == pytest.approx((0.5 + 1 + 1) / 3)
    assert 0 < found["rank_correlation"] < 1
    same = quality(original, original)
    assert all(value == pytest.approx(1) for value in same.values())


def test_the_study_runs_on_any_bert(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [(text, text + extra) for text in TEXTS for extra in (" s", " don")]
    rules = (PruningRule(Method.MAGNITUDE, 0.5), PruningRule(Method.WANDA, 0.75), PruningRule(Method.NM, 0.5))
    monkeypatch.setattr(pruning_study, "docstring_pairs", lambda: iter(pairs))
    monkeypatch.setattr(pruning_study, "RULES", rules)
    monkeypatch.setattr(pruning_study, "CALIBRATION_SHARE", 2)
    table = pruning_study.run(folder)
    assert list(table["method"]) == ["none", "magnitude", "wanda", "magnitude-2:4"]
    assert list(table["sparsity"]) == [0, 0.5, 0.75, 0.5]
    assert table.loc[0, "top1_agreement"] == 1
    assert (table.loc[1:, "mean_cosine"] < 1).all()
    weights = LAYERS * (4 * SIZE**2 + 2 * SIZE * HIDDEN)
    assert (table["dense_bytes"] == 2 * weights).all()
    assert set(table.columns) == set(load_table("measured/minilm/pruning_quality.csv").columns)


def test_docstrings_give_pairs() -> None:
    pairs = list(pruning_study.docstring_pairs())
    assert len(pairs) > 400
    assert len({summary for summary, _ in pairs}) == len(pairs)
    assert all(summary.endswith(".") and 12 <= len(text.split()) <= 60 for summary, text in pairs)


def test_the_measured_table_is_what_it_says() -> None:
    table = load_table("measured/minilm/pruning_quality.csv")
    matrices = 6 * [(384, 384)] * 4 + 6 * [(1536, 384), (384, 1536)]
    weights = sum(m * k for m, k in matrices)
    nnz = (1 - table["sparsity"]) * weights
    assert (table["dense_bytes"] == 2 * weights).all()
    assert_close(table["csr_bytes"], 6 * nnz + 4 * sum(m + 1 for m, _ in matrices), relative=0, absolute=40)
    assert_close(table["sparsity"], table["sparsity_wanted"], relative=0, absolute=1e-3)
    # Every tile is padded with at most three words.
    assert ((table["tiled_csl_bytes"] - 4 * nnz) / (4 * 1296)).between(0, 4).all()
    quality_columns = ["mean_cosine", "rank_correlation", "top1_agreement", "top1_accuracy", "mean_reciprocal_rank"]
    assert table[quality_columns].stack().between(0, 1).all()


def test_activation_norms_keep_more_quality_than_magnitude_alone() -> None:
    """The finding the documentation states; Wanda's advantage is largest at 70 %."""
    table = load_table("measured/minilm/pruning_quality.csv").set_index(["method", "sparsity_wanted"])
    wanda, magnitude = table.loc["wanda"], table.loc["magnitude"]
    assert (wanda["rank_correlation"] > magnitude["rank_correlation"]).all()
    assert (wanda["top1_accuracy"].diff().dropna() < 0).all()
    advantage = wanda["top1_accuracy"] - magnitude["top1_accuracy"]
    assert advantage.loc[0.7] > 0.1
    assert table.loc[("random", 0.3), "top1_accuracy"] < table.loc[("wanda", 0.8), "top1_accuracy"]


def test_the_documented_table_is_the_measured_one() -> None:
    """Quality and size; the predicted columns move with every calibration."""
    text = (Path(__file__).parents[1] / "docs" / "weights.md").read_text(encoding="utf-8")
    current = [line.split(" | ")[:5] for line in markdown(trade_off()).splitlines()]
    documented = [line.split(" | ")[:5] for line in text.splitlines()]
    assert len(current) == 9
    assert all(line in documented for line in current)


def test_trade_off_joins_quality_with_the_fastest_exact_kernel() -> None:
    table = trade_off(("a100-80gb",)).set_index("sparsity")
    assert list(table.index) == [0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert table.loc[0, "speedup_a100-80gb"] == pytest.approx(1)
    assert table.loc[0, "kernel_a100-80gb"] == "cublas"
    assert table["speedup_a100-80gb"].is_monotonic_increasing
    kernel = table.loc[0.8, "kernel_a100-80gb"]
    expected = float(predict(kernel, "a100-80gb", *LARGE_MATRIX, 8, 0.8).speedup_vs_dense)
    assert table.loc[0.8, "speedup_a100-80gb"] == pytest.approx(expected)
    assert expected >= float(predict("flash-llm", "a100-80gb", *LARGE_MATRIX, 8, 0.8).speedup_vs_dense)
    assert table.loc[0.5, "size_tiled_csl"] == pytest.approx(1, abs=0.01)
