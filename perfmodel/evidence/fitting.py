"""Which parameters, within their physical ranges, leave the smallest robust error?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog.specs import FittedKernel

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]
ParametersT = TypeVar("ParametersT")

DIGITS = 6  # kept of a fitted parameter
SAME_ERROR = 1e-9


def least_squares_parameters(
    start: ParametersT, errors: Callable[[ParametersT], Array], *, robust_scale: float, fixed: tuple[str, ...] = ()
) -> ParametersT:
    """Parameters that minimise a robust sum of squared ``errors``, searched from ``start``.

    Parameters
    ----------
    start
        Dataclass whose fields carry their range as metadata ``low`` and ``high``.
    errors
        Parameters -> relative errors, one for each piece of evidence.
    robust_scale
        Relative error from which a piece of evidence counts less than quadratically.
    fixed
        Fields that keep their value.

    Notes
    -----
    Every parameter is searched as a fraction of its range, so that seconds and efficiencies weigh alike. One that makes
    no difference to any error where the search ends keeps its value in ``start``: on the way there it drifts, to
    another value on another processor.
    """
    from scipy.optimize import least_squares

    frees = [field for field in fields(start) if field.name not in fixed]  # type: ignore[arg-type]
    low, high = (np.array([field.metadata[end] for field in frees]) for end in ("low", "high"))

    def at(unit: Array) -> ParametersT:
        values = {field.name: float(v) for field, v in zip(frees, low + unit * (high - low), strict=True)}
        return replace(start, **values)  # type: ignore[type-var]

    def errors_at(unit: Array) -> Array:
        return errors(at(unit))

    guess = (np.array([getattr(start, field.name) for field in frees]) - low) / (high - low)
    found = least_squares(errors_at, guess, bounds=(0, 1), loss="soft_l1", f_scale=robust_scale, x_scale="jac")
    best = at(_only_what_matters(errors_at, found.x, guess))
    rounded = {field.name: float(f"{getattr(best, field.name):.{DIGITS}g}") for field in frees}
    return replace(best, **rounded)  # type: ignore[type-var]


def _only_what_matters(errors_at: Callable[[Array], Array], found: Array, start: Array) -> Array:
    """``found``, but for the numbers whose value in ``start`` gives the very same errors."""
    settled = found.copy()
    for i in range(found.size):
        other = settled.copy()
        other[i] = start[i]
        if np.allclose(errors_at(other), errors_at(settled), rtol=0, atol=SAME_ERROR):
            settled = other
    return settled


def described(
    parameters: Mapping[str, float],
    log_errors: Array,
    rows: pd.DataFrame,
    fitted_on: str,
    ranges: Mapping[str, tuple[float, float]],
    spread: Mapping[str, float] | None = None,
) -> FittedKernel:
    """What the calibration stores of a fit to ``rows``: its parameters, their mean error there, where it was seen."""
    return FittedKernel(
        parameters=dict(parameters),
        fitted_on=fitted_on,
        gpus=sorted(rows["gpu"].unique()),
        rows=len(rows),
        mean_absolute_error=float(f"{np.mean(np.abs(np.expm1(log_errors))):.4g}"),
        evidence_range=dict(ranges),
        spread=dict(spread or {}),
    )


def ranges_of(rows: pd.DataFrame, names: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Smallest and largest value of each column."""
    return {name: (float(rows[name].min()), float(rows[name].max())) for name in names}
