"""Which transformer shape a Hugging Face ``config.json`` describes.

Pure: a parsed configuration comes in, :class:`~perfmodel.specs.Layers` goes out; ``catalog.py`` reads the file. A key
that the architecture's own class defaults, and that checkpoints therefore leave out, is defaulted here to the same
value; every other missing key is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from perfmodel.specs import Layers, Norm

Config = Mapping[str, Any]


def shape_from_config(config: Config, source: str) -> Layers:
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
        If ``model_type`` is not supported (the message names it and the supported ones) or a size is no positive
        integer (the message names its key).
    KeyError
        If the configuration lacks a key; the key is the argument.

    References
    ----------
    Hugging Face transformers, ``configuration_*.py`` and ``modeling_*.py`` of each model type.
    """
    model_type = config["model_type"]
    if model_type not in _FAMILIES:
        raise ValueError(f"unsupported model_type {model_type!r}; supported are {', '.join(supported_model_types())}")
    return Layers(**(_common(config) | _FAMILIES[model_type](config)), source=source)


def supported_model_types() -> tuple[str, ...]:
    """Values of ``model_type`` that :func:`shape_from_config` understands, sorted."""
    return tuple(sorted(_FAMILIES))


def _size(config: Config, key: str) -> int:
    value = config[key]
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{key} is {value!r}, allowed is a positive integer")
    return value


def _size_or(config: Config, key: str, default: int) -> int:
    # Some configurations write null instead of leaving the key out.
    return default if config.get(key) is None else _size(config, key)


def _common(config: Config) -> dict[str, Any]:
    hidden_size, heads = _size(config, "hidden_size"), _size(config, "num_attention_heads")
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


def _llama(config: Config) -> dict[str, Any]:
    bias = config.get("attention_bias", False)
    return {
        # Llama 1 and the first Llama 2 configurations leave the key out: every head has its own keys and values.
        "kv_heads": _size_or(config, "num_key_value_heads", _size(config, "num_attention_heads")),
        "ffn_size": _size(config, "intermediate_size"),
        "gated_mlp": True,
        "tied_embeddings": config.get("tie_word_embeddings", False),
        "attention_bias": bias,
        "output_bias": bias,
        "mlp_bias": config.get("mlp_bias", False),
        "norm": Norm.RMSNORM,
    }


def _qwen2(config: Config) -> dict[str, Any]:
    return _llama(config) | {"attention_bias": True, "output_bias": False, "mlp_bias": False}


def _mixtral(config: Config) -> dict[str, Any]:
    experts = {
        "experts": _size(config, "num_local_experts"),
        "experts_per_token": _size(config, "num_experts_per_tok"),
    }
    return _llama(config) | experts


_FAMILIES: dict[str, Callable[[Config], dict[str, Any]]] = {
    "opt": _opt,
    "gpt_neox": _gpt_neox,
    "llama": _llama,
    "mistral": _llama,
    "qwen2": _qwen2,
    "mixtral": _mixtral,
}
