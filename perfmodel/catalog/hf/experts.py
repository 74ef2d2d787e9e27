"""Families with experts in some layers or all, many of them with latent attention."""

from __future__ import annotations

from typing import Any

from perfmodel.catalog.decoder import Experts, Mlp, Norm, Part, SelfAttention
from perfmodel.catalog.hf.families import decoder, hunyuan_keys, mixed, stacked, uniform, windowed
from perfmodel.catalog.hf.keys import Keys
from perfmodel.catalog.hf.mixers import (
    QkNorm,
    attention,
    blocks,
    delta_attention,
    experts,
    gated_mlp,
    latent_attention,
    lightning_attention,
    windows,
)


def _dense_first(keys: Keys, default: int = 0) -> list[bool]:
    """Which layers have experts: all but the first few, or as ``mlp_layer_types`` says."""
    keys.same("moe_layer_freq", 1)
    first = keys.count("first_k_dense_replace", default)
    if (types := keys.of_layers("mlp_layer_types", ("dense", "sparse"))) is not None:
        return [kind == "sparse" for kind in types]
    return [layer >= first for layer in range(keys.layers())]


def _with_shared(keys: Keys, **more: Any) -> Experts:
    """Experts beside ``n_shared_experts`` of the same size that every token visits."""
    size = keys.size("moe_intermediate_size")
    return experts(keys, size, shared_size=size * keys.count("n_shared_experts"), **more)


def _corrected(keys: Keys) -> Experts:
    """The same, with one learned correction of the router for each expert."""
    return _with_shared(keys, router_vectors=keys.size("num_experts"))


def deepseek(keys: Keys) -> dict[str, Any]:
    """DeepSeek-MoE: usual attention."""
    bias = keys.flag("attention_bias")
    one = attention(keys, bias=bias, output_bias=bias)
    feeds = mixed(keys, _dense_first(keys), lambda: _with_shared(keys))
    return stacked(keys, [one] * keys.layers(), feeds)


def deepseek_v2(keys: Keys) -> dict[str, Any]:
    """DeepSeek-V2: latent attention."""
    feeds = mixed(keys, _dense_first(keys), lambda: _with_shared(keys))
    return _latent(keys, feeds)


def _latent(keys: Keys, feeds: list[Part], mixers: list[Part] | None = None) -> dict[str, Any]:
    """Layers that each mix tokens by latent attention, unless ``mixers`` says how."""
    keys.same("mlp_bias", False)
    mixers = [latent_attention(keys)] * keys.layers() if mixers is None else mixers
    return decoder(keys, blocks([(mixer,) for mixer in mixers], [(feed,) for feed in feeds]))


def deepseek_v3(keys: Keys) -> dict[str, Any]:
    """DeepSeek-V3 and R1, Kimi-K2, GLM-4.7-Flash: the router has a correction for each expert."""
    return _latent(keys, mixed(keys, _dense_first(keys, 3), lambda: _corrected(keys)))


def glm4_moe_lite(keys: Keys) -> dict[str, Any]:
    """GLM-4.7-Flash: as DeepSeek-V3, its first layer alone without experts."""
    return _latent(keys, mixed(keys, _dense_first(keys, 1), lambda: _corrected(keys)))


def deepseek_v32(keys: Keys) -> dict[str, Any]:
    """DeepSeek-V3.2, GLM-5: an indexer picks the tokens that latent attention reads."""
    keys.of_layers("layer_types", ("indexed_attention",))
    keys.ignore("index_share_for_mtp_iteration")
    tokens, sizes = keys.size("index_topk"), (keys.size("index_n_heads"), keys.size("index_head_dim"))
    picks = latent_attention(keys, selected=tokens, index_heads=sizes[0], index_dim=sizes[1])
    follows = latent_attention(keys, selected=tokens)
    mixers: list[Part] = [picks if own else follows for own in _own_indexers(keys)]
    return _latent(keys, mixed(keys, _dense_first(keys, 3), lambda: _corrected(keys)), mixers)


def _own_indexers(keys: Keys) -> list[bool]:
    """Which layers pick tokens themselves; the others take over the choice of the layer before (GLM-5.2)."""
    if (types := keys.of_layers("indexer_types", ("full", "shared"))) is not None:
        keys.ignore("index_topk_freq", "index_skip_topk_offset", "index_topk_pattern")
        return [kind == "full" for kind in types]
    if (pattern := keys.of_layers("index_topk_pattern", ("F", "S", "full", "shared"))) is not None:
        return [kind in ("F", "full") for kind in pattern]
    every, offset = keys.size("index_topk_freq", 1), keys.count("index_skip_topk_offset", 2)
    return [max(layer - offset + 1, 0) % every == 0 for layer in range(keys.layers())]


def kimi_linear(keys: Keys) -> dict[str, Any]:
    """Kimi-Linear: three layers of Kimi Delta Attention to one of latent attention."""
    keys.same("mla_use_nope", True)
    keys.ignore("linear_head_dim", "linear_num_heads", "linear_conv_kernel_dim")
    inside, layers = keys.nested("linear_attn_config"), keys.layers()
    types = keys.of_layers("layer_types", ("linear_attention", "full_attention"))
    linear = [layer + 1 in inside.indices("kda_layers") for layer in range(layers)]  # counted from 1
    inside.ignore("full_attn_layers")
    if types is not None:
        linear = [kind == "linear_attention" for kind in types]
    delta = delta_attention(
        keys.size("hidden_size"),
        heads=inside.size("num_heads", keys.size("linear_num_heads", 32)),
        head_dim=inside.size("head_dim", keys.size("linear_head_dim", 128)),
        kernel=inside.size("short_conv_kernel_size", keys.size("linear_conv_kernel_dim", 4)),
    )
    whole = latent_attention(keys)
    feeds = mixed(keys, _dense_first(keys, 1), lambda: _corrected(keys))
    found = blocks([(delta if here else whole,) for here in linear], [(feed,) for feed in feeds])
    return decoder(keys, found)


def glm4_moe(keys: Keys) -> dict[str, Any]:
    """GLM-4.5 to 4.7."""
    norm = QkNorm.SHARED if keys.flag("use_qk_norm") else QkNorm.NONE
    one = attention(keys, norm=norm, bias=keys.flag("attention_bias"))
    feeds = mixed(keys, _dense_first(keys, 1), lambda: _corrected(keys))
    return stacked(keys, [one] * keys.layers(), feeds)


def gpt_oss(keys: Keys) -> dict[str, Any]:
    """gpt-oss: biases everywhere, a sink in each head, a window in every other layer."""
    keys.ignore("experts_per_token")
    bias = keys.flag("attention_bias", True)
    found = windows(keys, lambda layer: layer % 2 == 0, 128)
    attentions = windowed(keys, found, bias=bias, output_bias=bias, sinks=True)
    routed = experts(keys, keys.size("intermediate_size"), bias=True, router_vectors=keys.size("num_experts"))
    return stacked(keys, attentions, [routed] * len(found))


def llama4(keys: Keys) -> dict[str, Any]:
    """Llama 4: a shared expert beside one of many, in every layer (Scout) or every other one (Maverick)."""
    layers, bias = keys.layers(), keys.flag("attention_bias")
    keys.ignore("for_llm_compressor", "use_qk_norm")  # that norm has no parameters
    step = keys.size("interleave_moe_layer_step", 1)
    routed = keys.indices("moe_layers", range(step - 1, layers, step))
    sparse = [layer in routed for layer in range(layers)]
    attentions = windowed(keys, _chunks(keys), bias=bias, output_bias=bias)
    size = keys.size("intermediate_size")
    feeds = mixed(keys, sparse, lambda: experts(keys, size, shared_size=size), "intermediate_size_mlp")
    return stacked(keys, attentions, feeds)


def _chunks(keys: Keys) -> list[int | None]:
    """Tokens that each layer looks back at, at most: a chunk, but all in every fourth layer, which has no positions."""
    chunk, layers = keys.nullable("attention_chunk_size", 8192), keys.layers()
    every = keys.size("no_rope_layer_interval", 4)
    rotated = keys.get("no_rope_layers") or [(layer + 1) % every for layer in range(layers)]  # 0: no positions
    if (types := keys.of_layers("layer_types", ("chunked_attention", "full_attention"))) is not None:
        rotated = [kind == "chunked_attention" for kind in types]
    if not isinstance(rotated, list) or len(rotated) != layers:
        raise ValueError(f"no_rope_layers is {rotated!r}, allowed is one entry for each of {layers} layers")
    return [chunk if here else None for here in rotated]


def minimax_m2(keys: Keys) -> dict[str, Any]:
    """MiniMax-M2: queries and keys are normalised over all heads."""
    keys.ignore("attn_type_list", "layernorm_full_attention_beta", "use_mtp", "mtp_transformer_layers")
    keys.ignore("mlp_intermediate_size", "shared_moe_mode")  # of dense and shared MLPs, which it has none of
    keys.same("shared_intermediate_size", 0)
    keys.same("qk_norm_type", "per_layer")
    keys.same("layer_types", ["full_attention"] * keys.layers())
    norm = QkNorm.EACH if keys.flag("use_qk_norm", True) else QkNorm.NONE
    corrections = keys.size("num_experts") if keys.flag("use_routing_bias", True) else 0
    routed = experts(keys, keys.size("intermediate_size"), router_vectors=corrections)
    return uniform(keys, attention(keys, norm=norm, window=keys.nullable("sliding_window")), routed)


def minimax(keys: Keys) -> dict[str, Any]:
    """MiniMax-Text-01 and M1: seven layers of lightning attention to one of softmax attention."""
    keys.same("shared_intermediate_size", 0)
    keys.same("shared_moe_mode", "sigmoid")
    keys.ignore("block_size", "layernorm_full_attention_beta", "max_model_len")
    layers = keys.layers()
    listed = keys.of_layers("attn_type_list", (0, 1))
    types = keys.of_layers("layer_types", ("linear_attention", "full_attention"))
    full = [layer % 2 == 0 for layer in range(layers)] if listed is None else [kind == 1 for kind in listed]
    full = full if types is None else [kind == "full_attention" for kind in types]
    whole, state = attention(keys, window=keys.nullable("sliding_window")), lightning_attention(keys)
    routed = experts(keys, keys.size("intermediate_size"))
    return decoder(keys, blocks([(whole if here else state,) for here in full], [(routed,)] * layers))


def phimoe(keys: Keys) -> dict[str, Any]:
    """Phi-3.5-MoE: LayerNorm, biases in attention and head."""
    bias = keys.flag("attention_bias")
    one = attention(keys, bias=bias, output_bias=bias, window=keys.nullable("sliding_window"))
    routed = experts(keys, keys.size("intermediate_size"))
    return uniform(keys, one, routed, norm=Norm.LAYERNORM, head_bias=keys.flag("lm_head_bias"))


def granitemoe(keys: Keys) -> dict[str, Any]:
    """Granite 3 with experts, with a shared one too if the configuration has its size."""
    bias = keys.flag("attention_bias")
    one = attention(keys, bias=bias, output_bias=bias)
    shared = keys.count("shared_intermediate_size")
    return uniform(keys, one, experts(keys, keys.size("intermediate_size"), shared_size=shared))


def ernie_moe(keys: Keys) -> dict[str, Any]:
    """ERNIE 4.5 with experts from ``moe_layer_start_index`` on."""
    layers, bias = keys.layers(), keys.flag("use_bias")
    keys.same("compression_ratio", 1.0)
    keys.same("use_rmsnorm", True)
    first, step = keys.count("moe_layer_start_index", 1), keys.size("moe_layer_interval", 1)
    last = keys.get("moe_layer_end_index", -1)
    last = layers - 1 if last == -1 else keys.count("moe_layer_end_index")
    sparse = [first <= layer <= last and (layer + 1) % step == 0 for layer in range(layers)]
    feeds = mixed(keys, sparse, lambda: _corrected(keys))
    one = attention(keys, bias=bias, output_bias=bias)
    return stacked(keys, [one] * layers, feeds, tied=True)


def hunyuan_moe(keys: Keys) -> dict[str, Any]:
    """Hunyuan-A13B: a shared expert beside the others in every layer."""
    hunyuan_keys(keys)
    keys.same("use_mixed_mlp_moe", True)
    keys.ignore("moe_layer_num_skipped", "moe_drop_tokens", "moe_random_routing_dropped_token")
    size = keys.size("intermediate_size")
    per_token = _alike(keys, "num_experts_per_tok", 1)
    keys.same(
        "moe_intermediate_size", [size] * keys.layers() if isinstance(keys.get("moe_intermediate_size"), list) else size
    )
    shared = size * _alike(keys, "n_shared_experts", 1)
    routed = Experts(count=keys.size("num_experts"), per_token=per_token, size=size, gated=True, shared_size=shared)
    bias = keys.flag("attention_bias")
    return uniform(keys, attention(keys, bias=bias, output_bias=bias, norm=QkNorm.SHARED), routed)


def _alike(keys: Keys, key: str, default: int) -> int:
    """A number that is given once or for each layer, but must be the same in all."""
    given = keys.get(key)
    if isinstance(given, list) and given and isinstance(given[0], int) and given.count(given[0]) == len(given):
        return int(given[0])
    return keys.size(key, default)


def dbrx(keys: Keys) -> dict[str, Any]:
    """DBRX: LayerNorm without shift."""
    inner, routed = keys.nested("attn_config"), keys.nested("ffn_config")
    for part in (inner, routed):
        part.ignore("model_type")
    heads = keys.size("num_attention_heads")
    one = SelfAttention(
        heads=heads, kv_heads=inner.size("kv_n_heads", 1), head_dim=keys.size("hidden_size") // heads or 1
    )  # fmt: skip
    keys.ignore("num_key_value_heads")
    routed.ignore("hidden_size", "ffn_act_fn")
    feed = Experts(
        count=routed.size("moe_num_experts"),
        per_token=routed.size("moe_top_k"),
        size=routed.size("ffn_hidden_size"),
        gated=True,
    )
    return uniform(keys, one, feed, norm=Norm.LAYERNORM, norm_shift=False)


def moe_feed(keys: Keys) -> Mlp | Experts:
    """Granite 4: experts beside a shared one, or the shared one alone."""
    shared = keys.size("shared_intermediate_size")
    if not keys.count("num_experts"):
        keys.ignore("num_experts_per_tok", "intermediate_size")
        return gated_mlp(keys, "shared_intermediate_size")
    return experts(keys, keys.size("intermediate_size"), shared_size=shared)
