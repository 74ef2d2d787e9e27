"""The decoder against Transformers, against itself in pieces, and with encoded weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kernels_numba.checkpoints.gguf_import import import_gguf
from kernels_numba.checkpoints.gguf_reader import SMOLLM2, open_gguf
from kernels_numba.checkpoints.tokenizer import load_tokenizer
from kernels_numba.decoder.cache import KvCache
from kernels_numba.decoder.config import HEAD
from kernels_numba.decoder.generate import Request, generate
from kernels_numba.decoder.load import load_decoder
from kernels_numba.decoder.model import Decoder
from kernels_numba.formats import EncodedWeight
from tests.comparison import assert_close
from tests.kernels_numba.decoder.golden import FILE, reference_scores
from tests.kernels_numba.decoder.models import CONFIGS, TOKENS

ROUNDING = {"relative": 1e-4, "absolute": 1e-4}  # of float32 sums in another order, scores being a few units


@pytest.fixture(params=CONFIGS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def decoder(folders: dict[str, Path], kind: str) -> Decoder:
    return load_decoder(folders[kind])


def test_scores_are_those_of_transformers(decoder: Decoder, kind: str) -> None:
    golden = np.load(FILE)[kind]
    assert golden.std() > 0.5, "scores that say something"
    assert_close(decoder.forward(TOKENS), golden, **ROUNDING)


@pytest.mark.filterwarnings("ignore")
def test_scores_are_those_of_transformers_here(folders: dict[str, Path], decoder: Decoder, kind: str) -> None:
    pytest.importorskip("transformers")
    tokens = np.random.default_rng(1).integers(0, decoder.config.vocabulary, (3, decoder.config.positions))
    assert_close(decoder.forward(tokens), reference_scores(folders[kind], tokens), **ROUNDING)


@pytest.mark.filterwarnings("ignore")
def test_a_real_model_says_what_it_says_in_transformers(tmp_path: Path) -> None:
    """SmolLM2-135M: scores of 64 tokens of text, whose largest are near 40, and the 32 likeliest after them."""
    pytest.importorskip("transformers")
    import_gguf(open_gguf(SMOLLM2), tmp_path / "model", "float32")
    text = load_tokenizer(tmp_path / "model").encode(str(np.linalg.svd.__doc__)).ids[:64]
    decoder = load_decoder(tmp_path / "model")
    wanted = reference_scores(tmp_path / "model", np.array([text]))
    assert_close(decoder.forward(np.array([text])), wanted, **ROUNDING)
    more = [int(step.tokens[0]) for step in generate(decoder, Request(text, 32))]
    again = reference_scores(tmp_path / "model", np.array([text + more]))[0, 63:-1].argmax(-1)
    assert more == again.tolist()


def test_steps_with_a_cache_give_what_all_tokens_at_once_do(decoder: Decoder) -> None:
    """A prompt of 4, one of 3 more, then single tokens."""
    cache = KvCache(decoder.config, *TOKENS.shape)
    parts = np.split(TOKENS, [4, 7, *range(8, TOKENS.shape[1])], axis=1)
    assert_close(
        np.concatenate([decoder.forward(part, cache) for part in parts], 1), decoder.forward(TOKENS), **ROUNDING
    )
    assert cache.length == TOKENS.shape[1]


def test_last_only_is_the_last(decoder: Decoder) -> None:
    assert_close(decoder.forward(TOKENS, last_only=True), decoder.forward(TOKENS)[:, -1:], **ROUNDING)


def test_layers_called_alone_make_up_the_whole(decoder: Decoder) -> None:
    hidden = decoder.embed(TOKENS)
    for index in range(decoder.config.layers):
        hidden = decoder.layer(index, hidden)
    assert_close(np.moveaxis(decoder.logits(hidden), 0, -1), decoder.forward(TOKENS), **ROUNDING)


def test_observers_see_each_input_before_its_product(decoder: Decoder) -> None:
    """Inputs (k, B x T) under the weights' names in order; q, k and v, gate and up get the very same array."""
    seen: list[tuple[str, np.ndarray]] = []
    decoder.forward(TOKENS, observe=lambda name, x: seen.append((name, x)))
    wanted = {name: shape for index in range(2) for name, shape in decoder.config.matrices(index).items()}
    assert [name for name, _ in seen] == list(wanted)
    assert [x.shape for _, x in seen] == [(k, TOKENS.size) for _, k in wanted.values()]
    assert len({id(x) for _, x in seen}) == 2 * 4
    first = np.moveaxis(decoder.weights[decoder.config.embedding][TOKENS], -1, 0).reshape(32, -1)
    if decoder.config.embedding.startswith("model.embed"):  # RMSNorm by its formula
        scale = np.sqrt((first.astype(np.float64) ** 2).mean(0) + 1e-5)
        gain = decoder.weights["model.layers.0.input_layernorm.weight"]
        assert_close(seen[0][1], first / scale * gain[:, None], relative=1e-5, absolute=1e-6)


def test_replaced_weights_count(decoder: Decoder) -> None:
    """With nothing written to the residual stream, a layer is the identity."""
    hidden = decoder.embed(TOKENS)
    for name in decoder.config.tensors():
        if ".layers.0." in name and name.split(".")[-2] in ("o_proj", "down_proj", "out_proj", "fc2"):
            decoder.weights[name] = np.zeros_like(decoder.weights[name])
    np.testing.assert_array_equal(decoder.layer(0, hidden), hidden)
    assert np.abs(decoder.layer(1, hidden) - hidden).max() > 0.1


@pytest.mark.parametrize("name", ["dense", "panel-csr", "bitmap", "csr"])
def test_encoded_weights_give_what_their_float16_values_do(folders: dict[str, Path], kind: str, name: str) -> None:
    rounded, encoded = load_decoder(folders[kind]), load_decoder(folders[kind], format=name)
    for weight in [*rounded.config.matrices(0), *rounded.config.matrices(1), HEAD]:
        source = rounded.weights.get(weight, rounded.weights[rounded.config.embedding])  # a tied head is one of its own
        rounded.weights[weight] = source.astype(np.float16).astype(np.float32)
        assert isinstance(encoded.weights[weight], EncodedWeight)
    assert_close(encoded.forward(TOKENS[:1, :8]), rounded.forward(TOKENS[:1, :8]), **ROUNDING)


def test_a_bitmap_of_bfloat16_rounds_what_it_multiplies(folders: dict[str, Path], kind: str) -> None:
    """Both operands have 8 significant bits: scores of a few units are right to a few hundredths."""
    decoder, exact = load_decoder(folders[kind], format="cpu-bitmap-bf16"), load_decoder(folders[kind])
    found, wanted = decoder.forward(TOKENS), exact.forward(TOKENS)
    assert 1e-4 < np.abs(found - wanted).mean() < 0.05 * wanted.std()


def test_a_step_reads_every_layer_and_the_head(decoder: Decoder, kind: str) -> None:
    elements = sum(w.size for name, w in decoder.weights.items() if ".layers." in name) + 61 * 32
    assert decoder.step_bytes == 4 * elements


def test_tokens_and_positions_have_limits(decoder: Decoder) -> None:
    with pytest.raises(ValueError, match="token: 61 to 61; allowed: 0 to 60"):
        decoder.forward(np.array([[61]]))
    with pytest.raises(ValueError, match="tokens of a sequence: 65; allowed: at most 64"):
        decoder.forward(np.zeros((1, 65), int))
    with pytest.raises(ValueError, match="tokens in the cache: 12; allowed: at most 8"):
        decoder.forward(TOKENS, KvCache(decoder.config, 2, 8))
    with pytest.raises(ValueError, match="sequences: 2; allowed: 3"):
        decoder.forward(TOKENS, KvCache(decoder.config, 3, 12))
    with pytest.raises(ValueError, match="tokens of the cache: 65; allowed: 1 to 64"):
        KvCache(decoder.config, 1, 65)
