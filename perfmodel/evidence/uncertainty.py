"""How far may a prediction be off? 90 % intervals from the residuals of rows a fit did not see.

The log error has three parts, added in quadrature when they apply:

``inside``
    within the evidence: residuals of shapes left out of the fit, in turn.
``range``
    outside its tokens, sizes or sparsities: residuals of token counts left out in turn.
``gpu``
    another GPU than the fitted one: residuals on the GPUs no parameter saw; kernels measured on one GPU only borrow the
    pooled residuals of the others.

Each is the 90 % quantile of the size of the log error, so an interval is ``time * exp(+-half_width)``. A kernel that
nobody measured has no errors: its interval is what the ranges of its assumed parameters span, all at one end together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog.specs import FittedKernel
from perfmodel.evidence.kernel_fit import fitted_rows, residuals, solve
from perfmodel.kernels import kernel_model
from perfmodel.kernels.fits import half_width, kernel_parameters

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

LEVEL = 0.9
SHAPE_FOLDS = 4
SAMPLE = 300  # rows of a GPU that count, so that each GPU counts alike
SMALLEST = 0.02  # no interval is narrower: published times themselves are read off pictures to about 1 %
OUTLIERS = ("cusparse",)  # not pooled: its error on another GPU says nothing about the other kernels


def with_spread(
    fitted: Mapping[str, FittedKernel], evidence: pd.DataFrame, own: pd.DataFrame | None = None
) -> dict[str, FittedKernel]:
    """The same fits with their ``spread`` measured on ``evidence``.

    If a user's ``own`` measurements took part, an interval is at least as wide as their residuals after the fit.
    """
    import msgspec

    transfer = {name: transfer_errors(name, fit, evidence) for name, fit in fitted.items()}
    pooled = np.concatenate([error for name, groups in transfer.items() if name not in OUTLIERS for error in groups])
    result = {}
    for name, fit in fitted.items():
        abroad = np.concatenate(transfer[name]) if transfer[name] else pooled
        inside, beyond = left_out_errors(name, evidence, fit)
        mine = np.zeros(1) if own is None else own_errors(name, fit, own)
        spread = {
            "inside": max(quantile(inside), quantile(mine), SMALLEST),
            "range": max(quantile(beyond), SMALLEST),
            "gpu": quantile(abroad),
        }
        result[name] = msgspec.structs.replace(fit, spread={key: float(f"{v:.4g}") for key, v in spread.items()})
    return result


def own_errors(name: str, fit: FittedKernel, own: pd.DataFrame) -> Array:
    """Log errors left on a user's own rows of kernel ``name``; zero if there are none."""
    rows = own[own["kernel"] == name]
    if rows.empty:
        return np.zeros(1)
    return residuals(kernel_model(name), rows)(kernel_parameters(fit, name))


def quantile(errors: Array) -> float:
    """The 90 % quantile of the size of log errors, with the finite-sample correction of conformal prediction."""
    level = min(1.0, LEVEL * (len(errors) + 1) / len(errors))
    return float(np.quantile(np.abs(errors), level))


def transfer_errors(name: str, fit: FittedKernel, evidence: pd.DataFrame) -> list[Array]:
    """Log errors on each GPU no parameter saw; of each at most `SAMPLE` rows."""
    rows = evidence[(evidence["kernel"] == name) & evidence["status"].isin(["value", "assumed-gpu", "derived"])]
    rows = rows[~rows["gpu"].isin(fit.gpus)]
    model, parameters = kernel_model(name), kernel_parameters(fit, name)
    found = []
    for _, group in rows.groupby("gpu"):
        thinned = group.sample(min(SAMPLE, len(group)), random_state=0)
        found.append(residuals(model, thinned)(parameters))
    return found


def left_out_errors(name: str, evidence: pd.DataFrame, fit: FittedKernel) -> tuple[Array, Array]:
    """Log errors of shapes, and of token counts, left out of the fit in turn."""
    rows = evidence[fitted_rows(evidence) & (evidence["kernel"] == name).to_numpy()]
    if rows.empty:  # fitted to quartiles: their own error is all there is
        error = np.array([fit.mean_absolute_error * 2.06])  # 90 % of a normal law whose mean size is one
        return error, 2 * error
    shapes = rows[["m", "k"]].apply(tuple, axis=1).astype("category").cat.codes.to_numpy()
    folds = np.random.default_rng(0).permutation(shapes.max() + 1)[shapes] % SHAPE_FOLDS
    inside = _cross_errors(name, rows, folds)
    tokens = rows["n"].to_numpy()
    beyond = _cross_errors(name, rows, tokens) if len(np.unique(tokens)) > 1 else 2 * inside
    return inside, beyond


def _cross_errors(name: str, rows: pd.DataFrame, folds: NDArray[np.int64]) -> Array:
    """Log errors of each fold predicted from the others; rows that only bound the time are not scored."""
    model = kernel_model(name)
    errors = []
    for fold in np.unique(folds):
        test = rows[(folds == fold) & (rows["status"] != "lower_bound").to_numpy()]
        if test.empty:
            continue
        errors.append(residuals(model, test)(solve(model, rows[folds != fold])))
    return np.concatenate(errors)


def coverage(joined: pd.DataFrame, fitted: Mapping[str, FittedKernel]) -> pd.DataFrame:
    """Share of held-out rows inside their interval, per kernel and kind of extrapolation.

    On another GPU the interval is set without that GPU's own rows (leave one GPU out).

    Returns
    -------
    pandas.DataFrame
        ``kernel, gpu, where, rows, covered``; ``where`` is "inside" or "another GPU".
    """
    import pandas as pd

    found = []
    rows = joined[~joined["fitted"] & ~joined["kernel"].isin(OUTLIERS) & joined["kernel"].isin(list(fitted))]
    for (kernel, gpu), group in rows.groupby(["kernel", "gpu"]):
        fit = fitted[str(kernel)]
        foreign = gpu not in fit.gpus
        width = _width_without(str(kernel), str(gpu), joined, fit) if foreign else None
        columns = (group[name].to_numpy() for name in ("m", "k", "n", "sparsity"))
        half = half_width(fit, fit.gpus[0], *columns)
        if width is not None:
            half = np.hypot(half, width)
        inside = np.abs(np.log1p(group["error"])) <= half
        where = "another GPU" if foreign else "inside"
        found.append({"kernel": kernel, "gpu": gpu, "where": where, "rows": len(group), "covered": inside.mean()})
    return pd.DataFrame(found)


def _width_without(kernel: str, gpu: str, joined: pd.DataFrame, fit: FittedKernel) -> float:
    """Transfer half-width from all other foreign GPUs of the kernel, or pooled over kernels where it has none."""
    foreign = joined[~joined["gpu"].isin(fit.gpus) & (joined["gpu"] != gpu) & ~joined["kernel"].isin(OUTLIERS)]
    own = foreign[foreign["kernel"] == kernel]
    chosen = own if len(own) else foreign[~foreign["fitted"]]
    per_gpu = [
        np.log1p(group["error"]).sample(min(SAMPLE, len(group)), random_state=0) for _, group in chosen.groupby("gpu")
    ]
    return quantile(np.concatenate(per_gpu))
