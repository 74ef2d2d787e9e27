"""Hugging Face configs: the shape of the catalogue, the published count, or a refusal that names the key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perfmodel.catalog import load_model, model_from_hf_config

HF_CONFIGS: dict[str, dict[str, Any]] = {
    "opt-30b": {
        "model_type": "opt", "_name_or_path": "facebook/opt-30b", "do_layer_norm_before": True, "ffn_dim": 28672,
        "hidden_size": 7168, "max_position_embeddings": 2048, "num_attention_heads": 56, "num_hidden_layers": 48,
        "vocab_size": 50272, "word_embed_proj_dim": 7168,
    },
    "opt-350m": {
        "model_type": "opt", "do_layer_norm_before": False, "ffn_dim": 4096, "hidden_size": 1024,
        "max_position_embeddings": 2048, "num_attention_heads": 16, "num_hidden_layers": 24, "vocab_size": 50272,
        "word_embed_proj_dim": 512,
    },
    "gpt-neox-20b": {
        "model_type": "gpt_neox", "hidden_size": 6144, "intermediate_size": 24576, "max_position_embeddings": 2048,
        "num_attention_heads": 64, "num_hidden_layers": 44, "tie_word_embeddings": False, "vocab_size": 50432,
    },
    "llama-2-7b": {
        "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "max_position_embeddings": 4096,
        "num_attention_heads": 32, "num_hidden_layers": 32, "vocab_size": 32000,
    },
    "llama-3.1-8b": {
        "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 131072,
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "vocab_size": 128256,
        "attention_bias": False, "mlp_bias": False, "head_dim": None, "tie_word_embeddings": False,
    },
    "mixtral-8x7b": {
        "model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 32768,
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "vocab_size": 32000,
        "num_local_experts": 8, "num_experts_per_tok": 2, "tie_word_embeddings": False,
    },
}  # fmt: skip


# Families without a file of their own, against the safetensors totals on their model pages.
HF_COUNTS: dict[str, tuple[dict[str, Any], int]] = {
    "mistral-7b-v0.1": ({
        "model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 32768,
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "vocab_size": 32000,
    }, 7_241_732_096),
    "qwen2.5-7b": ({
        "model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "max_position_embeddings": 131072,
        "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4, "vocab_size": 152064,
        "tie_word_embeddings": False,
    }, 7_615_616_512),
    "qwen3-8b": ({
        "model_type": "qwen3", "attention_bias": False, "head_dim": 128, "hidden_size": 4096,
        "intermediate_size": 12288, "max_position_embeddings": 40960, "max_window_layers": 36,
        "num_attention_heads": 32, "num_hidden_layers": 36, "num_key_value_heads": 8, "sliding_window": None,
        "tie_word_embeddings": False, "use_sliding_window": False, "vocab_size": 151936,
    }, 8_190_735_360),
    "qwen3-30b-a3b": ({
        "model_type": "qwen3_moe", "decoder_sparse_step": 1, "head_dim": 128, "hidden_size": 2048,
        "intermediate_size": 6144, "max_position_embeddings": 40960, "mlp_only_layers": [],
        "moe_intermediate_size": 768, "num_attention_heads": 32, "num_experts": 128, "num_experts_per_tok": 8,
        "num_hidden_layers": 48, "num_key_value_heads": 4, "tie_word_embeddings": False, "vocab_size": 151936,
    }, 30_532_122_624),
    "gemma-2b": ({
        "model_type": "gemma", "head_dim": 256, "hidden_size": 2048, "intermediate_size": 16384,
        "max_position_embeddings": 8192, "num_attention_heads": 8, "num_hidden_layers": 18, "num_key_value_heads": 1,
        "vocab_size": 256000,
    }, 2_506_172_416),
    "gemma-2-9b": ({
        "model_type": "gemma2", "attention_bias": False, "head_dim": 256, "hidden_size": 3584,
        "intermediate_size": 14336, "max_position_embeddings": 8192, "num_attention_heads": 16,
        "num_hidden_layers": 42, "num_key_value_heads": 8, "sliding_window": 4096, "vocab_size": 256000,
    }, 9_241_705_984),
    "gemma-3-1b": ({
        "model_type": "gemma3_text", "head_dim": 256, "hidden_size": 1152, "intermediate_size": 6912,
        "max_position_embeddings": 32768, "num_attention_heads": 4, "num_hidden_layers": 26, "num_key_value_heads": 1,
        "sliding_window": 512, "vocab_size": 262144,
    }, 999_885_952),
    # 4,300,079,472 on the page, less 416,866,032 of the image tower and 2,950,272 of its projector.
    "gemma-3-4b": ({
        "model_type": "gemma3", "text_config": {
            "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024,
        }, "vision_config": {"hidden_size": 1152, "model_type": "siglip_vision_model", "num_hidden_layers": 27},
    }, 3_880_263_168),
}  # fmt: skip


def write_config(folder: Path, config: dict[str, Any]) -> Path:
    folder.mkdir()
    path = folder / "config.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", HF_CONFIGS)
def test_hf_config_gives_the_shape_of_the_catalogue(name: str, tmp_path: Path) -> None:
    model = model_from_hf_config(write_config(tmp_path / name, HF_CONFIGS[name]))
    expected = load_model(name)
    assert msgspec.structs.replace(model.shape, source=expected.shape.source) == expected.shape
    assert (model.key, model.family) == (expected.key, expected.family)


@pytest.mark.parametrize("name", HF_COUNTS)
def test_hf_config_gives_the_count_of_the_model_page(name: str, tmp_path: Path) -> None:
    config, parameters = HF_COUNTS[name]
    path = write_config(tmp_path / name, config)
    assert load_model(path.parent).parameters == load_model(str(path)).parameters == parameters


LLAMA, QWEN_MOE, GEMMA = HF_CONFIGS["llama-2-7b"], HF_COUNTS["qwen3-30b-a3b"][0], HF_COUNTS["gemma-3-4b"][0]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "mamba", "state_size": 16}, "unsupported model_type 'mamba' (state-space layers not modelled)"),
        (
            {"model_type": "deepseek_v3", "kv_lora_rank": 512, "n_shared_experts": 1},
            "'deepseek_v3' (multi-head latent attention and shared experts not modelled); supported are gemma, gemma2",
        ),
        (LLAMA | {"model_type": ["llama"]}, "unsupported model_type ['llama']"),
        (LLAMA | {"model_type": {}}, "unsupported model_type {}"),
        ({key: LLAMA[key] for key in LLAMA if key != "intermediate_size"}, "missing key 'intermediate_size'"),
        ({key: LLAMA[key] for key in LLAMA if key != "model_type"}, "missing key 'model_type'"),
        (LLAMA | {"num_key_value_heads": 5}, "kv_heads is 5, allowed are divisors of heads = 32"),
        (LLAMA | {"num_attention_heads": 48}, "num_attention_heads is 48, allowed are divisors of hidden_size = 4096"),
        (LLAMA | {"num_hidden_layers": 0}, "num_hidden_layers is 0, allowed is a positive integer"),
        (LLAMA | {"hidden_size": -4096}, "hidden_size is -4096, allowed is a positive integer"),
        (LLAMA | {"vocab_size": 10**30}, f"vocab_size is {10**30}, allowed is a positive integer of at most 2**40"),
        (LLAMA | {"num_hidden_layers": True}, "num_hidden_layers is True, allowed"),
        (LLAMA | {"head_dim": "128"}, "head_dim is '128', allowed is a positive integer"),
        (LLAMA | {"head_dim": 2.5}, "head_dim is 2.5, allowed is a positive integer"),
        (LLAMA | {"tie_word_embeddings": "no"}, "tied_embeddings is 'no': Expected 'bool', got 'str'"),
        (QWEN_MOE | {"mlp_only_layers": [0]}, "mlp_only_layers is [0], allowed is []"),
        (GEMMA | {"text_config": [1]}, "text_config is [1], allowed is an object of keys"),
        (GEMMA | {"text_config": {"model_type": "t5"}}, "unsupported model_type 't5'"),
    ],
)
def test_hf_config_that_cannot_be_modelled_is_refused_by_key(
    config: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 - the message is compared below, unescaped
        model_from_hf_config(write_config(tmp_path / "a", config))
    assert message in str(refusal.value)


def test_an_explicit_head_dim_needs_no_division(tmp_path: Path) -> None:
    """Qwen3-0.6B has 16 heads of 128 on a hidden size of 1024."""
    config = HF_COUNTS["qwen3-8b"][0] | {"hidden_size": 1024, "num_attention_heads": 24}
    shape = model_from_hf_config(write_config(tmp_path / "a", config)).shape
    assert (shape.heads, shape.head_dim) == (24, 128)
