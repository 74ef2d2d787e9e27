"""Families with state-space layers, alone or beside attention."""

from __future__ import annotations

from typing import Any

from perfmodel.catalog.decoder import Block, Experts, Mlp, Part, Recurrent
from perfmodel.catalog.hf.experts import moe_feed
from perfmodel.catalog.hf.families import decoder
from perfmodel.catalog.hf.keys import UNLIMITED, Keys
from perfmodel.catalog.hf.mixers import QkNorm, attention, blocks, experts, gated_mlp, mamba, mamba2, short_convolution

_LINEAR = ("mamba", "linear_attention")
_ATTENTION = ("attention", "full_attention")


def _rank(keys: Keys, key: str) -> int:
    """Inner size of the projection of a Mamba layer's step, a sixteenth of the hidden size if it is "auto"."""
    automatic = -(-keys.size("hidden_size") // 16)
    return automatic if keys.get(key) == "auto" else keys.size(key, automatic)


def plain_mamba(keys: Keys, scales: int = 0) -> dict[str, Any]:
    """Mamba: layers of one part and one norm."""
    keys.ignore("d_model", "d_inner", "n_layer", "ssm_cfg", "fused_add_norm", "pad_vocab_size_multiple", "rms_norm")
    inner = keys.size("intermediate_size", keys.size("expand", 2) * keys.size("hidden_size"))
    part = mamba(
        keys,
        inner=inner,
        state=keys.size("state_size"),
        rank=_rank(keys, "time_step_rank"),
        kernel=keys.size("conv_kernel", 4),
        conv_bias=keys.flag("use_conv_bias", True),
        bias=keys.flag("use_bias"),
        scales=scales,
    )
    return decoder(keys, (Block(count=keys.layers(), parts=(part,), norms=1),), tied=True, positions=UNLIMITED)


def falcon_mamba(keys: Keys) -> dict[str, Any]:
    """Falcon-Mamba: as Mamba; the norms inside have no parameters."""
    keys.ignore("mixer_rms_eps")
    return plain_mamba(keys)


def plain_mamba2(keys: Keys) -> dict[str, Any]:
    """Mamba-2."""
    keys.ignore("time_step_rank", "expand", "use_cache", "rms_norm")
    keys.same("intermediate_size", keys.size("num_heads") * keys.size("head_dim"))
    part = mamba2(
        keys,
        heads=keys.size("num_heads"),
        head_dim=keys.size("head_dim"),
        groups=keys.size("n_groups"),
        state=keys.size("state_size"),
        kernel=keys.size("conv_kernel", 4),
        conv_bias=keys.flag("use_conv_bias", True),
        bias=keys.flag("use_bias"),
        norm=True,
    )
    return decoder(keys, (Block(count=keys.layers(), parts=(part,), norms=1),), positions=UNLIMITED)


def _mamba2_inside(keys: Keys, inner: int, *, norm: bool = True, **more: bool) -> Recurrent:
    """Mamba-2 by the keys that hybrids share; ``inner`` values are split among the heads."""
    heads = keys.size("mamba_n_heads", 128)
    keys.ignore("mamba_d_head")
    given = keys.get("mamba_d_head", "auto")
    head_dim = inner // heads or 1 if given == "auto" else keys.size("mamba_d_head")
    return mamba2(
        keys,
        heads=heads,
        head_dim=head_dim,
        groups=keys.size("mamba_n_groups", 1),
        state=keys.size("mamba_d_state", 256),
        kernel=keys.size("mamba_d_conv", 4),
        conv_bias=keys.flag("mamba_conv_bias", True),
        bias=keys.flag("mamba_proj_bias"),
        norm=norm,
        **more,
    )


def _expanded(keys: Keys) -> int:
    return keys.size("mamba_expand", 2) * keys.size("hidden_size")


def jamba(keys: Keys) -> dict[str, Any]:
    """Jamba: attention in every eighth layer, Mamba in the others; experts in every other layer."""
    layers, state, rank = keys.layers(), keys.size("mamba_d_state", 16), _rank(keys, "mamba_dt_rank")
    whole = attention(keys, window=keys.nullable("sliding_window"))
    part = mamba(
        keys,
        inner=_expanded(keys),
        state=state,
        rank=rank,
        kernel=keys.size("mamba_d_conv", 4),
        conv_bias=keys.flag("mamba_conv_bias", True),
        bias=keys.flag("mamba_proj_bias"),
        scales=rank + 2 * state,  # norms of what makes up the step and the state
    )
    keys.same("mamba_inner_layernorms", True)
    mixers = [whole if _at(keys, "attn", layer, 8, 4) else part for layer in range(layers)]
    routed: Part = gated_mlp(keys)
    if keys.size("num_experts", 16) > 1:
        routed = experts(keys, keys.size("intermediate_size"))
    keys.ignore("num_experts_per_tok")
    feeds = [routed if _at(keys, "expert", layer, 2, 1) else gated_mlp(keys) for layer in range(layers)]
    return decoder(keys, blocks([(mixer,) for mixer in mixers], [(feed,) for feed in feeds]), positions=262_144)


def _at(keys: Keys, kind: str, layer: int, period: int, offset: int) -> bool:
    period = keys.size(f"{kind}_layer_period", period)
    return layer % period == keys.count(f"{kind}_layer_offset", offset)


def bamba(keys: Keys) -> dict[str, Any]:
    """Bamba: Mamba-2, and attention in the layers that ``attn_layer_indices`` names."""
    layers, bias = keys.layers(), keys.flag("attention_bias")
    whole, state = attention(keys, bias=bias, output_bias=bias), _mamba2_inside(keys, _expanded(keys))
    named = keys.indices("attn_layer_indices")
    mixers = [(whole if layer in named else state,) for layer in range(layers)]
    feed = gated_mlp(keys, bias=keys.flag("mlp_bias"))
    return decoder(keys, blocks(mixers, [(feed,)] * layers), positions=262_144)


def granitemoehybrid(keys: Keys) -> dict[str, Any]:
    """Granite 4: Mamba-2 in most layers, attention in the others, experts or one MLP in all."""
    layers, bias = keys.layers(), keys.flag("attention_bias")
    keys.ignore("normalization_function", "mlp_bias")
    types = keys.of_layers("layer_types", (*_LINEAR, *_ATTENTION)) or ("mamba",) * layers
    whole, state = attention(keys, bias=bias, output_bias=bias), _mamba2_inside(keys, _expanded(keys))
    return decoder(
        keys, blocks([(whole if kind in _ATTENTION else state,) for kind in types], [(moe_feed(keys),)] * layers)
    )


def falcon_h1(keys: Keys) -> dict[str, Any]:
    """Falcon-H1: attention and Mamba-2 side by side in every layer, then an MLP."""
    layers, bias = keys.layers(), keys.flag("attention_bias")
    keys.same("projectors_bias", False)
    keys.ignore("attn_layer_indices", "mamba_use_mlp")
    inner = keys.size("mamba_d_ssm", _expanded(keys))
    mixer = (
        attention(keys, bias=bias, output_bias=bias),
        _mamba2_inside(keys, inner, norm=keys.flag("mamba_rms_norm"), output_bias=False),
    )
    return decoder(keys, blocks([mixer] * layers, [(gated_mlp(keys, bias=keys.flag("mlp_bias")),)] * layers))


_NEMOTRON = {
    "M": "M", "*": "*", "-": "-", "E": "E", "mamba": "M", "linear_attention": "M", "attention": "*",
    "full_attention": "*", "mlp": "-", "moe": "E",
}  # fmt: skip


def nemotron_h(keys: Keys) -> dict[str, Any]:
    """Nemotron-H, Nemotron-Nano 2 and 3: layers of one part each, as ``hybrid_override_pattern`` spells them."""
    pattern = keys.get("hybrid_override_pattern") or keys.get("layers_block_type")
    if pattern is None:
        raise KeyError("hybrid_override_pattern")
    if not isinstance(pattern, str | list):
        raise ValueError(f"hybrid_override_pattern is {pattern!r}, allowed are M, *, -, E, one for each layer")
    for kind in pattern:
        if not isinstance(kind, str) or kind not in _NEMOTRON:
            raise ValueError(f"hybrid_override_pattern holds {kind!r}, allowed are M, *, -, E")
    if "num_hidden_layers" in keys and len(pattern) != keys.layers():
        raise ValueError(f"hybrid_override_pattern has {len(pattern)} entries, allowed are {keys.layers()}")
    kinds = [_NEMOTRON[kind] for kind in pattern]
    found = tuple(
        Block(count=kinds.count(kind), parts=(_nemotron_part(keys, kind),), norms=1) for kind in dict.fromkeys(kinds)
    )
    if "E" not in kinds:
        keys.ignore("num_experts", "num_experts_per_tok", "n_shared_experts", "moe_intermediate_size")
        keys.ignore("moe_shared_expert_intermediate_size")
    keys.ignore("mamba_expand", "expand", "intermediate_size", "mlp_bias", "attention_head_dim", "sliding_window")
    keys.ignore("mamba_num_groups", "mtp_layers_block_type", "mtp_hybrid_override_pattern")
    return decoder(keys, found)


def _nemotron_part(keys: Keys, kind: str) -> Part:
    bias = keys.flag("mlp_bias")
    if kind == "*":
        with_bias = keys.flag("attention_bias")
        return attention(keys, bias=with_bias, output_bias=with_bias)
    if kind == "-":
        return Mlp(size=keys.size("intermediate_size"), gated=False, bias=bias)
    if kind == "E":
        return _nemotron_experts(keys, bias=bias)
    return mamba2(
        keys,
        heads=keys.size("mamba_num_heads"),
        head_dim=keys.size("mamba_head_dim"),
        groups=keys.size("n_groups"),
        state=keys.size("ssm_state_size"),
        kernel=keys.size("conv_kernel", 4),
        conv_bias=keys.flag("use_conv_bias", True),
        bias=keys.flag("mamba_proj_bias", keys.flag("use_bias")),
        norm=True,
    )


def _nemotron_experts(keys: Keys, *, bias: bool) -> Experts:
    shared = keys.count("n_shared_experts", 1) * keys.size("moe_shared_expert_intermediate_size")
    return experts(
        keys,
        keys.size("moe_intermediate_size"),
        gated=False,
        bias=bias,
        shared_size=shared,
        router_vectors=keys.size("num_experts"),
    )


def lfm2(keys: Keys) -> dict[str, Any]:
    """LFM2: gated short convolutions, and attention with normalised queries and keys in some layers."""
    layers = keys.layers()
    types = keys.of_layers("layer_types", ("conv", "full_attention"))
    named = keys.indices("full_attn_idxs", range(layers))
    full = [layer in named for layer in range(layers)] if types is None else [kind != "conv" for kind in types]
    whole, part = attention(keys, norm=QkNorm.SHARED), short_convolution(keys)
    keys.ignore("conv_dim", "conv_dim_out", "block_mlp_init_scale", "block_norm_eps", "block_out_init_scale")
    keys.same("conv_use_xavier_init", True)
    keys.same("block_use_swiglu", True)
    keys.same("block_use_xavier_init", True)
    keys.same("use_pos_enc", True)
    keys.same("block_dim", keys.size("hidden_size"))
    mlp = Mlp(size=_lfm2_size(keys), gated=True)
    tied = keys.flag("tie_embedding", True)
    return decoder(keys, blocks([(whole if here else part,) for here in full], [(mlp,)] * layers), tied=tied)


def _lfm2_size(keys: Keys) -> int:
    """Inner size of the MLP: two thirds of the one stated, scaled and rounded up, unless that is switched off."""
    size = keys.size("block_ff_dim", keys.size("intermediate_size", 12_288))
    multiple, factor = keys.size("block_multiple_of", 256), keys.get("block_ffn_dim_multiplier", 1.0)
    if not keys.flag("block_auto_adjust_ff_dim", True):
        return size
    if not isinstance(factor, int | float) or isinstance(factor, bool) or not 0 < factor < 1e6:
        raise ValueError(f"block_ffn_dim_multiplier is {factor!r}, allowed is a positive number")
    size = int(factor * int(2 * size / 3))
    return multiple * -(-size // multiple)
