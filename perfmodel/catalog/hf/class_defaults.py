"""Sizes that the text part of a multimodal configuration leaves out because they are its class's defaults.

Transformers writes a nested configuration without what equals its class's defaults: of LLaVA 1.5's language model the
file holds the vocabulary alone. A configuration that stands alone is written whole, so a size it lacks is an error.

References
----------
Hugging Face transformers, ``configuration_*.py`` of each model type: the arguments of ``__init__``.
"""

from __future__ import annotations

from perfmodel.catalog.hf.keys import Config, names_of

# hidden_size, intermediate_size, layers, heads, vocab_size and positions; further sizes by their keys.
_SIZES: dict[str, tuple[tuple[int, int, int, int, int, int], dict[str, int]]] = {
    "gemma": ((3072, 24576, 28, 16, 256_000, 8192), {"num_key_value_heads": 16}),
    "gemma2": ((2304, 9216, 26, 8, 256_000, 8192), {"num_key_value_heads": 4}),
    "gemma3_text": ((2304, 9216, 26, 8, 262_208, 131_072), {"num_key_value_heads": 4, "sliding_window": 4096}),
    "llama": ((4096, 11008, 32, 32, 32_000, 2048), {}),
    "mistral": ((4096, 14336, 32, 32, 32_000, 131_072), {"num_key_value_heads": 8}),
    "qwen2": ((4096, 22016, 32, 32, 151_936, 32_768), {"num_key_value_heads": 32}),
    "qwen3": ((4096, 22016, 32, 32, 151_936, 32_768), {"num_key_value_heads": 32, "head_dim": 128}),
}
_KEYS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size",
    "max_position_embeddings",
)  # fmt: skip


def with_class_defaults(text: Config) -> dict[str, object]:
    """``text`` with the sizes of its class beside those it holds, under whatever name it calls them."""
    model_type = text.get("model_type")
    sizes, more = _SIZES.get(model_type, ((), {})) if isinstance(model_type, str) else ((), {})
    defaults = dict(zip(_KEYS, sizes, strict=False)) | more
    return {key: value for key, value in defaults.items() if not set(names_of(key)) & set(text)} | dict(text)
