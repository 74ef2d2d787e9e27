"""How far are the predictions from the evidence, on rows that were fitted and on rows that were not?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog.specs import Launch
from perfmodel.crossing import crossing
from perfmodel.evidence.kernel_fit import fitted_rows, own_fitted, predictor
from perfmodel.evidence.rows import kernel_evidence, shapes_of, with_residency
from perfmodel.kernels import BASELINE, KERNELS
from perfmodel.kernels.fits import calibrated, kernel_fits

if TYPE_CHECKING:
    import pandas as pd

    from perfmodel.catalog.specs import FittedKernel

Array = NDArray[np.float64]

PATTERN_SOURCE = "slidesparse"
MIN_CROSSING_POINTS = 4  # measured sparsities needed to interpolate a crossing
COMPARABLE_STATUS = ("value", "rough", "assumed-gpu", "derived")  # rows that state a time, not just a bound


def join_predictions(
    evidence: pd.DataFrame | None = None, calibration: Mapping[str, FittedKernel] | None = None
) -> pd.DataFrame:
    """Evidence rows of every modelled kernel (all there is by default) with their prediction beside them.

    Returns
    -------
    pandas.DataFrame
        The rows that state a time, with ``predicted_us``, ``error`` (predicted / measured - 1, signed) and ``fitted``
        (True if the row took part in the calibration).
    """
    if evidence is None:
        evidence = kernel_evidence(calibrated(BASELINE, calibration))
    usable = evidence["kernel"].isin(KERNELS) & evidence["status"].isin(COMPARABLE_STATUS) & evidence["time_us"].notna()
    rows = with_residency(evidence[usable])
    own = _own_rows(rows, kernel_fits() if calibration is None else calibration)
    rows["predicted_us"], rows["at_least"] = np.nan, False
    for kernel, group in rows.groupby("kernel"):
        model = KERNELS[str(kernel)]
        rows.loc[group.index, "predicted_us"] = predictor(model, group)(calibrated(model.name, calibration)) * 1e6
        rows.loc[group.index, "at_least"] = model.at_least(shapes_of(group))
    rows["fitted"] = (fitted_rows(rows) | own) & ~rows["at_least"]
    rows["error"] = rows["predicted_us"] / rows["time_us"] - 1
    return rows


def _own_rows(rows: pd.DataFrame, calibration: Mapping[str, FittedKernel]) -> NDArray[np.bool_]:
    """Rows of a user's own measurements that the calibration in use was fitted on."""
    own = np.zeros(len(rows), dtype=bool)
    for (kernel, source, gpu), positions in rows.groupby(["kernel", "source", "gpu"]).indices.items():
        if kernel in calibration:
            own[positions] = own_fitted(calibration[str(kernel)], rows.iloc[positions], str(source), str(gpu))
    return own


def row_kinds(joined: pd.DataFrame) -> pd.Series:
    """What rows are called in a table of errors: fitted or held out, and apart those with weights in the L2."""
    kinds = joined["fitted"].map({True: "fitted", False: "held out"})
    return kinds + joined["resident"].map({True: ", in L2", False: ""}) if "resident" in joined else kinds


def error_statistics(joined: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Count, mean, median and worst error of each group; fractions.

    Columns: ``rows``, ``mean`` and ``median`` of the absolute error, ``worst`` (signed, largest in size), ``bias``
    (signed mean) and ``rank`` (Spearman correlation of predicted and measured time).
    """

    def summary(group: pd.DataFrame) -> pd.Series:
        import pandas as pd

        error = group["error"].to_numpy()
        size = np.abs(error)
        rank = group["predicted_us"].rank().corr(group["time_us"].rank()) if len(group) > 2 else np.nan
        return pd.Series(
            {
                "rows": len(group),
                "mean": size.mean(),
                "median": np.median(size),
                "worst": error[size.argmax()],
                "bias": error.mean(),
                "rank": rank,
            }
        )

    table = joined.groupby(by, sort=False, observed=True)[["error", "predicted_us", "time_us"]].apply(summary)
    return table.reset_index().astype({"rows": int})


def nearest_evidence(
    joined: pd.DataFrame,
    kernel: str,
    gpu: str,
    m: float,
    k: float,
    n: float,
    sparsity: float,
    *,
    launch: str = Launch.STREAM,
    resident: bool = False,
) -> pd.Series | None:
    """The evidence row of this kernel and GPU that lies nearest, or None if there is none.

    Distance is Euclidean in log m, log k, log n and in sparsity, where 0.1 of sparsity counts like a factor of two, and
    so do another way to launch and weights in the L2 where the product asked for has them in memory, or the reverse.

    Parameters
    ----------
    joined : DataFrame
        As `join_predictions` gives it.
    kernel, gpu : str
        Names, as in the evidence.
    m, k, n, sparsity : float
        The product asked for.
    launch, resident
        How it is launched, and whether its weights are in the L2.
    """
    rows = joined[(joined["kernel"] == kernel) & (joined["gpu"] == gpu)]
    if rows.empty:
        return None
    offsets = [np.log2(rows[column] / value) for column, value in (("m", m), ("k", k), ("n", n))]
    if not (rows["sparsity"] == rows["sparsity"].iloc[0]).all():
        offsets.append((rows["sparsity"] - sparsity) / 0.1)
    offsets += [(rows["launch"] != launch).astype(float), (rows["resident"] != resident).astype(float)]
    return rows.loc[sum(offset**2 for offset in offsets).idxmin()]


def two_four_speedups(joined: pd.DataFrame) -> pd.DataFrame:
    """Speed-up of 2:4 and its family over dense of the same precision and data type, measured and predicted.

    Returns
    -------
    pandas.DataFrame
        ``gpu, kernel, dtype, m, k, n, sparsity, measured, predicted, fitted`` (the sparse row took part in a fit).
    """
    rows = joined[joined["source"] == PATTERN_SOURCE]
    rows = rows.assign(dtype=rows["note"].str.split().str[-1])
    case = ["gpu", "dtype", "m", "k", "n"]
    sparse = rows["kernel"].isin([name for name, model in KERNELS.items() if model.patterns])
    times = ["time_us", "predicted_us"]
    dense = rows[~sparse].groupby(case, as_index=False)[times].median()
    pairs = rows[sparse].merge(dense, on=case, suffixes=("", "_dense"))
    pairs["measured"] = pairs["time_us_dense"] / pairs["time_us"]
    pairs["predicted"] = pairs["predicted_us_dense"] / pairs["predicted_us"]
    columns = ["gpu", "kernel", "dtype", "m", "k", "n", "sparsity", "measured", "predicted", "fitted"]
    return pairs[columns].reset_index(drop=True)


def crossovers(joined: pd.DataFrame) -> pd.DataFrame:
    """Sparsity from which a sparse kernel beats the dense one, as measured and as predicted.

    One row per kernel, GPU, source, shape and N whose measured sparsities enclose the crossing, or whose times never
    cross although both were measured (then NaN). Crossings are interpolated between neighbouring sparsities.

    Returns
    -------
    pandas.DataFrame
        ``kernel, gpu, source, m, k, n, measured, predicted``.
    """
    import pandas as pd

    case = ["gpu", "m", "k", "n"]
    dense = joined[joined["kernel"] == BASELINE].groupby(case)[["time_us", "predicted_us"]].median()
    found = []
    for (kernel, source, *key), rows in joined[joined["kernel"] != BASELINE].groupby(["kernel", "source", *case]):
        if tuple(key) not in dense.index or rows["sparsity"].nunique() < MIN_CROSSING_POINTS:
            continue
        rows = rows.sort_values("sparsity")
        reference = dense.loc[tuple(key)]
        measured, predicted = (
            crossing(rows["sparsity"].to_numpy(), rows[column].to_numpy() / reference[column])
            for column in ("time_us", "predicted_us")
        )
        found.append((kernel, key[0], source, *key[1:], measured, predicted))
    return pd.DataFrame(found, columns=["kernel", "gpu", "source", "m", "k", "n", "measured", "predicted"])
