"""The one least-squares search behind every fit: exact data give their parameters back; ranges hold."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from perfmodel.evidence.fitting import least_squares_parameters

X = np.arange(1.0, 9.0)


@dataclass(frozen=True)
class Line:
    slope: float = field(default=2.0, metadata={"low": 0.0, "high": 10.0})
    offset_s: float = field(default=1e-6, metadata={"low": 0.0, "high": 1e-5})

    def at(self, x: np.ndarray) -> np.ndarray:
        return self.slope * x + 1e6 * self.offset_s


def errors_to(truth: np.ndarray):
    return lambda line: line.at(X) / truth - 1


def test_exact_data_give_back_their_parameters_to_six_digits() -> None:
    truth = Line(slope=3.25, offset_s=7.5e-6)
    assert least_squares_parameters(Line(), errors_to(truth.at(X)), robust_scale=0.03) == truth


def test_an_outlier_hardly_counts() -> None:
    spoilt = Line(slope=3.25, offset_s=7.5e-6).at(X)
    spoilt[3] *= 3
    found = least_squares_parameters(Line(), errors_to(spoilt), robust_scale=0.001)
    assert abs(found.slope / 3.25 - 1) < 0.02


def test_ranges_and_fixed_fields_hold() -> None:
    steep = Line(slope=20.0).at(X)
    assert least_squares_parameters(Line(), errors_to(steep), robust_scale=0.03).slope == 10.0
    truth = Line(slope=3.25, offset_s=7.5e-6).at(X)
    found = least_squares_parameters(Line(offset_s=2e-6), errors_to(truth), robust_scale=0.03, fixed=("offset_s",))
    assert found.offset_s == 2e-6
    assert found.slope > 3.25
