"""The host of our decoder: fitted on a few steps, and close to the others; quality joined with speed."""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel.catalog import load_calibration
from perfmodel.evidence.cpu_host_fit import fit, joined_steps, predict_steps
from perfmodel.evidence.real_model import fastest_steps, quality_and_speed
from perfmodel.serving.collectives import CALIBRATION_FILE
from perfmodel.serving.cpu_decoding import CALIBRATION_NAME, CpuHostParameters


def test_the_stored_fit_is_the_fit() -> None:
    stored, again = load_calibration(CALIBRATION_FILE)[CALIBRATION_NAME], fit()
    assert stored.parameters == pytest.approx(again.parameters, rel=1e-3)
    assert (stored.rows, stored.gpus) == (again.rows, ["xeon-emerald-rapids-2c@2"])
    assert stored.spread == pytest.approx(again.spread, rel=1e-2)


def test_steps_that_no_fit_saw_are_close() -> None:
    """One thread, other kernels and sparsities: within 15 % in the mean, as issue 16 asks."""
    steps = joined_steps()
    assert 0 < steps["fitted"].sum() < len(steps) / 4
    held_out = steps[~steps["fitted"]]
    assert held_out["error"].abs().mean() < 0.15
    assert (held_out["gpu"] == "xeon-emerald-rapids-2c@1").any()


def test_a_host_that_does_nothing_is_faster() -> None:
    rows = joined_steps().head(3)
    idle = predict_steps(rows, CpuHostParameters(layer_cycles=0, sequence_cycles=0, score_cycles=0))
    assert (idle < predict_steps(rows)).all()


def test_quality_stands_beside_the_speed_at_its_zeros() -> None:
    for batch in (1, 4, 16):
        table, fastest = quality_and_speed(batch), fastest_steps(batch).set_index("sparsity")
        assert (fastest["tokens_per_s"] * fastest["step_ms"]).to_numpy() == pytest.approx(1e3 * batch)
        assert table["tokens_per_s"].isna().equals(table["method"].str.startswith("int"))
        row = table.set_index("row").loc["sparsegpt-0.5"]
        assert row["tokens_per_s"] == fastest.loc[0.5, "tokens_per_s"]
        assert row["predicted_tokens_per_s"] == fastest.loc[0.5, "predicted_tokens_per_s"]
    assert np.isfinite(quality_and_speed()["perplexity"]).all()
