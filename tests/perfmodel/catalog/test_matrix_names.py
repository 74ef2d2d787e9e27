"""Tensor names of the common families, and of what is no matrix."""

from __future__ import annotations

import pytest

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
)
from perfmodel.catalog.hf import mixers
from perfmodel.catalog.matrix_names import (
    MODULES,
    PREFIXES,
    RECURRENT_GATES,
    RECURRENT_IN,
    RECURRENT_OUT,
    elsewhere,
    matrix_counts,
    matrix_of,
)
from tests.perfmodel.catalog.shapes import deepseek_v3

NAMES = {
    # Llama, Mistral, Qwen
    "model.layers.0.self_attn.q_proj.weight": (0, QKV),
    "model.layers.31.self_attn.k_proj.qweight": (31, QKV),
    "model.layers.31.self_attn.v_proj": (31, QKV),
    "model.layers.31.self_attn.qkv_proj.weight": (31, QKV),
    "model.layers.7.self_attn.o_proj.weight_packed": (7, ATTENTION_OUTPUT),
    "model.layers.7.mlp.gate_proj.weight": (7, MLP_IN),
    "model.layers.7.mlp.up_proj.weight": (7, MLP_IN),
    "model.layers.7.mlp.gate_up_proj.weight": (7, MLP_IN),
    "model.layers.7.mlp.down_proj.weight": (7, MLP_OUT),
    "lm_head.weight": (None, LM_HEAD),
    "language_model.lm_head.weight": (None, LM_HEAD),
    # within wrappers
    "model.language_model.layers.5.mlp.down_proj.weight": (5, MLP_OUT),
    "language_model.model.layers.5.mlp.down_proj.weight": (5, MLP_OUT),
    # experts
    "model.layers.3.mlp.experts.12.gate_proj.weight": (3, EXPERTS_IN),
    "model.layers.3.mlp.experts.12.down_proj.weight": (3, EXPERTS_OUT),
    "model.layers.3.mlp.experts.gate_up_proj_blocks": (3, EXPERTS_IN),
    "model.layers.3.mlp.experts.down_proj": (3, EXPERTS_OUT),
    "model.layers.3.block_sparse_moe.experts.7.w1.weight": (3, EXPERTS_IN),
    "model.layers.3.block_sparse_moe.experts.7.w2.weight": (3, EXPERTS_OUT),
    "model.layers.3.block_sparse_moe.experts.7.w3.weight": (3, EXPERTS_IN),
    "model.layers.3.block_sparse_moe.gate.weight": (3, ROUTER),
    "model.layers.3.block_sparse_moe.router.layer.weight": (3, ROUTER),
    "model.layers.3.mlp.gate.weight": (3, ROUTER),
    "model.layers.3.mlp.router.weight": (3, ROUTER),
    "model.layers.3.feed_forward.router.weight": (3, ROUTER),
    "model.layers.3.feed_forward.experts.gate_up_proj": (3, EXPERTS_IN),
    "model.layers.3.feed_forward.shared_expert.down_proj.weight": (3, SHARED_OUT),
    "model.layers.3.mlp.shared_experts.gate_proj.weight": (3, SHARED_IN),
    "model.layers.3.mlp.shared_expert.up_proj.weight": (3, SHARED_IN),
    "model.layers.3.shared_mlp.output_linear.weight": (3, SHARED_OUT),
    "transformer.blocks.3.ffn.experts.mlp.w2": (3, EXPERTS_OUT),
    # DeepSeek
    "model.layers.60.self_attn.q_a_proj.weight": (60, LATENT_DOWN),
    "model.layers.60.self_attn.kv_a_proj_with_mqa.weight": (60, LATENT_DOWN),
    "model.layers.60.self_attn.q_b_proj.weight": (60, QUERY),
    "model.layers.60.self_attn.kv_b_proj.weight": (60, LATENT_UP),
    "model.layers.60.self_attn.indexer.wq_b.weight": (60, f"{INDEXER}-query"),
    "model.layers.60.self_attn.indexer.weights_proj.weight": (60, INDEXER),
    # OPT, GPT-2, GPT-J, GPT-NeoX, Falcon, Phi, MPT, InternLM2, Qwen 1, Meta's own
    "model.decoder.layers.2.self_attn.out_proj.weight": (2, ATTENTION_OUTPUT),
    "model.decoder.layers.2.fc1.weight": (2, MLP_IN),
    "model.decoder.layers.2.fc2.weight": (2, MLP_OUT),
    "h.11.attn.c_attn.weight": (11, QKV),
    "transformer.h.11.attn.c_proj.weight": (11, ATTENTION_OUTPUT),
    "transformer.h.11.mlp.c_fc.weight": (11, MLP_IN),
    "transformer.h.11.mlp.c_proj.weight": (11, MLP_OUT),
    "transformer.h.11.mlp.fc_out.weight": (11, MLP_OUT),
    "gpt_neox.layers.1.attention.query_key_value.weight": (1, QKV),
    "gpt_neox.layers.1.attention.dense.weight": (1, ATTENTION_OUTPUT),
    "gpt_neox.layers.1.mlp.dense_h_to_4h.weight": (1, MLP_IN),
    "gpt_neox.layers.1.mlp.dense_4h_to_h.weight": (1, MLP_OUT),
    "embed_out.weight": (None, LM_HEAD),
    "transformer.h.9.self_attention.query_key_value.weight": (9, QKV),
    "transformer.h.9.self_attention.dense.weight": (9, ATTENTION_OUTPUT),
    "model.layers.9.self_attn.dense.weight": (9, ATTENTION_OUTPUT),
    "transformer.blocks.9.attn.Wqkv.weight": (9, QKV),
    "transformer.blocks.9.ffn.down_proj.weight": (9, MLP_OUT),
    "model.layers.9.attention.wqkv.weight": (9, QKV),
    "model.layers.9.attention.wo.weight": (9, ATTENTION_OUTPUT),
    "model.layers.9.feed_forward.w1.weight": (9, MLP_IN),
    "model.layers.9.feed_forward.w2.weight": (9, MLP_OUT),
    "layers.9.feed_forward.w3.weight": (9, MLP_IN),
    "output.weight": (None, LM_HEAD),
    "transformer.h.9.mlp.w2.weight": (9, MLP_IN),
    # recurrent parts
    "model.layers.0.linear_attn.in_proj_qkvz.weight": (0, RECURRENT_IN),
    "model.layers.0.linear_attn.in_proj_ba.weight": (0, RECURRENT_GATES),
    "model.layers.0.linear_attn.out_proj.weight": (0, RECURRENT_OUT),
    "backbone.layers.0.mixer.in_proj.weight": (0, RECURRENT_IN),
    "backbone.layers.0.mixer.out_proj.weight": (0, RECURRENT_OUT),
    "model.layers.0.mamba.x_proj.weight": (0, "recurrent-parameters"),
    "model.layers.0.mamba.dt_proj.weight": (0, "recurrent-step"),
    "model.layers.0.conv.out_proj.weight": (0, RECURRENT_OUT),
    "backbone.layers.7.mixer.q_proj.weight": (7, QKV),
    "backbone.layers.7.mixer.down_proj.weight": (7, MLP_OUT),
    # names without a layer
    "self_attn.q_proj": (None, QKV),
    "mlp.down_proj": (None, MLP_OUT),
}
NO_MATRICES = (
    "model.embed_tokens.weight",
    "model.norm.weight",
    "model.layers.0.input_layernorm.weight",
    "model.layers.0.self_attn.q_norm.weight",
    "model.layers.0.self_attn.q_proj.bias",
    "model.layers.0.self_attn.q_proj.weight_scale",
    "model.layers.0.self_attn.q_proj.qzeros",
    "model.layers.0.self_attn.sinks",
    "model.layers.0.mlp.gate.e_score_correction_bias",
    "model.layers.0.mlp.shared_expert_gate.weight",
    "model.layers.0.mlp.experts.gate_up_proj_scales",
    "model.layers.0.linear_attn.conv1d.weight",
    "transformer.wte.weight",
    "model.layers.0",
    "",
)


@pytest.mark.parametrize("name", NAMES)
def test_names_of_the_common_families(name: str) -> None:
    assert matrix_of(name) == NAMES[name]


@pytest.mark.parametrize("name", NO_MATRICES)
def test_what_is_no_matrix(name: str) -> None:
    assert matrix_of(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "visual.blocks.0.attn.qkv.weight",
        "vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.weight",
        "model.vision_tower.encoder.layers.0.mlp.fc1.weight",
        "multi_modal_projector.linear_1.weight",
        "audio_tower.layers.0.fc1.weight",
        "mtp.layers.0.mlp.down_proj.weight",
    ],
)
def test_towers_are_elsewhere(name: str) -> None:
    assert elsewhere(name)
    assert matrix_of(name) is None


def test_every_spelling_reads_as_its_matrix() -> None:
    for matrix, spellings in MODULES.items():
        for module in (module for modules in spellings for module in modules):
            expected = {QKV} if module == "self_attn.q_proj" else {matrix}
            places = [""] if matrix == LM_HEAD else [f"{prefix}4." for prefix in PREFIXES]
            for place in places:
                found = matrix_of(place + module)
                assert found == (4 if place else None, *expected), place + module


def test_recurrences_are_called_as_the_models_call_them() -> None:
    names = (RECURRENT_IN, RECURRENT_GATES, RECURRENT_OUT)
    assert names == (mixers.RECURRENT_IN, mixers.RECURRENT_GATES, mixers.RECURRENT_OUT)


def test_layers_that_have_a_matrix() -> None:
    counts = matrix_counts(deepseek_v3())
    latent = dict.fromkeys((LATENT_DOWN, QUERY, LATENT_UP, ATTENTION_OUTPUT), 61)
    experts = dict.fromkeys((EXPERTS_IN, EXPERTS_OUT, SHARED_IN, SHARED_OUT, ROUTER), 58)
    assert counts == latent | experts | {MLP_IN: 3, MLP_OUT: 3}
