"""Tables of published runs and their parts: provenance, and what a part adds up to."""

from __future__ import annotations

import pandas as pd
import pytest

from perfmodel.catalog import gpu_names, load_gpu, load_model, load_sources
from perfmodel.evidence.run_spread import _spread, judged_runs, run_spread
from perfmodel.evidence.runs import (
    engine_runs,
    joined_runs,
    outside_runs,
    public_reports,
    published_parts,
    published_runs,
    spinfer_runs,
    vllm_runs,
)
from perfmodel.serving.run import evaluate
from perfmodel.serving.systems import load_system
from perfmodel.serving.transformer import Part

CASE = ["model", "gpu", "gpus", "system", "batch", "input_len", "output_len", "source"]


@pytest.mark.parametrize(
    "table", [published_runs, spinfer_runs, published_parts, vllm_runs, engine_runs, public_reports]
)
def test_every_row_names_what_the_catalogue_knows(table):
    rows = table()
    assert set(rows["source"]) <= set(load_sources())
    assert set(rows["gpu"]) <= set(gpu_names())
    assert all(load_model(name) for name in rows["model"].unique())
    assert all(load_system(name) for name in rows["system"].unique())
    assert rows["sparsity"].between(0, 1).all()
    case = CASE + (["part"] if "part" in rows else []) + (["sparsity"] if table is vllm_runs else [])
    assert not rows.duplicated(case).any()


def test_parts_of_a_run_are_each_positive_and_agree_with_its_throughput():
    parts = published_parts().query("source == 'flash-llm-fig16'")
    assert (parts["gpu_s"] > 0).all()
    assert set(parts["part"]) == set(Part)
    case = [name for name in CASE if name != "source"]
    total = parts.groupby(case, as_index=False)["gpu_s"].sum()
    both = total.merge(published_runs(), on=case)
    assert len(both) == len(total) == 8
    tokens = both["gpu_s"] * both["tokens_per_gpu_s"] / both["batch"]
    assert tokens.to_numpy() == pytest.approx(512, rel=0.06)  # read as 516 to 535 tokens a sequence


def test_spinfers_profile_has_the_totals_of_its_throughput():
    # Batch 16 and 256 output tokens are inferred from this.
    parts = published_parts().query("source == 'spinfer-fig15' and model != 'opt-66b'")
    case = ["model", "gpu", "gpus", "system"]
    total = parts.groupby(case, as_index=False)["gpu_s"].sum()
    runs = spinfer_runs().query("batch == 16 and output_len == 256")
    both = total.merge(runs, on=case)
    assert len(both) >= 8
    ratio = both["gpu_s"] * both["tokens_per_gpu_s"] / (16 * 256)
    assert ratio.between(0.9, 1.2).all()


def test_sparse_products_of_the_profile_read_no_faster_than_the_memory():
    rows = published_parts().query("source == 'spinfer-fig15' and part == 'matmul' and system != 'fastertransformer'")
    for row in rows.itertuples():
        shape, system = load_model(row.model).shape, load_system(row.system)
        weights = shape.layers * 12 * shape.hidden_size**2
        read = float(system.format.bytes_of(weights**0.5, weights**0.5, row.sparsity))
        assert read * 256 / row.gpu_s < load_gpu(row.gpu).dram.bandwidth_bytes_per_s


def test_runs_that_did_not_fit_have_no_error():
    tables = [published_runs(), spinfer_runs(), outside_runs(), vllm_runs(), engine_runs()]
    stated = pd.concat(tables)["fits"]
    runs = joined_runs()
    queued = stated.sum() - len(runs)
    assert 0 < queued < 0.2 * len(engine_runs())  # of engines, whose cache would not fit
    assert 0 < len(runs) < stated.sum() < len(stated)
    assert runs["error"].notna().all()


def test_public_reports_judge_and_take_part_in_nothing() -> None:
    """Each is compared in the quantity its thread reports: within 30 % all but a batch of 64 of gpt-oss."""
    runs = joined_runs(runs=public_reports())
    assert len(runs) == 33
    assert not runs["fitted"].any()
    worst = runs.loc[runs["error"].abs().idxmax()]
    assert (worst["model"], worst["batch"]) == ("gpt-oss-120b", 64)
    assert (runs["error"].abs() < 0.3).sum() == 32
    assert runs.groupby("quantity")["error"].apply(lambda error: error.abs().mean()).max() < 0.25
    spread = judged_runs()
    assert run_spread() == _spread(spread[spread["source"] != "public-reports"])


def test_times_between_tokens_are_compared_without_the_prompt() -> None:
    """A report of 4.6 ms a token at batch 1 is 217 tokens per GPU-second whatever the prompt took."""
    row = public_reports().iloc[[0]]
    assert row["quantity"].item() == "tpot"
    assert row["tokens_per_gpu_s"].item() == pytest.approx(1000 / 4.6)
    run = evaluate("qwen3-1.7b", "a100-80gb", "vllm-v1", batch=1, input_len=128, output_len=128)
    assert joined_runs(runs=row)["predicted_us"].item() == pytest.approx(1e6 * float(run.tpot_s))
