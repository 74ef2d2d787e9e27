"""Small random models that tests write: a config of each kind, and weights drawn from a seed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from kernels_numba.decoder.config import DecoderConfig
from tests.kernels_numba.checkpoints.files import save

SIZES = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "vocab_size": 61}
LLAMA: dict[str, Any] = {
    "model_type": "llama", "intermediate_size": 56, "num_key_value_heads": 2, "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5, "rope_theta": 1000.0, "tie_word_embeddings": False, "hidden_act": "silu",
    "bos_token_id": 1, "eos_token_id": 2, **SIZES,
}  # fmt: skip
LLAMA3: dict[str, Any] = LLAMA | {
    "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True, "num_key_value_heads": 1, "head_dim": 16,
    "rope_scaling": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
}  # fmt: skip
OPT: dict[str, Any] = {
    "model_type": "opt", "ffn_dim": 56, "max_position_embeddings": 64, "word_embed_proj_dim": 32,
    "do_layer_norm_before": True, "activation_function": "relu", "bos_token_id": 1, "eos_token_id": 2, **SIZES,
}  # fmt: skip
CONFIGS = {"llama": LLAMA, "llama3": LLAMA3, "opt": OPT}
TOKENS = np.random.default_rng(7).integers(0, SIZES["vocab_size"], (2, 12))


def weights_of(config: dict[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """Weights that keep activations near 1, and make every part of the model matter."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, shape in DecoderConfig.from_dict(config).tensors().items():
        values = rng.standard_normal(shape)
        if len(shape) == 2 and "embed" not in name:
            values *= 1.5 / np.sqrt(shape[1])
        found[name] = (1 + 0.2 * values if "norm" in name and "weight" in name else values).astype(np.float32)
    return found


def write_model(folder: Path, config: dict[str, Any], weights: dict[str, np.ndarray] | None = None) -> Path:
    """A Hugging Face folder without a tokenizer."""
    folder.mkdir(exist_ok=True)
    weights = weights_of(config) if weights is None else weights
    (folder / "config.json").write_text(json.dumps(config))
    save(folder / "model.safetensors", weights, dict.fromkeys(weights, "F32"))
    return folder
