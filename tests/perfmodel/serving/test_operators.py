"""Operators of a run: they add up to it, and count what others count."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from perfmodel.catalog import load_gpu, load_model
from perfmodel.catalog.models import model_names
from perfmodel.catalog.papers import load_paper_numbers
from perfmodel.serving.group import make_group
from perfmodel.serving.memory import weight_bytes
from perfmodel.serving.operators import COLUMNS, beside, operator_table
from perfmodel.serving.run import evaluate
from perfmodel.serving.transformer import Part
from perfmodel.serving.what_if import WhatIf
from tests.perfmodel.serving.cases import A100, FLASH

SHORT = {"batch": 16, "input_len": 100, "output_len": 28}


def step_of(table: pd.DataFrame, phase: str = "decode") -> pd.DataFrame:
    return table[table["phase"] == phase].set_index("operator")


def assert_adds_up(asked: tuple[Any, ...], **how: Any) -> pd.DataFrame:
    """Times are those of the run, shares those of the phase, and every number is one."""
    table, run = operator_table(*asked, **how), evaluate(*asked, **how)
    seconds = table.groupby("phase")["time_s"].sum()
    assert seconds["prefill"] == pytest.approx(float(run.ttft_s), rel=1e-12)
    assert seconds["decode"] == pytest.approx(float(run.tpot_s), rel=1e-12)
    assert table.groupby("phase")["share"].sum().to_numpy() == pytest.approx([1.0, 1.0])
    assert not table.duplicated(["phase", "operator"]).any()
    assert (table[["bytes", "weight_bytes", "cache_bytes", "count"]] >= 0).all(axis=None)
    assert (table["time_s"] > 0).all()
    assert table.loc[table["weight_bytes"] > 0, "intensity"].gt(0).all()
    return table


@pytest.mark.parametrize(
    ("system", "sparsity"), [("vllm", 0.0), ("fastertransformer", 0.0), ("vllm-v1+flash-llm", 0.7)]
)
def test_operators_of_every_model_add_up_to_its_run(system: str, sparsity: float) -> None:
    for model in model_names():
        assert_adds_up((model, "h100", system), **SHORT, sparsity=sparsity)


ELSEWHERE = WhatIf(offloaded=0.3, hidden_communication=0.5)
KINDS: dict[str, tuple[tuple[str, str, str], dict[str, Any]]] = {
    "shared": (("llama-3.1-70b", "h100", "sglang"), {"gpus": 4}),
    "stages": (("opt-30b", "a100-80gb", "flash-llm"), {"gpus": 4, "pipeline_parallel": 2, "sparsity": 0.8}),
    "spread": (("deepseek-v3", "h200", "vllm"), {"gpus": 8, "expert_parallel": 8}),
    "draft": (("llama-3.1-8b", "h100", "vllm-v1"), {"what_if": WhatIf(draft_tokens=4)}),
    "stream": (("opt-350m", "a100-80gb", "fastertransformer"), {"what_if": WhatIf(draft_tokens=2, draft_layers=2)}),
    "elsewhere": (("gpt-oss-20b", "h100", "vllm"), {"what_if": ELSEWHERE, "gpus": 2}),
    "columns": (("llama-3.1-8b", "h100", "vllm"), {"what_if": WhatIf(activation_sparsity=0.5), "batch": 1}),
    "cache": (("gemma-3-12b", "h100", "vllm"), {"what_if": WhatIf(cache_sparsity=0.7), "cache_bits": 8}),
    "bound": (("llama-2-7b", "a100-80gb", "vllm+gqsa-w4s50"), {}),
    "quantised": (("gpt-oss-120b", "a100-80gb", "vllm+int4"), {"gpus": 4, "pipeline_parallel": 2}),
    "deepspeed": (("opt-30b", "a100-80gb", "deepspeed"), {"launch": "graph"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_however_it_runs_operators_add_up(kind: str) -> None:
    asked, how = KINDS[kind]
    assert_adds_up(asked, **SHORT | how)


def test_what_waits_has_a_row_of_its_own() -> None:
    names = {kind: set(operator_table(*KINDS[kind][0], **SHORT | KINDS[kind][1])["operator"]) for kind in KINDS}
    assert {"all-reduce", "logits-all-gather", "host"} <= names["shared"]
    assert {"pipeline-fill", "stage-handover", "launches"} <= names["stages"]
    assert {"all-to-all", "expert-permutation", "experts-in", "latent-up"} <= names["spread"]
    assert "all-reduce" not in names["spread"]
    assert "draft" in names["draft"]
    assert {"weights-from-elsewhere", "sliding-attention", "attention"} <= names["elsewhere"]
    assert "host" not in names["deepspeed"] | names["stages"]
    assert "launches" not in names["deepspeed"]  # in a graph


def test_operators_are_the_parts_of_the_run() -> None:
    """Products and attention of both phases, by name, are the two bars of the run's breakdown."""
    how = {**SHORT, "gpus": 4, "sparsity": 0.8}
    table, run = operator_table("opt-66b", A100, FLASH, **how), evaluate("opt-66b", A100, FLASH, **how)
    times = table["phase"].map({"prefill": 1, "decode": SHORT["output_len"] - 1})
    total = (times * table["time_s"]).groupby(table["operator"]).sum()
    products = ["qkv", "attention-output", "mlp-in", "mlp-out", "lm-head"]
    assert total[products].sum() == pytest.approx(float(run.parts[Part.MATMUL]))
    assert total["attention"] == pytest.approx(float(run.parts[Part.ATTENTION]))
    assert total[["all-reduce", "logits-all-gather"]].sum() == pytest.approx(float(run.parts[Part.COMMUNICATION]))


def test_a_step_of_llama_2_7b_by_hand() -> None:
    """One token: 2 FLOP and 2 bytes a weight; attention over 1023 + 1/2 tokens of 32 heads of 128 in 32 layers."""
    step = step_of(operator_table("llama-2-7b", "a100-80gb", "vllm", batch=1, input_len=1023, output_len=2))
    sizes = {"qkv": 3 * 4096**2, "attention-output": 4096**2, "mlp-in": 2 * 4096 * 11008, "mlp-out": 11008 * 4096}
    for name, weights in sizes.items():
        assert step.loc[name, "count"] == 32
        assert step.loc[name, "flop"] == 32 * 2 * weights
        assert step.loc[name, "weight_bytes"] == 32 * 2 * weights
        assert step.loc[name, "intensity"] == pytest.approx(1.0, abs=2e-3)
        assert step.loc[name, "bound"] == "memory"
    inputs_and_outputs = 2 * (4096 + 3 * 4096)
    assert step.loc["qkv", "bytes"] == 32 * (2 * sizes["qkv"] + inputs_and_outputs)
    assert step.loc["lm-head", "flop"] == 2 * 32000 * 4096
    assert step.loc["attention", "flop"] == 32 * 4 * 32 * 128 * 1024
    assert step.loc["attention", "cache_bytes"] == 32 * 2 * 2 * 32 * 128 * 1024


def test_a_prompt_of_llama_3_1_8b_by_hand() -> None:
    """Grouped keys: 8 of 32 heads; the logits of a prompt's last token alone; causal pairs n (n + 1) / 2."""
    n = 2048
    first = step_of(operator_table("llama-3.1-8b", "h100", "vllm", batch=2, input_len=n, output_len=1), "prefill")
    assert first.loc["qkv", "flop"] == 32 * 2 * 2 * n * 4096 * (4096 + 2 * 1024)
    assert first.loc["mlp-in", "flop"] == 32 * 2 * 2 * n * 4096 * 2 * 14336
    assert first.loc["lm-head", "flop"] == 2 * 2 * 4096 * 128256
    assert first.loc["attention", "flop"] == 2 * 32 * 4 * 32 * 128 * n * (n + 1) / 2
    assert first.loc["attention", "bytes"] == 2 * 32 * 2 * n * 2 * 128 * (32 + 8)
    assert (first.loc[["qkv", "mlp-in", "mlp-out"], "bound"] == "compute").all()


@pytest.mark.parametrize("paper", ["genz", "llm-viewer"])
def test_products_count_what_roofline_tools_print(paper: str) -> None:
    """FLOP and bytes of a layer's square product and of the one back; gate and up are one here, as are Q, K and V."""
    names = {"q": "attention-output", "o": "attention-output", "down": "mlp-out"}
    numbers = load_paper_numbers(paper)
    alike = numbers[numbers["kernel"].isin(names) & (numbers["model"] == "llama-2-7b")]
    alike = alike[alike["quantity"].isin(["gflop", "traffic-gb", "intensity"])]
    assert len(alike) == 12
    for row in alike.itertuples():
        lengths = {"batch": int(row.batch), "input_len": int(row.input_len), "output_len": 2}
        own = step_of(operator_table("llama-2-7b", "rtx-a6000", "vllm", **lengths), row.system).loc[names[row.kernel]]
        counted = {"gflop": own["flop"] / 32e9, "traffic-gb": own["bytes"] / 32e9, "intensity": own["intensity"]}
        published = float(row.published)
        assert counted[row.quantity] == pytest.approx(published, abs=max(float(row.err), 1e-6 * published))


@pytest.mark.parametrize("system", ["vllm", "vllm+flash-llm", "vllm+int4", "sglang+fp8"])
@pytest.mark.parametrize("model", ["llama-3.1-8b", "opt-30b", "mixtral-8x7b", "deepseek-v2-lite"])
def test_all_weights_that_memory_holds_are_read_once(model: str, system: str) -> None:
    """By a prompt long enough to visit every expert; of tables, only the head's."""
    how: dict[str, Any] = {"input_len": 2000, "output_len": 2, "sparsity": 0.7 if "flash" in system else 0.0, "gpus": 2}
    table = operator_table(model, "h100", system, batch=8, **how)
    group, _ = make_group(model, "h100", system, **how)
    shape = load_model(model).shape
    tokens = shape.vocab_size * shape.embedding_size / (2 if group.system.engine.split_tokens else 1)
    own_table = 0 if shape.tied_embeddings and group.system.engine.split_tokens else tokens
    beside_products = own_table + shape.learned_positions * shape.hidden_size + shape.vectors
    beside_products += shape.head_bias * shape.vocab_size
    held = float(weight_bytes(group)) - 2 * beside_products
    assert step_of(table, "prefill")["weight_bytes"].sum() == pytest.approx(held, rel=1e-9)


def test_busy_shares_are_those_of_the_operators() -> None:
    """Energy counts weights and cache read, products and prompt pairs multiplied: the same numbers."""
    from perfmodel.serving.energy import sustained_bytes_per_s, sustained_flops_share

    h100, asked = load_gpu("h100"), ("qwen3-30b-a3b", "h100", "vllm")
    table, run = operator_table(*asked, **SHORT), evaluate(*asked, **SHORT)
    first, step, steps = step_of(table, "prefill"), step_of(table), SHORT["output_len"] - 1
    read = first["weight_bytes"].sum() + steps * (step["weight_bytes"] + step["cache_bytes"]).sum()
    flops = first["flop"].sum() + steps * (step["flop"].sum() - step.loc["attention", "flop"])
    memory, tensor = run.busy()
    assert float(memory * run.total_s) == pytest.approx(read / sustained_bytes_per_s(h100))
    rate = sustained_flops_share(h100) * h100.peak.fp16_tensor
    assert float(tensor * run.total_s) == pytest.approx(flops / rate)


def test_bounds_are_those_of_the_resource_that_is_scarce() -> None:
    one = step_of(operator_table("llama-3.1-8b", "h100", "vllm", batch=1, input_len=64, output_len=8))
    many = step_of(operator_table("llama-3.1-8b", "h100", "vllm", batch=2048, input_len=64, output_len=8))
    assert (one.loc["mlp-in", "bound"], many.loc["mlp-in", "bound"]) == ("memory", "compute")
    assert (one.loc["norms-activations", "bound"], many.loc["norms-activations", "bound"]) == ("latency", "memory")
    assert one.loc["host", "bound"] == "host"
    long = operator_table("llama-3.1-8b", "h100", "vllm", batch=64, input_len=4096, gpus=2)
    first, step = step_of(long, "prefill"), step_of(long)
    assert (first.loc["all-reduce", "bound"], first.loc["attention", "bound"]) == ("link", "compute")
    assert step.loc["attention", "bound"] == "memory"


def test_no_operator_is_faster_than_the_roof() -> None:
    for model in ("llama-3.1-8b", "qwen3-30b-a3b", "bamba-9b"):
        table = operator_table(model, "h100", "vllm", batch=64, input_len=1024, output_len=64)
        gpu = load_gpu("h100")
        roof = np.minimum(gpu.peak.fp16_tensor, table["intensity"] * gpu.dram.bandwidth_bytes_per_s)
        assert not (table["flops_per_s"] > roof * 1.001).any(), model


def test_a_sparse_format_changes_bytes_and_no_flop() -> None:
    dense, sparse = (
        operator_table("llama-3.1-8b", "h100", system, **SHORT, sparsity=share)
        for system, share in (("vllm", 0.0), ("vllm+flash-llm", 0.7))
    )
    both = beside(sparse, dense)
    assert tuple(both.columns) == (*COLUMNS, "dense_time_s", "speedup")
    assert both["phase"].tolist() == sparse["phase"].tolist()
    for phase in ("prefill", "decode"):
        own, other, joined = (step_of(table, phase) for table in (sparse, dense, both))
        assert own["flop"].sum() == other["flop"].sum()
        assert own.loc["mlp-in", "weight_bytes"] < 0.7 * other.loc["mlp-in", "weight_bytes"]
        assert joined["dense_time_s"].sum() == pytest.approx(other["time_s"].sum())
        assert joined.loc["mlp-in", "speedup"] == other.loc["mlp-in", "time_s"] / own.loc["mlp-in", "time_s"]
        assert joined.loc["attention", "speedup"] == 1


def test_operators_of_one_table_alone_keep_both_sums() -> None:
    plain, drafted = (
        operator_table("llama-3.1-8b", "h100", "vllm", **SHORT, what_if=what_if)
        for what_if in (WhatIf(), WhatIf(draft_tokens=4))
    )
    for own, other in ((plain, drafted), (drafted, plain)):
        both = beside(own, other)
        for column, table in (("time_s", own), ("dense_time_s", other)):
            assert both.groupby("phase")[column].sum().to_dict() == pytest.approx(
                table.groupby("phase")["time_s"].sum().to_dict()
            )
        assert both["phase"].is_monotonic_decreasing  # prefill first
    alone = step_of(beside(plain, drafted)).loc["draft"]
    assert (alone["time_s"], alone["bytes"], alone["bound"]) == (0, 0, "memory")
    assert math.isnan(alone["speedup"])


def test_one_token_has_no_step() -> None:
    table = operator_table("llama-3.1-8b", "h100", "vllm", batch=1, output_len=1)
    assert set(table["phase"]) == {"prefill"}


def test_arrays_of_one_are_numbers_and_others_are_refused() -> None:
    asked = ("opt-30b", "a100-80gb", "flash-llm")
    one, same = (operator_table(*asked, batch=b, sparsity=s) for b, s in ((8, 0.8), (np.array([8]), np.array([0.8]))))
    pd.testing.assert_frame_equal(one, same)
    with pytest.raises(ValueError, match="batch must be one number in a table of operators, got 2 of them"):
        operator_table(*asked, batch=[1, 2])
    with pytest.raises(ValueError, match="sparsity must be one number in a table of operators, got 3 of them"):
        operator_table(*asked, batch=1, sparsity=[0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="batch must be a whole number of at least 1, got 0"):
        operator_table(*asked, batch=0)
    with pytest.raises(ValueError, match="opt-30b cannot be shared by 3 GPUs"):
        operator_table(*asked, batch=1, gpus=3)
