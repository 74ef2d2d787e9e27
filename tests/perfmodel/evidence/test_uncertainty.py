"""Measured spreads: coverage on rows no fit saw, and the conformal quantile."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from perfmodel.evidence.uncertainty import coverage, quantile
from perfmodel.kernels.fits import kernel_fits

CASE = {"m": 36864, "k": 9216, "n": 8}


def test_ninety_percent_intervals_cover_about_ninety_percent(joined: pd.DataFrame) -> None:
    table = coverage(joined, kernel_fits())
    by_group = table.groupby("where")["covered"].mean()
    assert by_group.between(0.85, 0.95).all(), by_group
    overall = (table["covered"] * table["rows"]).sum() / table["rows"].sum()
    assert 0.85 <= overall <= 0.95


def test_quantile_is_the_conformal_one() -> None:
    errors = np.arange(1, 100) / 100  # 99 values: the 90th of 99
    assert quantile(errors) == pytest.approx(0.9, abs=0.01)
    assert quantile(-errors) == quantile(errors)
