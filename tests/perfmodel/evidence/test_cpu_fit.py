"""Times of a CPU go through the same fit as those of GPUs: parameters come back, and one thread is held out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from perfmodel.catalog.checks import checked_kernel_times
from perfmodel.evidence.kernel_fit import FIT_RULES, fit, fitted_rows, predictor
from perfmodel.evidence.rows import with_residency
from perfmodel.evidence.uncertainty import with_spread
from perfmodel.evidence.validation import join_predictions
from perfmodel.kernels import KERNELS
from perfmodel.kernels.fits import interval, kernel_fits, kernel_parameters
from tests.comparison import assert_close

RULE = next(rule for rule in FIT_RULES if rule.source == "cpu-kernels")
SHAPES = (*(RULE.shapes or ()), (1536, 576), (11008, 4096))
CPU = RULE.gpu.partition("@")[0]


def synthetic(kernel: str, parameters: object) -> pd.DataFrame:
    """What a machine would measure on which the model is exact."""
    sizes = [(m, k, n, s, t) for m, k in SHAPES for n in (1, 4, 8, 16) for s in (0.5, 0.6, 0.9) for t in (1, 2)]
    rows = pd.DataFrame(sizes, columns=["m", "k", "n", "sparsity", "threads"])
    same = {"kernel": kernel, "time_us": 1.0, "time_err_us": 0.0, "status": "value", "cache": "warm"}
    rows = rows.assign(gpu=CPU + "@" + rows.pop("threads").astype(str), source=RULE.source, note="", **same)
    rows = with_residency(checked_kernel_times(rows))
    return rows.assign(time_us=predictor(KERNELS[kernel], rows)(parameters) * 1e6)


@pytest.fixture(scope="module")
def bitmap() -> pd.DataFrame:
    wanted = replace(KERNELS["cpu-bitmap"].Parameters(), read_share=0.9, calls=2.0, decode_flops=6.0, token_flops=4.0)
    return synthetic("cpu-bitmap", wanted)


def test_the_fit_finds_what_made_the_times(bitmap: pd.DataFrame) -> None:
    found = fit("cpu-bitmap", bitmap)
    assert found.parameters == pytest.approx(
        {"read_share": 0.9, "calls": 2.0, "decode_flops": 6.0, "token_flops": 4.0}, rel=0.01
    )
    assert found.gpus == [RULE.gpu]
    assert found.fitted_on.startswith(f"cpu-kernels on {RULE.gpu}, all N, 576 x 576, ")
    assert found.fitted_on.endswith("sparsity 0, 0.5, 0.7, 0.9")


def test_one_thread_other_shapes_and_sparsities_are_held_out(bitmap: pd.DataFrame) -> None:
    chosen = fitted_rows(bitmap)
    assert chosen.any()
    seen, other = bitmap[chosen], bitmap[~chosen]
    assert set(seen["gpu"]) == {RULE.gpu}
    assert set(other["gpu"]) == {f"{CPU}@1", f"{CPU}@2"}
    assert not set(zip(seen["m"], seen["k"], strict=True)) & {(1536, 576), (11008, 4096)}
    assert set(seen["sparsity"]) == {0.5, 0.9}
    assert not bitmap["resident"].any()


def test_kernels_of_cpus_leave_the_spread_of_the_others_alone(bitmap: pd.DataFrame) -> None:
    """Foreign errors are pooled by kind of device: a bad CPU does not widen a GPU's interval."""
    stored = {name: kernel_fits()[name] for name in ("sputnik",)}
    wrong = bitmap.assign(time_us=bitmap["time_us"] * np.where(bitmap["gpu"] == RULE.gpu, 1.0, 3.0))
    from perfmodel.evidence.rows import kernel_evidence
    from perfmodel.kernels.fits import calibrated

    published = kernel_evidence(calibrated("cublas"))
    both = pd.concat([published[published["kernel"] == "sputnik"], wrong], ignore_index=True)
    fits = {**stored, "cpu-bitmap": fit("cpu-bitmap", wrong)}
    alone, together = with_spread(stored, both)["sputnik"], with_spread(fits, both)
    assert together["sputnik"] == alone
    assert together["cpu-bitmap"].spread["gpu"] > 1.0  # log 3, on one thread


def test_predictions_of_a_fitted_cpu_kernel_have_its_interval(bitmap: pd.DataFrame) -> None:
    from perfmodel.evidence.rows import calls, machines, shapes_of

    fits = with_spread({"cpu-bitmap": fit("cpu-bitmap", bitmap)}, bitmap)
    model, rows = KERNELS["cpu-bitmap"], bitmap[fitted_rows(bitmap)]
    machine, shape, call = machines(rows), shapes_of(rows), calls(rows)
    result = model.time(machine, shape, kernel_parameters(fits["cpu-bitmap"], "cpu-bitmap"), call)
    low, high = interval(model, fits, RULE.gpu, machine, shape, call, result)
    assert_close(result.time_s * 1e6, rows["time_us"].to_numpy(), relative=0.02)
    assert (low < result.time_s).all()
    assert (high < 1.5 * result.time_s).all()


def test_errors_on_cpu_rows_are_joined_like_all_others(bitmap: pd.DataFrame) -> None:
    joined = join_predictions(bitmap)
    assert len(joined) == len(bitmap)
    assert np.isfinite(joined["error"]).all()
    assert joined["error"].abs().max() > 0.05  # assumed parameters are not those that made the times
