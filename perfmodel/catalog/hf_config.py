"""Which transformer shape a Hugging Face ``config.json`` describes.

Pure: a parsed configuration comes in, :class:`~perfmodel.catalog.specs.Layers` goes out; `load` reads the file. A key
that the architecture's own class defaults, and that checkpoints therefore leave out, is defaulted here to the same
value; every other missing key is an error. Of a multimodal configuration its ``text_config`` is taken: the language
model alone, without the memory of its vision tower. A sliding window changes no count here: keys and values are kept
for all tokens, an upper bound once a sequence is longer than the window.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from perfmodel.catalog.decoder import Decoder, Norm
from perfmodel.catalog.language_model import Layers
from perfmodel.catalog.records import LARGEST_SIZE

Config = Mapping[str, Any]

# Keys that betray what `Layers` cannot describe, so that the refusal can say why.
_UNMODELLED = {
    "kv_lora_rank": "multi-head latent attention",
    "n_shared_experts": "shared experts",
    "shared_expert_intermediate_size": "shared experts",
    "state_size": "state-space layers",
    "cross_attention_layers": "cross-attention",
}


def shape_from_config(config: Config, source: str) -> Decoder:
    """Shape of the model that a Hugging Face configuration describes.

    Parameters
    ----------
    config
        The parsed ``config.json``.
    source
        Where it is from; goes into the record.

    Returns
    -------
    Layers
        The record the catalogue's own files hold.

    Raises
    ------
    ValueError
        If ``model_type`` is not supported (the message names it and the supported ones), a size is no positive
        integer (the message names its key), or heads do not divide the hidden size they share.
    KeyError
        If the configuration lacks a key; the key is the argument.

    References
    ----------
    Hugging Face transformers, ``configuration_*.py`` and ``modeling_*.py`` of each model type.
    """
    config = _language_model(config)
    model_type = config["model_type"]
    if not isinstance(model_type, str) or model_type not in _FAMILIES:
        raise ValueError(_unsupported(config))
    known = _DEFAULTS.get(model_type, {}) | config
    return Layers(**(_common(known) | _FAMILIES[model_type](known)), source=source).decoder


def supported_model_types() -> tuple[str, ...]:
    """Values of ``model_type`` that :func:`shape_from_config` understands, sorted."""
    return tuple(sorted(_FAMILIES))


def _language_model(config: Config) -> dict[str, Any]:
    """The text part of a multimodal configuration, any other one whole; without keys that are null."""
    text = config.get("text_config")
    if text is not None and not isinstance(text, Mapping):
        raise ValueError(f"text_config is {text!r}, allowed is an object of keys")
    return {key: value for key, value in (config if text is None else text).items() if value is not None}


def _unsupported(config: Config) -> str:
    reasons = {reason: None for key, reason in _UNMODELLED.items() if key in config}
    why = f" ({' and '.join(reasons)} not modelled)" if reasons else ""
    return f"unsupported model_type {config['model_type']!r}{why}; supported are {', '.join(supported_model_types())}"


def _size(config: Config, key: str) -> int:
    value = config[key]
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= LARGEST_SIZE:
        raise ValueError(f"{key} is {value!r}, allowed is a positive integer of at most 2**40")
    return value


def _size_or(config: Config, key: str, default: int) -> int:
    return _size(config, key) if key in config else default


def _common(config: Config) -> dict[str, Any]:
    hidden_size, heads = _size(config, "hidden_size"), _size(config, "num_attention_heads")
    if "head_dim" not in config and hidden_size % heads:
        raise ValueError(f"num_attention_heads is {heads}, allowed are divisors of hidden_size = {hidden_size}")
    return {
        "layers": _size(config, "num_hidden_layers"),
        "hidden_size": hidden_size,
        "heads": heads,
        "head_dim": _size_or(config, "head_dim", hidden_size // heads),
        "experts": 1,
        "experts_per_token": 1,
        "vocab_size": _size(config, "vocab_size"),
        "embedding_size": hidden_size,
        "learned_positions": 0,
        "norms_per_layer": 2,
        "final_norm": True,
        "max_positions": _size(config, "max_position_embeddings"),
    }


def _opt(config: Config) -> dict[str, Any]:
    bias = config.get("enable_bias", True)
    pre_norm = config.get("do_layer_norm_before", True)
    return {
        "kv_heads": _size(config, "num_attention_heads"),
        "ffn_size": _size(config, "ffn_dim"),
        "gated_mlp": False,
        "embedding_size": _size_or(config, "word_embed_proj_dim", _size(config, "hidden_size")),
        "tied_embeddings": config.get("tie_word_embeddings", True),
        "learned_positions": _size(config, "max_position_embeddings") + 2,  # OPT's table starts at an offset of 2
        "attention_bias": bias,
        "output_bias": bias,
        "mlp_bias": bias,
        "norm": Norm.LAYERNORM,
        "final_norm": pre_norm and not config.get("_remove_final_layer_norm", False),
    }


def _gpt_neox(config: Config) -> dict[str, Any]:
    bias = config.get("attention_bias", True)
    return {
        "kv_heads": _size(config, "num_attention_heads"),
        "ffn_size": _size(config, "intermediate_size"),
        "gated_mlp": False,
        "tied_embeddings": config.get("tie_word_embeddings", False),
        "attention_bias": bias,
        "output_bias": bias,
        "mlp_bias": True,
        "norm": Norm.LAYERNORM,
    }


def _gated(config: Config) -> dict[str, Any]:
    """Decoder with a gated MLP, grouped keys and values, and RMSNorm: the frame of all families below."""
    bias = config.get("attention_bias", False)
    return {
        "kv_heads": _size(config, "num_key_value_heads"),
        "ffn_size": _size(config, "intermediate_size"),
        "gated_mlp": True,
        "tied_embeddings": config.get("tie_word_embeddings", False),
        "attention_bias": bias,
        "output_bias": bias,
        "mlp_bias": config.get("mlp_bias", False),
        "norm": Norm.RMSNORM,
    }


def _llama(config: Config) -> dict[str, Any]:
    # Llama 1 and the first Llama 2 configurations leave the key out: every head has its own keys and values.
    return _gated({"num_key_value_heads": _size(config, "num_attention_heads")} | dict(config))


def _mixtral(config: Config) -> dict[str, Any]:
    experts = {
        "experts": _size(config, "num_local_experts"),
        "experts_per_token": _size(config, "num_experts_per_tok"),
    }
    return _gated(config) | experts


def _qwen2(config: Config) -> dict[str, Any]:
    return _gated(config) | {"attention_bias": True, "output_bias": False, "mlp_bias": False}


def _qwen3(config: Config) -> dict[str, Any]:
    return _gated(config) | {"qk_norm": True}


def _qwen3_moe(config: Config) -> dict[str, Any]:
    for key, allowed in (("decoder_sparse_step", 1), ("mlp_only_layers", [])):
        if config.get(key, allowed) != allowed:
            raise ValueError(f"{key} is {config[key]!r}, allowed is {allowed!r}: every layer must have experts")
    experts = {
        "ffn_size": _size(config, "moe_intermediate_size"),
        "experts": _size(config, "num_experts"),
        "experts_per_token": _size(config, "num_experts_per_tok"),
    }
    return _qwen3(config) | experts


def _gemma(config: Config) -> dict[str, Any]:
    return _gated(config) | {"tied_embeddings": config.get("tie_word_embeddings", True)}


def _gemma2(config: Config) -> dict[str, Any]:
    return _gemma(config) | {"norms_per_layer": 4}  # before and after both attention and MLP


def _gemma3(config: Config) -> dict[str, Any]:
    return _gemma2(config) | {"qk_norm": True}


_DEFAULTS: dict[str, dict[str, Any]] = {
    "gemma": {"head_dim": 256},
    "gemma2": {"head_dim": 256},
    "gemma3_text": {
        "vocab_size": 262_208,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 131_072,
    },
    "qwen3": {"head_dim": 128},
}
_FAMILIES: dict[str, Callable[[Config], dict[str, Any]]] = {
    "opt": _opt,
    "gpt_neox": _gpt_neox,
    "llama": _llama,
    "mistral": _gated,
    "mixtral": _mixtral,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "qwen3_moe": _qwen3_moe,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
}
