"""Quantised checkpoints as their configurations describe them: the format of each matrix, or a refusal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from perfmodel.catalog import load_model
from perfmodel.catalog.decoder import (
    ATTENTION_OUTPUT,
    EXPERTS_IN,
    EXPERTS_OUT,
    LATENT_DOWN,
    LATENT_UP,
    LM_HEAD,
    MLP_IN,
    MLP_OUT,
    QKV,
    QUERY,
    SHARED_IN,
    SHARED_OUT,
    Decoder,
)
from perfmodel.catalog.hf.quantisation import _ALGORITHMS, stored_from_config
from perfmodel.catalog.hf.quantised_formats import _FORMATS, _WITH_PATTERN, _ZERO_POINTS
from perfmodel.catalog.language_model import Stored
from perfmodel.formats import FORMATS
from tests.perfmodel.catalog.shapes import deepseek_v3, gpt_oss_20b, qwen3_moe

ATTENTION, MLP = (QKV, ATTENTION_OUTPUT), (MLP_IN, MLP_OUT)
DENSE = (*ATTENTION, *MLP)
EXPERTS = (EXPERTS_IN, EXPERTS_OUT)
LATENT = (LATENT_DOWN, QUERY, LATENT_UP, ATTENTION_OUTPUT)


@pytest.fixture(scope="module")
def llama() -> Decoder:
    return load_model("llama-3.1-8b").shape


def stored(quantisation: dict[str, Any], shape: Decoder) -> Stored:
    found = stored_from_config({"quantization_config": quantisation}, shape)
    assert found is not None
    assert set(found.formats.values()) <= set(FORMATS)
    return found


def tensors(weights: dict[str, Any], inputs: dict[str, Any] | None = None, **other: Any) -> dict[str, Any]:
    """What llm-compressor writes: one group, all linear modules but the head."""
    group = {"input_activations": inputs, "output_activations": None, "targets": ["Linear"], "weights": weights}
    return {
        "quant_method": "compressed-tensors", "config_groups": {"group_0": group}, "ignore": ["lm_head"],
        "kv_cache_scheme": None, "quantization_status": "compressed", **other,
    }  # fmt: skip


def weights(bits: int, kind: str = "int", strategy: str = "group", group: int | None = None, **other: Any) -> dict:
    return {
        "num_bits": bits, "type": kind, "strategy": strategy, "group_size": group, "symmetric": True,
        "dynamic": False, "actorder": None, "observer": "minmax", **other,
    }  # fmt: skip


INT8, FP8, FP4 = ({"num_bits": 8, "type": "int", "dynamic": True, "strategy": "token"},
                  {"num_bits": 8, "type": "float", "dynamic": True, "strategy": "token"},
                  {"num_bits": 4, "type": "float", "dynamic": "local", "group_size": 16})  # fmt: skip
BITMASK = {"format": "sparse-24-bitmask", "sparsity_structure": "2:4", "global_sparsity": 0.5}
# As found on model pages: of RedHatAI (compressed-tensors), Qwen, hugging-quants, NVIDIA, Meta, unsloth.
LLAMAS: dict[str, tuple[dict[str, Any], str]] = {
    "W4A16": (tensors(weights(4, group=128), format="pack-quantized"), "int4"),
    "W4A16 zero points": (tensors(weights(4, group=128, symmetric=False)), "int4-zp"),
    "W4A16 groups of 64": (tensors(weights(4, group=64)), "int4-g64"),
    "W4A16 groups of 32": (tensors(weights(4, group=32)), "int4-g32"),
    "W4A16 2:4": (tensors(weights(4, group=128), format="marlin-24"), "int4-2:4"),
    "W8A16": (tensors(weights(8, strategy="channel"), format="pack-quantized"), "int8"),
    "W8A8": (tensors(weights(8, strategy="channel"), INT8, format="int-quantized"), "int8-w8a8"),
    "W8A8 2:4": (tensors(weights(8, strategy="channel"), INT8, sparsity_config=BITMASK), "2:4-int8"),
    "FP8": (tensors(weights(8, "float", "tensor"), FP8, format="naive-quantized"), "fp8"),
    "FP8 dynamic": (tensors(weights(8, "float", "channel"), FP8, format="float-quantized"), "fp8-row"),
    "FP8 blocks": (tensors(weights(8, "float", "block", block_structure=[128, 128]), FP8), "fp8-block"),
    "FP8 blocks, old": (tensors(weights(8, "float", "block", block_structure="128x128"), FP8), "fp8-block"),
    "FP8 2:4": (tensors(weights(8, "float", "channel"), FP8, sparsity_config=BITMASK), "2:4-fp8"),
    "FP8, not compressed": (
        tensors(weights(8, "float", "channel"), FP8, sparsity_config={**BITMASK, "format": "dense"}),
        "fp8-row",
    ),
    "2:4": ({**tensors({}), "config_groups": {}, "sparsity_config": BITMASK}, "2:4"),
    "NVFP4": (tensors(weights(4, "float", "tensor_group", 16), FP4, format="nvfp4-pack-quantized"), "nvfp4"),
    "MXFP4": (tensors(weights(4, "float", "group", 32), format="mxfp4-pack-quantized"), "mxfp4"),
    "MXFP8": (tensors(weights(8, "float", "group", 32), FP8), "mxfp8"),
    "AWQ": ({"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"}, "int4-zp"),
    "AWQ, its own keys": ({"quant_method": "awq", "w_bit": 4, "q_group_size": 64, "zero_point": True}, "int4-g64-zp"),
    "GPTQ": ({"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True, "desc_act": False}, "int4"),
    "GPTQ asymmetric": ({"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": False}, "int4-g32-zp"),
    "GPTQ-Int8": ({"quant_method": "gptq", "bits": 8, "group_size": 128, "sym": True}, "int8"),
    "GPTQ 3 bits": ({"quant_method": "gptq", "bits": 3, "group_size": 128, "sym": True}, "tilus-int3"),
    "AutoRound": ({"quant_method": "auto-round", "bits": 2, "group_size": 128, "data_type": "int"}, "tilus-int2"),
    "fp8 a tensor": ({"quant_method": "fp8", "activation_scheme": "static"}, "fp8"),
    "Qwen3-32B-FP8": (
        {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128], "activation_scheme": "dynamic"},
        "fp8-block",
    ),
    "fbgemm": ({"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0}, "fp8-row"),
    "bnb nf4": (
        {
            "_load_in_4bit": True, "_load_in_8bit": False, "bnb_4bit_quant_type": "nf4", "load_in_4bit": True,
            "bnb_4bit_use_double_quant": True, "load_in_8bit": False, "llm_int8_skip_modules": None,
            "quant_method": "bitsandbytes",
        },
        "int4-g64",
    ),
    "bnb before methods had names": ({"load_in_8bit": True, "load_in_4bit": False}, "int8-w8a8"),
    "ModelOpt FP8": (
        {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8", "exclude_modules": ["lm_head"]}},
        "fp8",
    ),
    "ModelOpt NVFP4, flat": (
        {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"], "config_groups": {
            "group_0": {"weights": {"num_bits": 4, "type": "float", "group_size": 16}, "targets": ["Linear"]}}},
        "nvfp4",
    ),
    "ModelOpt AWQ": ({"quant_method": "modelopt", "quant_algo": "W4A16_AWQ", "group_size": 64}, "int4-g64"),
    "ModelOpt FP8 blocks": ({"quant_method": "modelopt", "quant_algo": "fp8_pb_wo"}, "fp8-block"),
}  # fmt: skip


@pytest.mark.parametrize("name", LLAMAS)
def test_one_format_for_all_but_the_head(name: str, llama: Decoder) -> None:
    quantisation, expected = LLAMAS[name]
    assert stored(quantisation, llama).formats == dict.fromkeys(DENSE, expected)


def test_names_are_formats() -> None:
    named = {name for grains in _FORMATS.values() for name in grains.values()}
    assert named | set(_ALGORITHMS.values()) | set(_ZERO_POINTS.values()) | set(_WITH_PATTERN.values()) <= set(FORMATS)


def test_16_bits_are_none(llama: Decoder) -> None:
    assert stored_from_config({"model_type": "llama"}, llama) is None
    assert stored_from_config({"quantization_config": None}, llama) is None


@pytest.mark.parametrize(
    ("keys", "bits"),
    [
        ({"kv_cache_scheme": {"num_bits": 8, "type": "float", "dynamic": False}}, 8),
        ({"kv_cache_quant_algo": "FP8"}, 8),
        ({"kv_cache_quant_algo": "NVFP4"}, 4),
        ({"kv_cache_quant_algo": "none"}, None),
        ({"cache_bits": 8}, 8),
        ({}, None),
    ],
)
def test_the_cache(keys: dict[str, Any], bits: int | None, llama: Decoder) -> None:
    assert stored({"quant_method": "modelopt", "quant_algo": "FP8", **keys}, llama).cache_bits == bits


def test_a_cache_alone(llama: Decoder) -> None:
    quantisation = {"quant_method": "modelopt", "quant_algo": None, "kv_cache_quant_algo": "FP8"}
    assert stored(quantisation, llama) == Stored(method="modelopt", formats={}, cache_bits=8)


@pytest.mark.parametrize(
    "ignore",
    [
        ["re:.*self_attn.*"],
        ["re:(?i).*SELF_ATTN.*", "lm_head"],
        ["*self_attn*"],
        ["model.layers.*.self_attn"],
        ["self_attn"],
        ["q_proj", "k_proj", "v_proj", "o_proj"],
        [f"model.layers.{i}.self_attn" for i in range(32)],
        [f"model.language_model.layers.{i}.self_attn.{x}_proj" for i in range(32) for x in "qkvo"],
        [r"^model\.layers\.\d+\.self_attn\..*$"],
        ["re:.*self_attn.qkv_proj", "re:.*o_proj"],
    ],
)
def test_attention_left_alone_however_spelt(ignore: list[str], llama: Decoder) -> None:
    quantisation = {"quant_method": "fp8", "modules_to_not_convert": ignore}
    assert stored(quantisation, llama).formats == dict.fromkeys(MLP, "fp8")


@pytest.mark.parametrize(
    ("ignore", "kept"),
    [
        (["model.layers.0", "model.layers.31"], set()),  # two layers of 32: lost
        ([f"model.layers.{i}.mlp.down_proj" for i in range(17)], {MLP_OUT}),
        ([f"model.layers.{i}.mlp.down_proj" for i in range(16)], {MLP_OUT}),  # half: counted as 16 bits
        ([f"model.layers.{i}.mlp.down_proj" for i in range(15)], set()),
        (["re:.*k_proj", "re:.*v_proj"], {QKV}),
        (["re:.*k_proj"], set()),
        (["visual", "vision_tower.vision_model.encoder.layers.0.mlp.fc1", "model.embed_tokens", "mlp.gate"], set()),
    ],
)
def test_a_matrix_is_as_most_of_it(ignore: list[str], kept: set[str], llama: Decoder) -> None:
    formats = stored(tensors(weights(4, group=128)) | {"ignore": ["lm_head", *ignore]}, llama).formats
    assert set(DENSE) - set(formats) == kept


def test_groups_of_their_own(llama: Decoder) -> None:
    """FP8 attention, NVFP4 elsewhere, an INT8 head."""
    groups = {
        "a": {"weights": weights(8, "float", "channel"), "targets": ["re:.*self_attn.(q|k|v|o)_proj$"]},
        "b": {"weights": weights(4, "float", "tensor_group", 16), "targets": ["Linear"]},
        "c": {"weights": weights(8, strategy="channel"), "targets": ["lm_head"]},
    }
    found = stored({"quant_method": "compressed-tensors", "config_groups": groups, "ignore": []}, llama)
    assert found.formats == dict.fromkeys(ATTENTION, "fp8-row") | dict.fromkeys(MLP, "nvfp4") | {LM_HEAD: "int8"}


def test_other_families_names() -> None:
    """A rule in the words of GPT-NeoX reaches GPT-NeoX's matrices."""
    ignore = ["re:gpt_neox.layers.*.attention.query_key_value", "embed_out"]
    quantisation = tensors(weights(8, strategy="channel")) | {"ignore": ignore}
    formats = stored(quantisation, load_model("gpt-neox-20b").shape).formats
    assert formats == dict.fromkeys((ATTENTION_OUTPUT, *MLP), "int8")


def test_exceptions_of_gptq(llama: Decoder) -> None:
    quantisation = {
        "quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True, "lm_head": True,
        "dynamic": {r"-:.*\.self_attn\..*": {}, r"+:.*\.down_proj": {"bits": 8, "group_size": 128}},
    }  # fmt: skip
    assert stored(quantisation, llama).formats == {MLP_IN: "int4", MLP_OUT: "int8", LM_HEAD: "int4"}
    inside = {**quantisation, "dynamic": {}, "modules_in_block_to_quantize": [["mlp.up_proj", "mlp.gate_proj"]]}
    assert stored(inside, llama).formats == {MLP_IN: "int4", LM_HEAD: "int4"}
    rounds = {"quant_method": "auto-round", "bits": 4, "group_size": 128, "sym": True}
    own = {f"model.layers.{i}.mlp.down_proj": {"bits": 16} for i in range(32)}
    assert MLP_OUT not in stored({**rounds, "extra_config": own}, llama).formats


def test_gpt_oss() -> None:
    quantisation = {
        "quant_method": "mxfp4", "modules_to_not_convert": [
            "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"],
    }  # fmt: skip
    assert stored(quantisation, gpt_oss_20b()).formats == dict.fromkeys(EXPERTS, "mxfp4")


def test_deepseek_v3() -> None:
    quantisation = {
        "quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128],
    }  # fmt: skip
    every = (*LATENT, *MLP, *EXPERTS, SHARED_IN, SHARED_OUT)
    assert stored(quantisation, deepseek_v3()).formats == dict.fromkeys(every, "fp8-block")
    config = {"expert_dtype": "fp4", "quantization_config": quantisation}
    four = stored_from_config(config, deepseek_v3())
    assert four is not None
    assert four.formats == dict.fromkeys(every, "fp8-block") | dict.fromkeys(EXPERTS, "mxfp4")


def test_nvidias_deepseek() -> None:
    """Experts and MLPs in NVFP4; a list of exceptions for each layer's attention."""
    excluded = [f"model.layers.{i}.self_attn*" for i in range(61)]
    config = {
        "producer": {"name": "modelopt", "version": "0.23.0"},
        "quantization": {
            "quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8", "group_size": 16,
            "exclude_modules": [*excluded, "model.layers.61*", "*mlp.gate", "lm_head"],
        },
    }  # fmt: skip
    found = stored_from_config(config, deepseek_v3())
    assert found == Stored(
        method="modelopt", formats=dict.fromkeys((*MLP, *EXPERTS, SHARED_IN, SHARED_OUT), "nvfp4"), cache_bits=8
    )


def test_the_dense_layers_of_a_model_with_experts() -> None:
    """Three of 61 layers have an MLP; all three left alone, it keeps 16 bits."""
    ignore = [f"model.layers.{i}.mlp.{x}_proj" for i in range(3) for x in ("gate", "up", "down")]
    quantisation = tensors(weights(4, group=32)) | {"ignore": ["lm_head", "re:.*self_attn.*", *ignore]}
    expected = dict.fromkeys((*EXPERTS, SHARED_IN, SHARED_OUT), "int4-g32")
    assert stored(quantisation, deepseek_v3()).formats == expected


def test_mixed_precision() -> None:
    layers = {
        f"model.layers.{i}.{module}": {"quant_algo": algorithm}
        for i in range(48)
        for module, algorithm in (("self_attn.o_proj", "FP8"), ("mlp.experts.0.down_proj", "NVFP4"))
    }
    quantisation = {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": layers}
    assert stored(quantisation, qwen3_moe()).formats == {ATTENTION_OUTPUT: "fp8", EXPERTS_OUT: "nvfp4"}


def test_within_a_text_config() -> None:
    quantisation = {"quant_method": "fp8", "weight_block_size": [128, 128], "modules_to_not_convert": ["visual"]}
    found = stored_from_config({"text_config": {"quantization_config": quantisation}}, qwen3_moe())
    assert found is not None
    assert found.formats == dict.fromkeys((*ATTENTION, *EXPERTS), "fp8-block")


def test_the_older_key(llama: Decoder) -> None:
    found = stored_from_config({"compression_config": LLAMAS["W8A8"][0]}, llama)
    assert found is not None
    assert found.formats == dict.fromkeys(DENSE, "int8-w8a8")


GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128}
REFUSED: tuple[tuple[Any, str], ...] = (
    ([], r"quantization_config is \[\], allowed is an object of keys"),
    ({}, r"missing key quantization_config\.quant_method"),
    ({"quant_method": "aqlm"}, r"unknown quantization_config\.quant_method 'aqlm': .*Known are compressed-tensors"),
    ({"quant_method": ["awq"]}, r"unknown quantization_config\.quant_method"),
    ({**GPTQ, "bits": 9}, r"quantization_config\.bits is 9, allowed is integer weights of 1, 2, 3, 4, 5, 6, 7 or 8"),
    ({**GPTQ, "bits": "4"}, r"quantization_config\.bits is '4', allowed is a whole number"),
    ({"quant_method": "awq"}, r"missing key quantization_config\.bits"),
    ({**GPTQ, "group_size": 256}, r"group_size is 256, allowed is groups of 128, .* groups of 32 for 4-bit"),
    ({**GPTQ, "group_size": -1}, r"quantization_config\.group_size is -1, allowed"),
    ({**GPTQ, "bits": 3, "sym": False}, r"zero points with tilus-int3, allowed is integer weights of 4 and 8 bits"),
    ({**GPTQ, "dynamic": ["x"]}, r"quantization_config\.dynamic is \['x'\], allowed is an object of objects"),
    ({**GPTQ, "dynamic": {"-:(": {}}}, r"quantization_config\.dynamic holds '\(', allowed are regular expressions"),
    ({**GPTQ, "data_type": "mx_fp"}, r"data_type is 'mx_fp', allowed is 'int'"),
    ({"quant_method": "fp8", "weight_block_size": [64, 64]}, r"block_size is \[64, 64\], allowed is \[128, 128\]"),
    ({"quant_method": "fp8", "ignored_layers": "lm_head"}, r"ignored_layers is 'lm_head', allowed is a list of names"),
    ({"quant_method": "modelopt", "quant_algo": "W4A8_AWQ"}, r"unknown quantization_config\.quant_algo 'W4A8_AWQ'"),
    ({"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "INT3"}, r"kv_cache_quant_algo 'INT3'"),
    ({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"}, r"missing key .*\.quantized_layers"),
    ({"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 32}, r"group_size is 32, allowed .* is 16"),
    ({"quant_method": "bitsandbytes"}, r"load_in_4bit and load_in_8bit are both false"),
    (tensors(weights(4, group=128), INT8), r"bits of weights and activations is '4 and 8', allowed is 8 and 8"),
    (tensors(weights(4, strategy="channel")), r"group_0\.weights\.strategy is 'channel', allowed is groups of 128"),
    (tensors(weights(16, "float", "tensor")), r"weights\.num_bits is 16, allowed is floating-point weights of 4"),
    (tensors(weights(8, "float", "block", block_structure=[64, 128])), r"block_structure is \[64, 128\]"),
    (tensors(weights(4, group=64), format="marlin-24"), r"2:4 sparsity with int4-g64, allowed is FP8, INT8, and INT4"),
)  # fmt: skip


@pytest.mark.parametrize(("quantisation", "message"), REFUSED)
def test_refusals_name_key_value_and_what_is_allowed(quantisation: Any, message: str, llama: Decoder) -> None:
    with pytest.raises(ValueError, match=message):
        stored_from_config({"quantization_config": quantisation}, llama)


CONFIG = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 131072,
    "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "vocab_size": 128256,
}  # fmt: skip


def test_a_checkpoint_folder(tmp_path: Path) -> None:
    config = {**CONFIG, "quantization_config": LLAMAS["W4A16"][0]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = load_model(tmp_path)
    assert model.stored == Stored(method="compressed-tensors", formats=dict.fromkeys(DENSE, "int4"))
    (tmp_path / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "hqq"}}))
    with pytest.raises(ValueError, match=r"config\.json: unknown quantization_config\.quant_method 'hqq'"):
        load_model(tmp_path)


def test_modelopts_file_beside_the_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    beside = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}}
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(beside))
    expected = Stored(method="modelopt", formats=dict.fromkeys(DENSE, "fp8"), cache_bits=8)
    assert load_model(tmp_path).stored == expected
