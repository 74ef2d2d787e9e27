"""Which matrix of a decoder is a tensor, or a module, of a checkpoint?

Checkpoints name what they hold by the modules of their model class; `decoder` has one name for the same matrix in all
of them, and one matrix for what engines multiply at once (Q, K and V; gate and up-projection). Only the last words of a
name count, so prefixes of wrappers do no harm; towers for images and sound are told by theirs.
"""

from __future__ import annotations

import re

from perfmodel.catalog.decoder import (
    ATTENTION_OUTPUT,
    EXPERTS_IN,
    EXPERTS_OUT,
    INDEXER,
    LATENT_DOWN,
    LATENT_UP,
    LM_HEAD,
    MLP_IN,
    MLP_OUT,
    QKV,
    QUERY,
    ROUTER,
    SHARED_IN,
    SHARED_OUT,
    Decoder,
)

# As `mixers` calls a recurrence's matrices.
RECURRENT_IN, RECURRENT_GATES, RECURRENT_OUT = "recurrent-in", "recurrent-gates", "recurrent-out"

# Modules of one layer that hold a matrix together, as the common families spell them; `matrix_of` knows more.
MODULES: dict[str, tuple[tuple[str, ...], ...]] = {
    QKV: (
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        ("self_attn.qkv_proj",),
        ("attention.query_key_value",),
        ("self_attention.query_key_value",),
        ("attn.c_attn",),
        ("attn.Wqkv",),
        ("attn.q_proj", "attn.k_proj", "attn.v_proj"),
        ("attention.wqkv",),
        ("mixer.q_proj", "mixer.k_proj", "mixer.v_proj"),
    ),
    ATTENTION_OUTPUT: (
        ("self_attn.o_proj",),
        ("self_attn.out_proj",),
        ("self_attn.dense",),
        ("attention.dense",),
        ("self_attention.dense",),
        ("attn.c_proj",),
        ("attn.out_proj",),
        ("attention.wo",),
        ("mixer.o_proj",),
    ),
    LATENT_DOWN: (("self_attn.q_a_proj", "self_attn.kv_a_proj_with_mqa"), ("self_attn.fused_qkv_a_proj",)),
    QUERY: (("self_attn.q_b_proj",), ("self_attn.q_proj",)),
    LATENT_UP: (("self_attn.kv_b_proj",),),
    MLP_IN: (
        ("mlp.gate_proj", "mlp.up_proj"),
        ("mlp.gate_up_proj",),
        ("feed_forward.gate_proj", "feed_forward.up_proj"),
        ("mlp.dense_h_to_4h",),
        ("mlp.c_fc",),
        ("mlp.fc1",),
        ("fc1",),
        ("mlp.fc_in",),
        ("ffn.up_proj",),
        ("feed_forward.w1", "feed_forward.w3"),
        ("mixer.up_proj",),
    ),
    MLP_OUT: (
        ("mlp.down_proj",),
        ("feed_forward.down_proj",),
        ("mlp.dense_4h_to_h",),
        ("mlp.c_proj",),
        ("mlp.fc2",),
        ("fc2",),
        ("mlp.fc_out",),
        ("ffn.down_proj",),
        ("feed_forward.w2",),
        ("mixer.down_proj",),
    ),
    EXPERTS_IN: (
        ("mlp.experts.0.gate_proj", "mlp.experts.0.up_proj"),
        ("mlp.experts.gate_up_proj",),
        ("block_sparse_moe.experts.0.w1", "block_sparse_moe.experts.0.w3"),
        ("feed_forward.experts.gate_up_proj",),
        ("feed_forward.experts.0.gate_proj", "feed_forward.experts.0.up_proj"),
        ("mixer.experts.0.up_proj",),
    ),
    EXPERTS_OUT: (
        ("mlp.experts.0.down_proj",),
        ("mlp.experts.down_proj",),
        ("block_sparse_moe.experts.0.w2",),
        ("feed_forward.experts.down_proj",),
        ("feed_forward.experts.0.down_proj",),
        ("mixer.experts.0.down_proj",),
    ),
    SHARED_IN: (
        ("mlp.shared_experts.gate_proj", "mlp.shared_experts.up_proj"),
        ("mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj"),
        ("feed_forward.shared_expert.gate_proj", "feed_forward.shared_expert.up_proj"),
        ("shared_mlp.input_linear",),
        ("mixer.shared_experts.up_proj",),
    ),
    SHARED_OUT: (
        ("mlp.shared_experts.down_proj",),
        ("mlp.shared_expert.down_proj",),
        ("feed_forward.shared_expert.down_proj",),
        ("shared_mlp.output_linear",),
        ("mixer.shared_experts.down_proj",),
    ),
    RECURRENT_IN: (
        ("linear_attn.in_proj_qkvz",),
        ("linear_attn.in_proj_qkv", "linear_attn.in_proj_z"),
        ("mamba.in_proj",),
        ("mixer.in_proj",),
        ("conv.in_proj",),
    ),
    RECURRENT_OUT: (("linear_attn.out_proj",), ("mamba.out_proj",), ("mixer.out_proj",), ("conv.out_proj",)),
    LM_HEAD: (("lm_head",), ("embed_out",), ("output",)),
}
# What comes before a layer's modules; an empty one is for the modules outside layers.
PREFIXES = (
    "model.layers.", "model.language_model.layers.", "language_model.model.layers.", "language_model.layers.",
    "transformer.h.", "model.decoder.layers.", "gpt_neox.layers.", "transformer.blocks.", "backbone.layers.",
    "llm.model.layers.",
)  # fmt: skip

_LAYER = re.compile(r"(?:^|\.)(?:layers|layer|blocks|block|h)\.(\d+)(?:\.|$)")
# Parts of a checkpoint that are no part of its language model: towers for images and sound, drafts of next tokens.
_ELSEWHERE = re.compile(
    r"(?:^|\.)(?:vis(?:ion|ual)\w*|\w*_vision\w*|img_\w+|audio\w*|\w*_audio\w*|multi_modal\w*|mm_\w+|mtp\w*|eagle\w*)(?:\.|$)"
)
_TENSOR = re.compile(r"(?:\.(?:weight|qweight|weight_packed)|_blocks)$")

_DIRECT = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj", "qkv_proj", "query_key_value", "c_attn", "Wqkv", "wqkv"), QKV),
    **dict.fromkeys(("wq", "wk", "wv", "W_pack", "qkv"), QKV),
    **dict.fromkeys(("o_proj", "wo"), ATTENTION_OUTPUT),
    **dict.fromkeys(("q_a_proj", "kv_a_proj_with_mqa", "kv_a_proj", "fused_qkv_a_proj"), LATENT_DOWN),
    "q_b_proj": QUERY,
    "kv_b_proj": LATENT_UP,
    **dict.fromkeys(("gate", "router"), ROUTER),
    **dict.fromkeys(("in_proj", "in_proj_qkvz", "in_proj_qkv", "in_proj_z"), RECURRENT_IN),
    **dict.fromkeys(("in_proj_ba", "in_proj_a", "in_proj_b"), RECURRENT_GATES),
    "x_proj": "recurrent-parameters",
    "dt_proj": "recurrent-step",
}
_INPUTS = {
    "gate_proj",
    "up_proj",
    "gate_up_proj",
    "w1",
    "w3",
    "v1",
    "fc1",
    "fc_in",
    "c_fc",
    "dense_h_to_4h",
    "input_linear",
}
_OUTPUTS = {"down_proj", "w2", "fc2", "fc_out", "c_proj", "dense_4h_to_h", "output_linear"}
_RECURRENCES = {"linear_attn", "mamba", "mixer", "ssm", "conv"}
_HEADS = {"lm_head", "embed_out", "output", "output_layer"}


def elsewhere(name: str) -> bool:
    """Whether a tensor belongs to something beside the language model: a vision tower, a draft head."""
    return bool(_ELSEWHERE.search(name))


def layer_of(name: str) -> int | None:
    """Number of the layer a tensor or module is in, from 0; None outside layers.

    Examples
    --------
    >>> layer_of("model.layers.31.mlp.down_proj.weight"), layer_of("lm_head.weight")
    (31, None)
    """
    found = _LAYER.search(name)
    return int(found[1]) if found else None


def matrix_of(name: str) -> tuple[int | None, str] | None:
    """Layer and matrix that a tensor or module belongs to; None for what is no matrix of a decoder.

    Embeddings, norms, biases, scales and zero points are none. ``q_proj`` is said to belong to Q, K and V, also
    where latent attention does not squeeze its queries and the module makes them alone.

    Examples
    --------
    >>> matrix_of("model.layers.3.mlp.experts.17.gate_proj.weight")
    (3, 'experts-in')
    >>> matrix_of("transformer.h.0.attn.c_proj"), matrix_of("lm_head"), matrix_of("model.layers.3.mlp.gate_proj.bias")
    ((0, 'attention-output'), (None, 'lm-head'), None)
    """
    if elsewhere(name):
        return None
    bare = _TENSOR.sub("", name)
    found = _LAYER.search(bare)
    if found is None and (bare.split(".")[-1] in _HEADS):
        return None, LM_HEAD
    words = [word for word in bare[found.end() if found else 0 :].split(".") if not word.isdigit()]
    matrix = _matrix(words) if words else None
    return None if matrix is None else (int(found[1]) if found else None, matrix)


def matrix_counts(shape: Decoder) -> dict[str, int]:
    """In how many layers each matrix of ``shape`` is."""
    counts: dict[str, int] = {}
    for block in shape.blocks:
        for name in {product.name: None for product in block.products(shape.hidden_size)}:
            counts[name] = counts.get(name, 0) + block.count
    return counts


def matrix_weights(shape: Decoder) -> dict[str, int]:
    """Weights of each matrix of ``shape``, all layers and experts together."""
    weights: dict[str, int] = {}
    for block in shape.blocks:
        for product in block.products(shape.hidden_size):
            weights[product.name] = weights.get(product.name, 0) + block.count * product.weights
    return weights


def _matrix(words: list[str]) -> str | None:
    """Matrix of the last of ``words``, which are those of a module inside a layer."""
    *parents, leaf = words
    if "indexer" in parents:
        return {"wq_b": f"{INDEXER}-query", "wk": INDEXER, "weights_proj": INDEXER}.get(leaf)
    if parents and parents[-1] in ("router", "gate") and leaf in ("layer", "wg", "proj"):
        return ROUTER
    if leaf in _DIRECT:
        return _DIRECT[leaf]
    if any("attn" in word or "attention" in word for word in parents) or leaf == "out_proj":
        recurrent = not _RECURRENCES.isdisjoint(parents)
        output = RECURRENT_OUT if recurrent else ATTENTION_OUTPUT
        return output if leaf in ("out_proj", "c_proj", "dense") else None
    return _inner(parents, leaf)


def _inner(parents: list[str], leaf: str) -> str | None:
    """Matrix of an MLP or of experts."""
    into = leaf in _INPUTS or (leaf == "w2" and parents[-1:] == ["mlp"] and "experts" not in parents)  # Qwen 1
    if not into and leaf not in _OUTPUTS:
        return None
    if any(word.startswith(("shared_expert", "shared_mlp")) for word in parents):
        return SHARED_IN if into else SHARED_OUT
    if "experts" in parents or "block_sparse_moe" in parents:
        return EXPERTS_IN if into else EXPERTS_OUT
    return MLP_IN if into else MLP_OUT
