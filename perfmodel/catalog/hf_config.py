"""Which decoder a Hugging Face ``config.json`` describes, as a list of kinds of layers.

Pure: a parsed configuration comes in, a :class:`~perfmodel.catalog.decoder.Decoder` goes out; `load` reads the file.
A key that the architecture's own class defaults, and that checkpoints therefore leave out, is defaulted to the same
value; every other missing key is an error, and so is a key that says something no family here reads (`hf_keys`). Of a
multimodal configuration its language model is taken alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from perfmodel.catalog import hf_experts, hf_families, hf_hybrids, hf_older
from perfmodel.catalog.decoder import Decoder
from perfmodel.catalog.hf_keys import Config, Keys
from perfmodel.catalog.hf_mixers import merged

_TEXT = ("text_config", "language_config", "llm_config")  # where multimodal configurations keep the language model
# Towers, by the keys that describe them.
_TOWERS = {
    "vision tower": ("vision_config", "vision_tower", "vision_model", "visual", "mm_vision_tower", "vit_config"),
    "audio tower": ("audio_config", "audio_tower"),
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
    Decoder
        Equal layers make up one block; ``left_out`` names what the checkpoint holds beside the language model.

    Raises
    ------
    ValueError
        If ``model_type`` is not supported (the message names it and the supported ones), a key is out of range or not
        understood (the message names it), or heads do not divide the hidden size they share.
    KeyError
        If the configuration lacks a key; the key is the argument.

    References
    ----------
    Hugging Face transformers, ``configuration_*.py`` and ``modeling_*.py`` of each model type.

    Examples
    --------
    >>> shape_from_config({
    ...     "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32,
    ...     "num_hidden_layers": 32, "vocab_size": 32000}, "Llama 2 7B").parameters
    6738415616
    """
    text = _language_model(config)
    model_type = text["model_type"]
    if not isinstance(model_type, str) or model_type not in _FAMILIES:
        supported = ", ".join(supported_model_types())
        raise ValueError(f"unsupported model_type {model_type!r}; supported are {supported}")
    keys = Keys(text)
    fields = _FAMILIES[model_type](keys)
    later = keys.count("num_nextn_predict_layers")
    keys.refuse_unread(model_type)
    left_out = [name for name, signs in _TOWERS.items() if any(config.get(sign) for sign in signs)]
    left_out += ["multi-token prediction layers"] * (later > 0)
    described = Decoder(**fields, left_out=tuple(left_out), source=source)
    return msgspec.structs.replace(described, blocks=merged(described.blocks))


def supported_model_types() -> tuple[str, ...]:
    """Values of ``model_type`` that :func:`shape_from_config` understands, sorted."""
    return tuple(sorted(_FAMILIES))


def _language_model(config: Config) -> dict[str, Any]:
    """The text part of a multimodal configuration, any other one whole."""
    where = next((key for key in _TEXT if config.get(key) is not None), None)
    if where is None:
        return dict(config)
    text = config[where]
    if not isinstance(text, Mapping):
        raise ValueError(f"{where} is {text!r}, allowed is an object of keys")
    found = dict(text)
    if found.get("model_type") is None:
        outer = config.get("model_type")
        if outer not in _TEXT_OF:
            raise KeyError(f"{where}.model_type")
        found["model_type"] = _TEXT_OF[outer]
    if config.get("tie_word_embeddings") is not None:  # the outer one counts where both are given
        found["tie_word_embeddings"] = config["tie_word_embeddings"]
    return found


# The language model of multimodal families whose ``text_config`` does not name its own.
_TEXT_OF = {
    "gemma3": "gemma3_text",
    "llama4": "llama4_text",
    "llava": "llama",
    "mistral3": "mistral",
    "qwen2_5_vl": "qwen2",
    "qwen2_vl": "qwen2",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
    "qwen3_vl": "qwen3",
    "qwen3_vl_moe": "qwen3_moe",
}
_FAMILIES: dict[str, hf_families.Family] = {
    "baichuan": hf_families.baichuan,
    "bamba": hf_hybrids.bamba,
    "bloom": hf_older.bloom,
    "chatglm": hf_families.chatglm,
    "codegen": hf_older.gptj,
    "cohere": hf_families.cohere,
    "cohere2": hf_families.cohere2,
    "dbrx": hf_experts.dbrx,
    "deepseek": hf_experts.deepseek,
    "deepseek_v2": hf_experts.deepseek_v2,
    "deepseek_v3": hf_experts.deepseek_v3,
    "deepseek_v32": hf_experts.deepseek_v32,
    "ernie4_5": hf_families.ernie,
    "ernie4_5_moe": hf_experts.ernie_moe,
    "exaone4": hf_families.exaone4,
    "falcon": hf_older.falcon,
    "falcon_h1": hf_hybrids.falcon_h1,
    "falcon_mamba": hf_hybrids.falcon_mamba,
    "gemma": hf_families.gemma,
    "gemma2": hf_families.gemma2,
    "gemma3_text": hf_families.gemma3,
    "glm": hf_families.glm,
    "glm4": hf_families.glm4,
    "glm4_moe": hf_experts.glm4_moe,
    "glm4_moe_lite": hf_experts.glm4_moe_lite,
    "glm_moe_dsa": hf_experts.deepseek_v32,
    "gpt2": hf_older.gpt2,
    "gpt_bigcode": hf_older.gpt_bigcode,
    "gpt_neo": hf_older.gpt_neo,
    "gpt_neox": hf_older.gpt_neox,
    "gpt_oss": hf_experts.gpt_oss,
    "gptj": hf_older.gptj,
    "granite": hf_families.granite,
    "granitemoe": hf_experts.granitemoe,
    "granitemoehybrid": hf_hybrids.granitemoehybrid,
    "granitemoeshared": hf_experts.granitemoe,
    "hunyuan_v1_dense": hf_families.hunyuan,
    "hunyuan_v1_moe": hf_experts.hunyuan_moe,
    "internlm2": hf_families.internlm2,
    "internlm3": hf_families.internlm3,
    "jamba": hf_hybrids.jamba,
    "kimi_k2": hf_experts.deepseek_v3,
    "kimi_linear": hf_experts.kimi_linear,
    "lfm2": hf_hybrids.lfm2,
    "llama": hf_families.llama,
    "llama4_text": hf_experts.llama4,
    "mamba": hf_hybrids.plain_mamba,
    "mamba2": hf_hybrids.plain_mamba2,
    "minimax": hf_experts.minimax,
    "minimax_m1": hf_experts.minimax,
    "minimax_m2": hf_experts.minimax_m2,
    "minimax_text_01": hf_experts.minimax,
    "ministral": hf_families.ministral,
    "ministral3": hf_families.ministral3,
    "mistral": hf_families.mistral,
    "mixtral": hf_families.mixtral,
    "mpt": hf_older.mpt,
    "nemotron": hf_families.nemotron,
    "nemotron_h": hf_hybrids.nemotron_h,
    "olmo": hf_families.olmo,
    "olmo2": hf_families.olmo2,
    "olmo3": hf_families.olmo3,
    "olmoe": hf_families.olmoe,
    "opt": hf_older.opt,
    "phi": hf_older.phi,
    "phi3": hf_families.phi3,
    "phimoe": hf_experts.phimoe,
    "qwen2": hf_families.qwen2,
    "qwen2_5_vl": hf_families.qwen2,
    "qwen2_5_vl_text": hf_families.qwen2,
    "qwen2_moe": hf_families.qwen2_moe,
    "qwen2_vl": hf_families.qwen2,
    "qwen2_vl_text": hf_families.qwen2,
    "qwen3": hf_families.qwen3,
    "qwen3_5_moe_text": hf_families.qwen3_next,
    "qwen3_5_text": hf_families.qwen3_next,
    "qwen3_moe": hf_families.qwen3_moe,
    "qwen3_next": hf_families.qwen3_next,
    "qwen3_vl_moe_text": hf_families.qwen3_moe,
    "qwen3_vl_text": hf_families.qwen3,
    "seed_oss": hf_families.seed_oss,
    "smollm3": hf_families.smollm3,
    "stablelm": hf_older.stablelm,
    "starcoder2": hf_older.starcoder2,
}
