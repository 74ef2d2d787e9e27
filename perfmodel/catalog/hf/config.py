"""Which decoder a Hugging Face ``config.json`` describes, as a list of kinds of layers.

Pure: a parsed configuration comes in, a :class:`~perfmodel.catalog.decoder.Decoder` goes out; `load` reads the file.
A key that the architecture's own class defaults, and that checkpoints therefore leave out, is defaulted to the same
value; every other missing key is an error, and so is a key that says something no family here reads (`keys`). Of a
multimodal configuration its language model is taken alone, which leaves out sizes too (`class_defaults`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from perfmodel.catalog.decoder import Decoder
from perfmodel.catalog.hf import experts, families, hybrids, older
from perfmodel.catalog.hf.class_defaults import with_class_defaults
from perfmodel.catalog.hf.keys import Config, Keys
from perfmodel.catalog.hf.mixers import merged

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


def family_of(config: Config) -> Any:
    """What the configuration, or else its language model, calls itself."""
    return config.get("model_type") or _language_model(config)["model_type"]


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
    model_type = text.get("model_type")
    if model_type is None:
        outer = config.get("model_type")
        if not isinstance(outer, str) or outer not in _TEXT_OF:
            raise KeyError(f"{where}.model_type")
        model_type = _TEXT_OF[outer]
    found = with_class_defaults({**text, "model_type": model_type})
    if config.get("tie_word_embeddings") is not None:  # the outer one counts where both are given
        found["tie_word_embeddings"] = config["tie_word_embeddings"]
    return found


# The language model of multimodal families whose ``text_config`` does not name its own.
_TEXT_OF = {
    "aya_vision": "cohere2",
    "blip-2": "opt",
    "gemma3": "gemma3_text",
    "got_ocr2": "qwen2",
    "idefics2": "mistral",
    "idefics3": "llama",
    "instructblip": "opt",
    "internvl": "qwen2",
    "llama4": "llama4_text",
    "llava": "llama",
    "llava_next": "llama",
    "llava_next_video": "llama",
    "llava_onevision": "qwen2",
    "mistral3": "mistral",
    "paligemma": "gemma",
    "qwen2_5_vl": "qwen2",
    "qwen2_vl": "qwen2",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
    "qwen3_vl": "qwen3",
    "qwen3_vl_moe": "qwen3_moe",
    "smolvlm": "llama",
    "video_llava": "llama",
    "vipllava": "llama",
}
_FAMILIES: dict[str, families.Family] = {
    "baichuan": families.baichuan,
    "bamba": hybrids.bamba,
    "bloom": older.bloom,
    "chatglm": families.chatglm,
    "codegen": older.gptj,
    "cohere": families.cohere,
    "cohere2": families.cohere2,
    "dbrx": experts.dbrx,
    "deepseek": experts.deepseek,
    "deepseek_v2": experts.deepseek_v2,
    "deepseek_v3": experts.deepseek_v3,
    "deepseek_v32": experts.deepseek_v32,
    "ernie4_5": families.ernie,
    "ernie4_5_moe": experts.ernie_moe,
    "exaone4": families.exaone4,
    "falcon": older.falcon,
    "falcon_h1": hybrids.falcon_h1,
    "falcon_mamba": hybrids.falcon_mamba,
    "gemma": families.gemma,
    "gemma2": families.gemma2,
    "gemma3_text": families.gemma3,
    "glm": families.glm,
    "glm4": families.glm4,
    "glm4_moe": experts.glm4_moe,
    "glm4_moe_lite": experts.glm4_moe_lite,
    "glm_moe_dsa": experts.deepseek_v32,
    "gpt2": older.gpt2,
    "gpt_bigcode": older.gpt_bigcode,
    "gpt_neo": older.gpt_neo,
    "gpt_neox": older.gpt_neox,
    "gpt_oss": experts.gpt_oss,
    "gptj": older.gptj,
    "granite": families.granite,
    "granitemoe": experts.granitemoe,
    "granitemoehybrid": hybrids.granitemoehybrid,
    "granitemoeshared": experts.granitemoe,
    "hunyuan_v1_dense": families.hunyuan,
    "hunyuan_v1_moe": experts.hunyuan_moe,
    "internlm2": families.internlm2,
    "internlm3": families.internlm3,
    "jamba": hybrids.jamba,
    "kimi_k2": experts.deepseek_v3,
    "kimi_linear": experts.kimi_linear,
    "lfm2": hybrids.lfm2,
    "llama": families.llama,
    "llama4_text": experts.llama4,
    "mamba": hybrids.plain_mamba,
    "mamba2": hybrids.plain_mamba2,
    "minimax": experts.minimax,
    "minimax_m1": experts.minimax,
    "minimax_m2": experts.minimax_m2,
    "minimax_text_01": experts.minimax,
    "ministral": families.ministral,
    "ministral3": families.ministral3,
    "mistral": families.mistral,
    "mixtral": families.mixtral,
    "mpt": older.mpt,
    "nemotron": families.nemotron,
    "nemotron_h": hybrids.nemotron_h,
    "olmo": families.olmo,
    "olmo2": families.olmo2,
    "olmo3": families.olmo3,
    "olmoe": families.olmoe,
    "opt": older.opt,
    "phi": older.phi,
    "phi3": families.phi3,
    "phimoe": experts.phimoe,
    "qwen2": families.qwen2,
    "qwen2_5_vl": families.qwen2,
    "qwen2_5_vl_text": families.qwen2,
    "qwen2_moe": families.qwen2_moe,
    "qwen2_vl": families.qwen2,
    "qwen2_vl_text": families.qwen2,
    "qwen3": families.qwen3,
    "qwen3_5_moe_text": families.qwen3_next,
    "qwen3_5_text": families.qwen3_next,
    "qwen3_moe": families.qwen3_moe,
    "qwen3_next": families.qwen3_next,
    "qwen3_vl_moe_text": families.qwen3_moe,
    "qwen3_vl_text": families.qwen3,
    "seed_oss": families.seed_oss,
    "smollm3": families.smollm3,
    "stablelm": older.stablelm,
    "starcoder2": older.starcoder2,
}
