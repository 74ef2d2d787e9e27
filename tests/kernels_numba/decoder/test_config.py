"""What configs are understood, and how the others are refused."""

from __future__ import annotations

from typing import Any

import pytest

from kernels_numba.decoder.config import DecoderConfig, Llama3Scaling
from tests.kernels_numba.decoder.models import LLAMA, LLAMA3, OPT


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        (LLAMA, {"model_type": "qwen3"}, "model_type: 'qwen3'; allowed: llama, mistral, opt"),
        (LLAMA, {"hidden_act": "gelu"}, "hidden_act: 'gelu'; allowed: 'silu'"),
        (LLAMA, {"model_type": "mistral", "sliding_window": 16}, "sliding_window: 16; allowed: none, or 64"),
        (LLAMA, {"num_key_value_heads": 3}, "num_key_value_heads: 3; allowed: a divisor of the 4 heads"),
        (LLAMA, {"hidden_size": "32"}, "hidden_size: '32'; allowed: an integer of at least 1"),
        (LLAMA, {"vocab_size": None}, "vocab_size: None; allowed: an integer"),
        (LLAMA, {"head_dim": 7}, "head_dim: 7; allowed: an even number"),
        (LLAMA, {"rope_scaling": {"rope_type": "yarn"}}, "rope_type: 'yarn'; allowed: default, llama3"),
        (LLAMA, {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope scaling without: low_freq_factor"),
        (OPT, {"do_layer_norm_before": False}, "do_layer_norm_before: False; allowed: True"),
        (OPT, {"word_embed_proj_dim": 16}, "word_embed_proj_dim: 16; allowed: 32"),
        (OPT, {"activation_function": "gelu"}, "activation_function: 'gelu'; allowed: 'relu'"),
        (OPT, {"num_attention_heads": 5}, "num_attention_heads: 5; allowed: a divisor of hidden_size 32"),
    ],
)
def test_what_is_not_computed_is_refused(config: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^there: {message}"):
        DecoderConfig.from_dict(config | change, "there")


def test_a_window_as_wide_as_the_context_changes_nothing() -> None:
    same = DecoderConfig.from_dict(LLAMA | {"model_type": "mistral", "sliding_window": 64})
    assert same == DecoderConfig.from_dict(LLAMA)


def test_rotation_is_read_from_configs_old_and_new() -> None:
    old = DecoderConfig.from_dict(LLAMA3)
    new = {"rope_theta": None, "rope_scaling": None, "rope_parameters": LLAMA3["rope_scaling"] | {"rope_theta": 1000.0}}
    assert DecoderConfig.from_dict(LLAMA3 | new) == old
    assert old.rope_theta == 1000
    assert old.rope_scaling == Llama3Scaling(factor=8, low=1, high=4, old_positions=16)


def test_several_tokens_may_end_a_text() -> None:
    assert DecoderConfig.from_dict(LLAMA | {"eos_token_id": [2, 5]}).eos == (2, 5)
    assert DecoderConfig.from_dict(LLAMA | {"eos_token_id": None}).eos == ()


def test_parameters_of_a_known_model() -> None:
    """OPT-125M has 125,239,296 parameters with its tied head (Transformers counts them alike)."""
    sizes = {"hidden_size": 768, "ffn_dim": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    known = OPT | sizes | {"vocab_size": 50272, "max_position_embeddings": 2048, "word_embed_proj_dim": 768}
    shapes = DecoderConfig.from_dict(known).tensors().values()
    assert sum(shape[0] * (shape[1] if len(shape) > 1 else 1) for shape in shapes) == 125_239_296
