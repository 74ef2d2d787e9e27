"""Operators of a decoder layer, against totals from outside and by hand."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from perfmodel.catalog import load_model, model_names
from perfmodel.catalog.decoder import Mlp, SelfAttention
from perfmodel.serving.transformer import (
    activation_bytes,
    all_matrices,
    attention_flops,
    block_matrices,
    cache_bytes,
    can_share,
    check_split,
    head_matrices,
    kv_bytes_per_token,
    layer_matrices,
    local_kv_heads,
    mean_seen,
    other_launches,
    seen,
    splits,
)


def matrix_parameters(model):
    return sum(matrix.layers * float(matrix.weights) for matrix in all_matrices(model.shape))


@pytest.mark.parametrize("name", model_names())
def test_matrices_tables_and_vectors_are_all_parameters(name):
    model = load_model(name)
    shape = model.shape
    head, *projections = head_matrices(shape)
    tables = shape.vocab_size * shape.embedding_size + shape.learned_positions * shape.hidden_size
    own_head = 0 if shape.tied_embeddings else float(head.weights)
    embedding = tables + own_head + sum(float(w.weights) for w in projections) + shape.head_bias * shape.vocab_size
    assert matrix_parameters(model) + embedding + shape.vectors == model.parameters
    # Biases and norms are a thin rest, and never negative.
    assert 0 <= shape.vectors < 2e-2 * model.parameters


@pytest.mark.parametrize("name", model_names())
def test_matrices_hold_the_published_parameters(name):
    model = load_model(name)
    assert model.published is not None
    assert matrix_parameters(model) + model.shape.embedding_parameters == pytest.approx(
        model.published.parameters, rel=0.05
    )


@pytest.mark.parametrize("name", ["opt-30b", "opt-66b", "opt-175b"])
def test_four_matrices_of_opt_as_the_paper_lists_them(name):
    shape = load_model(name).shape
    h = shape.hidden_size
    assert [(int(w.m), int(w.k)) for w in layer_matrices(shape)] == [(3 * h, h), (h, h), (4 * h, h), (h, 4 * h)]


@pytest.mark.parametrize("p", [2, 4, 8])
def test_tensor_parallel_shares_the_weights_evenly(p):
    shape = load_model("opt-66b").shape
    for whole, part in zip(layer_matrices(shape), layer_matrices(shape, p), strict=True):
        assert part.weights * p == whole.weights
        assert (part.m == whole.m) != (part.k == whole.k)


def test_released_split_k_table_lists_the_local_rows():
    # Local row counts in the released Flash-LLM's split-K table: 13824 = QKV of OPT-66B on two GPUs, 18432 its MLP1.
    rows = {int(w.m) for w in layer_matrices(load_model("opt-66b").shape, 2)}
    assert rows == {13824, 9216, 18432}


def test_kv_cache_of_one_token():
    assert float(kv_bytes_per_token(load_model("opt-30b").shape)) == 2 * 48 * 7168 * 2  # 1.376 MB
    # Llama-3.1-70B: 8 key-value heads of 128 in 80 layers, 320 KiB a token.
    assert float(kv_bytes_per_token(load_model("llama-3.1-70b").shape)) == 320 * 1024


def test_key_value_heads_are_replicated_beyond_their_number():
    part = load_model("llama-3.1-70b").shape.attentions[0]
    assert local_kv_heads(part, [1, 2, 8, 16]).tolist() == [8, 4, 1, 1]


def test_gated_mlp_has_both_projections_in_one_product():
    shape = load_model("llama-2-7b").shape
    named = {w.name: w for w in layer_matrices(shape)}
    assert (float(named["mlp-in"].m), float(named["mlp-out"].k)) == (2 * 11008, 11008)


def test_mixture_of_experts_visits_two_of_eight_for_one_token_and_all_for_many():
    shape = load_model("mixtral-8x7b").shape
    experts = next(w for w in layer_matrices(shape) if w.name == "experts-in")
    products, tokens = experts.products(np.array([1.0, 4096.0]))
    assert products == pytest.approx([2.0, 8.0])
    assert tokens.tolist() == [1, 1024]
    assert {w.name for w in layer_matrices(shape) if not w.prunable} == {"router"}


def test_dense_model_has_one_product_with_all_tokens():
    products, tokens = layer_matrices(load_model("opt-30b").shape)[0].products([8.0])
    assert (products.tolist(), tokens.tolist()) == ([1], [8])


def test_attention_flops_by_hand():
    # Two products of L x L x head_dim multiply-adds in each of 32 heads.
    part = load_model("llama-2-7b").shape.attentions[0]
    assert attention_flops(part, 10) == 2 * 2 * 10 * 10 * 128 * 32


def test_activation_bytes_shrink_only_in_the_split_half():
    shape = load_model("opt-66b").shape
    whole, half = (activation_bytes(shape, shape.usual, p) for p in (1, 2))
    inner = next(part.size for part in shape.usual.parts if isinstance(part, Mlp))
    assert float(whole - half) == 2 * inner  # inner activation read and written in FP16, half of it elsewhere


def test_more_kernels_in_a_layer_with_experts():
    opt, mixtral = (other_launches(load_model(name).shape.usual) for name in ("opt-30b", "mixtral-8x7b"))
    assert (opt, mixtral) == (3, 3)  # the router's instead of the activation, which is among the experts' own


@pytest.mark.parametrize("p", [0, 3, 5, 64, -1, float("nan")])
def test_impossible_split_is_refused(p):
    with pytest.raises(ValueError, match="opt-30b cannot be shared by"):
        check_split(load_model("opt-30b"), p)


def test_splits_are_divisors():
    assert splits(load_model("opt-30b")) == [1, 2, 4, 8]
    assert splits(load_model("opt-175b")) == [1, 2, 4, 8, 16]
    assert can_share(load_model("opt-30b").shape, [1, 2, 3, 1.5]).tolist() == [True, True, False, False]


def test_normalised_heads_cost_a_launch_and_their_bytes():
    shape = load_model("llama-3.1-8b").shape
    attention, mlp = shape.usual.parts
    normed = msgspec.structs.replace(shape.usual, parts=(msgspec.structs.replace(attention, scales=256), mlp))
    assert other_launches(normed) == other_launches(shape.usual) + 1
    extra = activation_bytes(shape, normed, 4) - activation_bytes(shape, shape.usual, 4)
    assert float(extra) == 2 * 2 * 128 * (32 / 4 + 8 / 4)  # read and written, 2 bytes each


WINDOWED = SelfAttention(heads=8, kv_heads=8, head_dim=64, window=100)


def test_a_window_is_all_that_is_seen_and_its_mean_is_that_of_the_steps():
    assert seen(WINDOWED, [50, 100, 500]).tolist() == [50, 100, 100]
    # Contexts grow from the prompt's end by one a step; as an integral, so half a token apart.
    for prompt, new in ((10, 20), (90, 40), (200, 7)):
        each = np.minimum(prompt + np.arange(new) + 0.5, 100)
        assert float(mean_seen(WINDOWED, prompt, new)) == pytest.approx(each.mean(), abs=0.02)


@pytest.mark.parametrize("name", model_names())
def test_a_cache_is_a_line_until_windows_are_full(name):
    shape = load_model(name).shape
    one, two, three = (float(cache_bytes(shape, n)) for n in (1, 2, 3))
    assert three - two == pytest.approx(two - one) == float(kv_bytes_per_token(shape))


@pytest.mark.parametrize("name", model_names())
def test_every_gpu_of_a_group_holds_its_part(name):
    model = load_model(name)
    degree = splits(model)[-1]
    for block in model.shape.blocks:
        whole, part = (block_matrices(model.shape, block, p) for p in (1, degree))
        for w, local in zip(whole, part, strict=True):
            assert float(w.weights) <= float(local.weights) * degree * 1.0000001
