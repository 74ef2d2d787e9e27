"""The share of the pipes: fitted on eight medians of SpInfer on an A100, judged on what the fit left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perfmodel.catalog import load_calibration
from perfmodel.catalog.specs import FittedKernel
from perfmodel.evidence import pipes_fit
from perfmodel.evidence.kernel_fit import BOXPLOT_GPU, BOXPLOT_TOKENS
from perfmodel.evidence.pipes_fit import benchmark_splits, boxplot_rows, fit_pipes, held_out_errors, simulated_medians
from perfmodel.evidence.speedups import boxplot_shapes
from perfmodel.kernels.register_decode import RegisterDecodeParameters
from perfmodel.pipeline import PipelineParameters, load_parameters
from perfmodel.pipeline.parameters import PIPELINE_FILE, PIPES


def stored() -> FittedKernel:
    return load_calibration(PIPELINE_FILE)[PIPES]


def test_splits_are_of_the_shapes_that_the_medians_sum_up() -> None:
    listed, summed_up = (
        sorted(map(tuple, table[["m", "k"]].to_numpy())) for table in (benchmark_splits(), boxplot_shapes())
    )
    assert listed == summed_up
    assert benchmark_splits()["split_k"].between(1, 7).all()


def test_medians_on_an_a100() -> None:
    """Twelve, four of them at 16 tokens, which the fit left out; at N = 32 the simulator is too fast, up to 9 %."""
    errors = {n: _errors(boxplot_rows((n,))) for n in (8, 16, 32)}
    fitted = np.concatenate([errors[n] for n in BOXPLOT_TOKENS])
    assert np.abs(fitted).mean() == pytest.approx(stored().mean_absolute_error, rel=0.01)
    assert np.abs(np.concatenate(list(errors.values()))).mean() < 0.05
    assert np.abs(errors[16]).mean() < 0.055
    assert max(np.abs(e).max() for e in errors.values()) < 0.10


def _errors(rows):
    return rows["speedup_median"].to_numpy() / simulated_medians(rows, load_parameters("bitmap")) - 1


def test_another_card_is_a_known_miss() -> None:
    """On an RTX A6000 memory-bound products are within a tenth; two at 70 and 75 % run faster than the share allows."""
    errors = held_out_errors(load_parameters("bitmap"))
    assert set(errors) == {BOXPLOT_GPU, "rtx-a6000"}
    assert len(errors["rtx-a6000"]) == 7
    assert 0.05 < np.abs(errors["rtx-a6000"]).mean() < 0.09
    assert np.median(np.abs(errors["rtx-a6000"])) < 0.07


def test_flash_llm_hardly_feels_the_share() -> None:
    """Its on-chip costs were fitted at the first guess of the share, and hold at the fitted one."""
    from perfmodel.catalog import load_kernel_times
    from perfmodel.evidence.pipeline_fit import FITS, predicted_us

    plan = next(plan for plan in FITS if plan.name == "flash-llm")
    rows = plan.select(load_kernel_times())
    guessed = replace(load_parameters("flash-llm"), pipe_share=PipelineParameters().pipe_share)
    times = [predicted_us("flash-llm", rows, p) for p in (guessed, load_parameters("flash-llm"))]
    assert np.abs(times[1] / times[0] - 1).mean() < 0.005
    assert np.abs(times[1] / rows["time_us"] - 1).mean() < 0.022


def test_the_closed_form_takes_the_fitted_share() -> None:
    assert RegisterDecodeParameters().pipe_share == pytest.approx(stored().parameters["pipe_share"], abs=0.01)


def test_a_fit_finds_the_share_its_medians_were_made_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a few shapes."""
    few, base = benchmark_splits().iloc[::10], load_parameters("bitmap")
    monkeypatch.setattr(pipes_fit, "benchmark_splits", lambda: few)
    monkeypatch.setattr(pipes_fit, "_dense_s", lambda n: np.full(len(few), 1e-4))
    rows = boxplot_rows(BOXPLOT_TOKENS)
    made = rows.assign(speedup_median=simulated_medians(rows, replace(base, pipe_share=0.58)))
    monkeypatch.setattr(pipes_fit, "boxplot_rows", lambda tokens: made)
    found = fit_pipes(base)
    assert found.parameters["pipe_share"] == pytest.approx(0.58, abs=0.01)
    assert found.mean_absolute_error < 0.01
