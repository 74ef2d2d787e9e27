"""Tables for LLMServingSim: its columns, our times."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

from perfmodel.catalog import load_model
from perfmodel.serving.profile import step_profile
from perfmodel.serving.run import evaluate
from perfmodel.serving.transformer import Part
from perfmodel.units import MICRO

LENGTHS = {"input_len": 1024, "output_len": 256}
COLUMNS = {
    "dense": ["layer", "tokens", "time_us"],
    "per_sequence": ["layer", "sequences", "time_us"],
    "attention": ["prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us"],
    "moe": ["tokens", "activated_experts", "time_us"],
}
ONCE = ["embedding", "final_layernorm"]  # a step, not a layer
NORMS = 2  # of a layer, both as long as the row "layernorm"


@cache
def profile(model: str = "llama-3.1-8b", system: str = "vllm", **how: Any) -> dict[str, pd.DataFrame]:
    return step_profile(model, "h100", system, **LENGTHS, **how)


def wide(table: pd.DataFrame, index: str) -> pd.DataFrame:
    return table.pivot_table("time_us", index, "layer")


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("llama-3.1-8b", {"dense", "per_sequence", "attention"}),
        ("qwen3-30b-a3b", {"dense", "per_sequence", "attention", "moe"}),
    ],
)
def test_tables_have_the_simulators_columns(model: str, names: set[str]) -> None:
    tables = profile(model)
    assert set(tables) == names
    for name, table in tables.items():
        assert list(table.columns) == COLUMNS[name]
        assert (table["time_us"] > 0).all()
        assert np.isfinite(table["time_us"]).all()
        assert not table.duplicated(COLUMNS[name][:-1]).any()


def test_layers_have_the_simulators_names() -> None:
    common = {"embedding", "layernorm", "qkv_proj", "rotary_emb", "o_proj", "final_layernorm"}
    assert set(profile("qwen3-30b-a3b")["dense"]["layer"]) == common
    assert set(profile()["dense"]["layer"]) == common | {"gate_up_proj", "act_fn", "down_proj"}
    assert set(profile()["per_sequence"]["layer"]) == {"lm_head", "sampler"}


def test_times_grow_with_tokens_and_sequences() -> None:
    dense, sequences = wide(profile()["dense"], "tokens"), wide(profile()["per_sequence"], "sequences")
    assert dense.index.tolist() == [2**i for i in range(12)]
    assert sequences.index.tolist() == [2**i for i in range(9)]
    assert (dense.diff().iloc[1:] >= 0).to_numpy().all()
    assert (dense.iloc[-1] > dense.iloc[0]).all()
    assert (sequences.diff().iloc[1:] >= 0).to_numpy().all()


def test_attention_grows_along_each_axis() -> None:
    table = profile()["attention"]
    keys = COLUMNS["attention"][:-1]
    for axis in keys:
        others = [name for name in keys if name != axis]
        differences = table.sort_values(axis).groupby(others)["time_us"].diff().dropna()
        assert (differences >= -1e-9).all(), axis
    assert ((table["n_decode"] > 0) == (table["kv_decode"] > 0)).all()
    assert (table["prefill_chunk"] + table["n_decode"] > 0).all()
    assert (table.loc[table["prefill_chunk"] == 0, "kv_prefill"] == 0).all()


def test_attention_of_a_mixed_step_is_the_sum_of_both() -> None:
    times = profile()["attention"].set_index(COLUMNS["attention"][:-1])["time_us"]
    assert times[512, 1024, 64, 2048] == pytest.approx(times[512, 1024, 0, 0] + times[0, 0, 64, 2048])
    assert times[2048, 0, 0, 0] < times[2048, 16384, 0, 0]


def test_attention_is_that_of_a_step() -> None:
    """Of `evaluate`, whose mean context of 1024 + 2047 tokens is 2048."""
    one = evaluate("llama-3.1-8b", "h100", "vllm", batch=16, input_len=1024, output_len=2048)
    first = evaluate("llama-3.1-8b", "h100", "vllm", batch=16, input_len=1024, output_len=1)
    step_us = (one.parts[Part.ATTENTION] - first.parts[Part.ATTENTION]) / 2047 / MICRO
    times = profile()["attention"].set_index(COLUMNS["attention"][:-1])["time_us"]
    assert 32 * times[0, 0, 16, 2048] == pytest.approx(float(step_us), rel=0.02)


@pytest.mark.parametrize(
    ("model", "system", "how"),
    [
        ("llama-3.1-8b", "vllm", {}),
        ("llama-2-7b", "sglang", {}),
        ("llama-3.1-8b", "vllm+flash-llm", {"sparsity": 0.7}),
        ("llama-3.1-8b", "vllm+int4", {}),
        ("llama-3.1-70b", "vllm", {"gpus": 4}),
    ],
)
def test_rows_add_up_to_the_step(model: str, system: str, how: dict[str, Any]) -> None:
    """All layers, embedding, head and host are the products and the rest of a decoding step of `evaluate`."""
    tables = profile(model, system, **how)
    dense, sequences = wide(tables["dense"], "tokens"), wide(tables["per_sequence"], "sequences").sum(axis=1)
    layer = dense.drop(columns=ONCE).sum(axis=1) + (NORMS - 1) * dense["layernorm"]
    layers = load_model(model).shape.layers
    for batch in (1, 16, 256):
        asked = {"batch": batch, "input_len": 1024, **how}
        long, first = (evaluate(model, "h100", system, output_len=new, **asked).parts for new in (256, 1))
        step_s = sum(long[part] - first[part] for part in (Part.MATMUL, Part.OTHER)) / 255
        ours_s = (layers * layer[batch] + dense[ONCE].loc[batch].sum() + sequences[batch]) * MICRO
        assert ours_s == pytest.approx(float(step_s), rel=0.02)


def test_sparse_products_are_others_and_all_else_stays() -> None:
    dense, sparse = (
        wide(tables["dense"], "tokens") for tables in (profile(), profile(system="vllm+flash-llm", sparsity=0.7))
    )
    products = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
    assert (sparse[products] != dense[products]).all(axis=None)
    assert (sparse.loc[8, ["qkv_proj", "gate_up_proj"]] < dense.loc[8, ["qkv_proj", "gate_up_proj"]]).all()
    assert (sparse.loc[2048, products] > dense.loc[2048, products]).all()
    same = dense.columns.difference(products)
    pd.testing.assert_frame_equal(sparse[same], dense[same])
    pd.testing.assert_frame_equal(profile(system="vllm+flash-llm", sparsity=0.7)["attention"], profile()["attention"])


def test_a_small_cache_changes_attention_alone() -> None:
    half, whole = profile(cache_bits=8), profile()
    keys = COLUMNS["attention"][:-1]
    ratio = half["attention"].set_index(keys)["time_us"] / whole["attention"].set_index(keys)["time_us"]
    assert ratio[0, 0, 256, 16384] == pytest.approx(0.5, abs=0.05)
    assert ratio[2048, 16384, 0, 0] == 1
    pd.testing.assert_frame_equal(half["dense"], whole["dense"])


def test_experts_are_those_that_tokens_can_reach() -> None:
    table = profile("qwen3-30b-a3b")["moe"]
    assert (table["activated_experts"] <= np.minimum(128, 8 * table["tokens"])).all()
    assert (table["activated_experts"] >= 8).all()
    assert set(table.loc[table["tokens"] == 1, "activated_experts"]) == {8}
    few = table[table["tokens"] == 32].sort_values("activated_experts")
    assert few["time_us"].is_monotonic_increasing  # more experts are more bytes
    full = table[table["activated_experts"] == 128].sort_values("tokens")
    assert full["time_us"].is_monotonic_increasing
    keys = COLUMNS["moe"][:-1]
    dense, int4 = (profile("qwen3-30b-a3b", name)["moe"].set_index(keys)["time_us"] for name in ("vllm", "vllm+int4"))
    assert int4.index.equals(dense.index)
    assert int4[64, 128] < dense[64, 128] / 2  # four tokens each


def test_shared_matrices_are_shorter() -> None:
    one, two = (wide(profile(gpus=gpus)["dense"], "tokens") for gpus in (1, 2))
    products = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj", "act_fn", "rotary_emb"]
    assert (two.loc[1024, products] < one.loc[1024, products]).all()
    assert two["layernorm"].equals(one["layernorm"])


@pytest.mark.parametrize("model", ["gpt-oss-20b", "deepseek-v3", "bamba-9b", "gemma-3-12b", "deepseek-moe-16b"])
def test_layers_of_several_kinds_are_refused_by_name(model: str) -> None:
    with pytest.raises(ValueError, match=f"{model} has layers of several kinds: its profile has no place"):
        profile(model)
