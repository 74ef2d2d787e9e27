"""Families of decoders like Llama: attention, then one gated MLP or experts, in every layer.

Each function takes a configuration's keys and returns the fields of a `Decoder`. Where a class of transformers has a
default that checkpoints rely on, the same stands here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from perfmodel.catalog.decoder import Block, Experts, Mlp, Norm, Part, SelfAttention
from perfmodel.catalog.hf.keys import Keys
from perfmodel.catalog.hf.mixers import (
    QkNorm,
    attention,
    blocks,
    experts,
    gated_delta_net,
    gated_mlp,
    periodic_windows,
    windows,
)

Family = Callable[[Keys], dict[str, Any]]


def decoder(
    keys: Keys,
    found: tuple[Block, ...],
    *,
    tied: bool = False,
    vocabulary: int | None = None,
    positions: int | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Fields of a `Decoder` that all families name alike.

    ``tied``, ``vocabulary`` and ``positions`` are the class's own, for configurations that say nothing.
    """
    hidden = keys.size("hidden_size")
    fields = {
        "hidden_size": hidden,
        "blocks": found,
        "vocab_size": keys.size("vocab_size", vocabulary),
        "embedding_size": hidden,
        "tied_embeddings": keys.flag("tie_word_embeddings", tied),
        "norm": Norm.RMSNORM,
        "max_positions": keys.size("max_position_embeddings", positions),
    }
    return fields | more


def stacked(
    keys: Keys, attentions: Sequence[SelfAttention], feeds: Sequence[Part], *, norms: int = 2, **more: Any
) -> dict[str, Any]:
    """A decoder with one part that mixes tokens and one that does not in each layer."""
    return decoder(keys, blocks([(part,) for part in attentions], [(part,) for part in feeds], norms=norms), **more)


def uniform(keys: Keys, one: SelfAttention, feed: Part, **more: Any) -> dict[str, Any]:
    """A decoder whose layers are all alike."""
    return stacked(keys, [one] * keys.layers(), [feed] * keys.layers(), **more)


def windowed(keys: Keys, found: Sequence[int | None], **more: Any) -> list[SelfAttention]:
    """Attention of each layer, by its window."""
    made = {window: attention(keys, window=window, **more) for window in dict.fromkeys(found)}
    return [made[window] for window in found]


def sparse_layers(keys: Keys) -> list[bool]:
    """Which layers have experts, by the keys of Qwen's families."""
    step, dense = keys.size("decoder_sparse_step", 1), keys.indices("mlp_only_layers")
    return [layer not in dense and (layer + 1) % step == 0 for layer in range(keys.layers())]


def mixed(
    keys: Keys, sparse: Sequence[bool], routed: Callable[[], Experts], size: str = "intermediate_size"
) -> list[Part]:
    """Experts in ``sparse`` layers, a gated MLP in the others; neither is read if no layer has it."""
    inner = routed() if any(sparse) else None
    keys.ignore(size)
    outer = None if all(sparse) else gated_mlp(keys, size)
    return [part for here in sparse if (part := inner if here else outer) is not None]


def llama(keys: Keys) -> dict[str, Any]:
    """Llama 1 to 3, Yi, CodeLlama, SmolLM 2, Falcon 3; heads share no keys and values where the key is left out."""
    bias = keys.flag("attention_bias")
    one = attention(keys, bias=bias, output_bias=bias)
    return uniform(keys, one, gated_mlp(keys, bias=keys.flag("mlp_bias")), positions=2048)


def mistral(keys: Keys) -> dict[str, Any]:
    """Mistral; its first version looks back at 4,096 tokens."""
    keys.size("num_key_value_heads")
    return uniform(keys, attention(keys, window=keys.nullable("sliding_window", 4096)), gated_mlp(keys))


def ministral(keys: Keys) -> dict[str, Any]:
    """Ministral: windows where ``layer_types`` says so, in all layers if it says nothing."""
    keys.size("num_key_value_heads")
    return stacked(keys, windowed(keys, windows(keys, lambda _: True)), [gated_mlp(keys)] * keys.layers())


def ministral3(keys: Keys) -> dict[str, Any]:
    """Ministral 3."""
    keys.size("num_key_value_heads")
    return uniform(keys, attention(keys, window=keys.nullable("sliding_window")), gated_mlp(keys))


def mixtral(keys: Keys) -> dict[str, Any]:
    """Mixtral: experts in every layer."""
    keys.size("num_key_value_heads")
    routed = experts(keys, keys.size("intermediate_size"))
    return uniform(keys, attention(keys, window=keys.nullable("sliding_window")), routed)


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
    return stacked(keys, windowed(keys, _late_windows(keys), bias=True), [gated_mlp(keys)] * keys.layers())


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
    return stacked(keys, windowed(keys, found, bias=keys.flag("qkv_bias", True)), feeds)


def _shared_and_gated(keys: Keys) -> Experts:
    shared = keys.size("shared_expert_intermediate_size")
    return experts(keys, keys.size("moe_intermediate_size"), shared_size=shared, shared_gate=True)


def qwen3(keys: Keys) -> dict[str, Any]:
    """Qwen 3: queries and keys are normalised."""
    keys.size("num_key_value_heads")
    bias = keys.flag("attention_bias")
    more = {"norm": QkNorm.SHARED, "head_dim": 128, "bias": bias, "output_bias": bias}
    return stacked(keys, windowed(keys, _late_windows(keys), **more), [gated_mlp(keys)] * keys.layers())


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
    one = SelfAttention(heads=heads, kv_heads=kv_heads, head_dim=head_dim, bias=bias, output_bias=bias)
    scales = default.get("norms", 0) * head_dim
    return [msgspec.structs.replace(one, scales=scales, window=window) for window in found]


def gemma2(keys: Keys) -> dict[str, Any]:
    """Gemma 2: every other layer has a window; norms before and after both attention and MLP."""
    keys.ignore("cache_implementation")
    found = periodic_windows(keys, 2, 4096)
    return stacked(keys, _gemma_attentions(keys, found), [gated_mlp(keys)] * keys.layers(), norms=4, tied=True)


def gemma3(keys: Keys) -> dict[str, Any]:
    """Gemma 3: five layers with a window to one without; queries and keys are normalised."""
    keys.ignore("cache_implementation", "_sliding_window_pattern")
    attentions = _gemma_attentions(keys, periodic_windows(keys, 6, 4096), heads=8, kv_heads=4, norms=2)
    return stacked(
        keys,
        attentions,
        [gated_mlp(keys)] * keys.layers(),
        norms=4,
        tied=True,
        vocabulary=262_208,
        positions=131_072,
    )


def phi3(keys: Keys) -> dict[str, Any]:
    """Phi 3, Phi 4."""
    keys.same("full_attn_mod", 1)
    bias = keys.flag("attention_bias")
    one = attention(keys, bias=bias, output_bias=bias, window=keys.nullable("sliding_window"))
    return uniform(keys, one, gated_mlp(keys), head_bias=keys.flag("lm_head_bias"))


def cohere(keys: Keys) -> dict[str, Any]:
    """Command R, Aya: attention and MLP read the same input; norms have no shift; embeddings are tied."""
    norm = QkNorm.EACH if keys.flag("use_qk_norm") else QkNorm.NONE
    return _command(keys, [None] * keys.layers(), norm)


def cohere2(keys: Keys) -> dict[str, Any]:
    """Command A, Command R7B: as before, with a window in three layers of four."""
    keys.same("use_gated_activation", True)
    keys.same("use_parallel_block", True)
    keys.same("use_parallel_embedding", False)
    keys.same("use_qk_norm", False)
    keys.ignore(
        "use_embedding_sharing", "order_of_interleaved_layers", "rotary_pct", "cache_implementation", "layer_switch"
    )
    period = keys.size("layer_switch", 4)
    return _command(keys, periodic_windows(keys, period, 4096), QkNorm.NONE)


def _command(keys: Keys, found: list[int | None], norm: QkNorm) -> dict[str, Any]:
    bias = keys.flag("attention_bias")
    attentions = windowed(keys, found, bias=bias, output_bias=bias, norm=norm)
    layers = blocks([(part,) for part in attentions], [(gated_mlp(keys),)] * len(found), norms=1, parallel=True)
    return decoder(keys, layers, tied=True, norm=Norm.LAYERNORM, norm_shift=False, positions=8192)


def olmo(keys: Keys) -> dict[str, Any]:
    """OLMo 1: its norms have no parameters, so that none is counted."""
    bias = keys.flag("attention_bias")
    one = attention(keys, bias=bias, output_bias=bias)
    return uniform(keys, one, gated_mlp(keys), norms=0, final_norms=0, norm=Norm.LAYERNORM)


def olmo2(keys: Keys) -> dict[str, Any]:
    """OLMo 2: norms after attention and MLP; queries and keys are normalised over all heads."""
    return _olmo(keys, [None] * keys.layers())


def olmo3(keys: Keys) -> dict[str, Any]:
    """OLMo 3: as OLMo 2, with a window in three layers of four."""
    return _olmo(keys, windows(keys, lambda layer: (layer + 1) % 4 > 0, 4096))


def _olmo(keys: Keys, found: list[int | None]) -> dict[str, Any]:
    bias = keys.flag("attention_bias")
    attentions = windowed(keys, found, bias=bias, output_bias=bias, norm=QkNorm.EACH)
    return stacked(keys, attentions, [gated_mlp(keys)] * len(found))


def olmoe(keys: Keys) -> dict[str, Any]:
    """OLMoE."""
    bias = keys.flag("attention_bias")
    one = attention(keys, bias=bias, output_bias=bias, norm=QkNorm.EACH)
    return uniform(keys, one, experts(keys, keys.size("intermediate_size")))


def glm(keys: Keys) -> dict[str, Any]:
    """GLM-4 9B: Q, K and V have biases."""
    return uniform(keys, attention(keys, bias=keys.flag("attention_bias", True)), gated_mlp(keys))


def glm4(keys: Keys) -> dict[str, Any]:
    """GLM-4-0414: norms after attention and MLP too."""
    return uniform(keys, attention(keys, bias=keys.flag("attention_bias", True)), gated_mlp(keys), norms=4)


def chatglm(keys: Keys) -> dict[str, Any]:
    """ChatGLM 2 and 3, GLM-4 in its authors' own code."""
    keys.same("rmsnorm", True)
    keys.same("post_layer_norm", True)
    keys.same("add_bias_linear", False)
    keys.ignore("original_rope", "layernorm_epsilon", "pre_seq_len", "prefix_projection")
    heads = keys.size("num_attention_heads")
    groups = keys.size("multi_query_group_num", heads) if keys.flag("multi_query_attention") else heads
    bias = keys.flag("add_qkv_bias")
    one = SelfAttention(heads=heads, kv_heads=groups, head_dim=keys.size("kv_channels"), bias=bias)
    return uniform(keys, one, gated_mlp(keys, "ffn_hidden_size"))


def baichuan(keys: Keys) -> dict[str, Any]:
    """Baichuan 1 and 2: keys and values of all heads."""
    return uniform(keys, attention(keys, grouped=False), gated_mlp(keys))


def internlm2(keys: Keys) -> dict[str, Any]:
    """InternLM 2 and 2.5."""
    bias = keys.flag("bias")
    return uniform(keys, attention(keys, bias=bias, output_bias=bias), gated_mlp(keys, bias=bias))


def internlm3(keys: Keys) -> dict[str, Any]:
    """InternLM 3."""
    bias = keys.flag("bias", keys.flag("mlp_bias"))
    qkv = keys.flag("qkv_bias", keys.flag("attention_bias"))
    return uniform(keys, attention(keys, bias=qkv, output_bias=bias), gated_mlp(keys, bias=bias))


def smollm3(keys: Keys) -> dict[str, Any]:
    """SmolLM 3: every fourth layer has no positions; embeddings are tied."""
    bias, pattern = keys.flag("attention_bias"), keys.get("no_rope_layers", [])
    keys.ignore("sliding_window", "max_window_layers")
    found: list[int | None] = [None] * keys.layers()
    if keys.flag("use_sliding_window"):
        found = windows(keys, lambda layer: not pattern[layer] if pattern else (layer + 1) % 4 == 0)
    keys.ignore("layer_types")
    attentions = windowed(keys, found, bias=bias, output_bias=bias)
    return stacked(keys, attentions, [gated_mlp(keys, bias=keys.flag("mlp_bias"))] * len(found), tied=True)


def seed_oss(keys: Keys) -> dict[str, Any]:
    """Seed-OSS: Q, K and V have biases."""
    output = keys.flag("attention_out_bias")
    one = attention(keys, bias=keys.flag("attention_bias", True), output_bias=output)
    return uniform(keys, one, gated_mlp(keys, bias=keys.flag("mlp_bias")))


def exaone4(keys: Keys) -> dict[str, Any]:
    """EXAONE 4: norms after attention and MLP; three layers with a window to one without, in the large one."""
    found = periodic_windows(keys, 4) if keys.nullable("sliding_window") else [None] * keys.layers()
    keys.ignore("layer_types", "sliding_window_pattern")
    return stacked(keys, windowed(keys, found, norm=QkNorm.SHARED), [gated_mlp(keys)] * len(found))


def ernie(keys: Keys) -> dict[str, Any]:
    """ERNIE 4.5 without experts."""
    keys.same("use_rmsnorm", True)
    keys.same("compression_ratio", 1.0)
    bias = keys.flag("use_bias")
    one = attention(keys, bias=bias, output_bias=bias)
    return uniform(keys, one, gated_mlp(keys, bias=bias), tied=True)


def hunyuan(keys: Keys) -> dict[str, Any]:
    """Hunyuan without experts: queries and keys are normalised."""
    hunyuan_keys(keys)
    bias = keys.flag("attention_bias")
    one = attention(keys, bias=bias, output_bias=bias, norm=QkNorm.SHARED)
    return uniform(keys, one, gated_mlp(keys))


def hunyuan_keys(keys: Keys) -> None:
    """Keys of Hunyuan's configurations that allow one value alone, or change nothing."""
    for key, only in (("use_qk_norm", True), ("use_cla", False), ("mlp_bias", False), ("norm_type", "rms")):
        keys.same(key, only)
    keys.same("add_classification_head", False)
    keys.same("attention_head_dim", keys.get("head_dim"))
    keys.ignore("class_num", "cla_share_factor", "pool_type", "org_vocab_size", "group_limited_greedy")


def granite(keys: Keys) -> dict[str, Any]:
    """Granite 3."""
    return llama(keys)


def nemotron(keys: Keys) -> dict[str, Any]:
    """Nemotron 4, Minitron: MLPs of two matrices."""
    bias = keys.flag("attention_bias")
    mlp = Mlp(size=keys.size("intermediate_size"), gated=False, bias=keys.flag("mlp_bias"))
    return uniform(keys, attention(keys, bias=bias, output_bias=bias), mlp, norm=Norm.LAYERNORM)
