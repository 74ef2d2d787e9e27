"""Errors on held-out evidence: the goals of the project."""

from __future__ import annotations

import pandas as pd
import pytest

from perfmodel.evidence.kernel_fit import BOXPLOT_TOKENS
from perfmodel.evidence.rows import boxplot_predictor, boxplot_quartiles, boxplot_table, launched_by_graph
from perfmodel.evidence.uncertainty import coverage
from perfmodel.evidence.validation import error_statistics, join_predictions, nearest_evidence
from perfmodel.kernels import KERNELS
from perfmodel.kernels.fits import calibrated, kernel_fits


def test_dense_times_of_an_unseen_gpu_generation(joined: pd.DataFrame) -> None:
    # H100 rows took no part in any fit: predicted from the datasheet.
    rows = joined[(joined["gpu"] == "h100") & (joined["kernel"] == "cublas") & (joined["n"] <= 64)]
    assert len(rows) > 5000
    assert rows["error"].abs().mean() <= 0.12


@pytest.mark.parametrize(("kernel", "goal"), [("quant-llm-w6", 0.06), ("quant-llm-w5", 0.06), ("int8", 0.08)])
def test_quantised_kernels_on_held_out_tokens(joined: pd.DataFrame, kernel: str, goal: float) -> None:
    rows = joined[(joined["kernel"] == kernel) & ~joined["fitted"]]
    assert set(rows["n"]) == {16}
    assert rows["error"].abs().mean() <= goal


def test_bitmap_quartiles_at_held_out_tokens() -> None:
    table = boxplot_table("bitmap")
    held_out = table[~table["n"].isin(BOXPLOT_TOKENS)]
    published = boxplot_quartiles(held_out)
    predicted = boxplot_predictor(KERNELS["bitmap"], held_out, calibrated("cublas"))(calibrated("bitmap"))
    assert len(published) == 12
    assert abs(predicted / published - 1).mean() <= 0.07


def test_replayed_graphs_are_faster_than_launches(joined: pd.DataFrame) -> None:
    graph = launched_by_graph(joined)
    assert set(joined[graph]["source"]) == {"aiconfigurator-gemm"}
    assert calibrated("cublas").launch_s > 1e-6


# Goals of the project for rows no parameter was fitted on (mean absolute error, Fig 9 at N = 16).
@pytest.mark.parametrize(
    ("kernel", "goal"), [("cublas", 0.03), ("flash-llm", 0.03), ("sparta", 0.08), ("sputnik", 0.10)]
)
def test_held_out_rows_of_figure_9(joined: pd.DataFrame, kernel: str, goal: float) -> None:
    rows = joined[(joined["source"] == "flash-llm-fig9") & (joined["kernel"] == kernel) & (joined["n"] == 16)]
    assert len(rows) == (12 if kernel == "cublas" else 36)
    assert not rows["fitted"].any()
    assert rows["error"].abs().mean() <= goal


def test_sparsity_sweep_of_flash_llm(joined: pd.DataFrame) -> None:
    rows = joined[(joined["source"] == "flash-llm-sweep") & (joined["kernel"] == "flash-llm")]
    assert len(rows) == 9
    assert rows["error"].abs().mean() <= 0.03


def test_dense_rows_of_unseen_gpus_are_near(joined: pd.DataFrame) -> None:
    rows = joined[(joined["source"] == "macko-bench") & (joined["kernel"] == "cublas")]
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
