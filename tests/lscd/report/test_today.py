"""Chapter on today's engines: what was held out is said to be, and the sentences hold the numbers of their tables."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from lscd.report import today
from lscd.report.exhibit import Context, Exhibit, percent
from perfmodel.analysis import expert_speedups
from perfmodel.catalog import load_model, load_sources
from perfmodel.evidence.runs import HARNESS_SOURCE, joined_served
from perfmodel.kernels import KERNELS
from perfmodel.plotting.style import house_style
from perfmodel.plotting.today import ENGINE_NAMES, LINES


@pytest.fixture(autouse=True)
def style() -> Iterator[None]:
    with house_style():
        yield
    plt.close("all")


@pytest.fixture(scope="module")
def engines(context: Context) -> Exhibit:
    return today.engines(context)


@pytest.fixture(scope="module")
def experts(context: Context) -> Exhibit:
    return today.sparse_experts(context)


def errors(table: pd.DataFrame) -> pd.Series:
    return (table["predicted"] / table["measured"] - 1).abs()


def test_errors_of_engines_are_those_of_the_table(engines: Exhibit) -> None:
    """Of runs that no fit saw; a rate's error is its time's here, so the table is enough."""
    table = engines.table
    assert list(table.columns) == [
        "load", "engine", "model", "gpu", "gpus", "batch", "concurrency", "measured", "predicted", "fitted",
    ]  # fmt: skip
    held = table[~table["fitted"]]
    together = held[held["load"] == "together"]
    for engine, rows in together.groupby("engine"):
        assert f"{engine} {percent(errors(rows).mean())} on {len(rows)}" in engines.finding
    served = held[held["load"] == "constant"]
    assert f"under load within {percent(errors(served).mean())} on {len(served)}." in engines.finding
    assert errors(held).mean() < 0.15


def test_all_runs_of_engines_are_there_and_none_twice(context: Context, engines: Exhibit) -> None:
    table = engines.table
    assert set(table["engine"]) == set(ENGINE_NAMES)  # of any version, with any kernel
    assert (table[["measured", "predicted"]] > 0).all(axis=None)
    served = joined_served()
    constant = table[table["load"] == "constant"]
    assert len(constant) == len(served)
    np.testing.assert_allclose(constant["measured"], served["tpot_ms"])
    assert constant["concurrency"].notna().all()
    runs = context.runs[context.runs["source"] != HARNESS_SOURCE]
    ours = runs["system"].str.startswith(tuple(ENGINE_NAMES))
    assert (table["load"] == "together").sum() == ours.sum()


def test_a_static_run_is_milliseconds_a_token_step(context: Context) -> None:
    static = today.static_runs(context)
    runs = context.runs[(context.runs["source"] != HARNESS_SOURCE)]
    runs = runs[runs["system"].str.startswith(tuple(ENGINE_NAMES))].reset_index(drop=True)
    # Each of `batch` sequences gets a token a step; rates are of a GPU.
    np.testing.assert_allclose(static["measured"], 1e3 * runs["batch"] / (runs["tokens_per_gpu_s"] * runs["gpus"]))
    assert (static["engine"] + "+").isin({f"{name}+" for name in ENGINE_NAMES}).all()


def test_sources_of_both_exhibits_are_known(engines: Exhibit, experts: Exhibit) -> None:
    for exhibit in (engines, experts):
        assert set(exhibit.sources) <= set(load_sources())
        assert exhibit.figure is not None


def test_speed_ups_of_experts_are_a_table_of_all_kernels(experts: Exhibit) -> None:
    table = experts.table
    assert list(table.columns) == ["kernel", "n", "active", "each", "speedup", "model"]
    assert len(table) == len(today.MODELS) * len(today.KERNELS) * len(today.BATCHES)
    assert set(table["kernel"]) == set(today.KERNELS) == set(LINES) <= set(KERNELS)
    assert (table["speedup"] > 0).all()
    one = table[(table["model"] == "deepseek-v3") & (table["kernel"] == "int4")]
    alone = expert_speedups(["int4"], today.GPU, "deepseek-v3", today.BATCHES, today.SPARSITY)
    np.testing.assert_array_equal(one["speedup"], alone["speedup"])


def test_titles_of_models_count_their_experts() -> None:
    for model, title in today.MODELS.items():
        experts = load_model(model).shape.usual.experts
        assert experts is not None
        assert title.endswith(f"{experts.per_token} of {experts.count}")


def test_the_finding_on_experts_holds_numbers_of_the_table(experts: Exhibit) -> None:
    rows = experts.table[experts.table["model"] == "qwen3-30b-a3b"]
    skinny = rows.loc[rows["each"] <= today.SKINNY, "n"].max()
    assert f"With 128 experts an expert keeps at most 64 tokens up to {skinny:.0f} in flight" in experts.finding
    at = {kernel: np.interp(64, part["n"], part["speedup"]) for kernel, part in rows.groupby("kernel")}
    best = max(("flash-llm", "bitmap", "two-four"), key=lambda kernel: at[kernel])
    assert f"At 70 % zeros and 64 tokens {today.KERNELS[best]} multiplies the experts of Qwen3-30B " in experts.finding
    order = "behind" if at[best] < at["int4"] else "ahead of"
    assert f"{at[best]:.2f} times as fast as dense, {order} INT4 ({at['int4']:.2f} times)." in experts.finding


def test_sixteen_times_the_tokens_are_as_skinny(experts: Exhibit) -> None:
    """With 8 of 128 experts a token's share of the batch is a sixteenth: why experts are a case of their own."""
    at = {}
    for model in ("mixtral-8x7b", "qwen3-30b-a3b", "deepseek-v3"):
        rows = experts.table[(experts.table["model"] == model) & (experts.table["kernel"] == "int4")]
        at[model] = np.interp(64, rows["each"], rows["n"])
    assert at["mixtral-8x7b"] == pytest.approx(64 * 4, rel=0.05)
    assert at["qwen3-30b-a3b"] == pytest.approx(64 * 16, rel=0.05)
    assert at["deepseek-v3"] == pytest.approx(64 * 32, rel=0.05)
    assert "they are assumed to cost what grouping costs dense ones" in experts.evidence
