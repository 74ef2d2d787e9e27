"""Language models of the catalogue: their counts are the published ones, their layers are of the kinds stated."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from perfmodel.catalog import load_model, model_names
from perfmodel.catalog.decoder import (
    Block,
    Decoder,
    Experts,
    LatentAttention,
    Mlp,
    Recurrent,
    SelfAttention,
    Split,
)
from perfmodel.catalog.language_model import Layers

# Published as a rounded number alone: half a unit of its last digit. All other published counts are exact.
ROUNDED = {
    "opt-2.7b": 5e7, "opt-6.7b": 5e7, "opt-13b": 5e8, "opt-30b": 5e8, "opt-66b": 5e8, "opt-175b": 5e8,
    "bamba-9b": 5e6, "dbrx": 5e8, "glm-4.7-flash": 5e8, "glm-5": 5e8, "hunyuan-7b": 5e7,
    "nemotron-4-340b": 1e8, "gpt-20b": 6e8,
}  # fmt: skip
# What its authors derive from another model's: 671B of DeepSeek-V3, without the indexers of DeepSeek-V3.2 (0.9B).
DERIVED = {"deepseek-v3.2": 1e9}
ACTIVE = [name for name in model_names() if (known := load_model(name).published) and known.active_parameters]
CACHED = [name for name in model_names() if (known := load_model(name).published) and known.kv_bytes_per_token]


def test_the_catalogue_is_complete() -> None:
    assert len(model_names()) == 120
    assert all(load_model(name).published for name in model_names())


@pytest.mark.parametrize("name", model_names())
def test_parameters_agree_with_the_published_count(name: str) -> None:
    model = load_model(name)
    assert model.published is not None
    if tolerance := (ROUNDED | DERIVED).get(name):
        assert model.parameters == pytest.approx(model.published.parameters, abs=tolerance)
    else:
        assert model.parameters == model.published.parameters


@pytest.mark.parametrize("name", ACTIVE)
def test_active_parameters_agree_with_the_published_count(name: str) -> None:
    """Authors count both tables, not that of the inputs (of which a token reads one row), or neither."""
    shape, published = load_model(name).shape, load_model(name).published
    assert published is not None
    table = shape.vocab_size * shape.embedding_size
    tables = 1 if shape.tied_embeddings else 2
    counted = [shape.active_parameters - left_out * table for left_out in range(tables + 1)]
    assert min(abs(count / published.active_parameters - 1) for count in counted) < 0.03
    assert shape.active_parameters < shape.parameters


@pytest.mark.parametrize("name", CACHED)
def test_cache_agrees_with_the_published_size(name: str) -> None:
    model = load_model(name)
    assert model.published is not None
    assert 2 * model.shape.cached_values == model.published.kv_bytes_per_token


def test_parameters_of_a_model_small_enough_for_paper() -> None:
    """H = 4, two heads of 2, one K/V head, F = 6, vocabulary 10; every term by hand."""
    shape = Layers(
        layers=2, hidden_size=4, heads=2, kv_heads=1, head_dim=2, ffn_size=6, gated_mlp=True, experts=3,
        experts_per_token=1, vocab_size=10, embedding_size=4, tied_embeddings=False, learned_positions=0,
        attention_bias=True, output_bias=False, mlp_bias=False, norm="rmsnorm", norms_per_layer=2, final_norm=True,
        max_positions=8, source="by hand",
    ).decoder  # fmt: skip
    (block,) = shape.blocks
    attention, experts = block.parts
    assert sum(product.weights for product in attention.products(4)) == 4 * 4 + 2 * (4 * 2) + 4 * 4
    assert attention.vectors(4) == 4 + 2 + 2
    assert sum(product.weights for product in experts.products(4)) == 3 * (3 * 4 * 6) + 4 * 3
    assert shape.parameters == 2 * 10 * 4 + 2 * (56 + 228 + 2 * 4) + 4
    assert shape.active_parameters == shape.parameters - 2 * 2 * (3 * 4 * 6)


def attentions(shape: Decoder) -> Counter[int | None]:
    """Layers with self-attention, by their window."""
    found: Counter[int | None] = Counter()
    for count, part in shape.parts:
        if isinstance(part, SelfAttention):
            found[part.window] += count
    return found


def layers_of(shape: Decoder, kind: type) -> int:
    return sum(count for count, part in shape.parts if isinstance(part, kind))


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("llama-2-7b", {None: 32}),
        ("gpt-oss-120b", {128: 18, None: 18}),
        ("gpt-oss-20b", {128: 12, None: 12}),
        ("gemma-2-9b", {4096: 21, None: 21}),
        ("gemma-3-27b", {1024: 52, None: 10}),
        ("mistral-7b", {4096: 32}),
        ("mistral-nemo-12b", {None: 40}),
        ("command-r7b", {4096: 24, None: 8}),
        ("olmo-3-7b", {4096: 24, None: 8}),
        ("exaone-4.0-32b", {4096: 48, None: 16}),
        ("llama-4-scout", {8192: 36, None: 12}),
        ("gpt-neo-2.7b", {256: 16, None: 16}),
        ("qwen3-32b", {None: 64}),
    ],
)
def test_windows_are_in_the_layers_stated(name: str, layers: dict[int | None, int]) -> None:
    assert attentions(load_model(name).shape) == layers


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("deepseek-v3", {LatentAttention: 61, Mlp: 3, Experts: 58}),
        ("kimi-k2", {LatentAttention: 61, Mlp: 1, Experts: 60}),
        ("qwen3-next-80b-a3b", {Recurrent: 36, SelfAttention: 12, Experts: 48}),
        ("qwen3.5-9b", {Recurrent: 24, SelfAttention: 8, Mlp: 32}),
        ("kimi-linear-48b-a3b", {Recurrent: 20, LatentAttention: 7, Mlp: 1, Experts: 26}),
        ("llama-4-maverick", {SelfAttention: 48, Mlp: 24, Experts: 24}),
        ("llama-4-scout", {SelfAttention: 48, Mlp: 0, Experts: 48}),
        ("glm-4.5", {SelfAttention: 92, Mlp: 3, Experts: 89}),
        ("minimax-text-01", {Recurrent: 70, SelfAttention: 10, Experts: 80}),
        ("jamba-v0.1", {Recurrent: 28, SelfAttention: 4, Mlp: 16, Experts: 16}),
        ("granite-4.0-h-small", {Recurrent: 36, SelfAttention: 4, Experts: 40}),
        ("nemotron-nano-9b-v2", {Recurrent: 27, SelfAttention: 4, Mlp: 25}),
        ("nemotron-3-nano-30b-a3b", {Recurrent: 23, SelfAttention: 6, Experts: 23}),
        ("mamba-2.8b", {Recurrent: 64, SelfAttention: 0}),
        ("lfm2-1.2b", {Recurrent: 10, SelfAttention: 6, Mlp: 16}),
    ],
)
def test_layers_are_of_the_kinds_stated(name: str, layers: dict[type, int]) -> None:
    shape = load_model(name).shape
    assert {kind: layers_of(shape, kind) for kind in layers} == layers


@pytest.mark.parametrize("name", model_names())
def test_no_two_blocks_are_equal(name: str) -> None:
    shape = load_model(name).shape
    kinds = {msgspec.structs.replace(block, count=1) for block in shape.blocks}
    assert len(kinds) == len(shape.blocks)


def test_recurrent_states_have_the_sizes_of_the_papers() -> None:
    """Values of one sequence in all layers, by hand."""
    states = {
        "mamba-2.8b": (64 * 5120 * 16, 64 * 5120 * 3),
        "mamba-codestral-7b": (64 * 128 * 64 * 128, 64 * (8192 + 2 * 8 * 128) * 3),
        "qwen3-next-80b-a3b": (36 * 32 * 128 * 128, 36 * (2 * 16 * 128 + 32 * 128) * 3),
        "minimax-text-01": (70 * 64 * 128 * 128, 0),
        "lfm2-1.2b": (0, 10 * 2048 * 2),
    }
    for name, expected in states.items():
        recurrent = [(count, part) for count, part in load_model(name).shape.parts if isinstance(part, Recurrent)]
        found = [
            sum(count * getattr(part, kind) for count, part in recurrent) for kind in ("state_values", "recent_values")
        ]
        assert tuple(found) == expected


def test_small_matrices_of_a_recurrence_are_whole_on_every_gpu() -> None:
    for name in model_names():
        for _, part in load_model(name).shape.parts:
            if isinstance(part, Recurrent):
                assert {product.prunable for product in part.projections if product.split is Split.NONE} <= {False}


def test_what_is_beside_the_language_model_is_named() -> None:
    left_out = {name: load_model(name).shape.left_out for name in model_names()}
    assert left_out["gemma-3-27b"] == ("vision tower",)
    assert left_out["qwen3.5-9b"] == ("vision tower", "multi-token prediction layers")
    assert left_out["deepseek-v3"] == ("multi-token prediction layers",)
    assert left_out["qwen3-8b"] == ()


def test_a_layer_of_parallel_parts_is_summed_once() -> None:
    assert [block.all_reduces for block in load_model("falcon-7b").shape.blocks] == [1]
    assert [block.all_reduces for block in load_model("llama-2-7b").shape.blocks] == [2]
    assert isinstance(load_model("falcon-7b").shape.blocks[0], Block)
