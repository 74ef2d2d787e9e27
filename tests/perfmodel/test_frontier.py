"""Quality beside speed: what is published, what is predicted, and what stays a gap."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from perfmodel.catalog import load_gpu, load_model
from perfmodel.evidence import accuracy
from perfmodel.evidence.accuracy import DENSE
from perfmodel.evidence.relatives import family_and_size
from perfmodel.frontier import (
    LAYERS,
    PRUNING,
    SIBLING,
    best,
    by_budget,
    efficient,
    frontier,
    over_dense,
    with_fewer_layers,
)
from perfmodel.kernels import KERNELS
from perfmodel.kernels.fits import unmeasured_kernels
from perfmodel.worth import at_batch

STEP: dict[str, Any] = {"gpus": 1, "kernels": (), "input_len": 64, "output_len": 512}


@pytest.fixture(scope="module")
def llama() -> pd.DataFrame:
    """Llama 3.1 8B on an H100, batch 16."""
    return frontier("llama-3.1-8b", "h100")


def made(*rows: tuple[str, float, float, float, float]) -> pd.DataFrame:
    """A frontier of ways with a loss, a speed and its interval; one result each."""
    names = ["way", "loss", "tokens_per_gpu_s", "low", "high"]
    table = pd.DataFrame(rows, columns=names)
    return table.assign(loss_high=table["loss"], results=2, sources="a b")


def test_dense_comes_first_and_loses_nothing(llama: pd.DataFrame) -> None:
    first = llama.iloc[0]
    assert (first["way"], first["loss"], first["kernel"], first["gpus"]) == (DENSE, 0.0, "cublas", 1)
    assert first["low"] == first["tokens_per_gpu_s"] == first["high"]
    at = at_batch(load_model("llama-3.1-8b"), load_gpu("h100"), 16, 0.0, **STEP)
    assert first["tokens_per_gpu_s"] == pytest.approx(16 / at.dense.step_s)


def test_losses_are_the_published_ones_and_speeds_those_of_worth(llama: pd.DataFrame) -> None:
    known = accuracy.variants("llama-3.1-8b")
    shown = llama[llama["results"].notna() & ~llama["way"].isin([SIBLING, LAYERS])]
    assert len(shown) > 15
    merged = shown.merge(known, on=accuracy.VARIANT, suffixes=("", "_known"))
    assert len(merged) == len(shown)
    assert (merged["loss"] == merged["loss_known"]).all()
    at = at_batch(load_model("llama-3.1-8b"), load_gpu("h100"), 16, 0.5, **STEP)
    rival = next(rival for rival in at.rivals if rival.kernel == "two-four")
    row = llama[llama["way"] == "2:4"].iloc[0]
    speeds = [row[name] / llama["tokens_per_gpu_s"].iloc[0] for name in ("tokens_per_gpu_s", "low", "high")]
    assert speeds == pytest.approx(rival.speedup_over(at.dense))


def test_gaps_stay_gaps(llama: pd.DataFrame) -> None:
    """A way without results has a speed and no loss, one without a kernel a loss and no speed."""
    silent = llama[llama["gap"] == "not published in points"]
    assert len(silent)
    assert silent["loss"].isna().all()
    assert silent["tokens_per_gpu_s"].notna().all()
    slow = llama[llama["gap"] == "no measured kernel on this GPU"]
    assert (slow["way"] == "NVFP4").any()  # an H100 has no FP4
    assert slow["tokens_per_gpu_s"].isna().all()
    assert (llama["gap"] == "")[llama["loss"].notna() & llama["tokens_per_gpu_s"].notna()].all()


def test_only_measured_kernels_take_part(llama: pd.DataFrame) -> None:
    used = set(llama["kernel"].dropna())
    assert used <= set(KERNELS) - set(unmeasured_kernels())
    assert len(used) > 5


def test_a_large_model_takes_the_fewest_gpus_that_hold_it() -> None:
    table = frontier("opt-66b", "a100-80gb")
    gpus = table.groupby("way")["gpus"].first()
    assert (gpus[DENSE], gpus["INT4 weights"]) == (2, 1)
    two = frontier("opt-66b", "a100-80gb", gpus=2)
    assert set(two["gpus"].dropna()) == {2}
    small = frontier("opt-66b", "rtx-4090", gpus=1)
    assert small.loc[small["way"] == DENSE, "gap"].item() == "too large for 1 GPU"


def test_smaller_models_of_the_family_take_part_dense() -> None:
    table = frontier("opt-30b", "h100")
    small = table[table["way"] == SIBLING].set_index("model")
    assert "opt-13b" in small.index
    assert small.loc["opt-13b", "kernel"] == "cublas"
    assert small.loc["opt-13b", "loss"] > 0
    assert small.loc["opt-13b", "low"] < small.loc["opt-13b", "tokens_per_gpu_s"] < small.loc["opt-13b", "high"]
    own = frontier("opt-13b", "h100").iloc[0]
    assert small.loc["opt-13b", "tokens_per_gpu_s"] == pytest.approx(own["tokens_per_gpu_s"])


def test_a_model_of_which_nothing_is_published_has_speeds_alone() -> None:
    table = frontier("gpt-oss-20b", "h100")
    assert table["loss"].notna().sum() == 1  # dense
    assert set(table["gap"]) <= {"", "not published in points", "no measured kernel on this GPU"}
    found = best(table, 2.0)
    assert found is not None
    assert found.row["way"] == DENSE


def test_losses_of_another_family_never_appear() -> None:
    for model in ("llama-3.1-70b", "qwen2.5-7b", "opt-66b", "gemma-2-9b"):
        table = frontier(model, "b200")
        family = family_and_size(model)[0]
        assert {family_and_size(name)[0] for name in table["model"].dropna()} == {family}


def test_the_best_within_a_budget_names_its_ties() -> None:
    table = made(
        (DENSE, 0, 100, 100, 100), ("FP8", 0.5, 150, 140, 160), ("2:4", 1.5, 155, 120, 170), ("4:8", 3, 300, 290, 310)
    )
    strict, loose, pruned = best(table, 1.0), best(table, 2.0), best(table, 2.0, PRUNING)
    assert strict is not None
    assert loose is not None
    assert pruned is not None
    assert (strict.row["way"], strict.ties, strict.sure) == ("FP8", (), True)
    assert (loose.row["way"], loose.ties) == ("2:4", ("FP8",))
    assert pruned.row["way"] == "2:4"
    assert best(table[1:], 0.1) is None
    one = best(table.assign(sources="a"), 1.0)
    assert one is not None
    assert not one.sure  # one source proves little


def test_the_efficient_are_beaten_by_none() -> None:
    table = made(
        (DENSE, 0, 100, 0, 0),
        ("FP8", 0.5, 150, 0, 0),
        ("2:4", 1.5, 120, 0, 0),
        ("4:8", 3, 300, 0, 0),
        ("6:8", np.nan, 999, 0, 0),
    )
    assert efficient(table)["way"].tolist() == [DENSE, "FP8", "4:8"]


def test_fewer_layers_are_a_smaller_model() -> None:
    model = load_model("opt-30b")
    half = with_fewer_layers(model, 0.5)
    assert half.shape.layers == model.shape.layers / 2
    assert with_fewer_layers(model, 0.999).shape.layers == 1
    whole, part = (at_batch(m, load_gpu("h100"), 16, 0.0, **STEP).dense.step_s for m in (model, half))
    assert 0.45 < part / whole < 0.6


def test_by_budget_is_the_best_of_each_and_grows_with_it(llama: pd.DataFrame) -> None:
    found = by_budget(llama, (0.0, 1.0, 5.0))
    for budget, row in found.iterrows():
        alone = best(llama, float(str(budget)))
        assert alone is not None
        assert row["fastest"] == alone.title
        assert row["loss"] <= float(str(budget))
        assert over_dense(alone.row, llama) == pytest.approx((row["speedup"], *_ends(row, llama)))
    assert found["speedup"].is_monotonic_increasing
    assert found["speedup"].iloc[0] >= 1


def _ends(row: pd.Series, table: pd.DataFrame) -> tuple[float, float]:
    dense = table["tokens_per_gpu_s"].iloc[0]
    return row["low"] / dense, row["high"] / dense


def test_by_budget_says_why_nothing_runs_and_has_no_speedup_without_dense() -> None:
    found = by_budget(frontier("opt-30b", "mi300x", batch=4096), (1, 10))
    assert found.loc[1, "fastest"] == "too large for 8 GPUs"
    assert found.loc[10, "fastest"].startswith("opt-")
    assert found.loc[10, "tokens_per_gpu_s"] > 0
    assert found["speedup"].isna().all()
