"""Errors on held-out evidence: the goals of the project."""

from __future__ import annotations

import pandas as pd
import pytest

from perfmodel.evidence.kernel_fit import BOXPLOT_GPU, BOXPLOT_SOURCE, BOXPLOT_TOKENS, boxplot_baseline
from perfmodel.evidence.rows import kernel_evidence
from perfmodel.evidence.speedups import boxplot_predictor, boxplot_quartiles, boxplots
from perfmodel.evidence.summary import GOALS
from perfmodel.evidence.uncertainty import coverage
from perfmodel.evidence.validation import error_statistics, join_predictions, nearest_evidence
from perfmodel.kernels import KERNELS
from perfmodel.kernels.fits import calibrated, kernel_fits


def test_dense_times_of_few_tokens_in_serving_stacks(joined: pd.DataFrame) -> None:
    rows = joined[
        (joined["gpu"] == "h100") & (joined["kernel"] == "cublas") & (joined["n"] <= 64) & ~joined["resident"]
    ]
    assert len(rows) > 3000
    assert rows["error"].abs().mean() <= 0.06


# INT8 is fitted to TensorRT-LLM's own times as well, which are a tenth off what the paper's speed-ups imply.
@pytest.mark.parametrize(("kernel", "goal"), [("quant-llm-w6", 0.06), ("quant-llm-w5", 0.06), ("int8", 0.095)])
def test_quantised_kernels_on_held_out_tokens(joined: pd.DataFrame, kernel: str, goal: float) -> None:
    rows = joined[(joined["kernel"] == kernel) & (joined["source"] == "quant-llm-figures")]
    rows = rows[~rows["fitted"] & ~rows["resident"]]
    assert set(rows["n"]) == {16}
    assert rows["error"].abs().mean() <= goal


def test_bitmap_quartiles_at_held_out_tokens() -> None:
    table = boxplots()
    table = table[(table["source"] == BOXPLOT_SOURCE) & (table["kernel"] == "bitmap")]
    held_out = table[~table["n"].isin(BOXPLOT_TOKENS)]
    published = boxplot_quartiles(held_out)
    baseline = boxplot_baseline(kernel_evidence(calibrated("cublas")))
    predicted = boxplot_predictor(KERNELS["bitmap"], BOXPLOT_GPU, held_out, baseline)(calibrated("bitmap"))
    assert len(published) == 12
    assert abs(predicted / published - 1).mean() <= 0.06


AMD = "hipsparselt-pytorch"


def test_a_source_launches_in_one_way(joined: pd.DataFrame) -> None:
    """On a GPU; but for one, which replayed graphs on data-centre GPUs only."""
    ways = joined.groupby(["source", "gpu"])["launch"].unique()
    assert (ways.str.len() == 1).all()
    graphs = set(ways.index[ways.str[0] == "graph"])
    assert {source for source, _ in graphs} == {"aiconfigurator-gemm", "aiconfigurator-quantised", "slidesparse", AMD}
    assert ways.index[ways.str[0] == "stream"].isin([("slidesparse", "rtx-4090")]).any()
    assert {gpu for source, gpu in graphs if source == "slidesparse"} == {"a100-80gb-pcie", "h100-pcie"}


LONG = ("mamf-finder", "gpu-benchmark", "gpu-flops-bench")


# Dense products of weights beyond the L2 that no fit saw, by GPU; all but the H100 and RTX 4090 were never fitted.
@pytest.mark.parametrize(
    ("gpu", "most"),
    [
        ("a100-40gb", 0.065),
        ("rtx-a5000", 0.07),
        ("rtx-a6000", 0.06),
        ("rtx-4090", 0.03),
        ("h100", 0.055),
        ("gb200", 0.09),
    ],
)
def test_dense_products_elsewhere(joined: pd.DataFrame, gpu: str, most: float) -> None:
    rows = joined[(joined["gpu"] == gpu) & (joined["kernel"] == "cublas") & ~joined["fitted"] & ~joined["resident"]]
    rows = rows[~rows["source"].isin({"slidesparse", *LONG})]
    assert len(rows) >= 6
    assert rows["error"].abs().mean() <= most


# A library's best algorithm at 64 to 16,384 tokens, where no fit saw it.
@pytest.mark.parametrize(("gpu", "most"), [("a100-80gb-pcie", 0.08), ("h100-pcie", 0.11), ("rtx-4090", 0.05)])
def test_dense_products_of_many_tokens_elsewhere(joined: pd.DataFrame, gpu: str, most: float) -> None:
    rows = joined[(joined["gpu"] == gpu) & (joined["kernel"] == "cublas") & (joined["source"] == "slidesparse")]
    rows = rows[~rows["resident"] & ~rows["fitted"]]
    assert len(rows) > 70
    assert rows["error"].abs().mean() <= most


# Products of thousands of tokens that no fit saw, from tables of what accelerators reach: a product may be the fastest
# of many, or its operands constant. Mean error over GPUs; what misses by more than a quarter is named.
@pytest.mark.parametrize(
    ("kernel", "most", "missed"), [("cublas", 0.11, {"l4"}), ("fp8", 0.13, set()), ("nvfp4", 0.06, set())]
)
def test_long_products(joined: pd.DataFrame, kernel: str, most: float, missed: set[str]) -> None:
    rows = joined[joined["source"].isin(LONG) & (joined["kernel"] == kernel) & ~joined["fitted"]]
    by_gpu = rows.groupby("gpu")["error"].median().abs()
    assert len(by_gpu) == {"cublas": 21, "fp8": 9, "nvfp4": 3}[kernel]
    assert by_gpu.mean() <= most
    assert set(by_gpu[by_gpu > 0.25].index) == missed


@pytest.mark.parametrize(
    ("kernel", "gpu", "most"),
    [
        ("flash-llm", "rtx-a5000", 0.06), ("flash-llm-noreorder", "rtx-a6000", 0.095),
        ("flash-llm-noreorder", "rtx-4090", 0.03), ("bitmap", "rtx-4090", 0.10), ("bitmap", "rtx-a6000", 0.11),
        ("sputnik", "v100", 0.14), ("sputnik", "rtx-4090", 0.14), ("sparta", "rtx-4090", 0.035),
    ],
)  # fmt: skip
def test_sparse_products_elsewhere(joined: pd.DataFrame, kernel: str, gpu: str, most: float) -> None:
    rows = joined[(joined["gpu"] == gpu) & (joined["kernel"] == kernel) & ~joined["resident"]]
    assert not rows["fitted"].any()
    assert rows["error"].abs().mean() <= most


MISSED = {"cublas": 0.029}  # its fixed part is 17 us in this benchmark, 3 to 12 in others that launch in a stream


@pytest.mark.parametrize(("kernel", "goal"), GOALS.items())
def test_held_out_rows_of_figure_9(joined: pd.DataFrame, kernel: str, goal: float) -> None:
    """Goals of the project for rows no parameter was fitted on: mean absolute error at N = 16."""
    rows = joined[(joined["source"] == "flash-llm-fig9") & (joined["kernel"] == kernel) & (joined["n"] == 16)]
    assert len(rows) == (12 if kernel == "cublas" else 36)
    assert not rows["fitted"].any()
    assert (rows["error"].abs().mean() <= goal) == (kernel not in MISSED)
    assert rows["error"].abs().mean() <= MISSED.get(kernel, goal)


def test_sparsity_sweep_of_flash_llm(joined: pd.DataFrame) -> None:
    rows = joined[(joined["source"] == "flash-llm-sweep") & (joined["kernel"] == "flash-llm")]
    assert len(rows) == 9
    assert rows["error"].abs().mean() <= 0.03


def test_dense_rows_of_one_token_are_near(joined: pd.DataFrame) -> None:
    """Three cards share what their memory sustains: each alone must be near."""
    rows = joined[(joined["source"] == "macko-bench") & (joined["kernel"] == "cublas")]
    assert rows["fitted"].all()
    statistics = error_statistics(rows, ["gpu"]).set_index("gpu")
    assert (statistics["mean"] < 0.08).all()
    assert (statistics["rank"] > 0.99).all()


def test_nearest_evidence_finds_the_row_itself(joined: pd.DataFrame) -> None:
    row = nearest_evidence(joined, "flash-llm", "a100-80gb", 36864, 9216, 16, 0.9)
    assert row is not None
    assert (row["m"], row["k"], row["n"], row["sparsity"]) == (36864, 9216, 16, 0.9)
    assert nearest_evidence(joined, "flash-llm", "v100", 36864, 9216, 16, 0.9) is None


def test_rows_of_a_user_without_a_fit_are_held_out(own: pd.DataFrame) -> None:
    joined = join_predictions(own)
    assert not joined["fitted"].any()
    assert 0.01 < joined["error"].abs().mean() < 0.2
    assert coverage(joined, kernel_fits()).empty
