"""How wide must the interval of a whole run be to hold 90 % of the published ones, and does it?

Only runs that no fit has seen are asked, and none of OPT-175B, which stays a test. Each spread is measured on the
groups of runs that need it: ``inside`` on FasterTransformer and Flash-LLM on the A100, requests of some length;
``prefill`` on requests of a few tokens there, whose server, first token and prompts weigh most; ``gpu`` on SpInfer's
two cards; ``system`` on engines with a host of their own, instead of ``inside``. Groups weigh alike however many runs
they hold. Of cards few groups tell, and a question is about one more: there the share to hold is conformal
prediction's. Left out are SlideSparse's runs, whose harness adds kernels of its own, models so small that the host
decides, and public reports, which only judge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog import load_model
from perfmodel.evidence.runs import (
    FIT_GPU,
    HARNESS_SOURCE,
    PUBLIC_SOURCE,
    TEST_MODEL,
    evaluated,
    joined_runs,
    of_today,
    times_tokens,
)
from perfmodel.serving.systems import HostParameters, SystemParameters
from perfmodel.serving.uncertainty import SPREADS

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

COVERED = 0.9
LONG = 100  # output tokens from which a request is no longer short
APART = (HARNESS_SOURCE, PUBLIC_SOURCE)
LEAST_PARAMETERS = 6e9  # of smaller models the host decides, which is not modelled
NOTHING = dict.fromkeys(SPREADS, 0.0)
ORDER = ("inside", "prefill", "gpu", "system")  # each is what its own groups need beyond the ones before
AWAY = ("gpu",)


def run_spread(parameters: SystemParameters | None = None, host: HostParameters | None = None) -> dict[str, float]:
    """The spreads that `perfmodel.serving.uncertainty` uses, measured on `judged_runs`."""
    return _spread(judged_runs(parameters, host))


def judged_runs(parameters: SystemParameters | None = None, host: HostParameters | None = None) -> pd.DataFrame:
    """`joined_runs` with what an interval is made of.

    Returns
    -------
    pandas.DataFrame
        Also ``log_error`` of the time, ``kernel_faster`` and ``kernel_slower`` (the kernels' half-widths to both
        sides), ``share`` of the prefill, ``kind`` (the spread the run tells of) and ``group``.
    """
    runs = joined_runs(parameters, host)
    for column in ("kernel_faster", "kernel_slower", "share"):
        runs[column] = np.zeros(len(runs))
    for place, run in evaluated(runs, parameters, host):
        rows = runs.index[place]
        runs.loc[rows, ["kernel_faster", "kernel_slower"]] = np.stack(run.half_widths(NOTHING).run, axis=1)
        runs.loc[rows, "share"] = np.where(times_tokens(runs.loc[rows]), 0.0, run.ttft_s / run.total_s)
    away, short = runs["gpu"] != FIT_GPU, runs["output_len"] < LONG
    engine = of_today(runs["system"])
    runs["log_error"] = np.log1p(runs["error"])
    runs["kind"] = np.select([engine, away, short], ["system", "gpu", "prefill"], "inside")
    return runs.assign(group=runs["source"] + ", " + runs["gpu"] + ", " + runs["model"])


def run_coverage(runs: pd.DataFrame | None = None, *, leave_out: bool = True) -> pd.DataFrame:
    """Share of held-out runs inside their interval, by source.

    Parameters
    ----------
    runs
        Of `judged_runs`; all published ones by default.
    leave_out : bool
        Whether the spreads of each model, source and GPU are measured without its own runs.

    Returns
    -------
    pandas.DataFrame
        ``source, gpu, kind, rows, covered, width``; ``width`` is the median of upper over lower end. Groups of a
        kind that has no other keep its spread.
    """
    import pandas as pd

    judged = judged_runs() if runs is None else runs
    parts = []
    for group, rows in judged[~judged["fitted"]].groupby("group"):
        parts.append(_covered(rows, _spread(judged, without=str(group) if leave_out else "")))
    scored = pd.concat(parts)
    keys = ["source", "gpu", "kind"]
    return scored.groupby(keys, as_index=False).agg(
        rows=("inside", "size"), covered=("inside", "mean"), width=("width", "median")
    )


def _covered(rows: pd.DataFrame, spread: dict[str, float]) -> pd.DataFrame:
    variance = sum(_weight(rows, name) ** 2 * spread[name] ** 2 for name in SPREADS)
    faster, slower = (np.sqrt(variance + rows[f"kernel_{side}"] ** 2) for side in ("faster", "slower"))
    # A time predicted too long means that the run was faster than said.
    inside = (rows["log_error"] <= faster) & (-rows["log_error"] <= slower)
    return rows.assign(inside=inside, width=np.exp(faster + slower))


def _weight(rows: pd.DataFrame, name: str) -> Array:
    """By how much a spread counts in the interval of each run."""
    counts = {
        "inside": (~of_today(rows["system"])).to_numpy(dtype=np.float64),
        "prefill": rows["share"].to_numpy(),
        "gpu": (rows["gpu"] != FIT_GPU).to_numpy(dtype=np.float64) * ~of_today(rows["system"]),
        "system": of_today(rows["system"]).to_numpy(dtype=np.float64),
    }
    return counts[name]


def _spread(judged: pd.DataFrame, without: str = "") -> dict[str, float]:
    known = ~judged["fitted"] & (judged["model"] != TEST_MODEL) & ~judged["source"].isin(APART)
    large = [model for model in judged["model"].unique() if load_model(model).parameters >= LEAST_PARAMETERS]
    rows = judged[known & judged["model"].isin(large)]
    found: dict[str, float] = {}
    for name in ORDER:
        own = rows[rows["kind"] == name]
        others = own[own["group"] != without]
        found[name] = float(f"{_needed(others if len(others) else own, found, name):.4g}")
    return found


def _needed(rows: pd.DataFrame, found: dict[str, float], name: str) -> float:
    """Spread that, joined to those found before, holds `COVERED` of ``rows``, groups weighing alike."""
    side = np.where(rows["log_error"] > 0, rows["kernel_faster"], rows["kernel_slower"])
    before = side**2 + sum(_weight(rows, key) ** 2 * value**2 for key, value in found.items())
    beyond = np.sqrt(np.maximum(rows["log_error"] ** 2 - before, 0)) / _weight(rows, name)
    weight = 1 / rows.groupby("group")["group"].transform("size").to_numpy()
    order = np.argsort(beyond.to_numpy())
    reached = np.cumsum(weight[order]) / weight.sum()
    groups = rows["group"].nunique()
    level = min(1.0, COVERED * (groups + 1) / groups) if name in AWAY else COVERED
    return float(beyond.to_numpy()[order][np.searchsorted(reached, level - 1e-9)])
