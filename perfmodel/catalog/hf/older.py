"""Families of 2019 to early 2024: learned or ALiBi positions, MLPs of two matrices, attention and MLP side by side."""

from __future__ import annotations

from typing import Any

from perfmodel.catalog.arguments import shown, whole_number
from perfmodel.catalog.decoder import Mlp, Norm, SelfAttention
from perfmodel.catalog.hf.families import decoder, uniform
from perfmodel.catalog.hf.keys import Keys
from perfmodel.catalog.hf.mixers import QkNorm, attention, blocks, gated_mlp

_KINDS = ("global", "local")  # of GPT-Neo's layers


def _two_matrices(keys: Keys, size: str, *, bias: bool) -> Mlp:
    """Inner values, four times the hidden size if the configuration does not say."""
    return Mlp(size=keys.size(size, 4 * keys.size("hidden_size")), gated=False, bias=bias)


def _alike(
    keys: Keys, one: SelfAttention, mlp: Mlp, *, norms: int = 2, parallel: bool = False, **more: Any
) -> dict[str, Any]:
    """Layers of one kind, LayerNorm."""
    layers = keys.layers()
    found = blocks([(one,)] * layers, [(mlp,)] * layers, norms=norms, parallel=parallel)
    return decoder(keys, found, **({"norm": Norm.LAYERNORM} | more))


def opt(keys: Keys) -> dict[str, Any]:
    """OPT: biases everywhere, learned positions; the 350M has norms after its parts and narrow embeddings."""
    bias, pre_norm = keys.flag("enable_bias", True), keys.flag("do_layer_norm_before", True)
    keys.same("layer_norm_elementwise_affine", True)
    one = attention(keys, grouped=False, bias=bias, output_bias=bias)
    mlp = Mlp(size=keys.size("ffn_dim"), gated=False, bias=bias)
    last = pre_norm and not keys.flag("_remove_final_layer_norm")
    return _alike(
        keys,
        one,
        mlp,
        tied=True,
        embedding_size=keys.size("word_embed_proj_dim", keys.size("hidden_size")),
        learned_positions=keys.size("max_position_embeddings") + 2,  # the table starts at an offset of 2
        final_norms=int(last),
    )


def gpt_neox(keys: Keys) -> dict[str, Any]:
    """GPT-NeoX, Pythia: attention and MLP read the same input unless switched off; each has a norm."""
    bias = keys.flag("attention_bias", True)
    one = attention(keys, grouped=False, bias=bias, output_bias=bias)
    mlp = Mlp(size=keys.size("intermediate_size"), gated=False, bias=True)
    return _alike(keys, one, mlp, parallel=keys.flag("use_parallel_residual", True))


def gpt2(keys: Keys) -> dict[str, Any]:
    """GPT-2: learned positions, tied embeddings."""
    one = attention(keys, grouped=False, bias=True, output_bias=True)
    positions = keys.size("max_position_embeddings")
    return _alike(keys, one, _two_matrices(keys, "n_inner", bias=True), tied=True, learned_positions=positions)


def gpt_bigcode(keys: Keys) -> dict[str, Any]:
    """SantaCoder, StarCoder: as GPT-2; all heads share keys and values."""
    heads = keys.size("num_attention_heads")
    shared = keys.flag("multi_query", True)
    keys.ignore("num_key_value_heads", "attention_softmax_in_fp32")
    sizes: dict[str, Any] = {
        "heads": heads,
        "kv_heads": 1 if shared else heads,
        "head_dim": keys.size("hidden_size") // heads or 1,
    }
    one = SelfAttention(**sizes, bias=True, output_bias=True)
    positions = keys.size("max_position_embeddings")
    return _alike(keys, one, _two_matrices(keys, "n_inner", bias=True), tied=True, learned_positions=positions)


def gptj(keys: Keys) -> dict[str, Any]:
    """GPT-J, CodeGen: one norm for attention and MLP side by side; biases in MLP and head."""
    one, mlp = attention(keys, grouped=False), _two_matrices(keys, "n_inner", bias=True)
    return _alike(keys, one, mlp, norms=1, parallel=True, head_bias=True)


def gpt_neo(keys: Keys) -> dict[str, Any]:
    """GPT-Neo: a window in every other layer; a bias after attention but none before."""
    layers, window = keys.layers(), keys.size("window_size", 256)
    spelled = keys.get("attention_types", [[["global", "local"], layers // 2 or 1]])
    kinds = keys.of_layers("attention_layers", _KINDS) or _spelled(spelled, layers)
    attentions = [
        (attention(keys, grouped=False, output_bias=True, window=window if kind == "local" else None),)
        for kind in kinds
    ]
    mlp = _two_matrices(keys, "intermediate_size", bias=True)
    positions = keys.size("max_position_embeddings")
    found = blocks(attentions, [(mlp,)] * layers)
    return decoder(keys, found, tied=True, norm=Norm.LAYERNORM, learned_positions=positions)


def _spelled(given: Any, layers: int) -> tuple[str, ...]:
    """Kinds of ``layers`` as GPT-Neo spells them: patterns, and how many times each."""
    try:
        patterns = [(list(pattern), whole_number("times", times, high=layers)) for pattern, times in given]
        known = all(kind in _KINDS for pattern, _ in patterns for kind in pattern)
    except (TypeError, ValueError):
        known = False
    if not known:
        raise ValueError(f"attention_types is {shown(given)}, allowed are pairs of kinds and how many times they come")
    count = sum(len(pattern) * times for pattern, times in patterns)
    if count != layers:
        raise ValueError(f"attention_types spells {count} layers, allowed are {layers}")
    return tuple(kind for pattern, times in patterns for kind in pattern * times)


def bloom(keys: Keys) -> dict[str, Any]:
    """BLOOM: ALiBi, a norm after the embeddings, which are tied."""
    one = attention(keys, grouped=False, bias=True, output_bias=True)
    mlp = _two_matrices(keys, "n_inner", bias=True)
    return _alike(keys, one, mlp, tied=True, final_norms=2, positions=2048)


def mpt(keys: Keys) -> dict[str, Any]:
    """MPT: ALiBi, no biases, LayerNorm without shift, tied embeddings."""
    inside = keys.nested("attn_config")
    for key, only in (("alibi", True), ("qk_ln", False), ("attn_type", "multihead_attention"), ("prefix_lm", False)):
        inside.same(key, only)
    inside.ignore("attn_uses_sequence_id", "attn_impl")
    for key, only in (("no_bias", True), ("norm_type", "low_precision_layernorm")):
        keys.same(key, only)
    keys.ignore("learned_pos_emb", "embedding_fraction", "verbose")
    one = attention(keys, grouped=False)
    mlp = Mlp(size=keys.size("expansion_ratio", 4) * keys.size("hidden_size"), gated=False)
    return _alike(keys, one, mlp, tied=True, norm_shift=False)


def phi(keys: Keys) -> dict[str, Any]:
    """Phi 1 to 2: one norm for attention and MLP side by side; biases everywhere."""
    normalised = keys.flag("qk_layernorm")
    one = attention(keys, bias=True, output_bias=True)
    if normalised:
        one = attention(keys, bias=True, output_bias=True, scales=4 * one.head_dim)
    mlp = _two_matrices(keys, "intermediate_size", bias=True)
    return _alike(keys, one, mlp, norms=1, parallel=True, head_bias=True)


def falcon(keys: Keys) -> dict[str, Any]:
    """Falcon: 7B shares keys and values among all heads, 40B and 180B among groups; attention and MLP side by side."""
    heads, bias = keys.size("num_attention_heads"), keys.flag("bias")
    new, parallel = keys.flag("new_decoder_architecture"), keys.flag("parallel_attn", True)
    groups = keys.size("num_kv_heads", heads)
    kv_heads = groups if new else 1 if keys.flag("multi_query", True) else heads
    norms = keys.size("num_ln_in_parallel_attn", 2) if new else 1 if parallel else 2
    keys.ignore("n_head_kv", "rotary", "num_ln_in_parallel_attn", "multi_query")
    head_dim = keys.size("hidden_size") // heads or 1
    one = SelfAttention(heads=heads, kv_heads=kv_heads, head_dim=head_dim, bias=bias, output_bias=bias)
    mlp = _two_matrices(keys, "ffn_hidden_size", bias=bias)
    return _alike(keys, one, mlp, norms=norms, parallel=parallel or new, tied=True, positions=2048)


def starcoder2(keys: Keys) -> dict[str, Any]:
    """StarCoder 2: biases everywhere, MLPs of two matrices, tied embeddings."""
    bias = keys.flag("use_bias", True)
    keys.same("mlp_type", "default")
    keys.same("norm_type", "layer_norm")
    one = attention(keys, bias=bias, output_bias=bias, window=keys.nullable("sliding_window"))
    mlp = Mlp(size=keys.size("intermediate_size"), gated=False, bias=bias)
    return uniform(keys, one, mlp, norm=Norm.LAYERNORM, tied=True)


def stablelm(keys: Keys) -> dict[str, Any]:
    """StableLM: LayerNorm; the 12B reads the same input in attention and MLP."""
    parallel = keys.flag("use_parallel_residual")
    norm = QkNorm.EACH if keys.flag("qk_layernorm") else QkNorm.NONE
    one = attention(keys, bias=keys.flag("use_qkv_bias"), norm=norm)
    layers = [(one,)] * keys.layers()
    found = blocks(layers, [(gated_mlp(keys),)] * len(layers), norms=1 if parallel else 2, parallel=parallel)
    return decoder(keys, found, norm=Norm.LAYERNORM)
