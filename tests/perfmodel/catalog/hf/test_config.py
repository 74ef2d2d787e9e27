"""Hugging Face configs: the shape of the catalogue, the published count, or a refusal that names the key.

Counts of `FAMILIES` are those of transformers 5.24's own classes, built from the same keys on its "meta" device.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perfmodel.catalog import data_directory, load_model, model_from_hf_config, model_from_text
from perfmodel.catalog.decoder import Decoder, Mlp, Recurrent, SelfAttention
from perfmodel.catalog.hf.config import shape_from_config, supported_model_types

HF_CONFIGS: dict[str, dict[str, Any]] = {
    "opt-30b": {
        "model_type": "opt", "_name_or_path": "facebook/opt-30b", "do_layer_norm_before": True, "ffn_dim": 28672,
        "hidden_size": 7168, "max_position_embeddings": 2048, "num_attention_heads": 56, "num_hidden_layers": 48,
        "vocab_size": 50272, "word_embed_proj_dim": 7168,
    },
    "opt-350m": {
        "model_type": "opt", "do_layer_norm_before": False, "ffn_dim": 4096, "hidden_size": 1024,
        "max_position_embeddings": 2048, "num_attention_heads": 16, "num_hidden_layers": 24, "vocab_size": 50272,
        "word_embed_proj_dim": 512,
    },
    "llama-2-7b": {
        "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "max_position_embeddings": 4096,
        "num_attention_heads": 32, "num_hidden_layers": 32, "vocab_size": 32000,
    },
    "llama-3.1-8b": {
        "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 131072,
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "vocab_size": 128256,
        "attention_bias": False, "mlp_bias": False, "head_dim": None, "tie_word_embeddings": False,
    },
    "mixtral-8x7b": {
        "model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 32768,
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "vocab_size": 32000,
        "num_local_experts": 8, "num_experts_per_tok": 2, "tie_word_embeddings": False,
    },
}  # fmt: skip


# Families without a file of their own, against the safetensors totals on their model pages.
HF_COUNTS: dict[str, tuple[dict[str, Any], int]] = {
    "gpt-neox-20b": ({
        "model_type": "gpt_neox", "hidden_size": 6144, "intermediate_size": 24576, "max_position_embeddings": 2048,
        "num_attention_heads": 64, "num_hidden_layers": 44, "tie_word_embeddings": False, "vocab_size": 50432,
    }, 20_554_567_680),
    "mistral-7b-v0.1": ({
        "model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 32768,
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "vocab_size": 32000,
    }, 7_241_732_096),
    "qwen2.5-7b": ({
        "model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "max_position_embeddings": 131072,
        "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4, "vocab_size": 152064,
        "tie_word_embeddings": False,
    }, 7_615_616_512),
    "qwen3-8b": ({
        "model_type": "qwen3", "attention_bias": False, "head_dim": 128, "hidden_size": 4096,
        "intermediate_size": 12288, "max_position_embeddings": 40960, "max_window_layers": 36,
        "num_attention_heads": 32, "num_hidden_layers": 36, "num_key_value_heads": 8, "sliding_window": None,
        "tie_word_embeddings": False, "use_sliding_window": False, "vocab_size": 151936,
    }, 8_190_735_360),
    "qwen3-30b-a3b": ({
        "model_type": "qwen3_moe", "decoder_sparse_step": 1, "head_dim": 128, "hidden_size": 2048,
        "intermediate_size": 6144, "max_position_embeddings": 40960, "mlp_only_layers": [],
        "moe_intermediate_size": 768, "num_attention_heads": 32, "num_experts": 128, "num_experts_per_tok": 8,
        "num_hidden_layers": 48, "num_key_value_heads": 4, "tie_word_embeddings": False, "vocab_size": 151936,
    }, 30_532_122_624),
    "gemma-2b": ({
        "model_type": "gemma", "head_dim": 256, "hidden_size": 2048, "intermediate_size": 16384,
        "max_position_embeddings": 8192, "num_attention_heads": 8, "num_hidden_layers": 18, "num_key_value_heads": 1,
        "vocab_size": 256000,
    }, 2_506_172_416),
    "gemma-2-9b": ({
        "model_type": "gemma2", "attention_bias": False, "head_dim": 256, "hidden_size": 3584,
        "intermediate_size": 14336, "max_position_embeddings": 8192, "num_attention_heads": 16,
        "num_hidden_layers": 42, "num_key_value_heads": 8, "sliding_window": 4096, "vocab_size": 256000,
    }, 9_241_705_984),
    "gemma-3-1b": ({
        "model_type": "gemma3_text", "head_dim": 256, "hidden_size": 1152, "intermediate_size": 6912,
        "max_position_embeddings": 32768, "num_attention_heads": 4, "num_hidden_layers": 26, "num_key_value_heads": 1,
        "sliding_window": 512, "vocab_size": 262144,
    }, 999_885_952),
    # 4,300,079,472 on the page, less 416,866,032 of the image tower and 2,950,272 of its projector.
    "gemma-3-4b": ({
        "model_type": "gemma3", "text_config": {
            "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024,
        }, "vision_config": {"hidden_size": 1152, "model_type": "siglip_vision_model", "num_hidden_layers": 27},
    }, 3_880_263_168),
}  # fmt: skip


def write_config(folder: Path, config: dict[str, Any]) -> Path:
    folder.mkdir()
    path = folder / "config.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", HF_CONFIGS)
def test_hf_config_gives_the_shape_of_the_catalogue(name: str, tmp_path: Path) -> None:
    model = model_from_hf_config(write_config(tmp_path / name, HF_CONFIGS[name]))
    expected = load_model(name)
    assert msgspec.structs.replace(model.shape, source=expected.shape.source) == expected.shape
    assert (model.key, model.family) == (expected.key, expected.family)


@pytest.mark.parametrize("name", HF_COUNTS)
def test_hf_config_gives_the_count_of_the_model_page(name: str, tmp_path: Path) -> None:
    config, parameters = HF_COUNTS[name]
    path = write_config(tmp_path / name, config)
    assert load_model(path.parent).parameters == load_model(str(path)).parameters == parameters


LLAMA, QWEN_MOE, GEMMA = HF_CONFIGS["llama-2-7b"], HF_COUNTS["qwen3-30b-a3b"][0], HF_COUNTS["gemma-3-4b"][0]
QWEN = HF_COUNTS["qwen3-8b"][0]
COMMON = {
    "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8,
    "num_key_value_heads": 2, "vocab_size": 1000, "max_position_embeddings": 2048,
}  # fmt: skip
LATENT = {
    "q_lora_rank": 96, "kv_lora_rank": 64, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32,
    "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 48, "n_shared_experts": 2,
    "first_k_dense_replace": 1,
}  # fmt: skip
MAMBA2 = {
    "mamba_n_heads": 16, "mamba_d_head": 32, "mamba_n_groups": 2, "mamba_d_state": 16, "mamba_d_conv": 4,
    "mamba_expand": 2,
}  # fmt: skip
# Families, or options of one, without a file of their own in the catalogue.
FAMILIES: dict[str, tuple[dict[str, Any], int]] = {
    "llama": ({
        "model_type": "llama", "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True,
    }, 2_494_208),
    "llama4-interleaved": ({
        "model_type": "llama4_text", "intermediate_size_mlp": 384, "interleave_moe_layer_step": 2,
        "num_local_experts": 4, "num_experts_per_tok": 1, "head_dim": 32,
    }, 5_693_696),
    "qwen2_moe-sparse-step": ({
        "model_type": "qwen2_moe", "decoder_sparse_step": 2, "mlp_only_layers": [1], "num_experts": 8,
        "num_experts_per_tok": 2, "moe_intermediate_size": 64, "shared_expert_intermediate_size": 96,
    }, 2_820_096),
    "qwen3_moe-dense-layers": ({
        "model_type": "qwen3_moe", "head_dim": 32, "decoder_sparse_step": 1, "mlp_only_layers": [0, 3], "num_experts":
        8, "num_experts_per_tok": 2, "moe_intermediate_size": 64,
    }, 2_746_880),
    "qwen3_next-bias": ({
        "model_type": "qwen3_next", "head_dim": 32, "attention_bias": True, "num_experts": 8, "num_experts_per_tok":
        2, "moe_intermediate_size": 64, "shared_expert_intermediate_size": 96, "linear_num_key_heads": 4,
        "linear_num_value_heads": 8, "linear_key_head_dim": 16, "linear_value_head_dim": 32,
    }, 3_326_800),
    "phi-qk": ({"model_type": "phi", "qk_layernorm": True}, 2_225_640),
    "phimoe": ({
        "model_type": "phimoe", "num_local_experts": 4, "num_experts_per_tok": 2, "attention_bias": True,
        "lm_head_bias": True,
    }, 7_471_080),
    "falcon-old": ({
        "model_type": "falcon", "intermediate_size": None, "num_key_value_heads": None, "bias": True, "parallel_attn":
        False, "multi_query": False, "alibi": True,
    }, 3_415_552),
    "falcon-11b": ({
        "model_type": "falcon", "intermediate_size": None, "num_key_value_heads": None, "new_decoder_architecture":
        True, "num_ln_in_parallel_attn": 1, "num_kv_heads": 2, "ffn_hidden_size": 640, "tie_word_embeddings": False,
    }, 2_480_640),
    "falcon_h1": (MAMBA2 | {
        "model_type": "falcon_h1", "mamba_d_ssm": 512, "mamba_rms_norm": True, "attention_bias": True, "mlp_bias":
        True, "mamba_proj_bias": True,
    }, 4_423_168),
    "gpt_bigcode-many": ({
        "model_type": "gpt_bigcode", "intermediate_size": None, "num_key_value_heads": None, "multi_query": False,
        "n_inner": 640,
    }, 3_151_872),
    "gpt_neox-serial": ({
        "model_type": "gpt_neox", "num_key_value_heads": None, "attention_bias": False, "use_parallel_residual":
        False,
    }, 2_616_832),
    "codegen": ({
        "model_type": "codegen", "intermediate_size": None, "num_key_value_heads": None, "rotary_dim": 16,
    }, 3_666_408),
    "opt-no-bias": ({
        "model_type": "opt", "intermediate_size": None, "num_key_value_heads": None, "ffn_dim": 640, "enable_bias":
        False, "word_embed_proj_dim": 128, "do_layer_norm_before": False,
    }, 3_081_728),
    "stablelm-12b": ({
        "model_type": "stablelm", "use_parallel_residual": True, "qk_layernorm": True, "use_qkv_bias": True,
    }, 2_745_600),
    "cohere-qk": ({"model_type": "cohere", "use_qk_norm": True, "attention_bias": True}, 2_489_344),
    "deepseek_v2-plain-queries": (LATENT | {"model_type": "deepseek_v2", "q_lora_rank": None}, 2_888_192),
    "deepseek_v3-bias": (LATENT | {"model_type": "deepseek_v3", "attention_bias": True}, 2_742_872),
    "deepseek_v32": (LATENT | {
        "model_type": "deepseek_v32", "index_topk": 64, "index_n_heads": 4, "index_head_dim": 32,
    }, 2_827_416),
    "glm_moe_dsa-shared": (LATENT | {
        "model_type": "glm_moe_dsa", "index_topk": 64, "index_n_heads": 4, "index_head_dim": 32, "index_topk_freq": 4,
        "index_skip_topk_offset": 2,
    }, 2_784_280),
    "glm4_moe-qk": ({
        "model_type": "glm4_moe", "head_dim": 32, "use_qk_norm": True, "attention_bias": True, "n_routed_experts": 8,
        "num_experts_per_tok": 2, "moe_intermediate_size": 48, "n_shared_experts": 1, "first_k_dense_replace": 2,
    }, 2_625_552),
    "granitemoeshared": ({
        "model_type": "granitemoeshared", "num_local_experts": 4, "num_experts_per_tok": 2,
        "shared_intermediate_size": 96,
    }, 7_760_128),
    "granitemoehybrid-dense": (MAMBA2 | {
        "model_type": "granitemoehybrid", "num_local_experts": 0, "shared_intermediate_size": 96, "layer_types":
        ["mamba", "attention", "mamba", "attention"],
    }, 1_971_168),
    "nemotron": ({"model_type": "nemotron", "head_dim": 32, "attention_bias": True, "mlp_bias": True}, 2_226_176),
    "nemotron_h": ({
        "model_type": "nemotron_h", "head_dim": 32, "hybrid_override_pattern": "M-*-", "mamba_num_heads": 16,
        "mamba_head_dim": 32, "n_groups": 2, "ssm_state_size": 16, "conv_kernel": 4,
    }, 1_618_544),
    "ernie4_5_moe-step": ({
        "model_type": "ernie4_5_moe", "moe_num_experts": 8, "moe_k": 2, "moe_intermediate_size": 48,
        "moe_num_shared_experts": 1, "moe_layer_start_index": 1, "moe_layer_end_index": -1, "moe_layer_interval": 2,
        "tie_word_embeddings": False,
    }, 2_623_760),
    "hunyuan_v1_moe": ({"model_type": "hunyuan_v1_moe", "head_dim": 32, "num_experts": 4, "moe_topk": 2}, 9_038_336),
    "internlm3-bias": ({"model_type": "internlm3", "head_dim": 32, "qkv_bias": True, "bias": True}, 2_750_208),
    "jamba-dense": ({
        "model_type": "jamba", "num_experts": 1, "attn_layer_period": 4, "attn_layer_offset": 2, "mamba_d_state": 16,
        "mamba_dt_rank": "auto",
    }, 3_564_432),
    "bamba": (MAMBA2 | {"model_type": "bamba", "attn_layer_indices": [1]}, 3_502_416),
    "mamba2-bias": ({
        "model_type": "mamba2", "num_attention_heads": None, "num_key_value_heads": None, "intermediate_size": 512,
        "num_heads": 16, "head_dim": 32, "n_groups": 2, "state_size": 16, "use_bias": True, "use_conv_bias": False,
    }, 2_184_960),
    "mamba-bias": ({
        "model_type": "mamba", "num_attention_heads": None, "num_key_value_heads": None, "state_size": 16,
        "intermediate_size": 512, "use_bias": True,
    }, 2_013_440),
    "lfm2-bias": ({
        "model_type": "lfm2", "block_auto_adjust_ff_dim": False, "layer_types": ["conv", "full_attention", "conv",
        "full_attention"], "conv_bias": True,
    }, 2_687_360),
    "seed_oss": ({"model_type": "seed_oss", "head_dim": 32, "attention_out_bias": True}, 2_745_088),
    "starcoder2-no-bias": ({"model_type": "starcoder2", "use_bias": False, "norm_type": "layer_norm"}, 1_964_544),
    "kimi_linear": ({
        "model_type": "kimi_linear", "pad_token_id": 0, "q_lora_rank": None, "kv_lora_rank": 64, "qk_nope_head_dim":
        32, "qk_rope_head_dim": 16, "v_head_dim": 32, "num_experts": 8, "num_experts_per_token": 2,
        "moe_intermediate_size": 48, "num_shared_experts": 1, "linear_attn_config": {"full_attn_layers": [4],
        "kda_layers": [1, 2, 3], "head_dim": 16, "num_heads": 8, "short_conv_kernel_size": 4},
    }, 2_567_456),
}  # fmt: skip


def shape_of(config: dict[str, Any]) -> Decoder:
    return shape_from_config(config, "a test")


@pytest.mark.parametrize("name", FAMILIES)
def test_counts_are_those_of_the_architecture_s_own_class(name: str) -> None:
    config, parameters = FAMILIES[name]
    assert shape_of(COMMON | config).parameters == parameters


# What published files hold beside the keys that matter, by the model of the catalogue.
BESIDE: dict[str, dict[str, Any]] = {
    "deepseek-v3": {
        "architectures": ["DeepseekV3ForCausalLM"], "attention_dropout": 0.0, "auto_map": {"AutoConfig": "x"},
        "bos_token_id": 0, "eos_token_id": 1, "ep_size": 1, "hidden_act": "silu", "initializer_range": 0.02,
        "n_group": 8, "norm_topk_prob": True, "quantization_config": {"activation_scheme": "dynamic"}, "rms_norm_eps":
        1e-06, "rope_scaling": {"type": "yarn"}, "rope_theta": 10000, "routed_scaling_factor": 2.5, "scoring_func":
        "sigmoid", "topk_group": 4, "topk_method": "noaux_tc", "torch_dtype": "bfloat16", "transformers_version":
        "4.33.1", "use_cache": True, "aux_loss_alpha": 0.001, "seq_aux": True, "pretraining_tp": 1,
    },
    "kimi-linear-48b-a3b": {
        "dtype": "bfloat16", "first_k_dense_replace": 1, "hidden_act": "silu", "initializer_range": 0.02,
        "moe_renormalize": True, "moe_router_activation_func": "sigmoid", "num_expert_group": 1,
        "num_nextn_predict_layers": 0, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "routed_scaling_factor": 2.446,
        "topk_group": 1, "use_cache": True, "use_grouped_topk": True,
    },
    "hunyuan-a13b": {
        "add_classification_head": False, "anyres_pooling_size": 2, "anyres_vit_two_views": False, "attention_bias":
        False, "attention_dropout": 0.1, "attention_head_dim": 128, "bos_token_id": 1, "cla_share_factor": 2,
        "class_num": 0, "dense_list": [4096, 0], "eod_token_id": 127967, "eos_token_id": 127960,
        "group_limited_greedy": False, "hidden_act": "silu", "im_end_id": 6, "im_newline_id": 12, "im_start_id": 5,
        "image_token_id": 9, "initializer_range": 0.02, "mask_init_id": 13, "max_position_embeddings": 32768,
        "mlp_bias": False, "moe_drop_tokens": False, "moe_layer_num_skipped": 0, "moe_random_routing_dropped_token":
        False, "n_group": False, "norm_topk_prob": True, "norm_type": "rms", "org_vocab_size": 128167, "pad_id":
        127961, "pad_token_id": 127961, "pool_type": "last", "position_embedding_xdrope": False, "pretraining_tp": 1,
        "rms_norm_eps": 1e-05, "rope_scaling": {"alpha": 1000.0}, "rope_theta": 10000.0, "routed_scaling_factor":
        False, "sep_token_id": 127962, "text_end_id": 8, "text_start_id": 7, "topk_group": False, "torch_dtype":
        "bfloat16", "transformers_version": "4.41.2", "use_cache": True, "use_cla": False, "use_mixed_mlp_moe": True,
        "use_qk_norm": True, "use_rotary_pos_emb": True, "video_end_id": 11, "video_start_id": 10,
        "vit_add_patchemb_bias": False, "vit_used_rms_norm": False, "head_dim": 128,
    },
    "minimax-text-01": {
        "architectures": ["x"], "attention_dropout": 0.0, "auto_map": {}, "hidden_act": "silu", "initializer_range":
        0.02, "layernorm_full_attention_alpha": 3.5565588200778455, "layernorm_full_attention_beta": 1.0,
        "layernorm_linear_attention_alpha": 3.5, "layernorm_linear_attention_beta": 1.0, "layernorm_mlp_alpha": 3.5,
        "layernorm_mlp_beta": 1.0, "output_router_logits": False, "postnorm": True, "rms_norm_eps": 1e-05,
        "rope_theta": 10000000, "rotary_dim": 64, "router_aux_loss_coef": 0.001, "router_jitter_noise": 0.0,
        "shared_intermediate_size": 0, "shared_moe_mode": "sigmoid", "sliding_window": None, "transformers_version":
        "4.45.2", "use_cache": True,
    },
    "mpt-7b": {
        "architectures": ["MPTForCausalLM"], "attn_config": {"alibi": True, "alibi_bias_max": 8, "attn_impl": "torch",
        "attn_pdrop": 0, "attn_type": "multihead_attention", "attn_uses_sequence_id": False, "clip_qkv": None,
        "prefix_lm": False, "qk_ln": False, "softmax_scale": None}, "embedding_fraction": 1.0, "emb_pdrop": 0,
        "init_config": {"emb_init_std": None}, "init_device": "cpu", "resid_pdrop": 0, "use_cache": False, "verbose":
        0, "tokenizer_name": "EleutherAI/gpt-neox-20b",
    },
    "falcon-40b": {
        "apply_residual_connection_post_layernorm": False, "architectures": ["x"], "attention_dropout": 0.0,
        "auto_map": {}, "bos_token_id": 11, "eos_token_id": 11, "hidden_dropout": 0.0, "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05, "torch_dtype": "bfloat16", "transformers_version": "4.27.4", "use_cache": True,
    },
    "phi-3.5-moe": {
        "auto_map": {}, "hidden_act": "silu", "hidden_dropout": 0.0, "initializer_range": 0.02, "input_jitter_noise":
        0.01, "original_max_position_embeddings": 4096, "output_router_logits": False, "rms_norm_eps": 1e-05,
        "rope_scaling": {"long_factor": [1]}, "rope_theta": 10000.0, "router_aux_loss_coef": 0.0,
        "router_jitter_noise": 0.01, "use_cache": True,
    },
    "jamba-v0.1": {
        "auto_map": {}, "bos_token_id": 1, "calc_logits_for_entire_prompt": False, "hidden_act": "silu",
        "initializer_range": 0.02, "n_ctx": 262144, "num_logits_to_keep": 1, "output_router_logits": False,
        "rms_norm_eps": 1e-06, "router_aux_loss_coef": 0.001, "sliding_window": None, "use_cache": True,
        "use_mamba_kernels": True, "mamba_inner_layernorms": True,
    },
    "nemotron-nano-9b-v2": {
        "attention_bias": False, "attention_head_dim": 128, "auto_map": {}, "chunk_size": 128, "expand": 2,
        "hidden_dropout": 0.0, "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "mamba_hidden_act": "silu",
        "mamba_proj_bias": False, "mlp_bias": False, "mlp_hidden_act": "relu2", "num_logits_to_keep": 1,
        "rescale_prenorm_residual": True, "residual_in_fp32": False, "rms_norm_eps": 1e-05, "sliding_window": None,
        "time_step_floor": 0.0001, "time_step_limit": [0.0, 1e30], "time_step_max": 0.1, "time_step_min": 0.001,
        "time_step_rank": 256, "use_bias": False, "use_conv_bias": True, "use_mamba_kernels": True,
        "mamba_num_groups": 8, "use_cache": True,
    },
    "granite-4.0-h-small": {
        "attention_multiplier": 0.0078125, "embedding_multiplier": 12, "logits_scaling": 16, "residual_multiplier":
        0.22, "init_method": "mup", "initializer_range": 0.1, "normalization_function": "rmsnorm",
        "position_embedding_type": "nope", "rope_theta": 10000, "router_aux_loss_coef": 0.0, "output_router_logits":
        False, "hidden_act": "silu", "mamba_chunk_size": 256, "mlp_bias": False,
    },
    "gpt-oss-120b": {
        "architectures": ["x"], "eos_token_id": 200002, "experts_per_token": 4, "hidden_act": "silu",
        "initial_context_length": 4096, "initializer_range": 0.02, "output_router_logits": False,
        "quantization_config": {"quant_method": "mxfp4"}, "rms_norm_eps": 1e-05, "rope_scaling": {"factor": 32},
        "rope_theta": 150000, "router_aux_loss_coef": 0.9, "swiglu_limit": 7.0, "use_cache": True,
    },
    "minimax-m2": {
        "mlp_intermediate_size": 8192, "shared_moe_mode": "sigmoid",
        "attn_type_list": [1] * 62, "hidden_act": "silu", "initializer_range": 0.02, "layernorm_full_attention_beta":
        1.0, "layernorm_linear_attention_beta": 1.0, "layernorm_mlp_beta": 1.0, "mtp_transformer_layers": 1,
        "num_mtp_modules": 3, "output_router_logits": False, "qk_norm_type": "per_layer", "rms_norm_eps": 1e-06,
        "rope_theta": 5000000, "rotary_dim": 64, "router_aux_loss_coef": 0.001, "router_jitter_noise": 0.0,
        "scoring_func": "sigmoid", "sliding_window": None, "swa_rope_theta": -1.0, "use_mtp": True, "use_cache": True,
        "quantization_config": {}, "attention_dropout": 0.0,
    },
    "command-r7b": {
        "attention_bias": False, "attention_dropout": 0.0, "cache_implementation": "hybrid", "hidden_act": "silu",
        "initializer_range": 0.02, "layer_norm_eps": 1e-05, "layer_switch": 4, "logit_scale": 0.25,
        "order_of_interleaved_layers": "local_attn_first", "position_embedding_type": "rope_gptj", "rope_theta":
        50000, "rotary_pct": 1.0, "use_embedding_sharing": True, "use_gated_activation": True, "use_parallel_block":
        True, "use_parallel_embedding": False, "use_qk_norm": False,
    },
    "chatglm3-6b": {
        "_name_or_path": "x", "architectures": ["ChatGLMModel"], "apply_query_key_layer_scaling": True,
        "apply_residual_connection_post_layernorm": False, "attention_dropout": 0.0, "attention_softmax_in_fp32":
        True, "bias_dropout_fusion": True, "fp32_residual_connection": False, "hidden_dropout": 0.0,
        "layernorm_epsilon": 1e-05, "original_rope": True, "use_cache": True, "tie_word_embeddings": False,
        "eos_token_id": 2, "pad_token_id": 0, "quantization_bit": 0, "prefix_projection": False,
    },
    "lfm2-1.2b": {
        "block_dim": 2048, "block_mlp_init_scale": 1.0, "block_norm_eps": 1e-05, "block_out_init_scale": 1.0,
        "block_use_swiglu": True, "block_use_xavier_init": True, "conv_dim": 2048, "conv_dim_out": 2048,
        "conv_use_xavier_init": True, "eos_token_id": 7, "initializer_range": 0.02, "norm_eps": 1e-05, "num_heads":
        32, "rope_theta": 1000000.0, "use_cache": True, "use_pos_enc": True,
    },
    "starcoder": {
        "activation_function": "gelu", "attention_softmax_in_fp32": True, "attn_pdrop": 0.1, "embd_pdrop": 0.1,
        "inference_runner": 0, "layer_norm_epsilon": 1e-05, "pad_key_length": True, "pre_allocate_kv_cache": False,
        "resid_pdrop": 0.1, "scale_attention_softmax_in_fp32": True, "scale_attn_weights": True,
        "summary_first_dropout": 0.1, "summary_proj_to_labels": True, "summary_type": "cls_index", "summary_use_proj":
        True, "validate_runner_input": True, "use_cache": True,
    },
    "bloom": {
        "apply_residual_connection_post_layernorm": False, "attention_dropout": 0.0, "attention_softmax_in_fp32":
        True, "bias_dropout_fusion": True, "hidden_dropout": 0.0, "initializer_range": 0.02, "layer_norm_epsilon":
        1e-05, "masked_softmax_fusion": True, "offset_alibi": 100, "pretraining_tp": 4, "skip_bias_add": True,
        "skip_bias_add_qkv": False, "slow_but_exact": False, "unk_token_id": 0, "use_cache": True,
    },
    "mamba-2.8b": {
        "d_inner": 5120, "d_model": 2560, "fused_add_norm": True, "n_layer": 64, "pad_vocab_size_multiple": 8,
        "rms_norm": True, "ssm_cfg": {}, "time_step_floor": 0.0001, "time_step_init_scheme": "random",
        "time_step_max": 0.1, "time_step_min": 0.001, "time_step_scale": 1.0, "rescale_prenorm_residual": False,
        "residual_in_fp32": True, "initializer_range": 0.1, "layer_norm_epsilon": 1e-05, "use_cache": True,
    },
    "glm-5": {
        "ep_size": 1, "head_dim": 64, "qk_head_dim": 256, "rope_interleave": True, "indexer_rope_interleave": True,
        "index_share_for_mtp_iteration": False, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid",
        "rope_parameters": {"rope_theta": 1000000.0},
    },
    "smollm3-3b": {
        "layer_types": ["full_attention"] * 36, "max_window_layers": 28, "mlp_bias": False, "no_rope_layer_interval":
        4, "no_rope_layers": [1, 1, 1, 0] * 9, "pretraining_tp": 2, "sliding_window": None, "use_sliding_window":
        False,
    },
    "qwen1.5-moe-a2.7b": {
        "max_window_layers": 21, "sliding_window": 32768, "use_sliding_window": False, "norm_topk_prob": False,
        "output_router_logits": False, "router_aux_loss_coef": 0.001,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", BESIDE)
def test_keys_that_change_no_shape_are_passed_over(name: str) -> None:
    with (data_directory() / "models" / f"{name}.toml").open("rb") as file:
        config = tomllib.load(file)["config"]
    assert shape_of(config | BESIDE[name]).blocks == load_model(name).shape.blocks


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (LLAMA | {"model_type": "t5"}, "unsupported model_type 't5'; supported are baichuan, bamba, bloom"),
        (LLAMA | {"model_type": ["llama"]}, "unsupported model_type ['llama']"),
        (LLAMA | {"model_type": {}}, "unsupported model_type {}"),
        ({key: LLAMA[key] for key in LLAMA if key != "intermediate_size"}, "missing key 'intermediate_size'"),
        ({key: LLAMA[key] for key in LLAMA if key != "model_type"}, "missing key 'model_type'"),
        ({key: QWEN[key] for key in QWEN if key != "num_key_value_heads"}, "missing key 'num_key_value_heads'"),
        ({"model_type": "gpt2", "n_layer": 12, "n_head": 12, "vocab_size": 9}, "missing key 'hidden_size'"),
        (LLAMA | {"num_key_value_heads": 5}, "kv_heads is 5, allowed are divisors of heads = 32"),
        (LLAMA | {"num_attention_heads": 48}, "num_attention_heads is 48, allowed are divisors of hidden_size = 4096"),
        (LLAMA | {"num_hidden_layers": 0}, "num_hidden_layers is 0, allowed is a positive integer"),
        (LLAMA | {"num_hidden_layers": 2**40}, "num_hidden_layers is 1099511627776, allowed is at most 16384"),
        (LLAMA | {"hidden_size": -4096}, "hidden_size is -4096, allowed is a positive integer"),
        (LLAMA | {"vocab_size": 10**30}, f"vocab_size is {10**30}, allowed is a positive integer of at most 2**40"),
        (LLAMA | {"num_hidden_layers": True}, "num_hidden_layers is True, allowed"),
        (LLAMA | {"head_dim": "128"}, "head_dim is '128', allowed is a positive integer"),
        (LLAMA | {"head_dim": 2.5}, "head_dim is 2.5, allowed is a positive integer"),
        (LLAMA | {"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no', allowed is true or false"),
        (LLAMA | {"n_shared_experts": 2}, "key 'n_shared_experts' is 2: not understood by model_type 'llama'"),
        (LLAMA | {"block_configs": [{}]}, "key 'block_configs' is 'list': not understood by model_type 'llama'"),
        (LLAMA | {"sliding_window": 4096}, "key 'sliding_window' is 4096: not understood by model_type 'llama'"),
        (QWEN_MOE | {"mlp_only_layers": "0"}, "mlp_only_layers is '0', allowed is a list of layers"),
        (QWEN_MOE | {"num_experts_per_tok": 200}, "per_token is 200, allowed is at most 128"),
        (QWEN | {"use_sliding_window": True, "sliding_window": 9, "layer_types": ["full_attention"]},
         "layer_types has 1 entries, allowed is one for each of 36 layers"),
        (QWEN | {"use_sliding_window": True, "sliding_window": 9, "layer_types": ["mamba"] * 36},
         "layer_types holds 'mamba', allowed are full_attention"),
        (GEMMA | {"text_config": [1]}, "text_config is [1], allowed is an object of keys"),
        (GEMMA | {"text_config": {"model_type": "t5"}}, "unsupported model_type 't5'"),
        (COMMON | {"model_type": "nemotron_h", "hybrid_override_pattern": "M-X*"},
         "hybrid_override_pattern holds 'X', allowed are M, *, -, E"),
        (COMMON | {"model_type": "nemotron_h", "hybrid_override_pattern": 3},
         "hybrid_override_pattern is 3, allowed are M, *, -, E, one for each layer"),
        (COMMON | {"model_type": "nemotron_h", "hybrid_override_pattern": [{}]},
         "hybrid_override_pattern holds {}, allowed are M, *, -, E"),
        (COMMON | {"model_type": "cohere2", "sliding_window": 8, "sliding_window_pattern": ""},
         "sliding_window_pattern is '', allowed is a positive integer"),
        (COMMON | {"model_type": "hunyuan_v1_moe", "num_experts": 4, "moe_topk": [[1], [1]]},
         "moe_topk is [[1], [1]], allowed is a positive integer"),
        (COMMON | {"model_type": "gpt_neo", "attention_types": [[["global"], 10**12]]},
         "attention_types is [[['global'], 1000000000000]], allowed are pairs of kinds and how many times they come"),
        (COMMON | {"model_type": "gpt_neo", "attention_types": [[["local"], 1]]},
         "attention_types spells 1 layers, allowed are "),
        (COMMON | {"model_type": "mpt", "n_layers": 4, "attn_config": {"alibi": False}},
         "attn_config.alibi is False, allowed is True"),
        (COMMON | {"model_type": "mpt", "intermediate_size": None, "num_key_value_heads": None,
                   "attn_config": {"rank": 9}}, "key 'attn_config.rank' is 9: not understood by model_type 'mpt'"),
        # a multimodal file whose text part does not say what it is
        ({"model_type": "multimodal_x", "text_config": {"hidden_size": 4096, "num_hidden_layers": 32}},
         "missing key 'text_config.model_type'"),
    ],
)  # fmt: skip
def test_hf_config_that_cannot_be_modelled_is_refused_by_key(
    config: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 - the message is compared below, unescaped
        model_from_hf_config(write_config(tmp_path / "a", config))
    assert message in str(refusal.value)
    assert str(refusal.value).endswith("; a TOML file with its shape, as in data/models, is understood too")


@pytest.mark.parametrize("name", list(HF_CONFIGS))
def test_an_upload_says_what_its_file_says(name: str, tmp_path: Path) -> None:
    path = write_config(tmp_path / "a", HF_CONFIGS[name]).with_name("config.json")
    file, text = model_from_hf_config(path), path.read_bytes()
    assert model_from_text(text, "config.json").key == f"your-{json.loads(text)['model_type']}"
    for upload in (model_from_text(text, "a.json"), model_from_text(text.decode(), "a")):
        assert (upload.key, upload.name, upload.family) == (file.key, file.name, file.family)
        assert msgspec.structs.replace(upload.shape, source="") == msgspec.structs.replace(file.shape, source="")
    with pytest.raises(ValueError, match=r"^up\.json: missing key 'vocab_size'; a TOML file with its shape"):
        model_from_text(text.replace(b"vocab_size", b"pad_token_id"), "up.json")


def test_an_explicit_head_dim_needs_no_division() -> None:
    """Qwen3-0.6B has 16 heads of 128 on a hidden size of 1024."""
    shape = shape_of(QWEN | {"hidden_size": 1024, "num_attention_heads": 24})
    (block,) = shape.blocks
    assert isinstance(block.parts[0], SelfAttention)
    assert (block.parts[0].heads, block.parts[0].head_dim) == (24, 128)
    assert shape_of({key: QWEN[key] for key in QWEN if key != "head_dim"}) == shape_of(QWEN)  # its class's own


def test_positions_have_several_names() -> None:
    """A Llama file may call them `max_sequence_length`, or leave them to its class."""
    config = {key: value for key, value in LLAMA.items() if key != "max_position_embeddings"}
    assert shape_of(config | {"max_sequence_length": 4096}).max_positions == 4096
    assert shape_of(config).max_positions == 2048


def test_the_text_part_of_a_multimodal_file_is_taken() -> None:
    """By the model type that its text part names, else by the outer one."""
    text = {
        "model_type": "qwen3_vl_text", "hidden_size": 4096, "intermediate_size": 12288, "head_dim": 128,
        "num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 36, "vocab_size": 151936,
        "max_position_embeddings": 262144, "tie_word_embeddings": False,
    }  # fmt: skip
    outer = {"model_type": "qwen3_vl", "vision_config": {"depth": 27}}
    named = shape_of(outer | {"text_config": text})
    unnamed = shape_of(outer | {"text_config": {key: text[key] for key in text if key != "model_type"}})
    assert named == unnamed
    assert (named.parameters, named.max_positions) == (8_190_735_360, 262_144)
    assert named.left_out == ("vision tower",)
    tied = shape_of(outer | {"text_config": text, "tie_word_embeddings": True})
    assert named.parameters - tied.parameters == 151_936 * 4096


@pytest.mark.parametrize(
    ("config", "parameters", "positions"),
    [
        # LLaVA 1.5 7B, LLaVA-NeXT with Mistral 7B, PaliGemma 3B and Gemma 3 4B as their files are: language models of
        # Vicuna, Mistral 7B v0.1 with 64 more rows of both tables, Gemma 2B with a larger vocabulary, 3.88 B in all
        ({"model_type": "llava", "text_config": {
            "model_type": "llama", "max_position_embeddings": 4096, "vocab_size": 32064, "rms_norm_eps": 1e-5}},
         6_738_415_616 + 2 * 64 * 4096, 4096),
        ({"model_type": "llava_next", "text_config": {
            "model_type": "mistral", "intermediate_size": 14336, "max_position_embeddings": 32768,
            "num_key_value_heads": 8, "sliding_window": None, "vocab_size": 32064}},
         7_241_732_096 + 2 * 64 * 4096, 32768),
        ({"model_type": "paligemma", "text_config": {
            "model_type": "gemma", "hidden_size": 2048, "intermediate_size": 16384, "num_attention_heads": 8,
            "num_hidden_layers": 18, "num_image_tokens": 256, "num_key_value_heads": 1, "vocab_size": 257216}},
         2_506_172_416 + 1216 * 2048, 8192),
        ({"model_type": "gemma3", "text_config": {
            "model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34,
            "sliding_window": 1024}},
         3_880_263_168, 131_072),
    ],
)  # fmt: skip
def test_a_text_part_leaves_out_its_class_s_sizes(config: dict[str, Any], parameters: int, positions: int) -> None:
    shape = shape_of(config)
    assert (shape.parameters, shape.max_positions) == (parameters, positions)


def test_a_file_whose_text_part_alone_says_what_it_is(tmp_path: Path) -> None:
    assert model_from_hf_config(write_config(tmp_path / "a", {"text_config": LLAMA})).family == "llama"


def test_a_name_of_its_own_replaces_a_class_s_default() -> None:
    text = {"model_type": "llama", "n_layer": 2}
    assert shape_of({"model_type": "llava", "text_config": text}).layers == 2


def test_windows_of_qwen_begin_at_a_layer() -> None:
    shape = shape_of(QWEN | {"use_sliding_window": True, "sliding_window": 4096, "max_window_layers": 30})
    windows = {
        block.parts[0].window: block.count for block in shape.blocks if isinstance(block.parts[0], SelfAttention)
    }
    assert windows == {None: 30, 4096: 6}


def test_a_null_is_as_good_as_no_key_but_for_windows() -> None:
    mistral = HF_COUNTS["mistral-7b-v0.1"][0]
    (first,), (second,) = shape_of(mistral).blocks, shape_of(mistral | {"sliding_window": None}).blocks
    assert isinstance(first.parts[0], SelfAttention)
    assert isinstance(second.parts[0], SelfAttention)
    assert (first.parts[0].window, second.parts[0].window) == (4096, None)


def test_every_model_type_is_listed_once_in_order() -> None:
    listed = supported_model_types()
    assert list(listed) == sorted(set(listed))
    assert len(listed) > 60


def test_a_layer_without_attention_has_no_cache() -> None:
    shape = shape_of(COMMON | FAMILIES["nemotron_h"][0])
    assert [type(block.parts[0]) for block in shape.blocks] == [Recurrent, Mlp, SelfAttention]
    assert shape.cached_values == 2 * 2 * 32
