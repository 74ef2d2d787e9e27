"""Chapter on SpInfer: everything published is held out, and no prediction knows what it is drawn over."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from matplotlib import pyplot as plt

from lscd.report import spinfer
from lscd.report.exhibit import Context, percent
from perfmodel.evidence.runs import spinfer_runs
from perfmodel.evidence.summary import second_sources
from perfmodel.kernels import KERNELS
from perfmodel.plotting.style import house_style


@pytest.fixture(autouse=True)
def style() -> Iterator[None]:
    with house_style():
        yield
    plt.close("all")


def test_nothing_of_these_figures_was_fitted_but_six_bars(context: Context) -> None:
    kernels = context.joined[context.joined["source"] == spinfer.SWEEP]
    runs = context.runs[context.runs["source"] == spinfer.RUNS]
    assert len(kernels) == 53
    assert len(runs) == 206
    assert not kernels["fitted"].any()
    assert not runs["fitted"].any()
    parts = context.parts[(context.parts["source"] == spinfer.PARTS) & context.parts["fitted"]]
    assert set(parts["part"]) == {"other"}
    assert set(parts["gpu"]) == {"rtx-4090"}
    assert f"Fitted are the {len(parts)} bars" in spinfer.breakdown(context).evidence
    for kernel in ("bitmap", "flash-llm-noreorder"):
        assert context.calibration[kernel].gpus == ["a100-40gb"], "what FITTED_ON says"


def test_lines_over_the_sweep_are_those_of_the_benchmark(context: Context) -> None:
    """Called in a loop, so that line and error speak of one prediction."""
    table = spinfer.time_against_sparsity(context).table.dropna(subset="published_us")
    joined = context.joined[context.joined["source"] == spinfer.SWEEP]
    both = table.merge(joined, on=["kernel", "sparsity"], suffixes=("_line", ""))
    assert len(both) == len(joined) - 1  # the dense kernel's one row stands at sparsity 0
    np.testing.assert_allclose(both["time_us_line"], both["predicted_us"], rtol=1e-6)
    np.testing.assert_allclose(both["published_us"], both["time_us"])


def test_boxes_are_ordered_and_their_medians_those_of_the_second_sources() -> None:
    table = spinfer.quartile_table()
    assert len(table) == 2 * 3 * 4 * 4  # GPUs, N, sparsities, kernels
    assert not set(table["kernel"]) & set(spinfer.BOUNDED)
    for which in ("", "predicted_"):
        assert (table[f"{which}q1"] <= table[f"{which}median"]).all()
        assert (table[f"{which}median"] <= table[f"{which}q3"]).all()
    medians = second_sources()
    both = table.merge(medians[medians["source"] == spinfer.BOXES], on=["gpu", "kernel", "n", "sparsity"])
    assert len(both) == len(table)
    np.testing.assert_allclose(both["predicted_median"], both["predicted"])
    np.testing.assert_allclose(both["median"], both["published"])


def test_kernels_left_out_of_the_boxes_are_those_that_are_only_bounded(context: Context) -> None:
    evidence = spinfer.box_plots(context).evidence
    for kernel in spinfer.BOUNDED:
        assert f"Left out is {KERNELS[kernel].title}" in evidence
        assert kernel not in set(second_sources()["kernel"])


def test_many_tokens_reach_what_the_figure_shows_without_padding(context: Context) -> None:
    table = spinfer.many_tokens(context).table
    for kernel, rows in table.groupby("kernel"):
        n = rows["n"].to_numpy()
        assert (n.min(), n.max()) == (8, 4096)
        assert (KERNELS[str(kernel)].padded_n(n) == n).all()
        assert rows["published_speedup"].notna().sum() == 12
    assert table["extrapolated"].all()


def test_predictions_do_not_know_the_published_rates() -> None:
    published = spinfer_runs()
    other = published.assign(tokens_per_gpu_s=published["tokens_per_gpu_s"].to_numpy()[::-1] * 2)
    ours, theirs = spinfer.run_grid(published), spinfer.run_grid(other)
    np.testing.assert_array_equal(ours["tokens_per_gpu_s"], theirs["tokens_per_gpu_s"])


def test_runs_cover_all_points_and_their_errors_are_printed(context: Context) -> None:
    exhibit = spinfer.end_to_end(context)
    both = exhibit.table.dropna(subset="published_tokens_per_gpu_s")
    assert len(both) == 206
    error = both["published_tokens_per_gpu_s"] / both["tokens_per_gpu_s"] - 1  # of the time
    means = error.abs().groupby(both["system"]).mean()
    for system, title in spinfer.SYSTEMS.items():
        assert f"{title} {percent(means[system])}" in exhibit.finding
    assert error.abs().mean() < 0.12


def test_memory_agrees_with_the_points_that_are_drawn(context: Context) -> None:
    seen = context.runs[context.runs["source"] == spinfer.RUNS]
    asked = spinfer.run_grid(spinfer_runs())
    agree, cases = spinfer._memory_verdicts(asked[asked["batch"].isin((8, 16, 32))], seen)
    assert cases == 5 * 4 * 3 * 5  # setups, systems, batches, lengths
    assert agree > 0.95 * cases


def test_bars_hold_all_parts_of_a_run(context: Context) -> None:
    parts = context.parts[context.parts["source"] == spinfer.PARTS]
    table = spinfer.beside(parts, spinfer.SYSTEMS)
    assert len(table) == len(parts[[*spinfer.SETUP, "system"]].drop_duplicates())
    for which, column in (("", "gpu_s"), ("predicted_", "predicted_gpu_s")):
        drawn = table[[f"{which}{part}" for part in spinfer.PART_NAMES]].to_numpy().sum()
        assert drawn == pytest.approx(parts[column].sum())
    alone = table[table["gpus"] == 1]
    assert (alone["communication"] == 0).all()
    assert alone["label"].str.endswith("1 GPU").all()
