"""The model of SparTA stands on that of Sputnik."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from perfmodel.kernels.fits import kernel_fits
from perfmodel.kernels.sparta import RESIDUAL


def test_sparta_residual_is_the_calibrated_sputnik() -> None:
    stored = kernel_fits()["sputnik"].parameters
    assert asdict(RESIDUAL) == pytest.approx(stored, rel=5e-3, abs=1e-5)
