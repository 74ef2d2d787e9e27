"""Families of decoders like Llama: attention, then one gated MLP or experts, in every layer.

Each function takes a configuration's keys and returns the fields of a `Decoder`. Where a class of transformers has a
default that checkpoints rely on, the same stands here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from perfmodel.catalog.decoder import Block, Experts, Mlp, Norm, Part, SelfAttention
from perfmodel.catalog.hf_keys import Keys
from perfmodel.catalog.hf_mixers import (
    QkNorm,
    attention,
    blocks,
    experts,
    gated_delta_net,
    gated_mlp,
    head_sizes,
    latent_attention,
    periodic_windows,
    windows,
)

Family = Callable[[Keys], dict[str, Any]]


def decoder(keys: Keys, found: tuple[Block, ...], *, tied: bool = False, **more: Any) -> dict[str, Any]:
    """Fields of a `Decoder` that all families name alike; ``tied`` is the class's default."""
    hidden = keys.size("hidden_size")
    fields = {
        "hidden_size": hidden,
        "blocks": found,
        "vocab_size": keys.size("vocab_size"),
        "embedding_size": hidden,
        "tied_embeddings": keys.flag("tie_word_embeddings", tied),
        "norm": Norm.RMSNORM,
    }
    if "max_positions" not in more:
        fields["max_positions"] = keys.size("max_position_embeddings")
    return fields | more


def stacked(
    keys: Keys, attentions: Sequence[SelfAttention], feeds: Sequence[Part], *, norms: int = 2, **more: Any
) -> dict[str, Any]:
    """A decoder with one part that mixes tokens and one that does not in each layer."""
    return decoder(keys, blocks([(part,) for part in attentions], [(part,) for part in feeds], norms=norms), **more)


def _uniform(keys: Keys, one: SelfAttention, feed: Part, **more: Any) -> dict[str, Any]:
    return stacked(keys, [one] * keys.layers(), [feed] * keys.layers(), **more)


def _everywhere(keys: Keys, default: int | None = None) -> int | None:
    """The window of families that have one in all layers or none."""
    return keys.nullable("sliding_window", default)


def sparse_layers(keys: Keys) -> list[bool]:
    """Which layers have experts, by the keys of Qwen's families."""
    step, dense = keys.size("decoder_sparse_step", 1), keys.indices("mlp_only_layers")
    return [layer not in dense and (layer + 1) % step == 0 for layer in range(keys.layers())]


def mixed(keys: Keys, sparse: Sequence[bool], routed: Callable[[], Experts], size: str = "intermediate_size") -> list[Part]:
    """Experts in ``sparse`` layers, a gated MLP in the others; neither is read if no layer has it."""
    inner = routed() if any(sparse) else None
    keys.ignore(size)
    outer = None if all(sparse) else gated_mlp(keys, size)
    return [part for here in sparse if (part := inner if here else outer) is not None]


def llama(keys: Keys) -> dict[str, Any]:
    """Llama 1 to 3, Yi, CodeLlama, SmolLM 2, Falcon 3; heads share no keys and values where the key is left out."""
    bias = keys.flag("attention_bias")
    one = attention(keys, bias=bias, output_bias=bias)
    positions = keys.size("max_position_embeddings", 2048)
    return _uniform(keys, one, gated_mlp(keys, bias=keys.flag("mlp_bias")), max_positions=positions)


def mistral(keys: Keys) -> dict[str, Any]:
    """Mistral; its first version looks back at 4,096 tokens."""
    keys.size("num_key_value_heads")
    return _uniform(keys, attention(keys, window=_everywhere(keys, 4096)), gated_mlp(keys))


def ministral(keys: Keys) -> dict[str, Any]:
    """Ministral: windows where ``layer_types`` says so, in all layers if it says nothing."""
    keys.size("num_key_value_heads")
    return stacked(keys, _windowed(keys, windows(keys, lambda _: True)), [gated_mlp(keys)] * keys.layers())


def _windowed(keys: Keys, found: Sequence[int | None], **more: Any) -> list[SelfAttention]:
    made = {window: attention(keys, window=window, **more) for window in set(found)}
    return [made[window] for window in found]


def mixtral(keys: Keys) -> dict[str, Any]:
    """Mixtral: experts in every layer."""
    keys.size("num_key_value_heads")
    routed = experts(keys, keys.size("intermediate_size"))
    return _uniform(keys, attention(keys, window=_everywhere(keys)), routed)


def _late_windows(keys: Keys) -> list[int | None]:
    """Windows from layer ``max_window_layers`` on, if the configuration uses them."""
    keys.ignore("sliding_window", "max_window_layers")
    if not keys.flag("use_sliding_window"):
        keys.ignore("layer_types")
        return [None] * keys.layers()
    first = keys.count("max_window_layers", 28)
    return windows(keys, lambda layer: layer >= first)


def qwen2(keys: Keys) -> dict[str, Any]:
    """Qwen 1.5 to 2.5: Q, K and V have biases."""
    keys.size("num_key_value_heads")
    return stacked(keys, _windowed(keys, _late_windows(keys), bias=True), [gated_mlp(keys)] * keys.layers())


def qwen2_moe(keys: Keys) -> dict[str, Any]:
    """Qwen1.5-MoE, Qwen2-57B-A14B: experts beside a shared one that a gate scales."""
    keys.size("num_key_value_heads")
    keys.ignore("max_window_layers", "sliding_window")
    if keys.flag("use_sliding_window"):
        found = windows(keys, lambda layer: layer % 2 == 0 and layer < keys.count("max_window_layers", 28))
    else:
        keys.ignore("layer_types")
        found = [None] * keys.layers()
    feeds = mixed(keys, sparse_layers(keys), lambda: _shared_and_gated(keys))
    return stacked(keys, _windowed(keys, found, bias=keys.flag("qkv_bias", True)), feeds)


def _shared_and_gated(keys: Keys) -> Experts:
    shared = keys.size("shared_expert_intermediate_size")
    return experts(keys, keys.size("moe_intermediate_size"), shared_size=shared, shared_gate=True)


def qwen3(keys: Keys) -> dict[str, Any]:
    """Qwen 3: queries and keys are normalised."""
    keys.size("num_key_value_heads")
    bias = keys.flag("attention_bias")
    sizes = head_sizes(keys) if "head_dim" in keys else head_sizes(keys) | {"head_dim": 128}
    more = sizes | {"scales": 2 * sizes["head_dim"], "bias": bias, "output_bias": bias}
    return stacked(keys, _windowed(keys, _late_windows(keys), **more), [gated_mlp(keys)] * keys.layers())


def qwen3_moe(keys: Keys) -> dict[str, Any]:
    """Qwen 3 with experts."""
    keys.size("num_key_value_heads")
    bias = keys.flag("attention_bias")
    keys.ignore("max_window_layers", "sliding_window")
    window = keys.nullable("sliding_window") if keys.flag("use_sliding_window") else None
    one = attention(keys, norm=QkNorm.SHARED, bias=bias, output_bias=bias, window=window)
    feeds = mixed(keys, sparse_layers(keys), lambda: experts(keys, keys.size("moe_intermediate_size")))
    return stacked(keys, [one] * keys.layers(), feeds)


def qwen3_next(keys: Keys) -> dict[str, Any]:
    """Qwen3-Next, Qwen 3.5: three layers of Gated DeltaNet to one of gated attention; experts or an MLP."""
    keys.size("num_key_value_heads")
    layers, bias = keys.layers(), keys.flag("attention_bias")
    keys.same("attn_output_gate", True)
    period = keys.size("full_attention_interval", 4)
    types = keys.of_layers("layer_types", ("linear_attention", "full_attention"))
    linear = [(layer + 1) % period > 0 for layer in range(layers)]
    linear = linear if types is None else [kind == "linear_attention" for kind in types]
    whole = attention(keys, norm=QkNorm.SHARED, gated=True, bias=bias, output_bias=bias)
    state = gated_delta_net(keys)
    sparse = sparse_layers(keys) if "num_experts" in keys else [False] * layers
    feeds = mixed(keys, sparse, lambda: _shared_and_gated(keys))
    found = blocks([(state if here else whole,) for here in linear], [(feed,) for feed in feeds])
    return decoder(keys, found)


def gemma(keys: Keys) -> dict[str, Any]:
    """Gemma 1; heads of 256 and tied embeddings unless said otherwise."""
    return stacked(keys, _gemma_attentions(keys, [None] * keys.layers()), [gated_mlp(keys)] * keys.layers(), tied=True)


def _gemma_attentions(keys: Keys, found: list[int | None], **default: int) -> list[SelfAttention]:
    bias = keys.flag("attention_bias")
    keys.ignore("use_bidirectional_attention")
    heads = keys.size("num_attention_heads", default.get("heads"))
    kv_heads = keys.size("num_key_value_heads", default.get("kv_heads"))
    head_dim = keys.size("head_dim", 256)
    sizes = {"heads": heads, "kv_heads": kv_heads, "head_dim": head_dim, "scales": default.get("norms", 0) * head_dim}
    return [SelfAttention(**sizes, bias=bias, output_bias=bias, window=window) for window in found]


def gemma2(keys: Keys) -> dict[str, Any]:
    """Gemma 2: every other layer has a window; norms before and after both attention and MLP."""
    keys.ignore("cache_implementation")
    found = periodic_windows(keys, 2, 4096)
    return stacked(keys, _gemma_attentions(keys, found), [gated_mlp(keys)] * keys.layers(), norms=4, tied=True)


def gemma3(keys: Keys) -> dict[str, Any]:
    """Gemma 3: five layers with a window to one without; queries and keys are normalised."""
    keys.ignore("cache_implementation", "_sliding_window_pattern")
    attentions = _gemma_attentions(keys, periodic_windows(keys, 6, 4096), heads=8, kv_heads=4, norms=2)
    more = {"vocab_size": keys.size("vocab_size", 262_208)}
    positions = keys.size("max_position_embeddings", 131_072)
    found = blocks([(part,) for part in attentions], [(gated_mlp(keys),)] * keys.layers(), norms=4)
    return _with_vocabulary(keys, found, more["vocab_size"], positions)


def _with_vocabulary(keys: Keys, found: tuple[Block, ...], vocabulary: int, positions: int) -> dict[str, Any]:
    return {
        "hidden_size": keys.size("hidden_size"),
        "blocks": found,
        "vocab_size": vocabulary,
        "embedding_size": keys.size("hidden_size"),
        "tied_embeddings": keys.flag("tie_word_embeddings", True),
        "norm": Norm.RMSNORM,
        "max_positions": positions,
    }
