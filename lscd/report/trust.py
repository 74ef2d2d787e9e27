"""Chapter "Can you trust it?": every prediction against every measurement there is."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lscd.report.exhibit import Chapter, Context, Exhibit, percent
from lscd.report.kernels import GOALS, TITLES
from perfmodel.evidence.uncertainty import coverage
from perfmodel.evidence.validation import crossovers, error_statistics
from perfmodel.plotting import validation as draw

THIN = 400  # rows drawn of one source and GPU; thousands of dense rows would hide the rest
VARYING = ("flash-llm", "sparta", "sputnik", "macko")
NOT_TRUSTED = "cusparse"


def across_gpus(context: Context) -> Exhibit:
    """Predicted against measured on all GPUs with evidence."""
    joined = context.joined[context.joined["kernel"] != NOT_TRUSTED]
    drawn = joined.groupby(["source", "gpu", "fitted"], group_keys=False)[joined.columns.tolist()].apply(
        lambda rows: rows.sample(min(THIN, len(rows)), random_state=0)
    )
    foreign = joined[~joined["fitted"] & (joined["gpu"] != "a100-80gb")]
    statistics = error_statistics(foreign, ["gpu"])
    listed = ", ".join(f"{row.gpu} {percent(row.mean, 0)}" for row in statistics.itertuples())
    return Exhibit(
        name="predicted_by_gpu",
        title="Other GPUs, predicted from their datasheets",
        finding=f"Mean error on GPUs whose rows no parameter was fitted on: {listed}.",
        evidence=(
            f"Every kernel but cuSPARSE, at most {THIN} rows of one source and GPU drawn. On the RTX 3090 MACKO was "
            "fitted, and Sputnik for a single token; the RTX 4090, RTX 2080 SUPER and H100 took part in nothing."
        ),
        sources=tuple(sorted(joined["source"].unique())),
        table=drawn[["gpu", "kernel", "source", "m", "k", "n", "sparsity", "time_us", "predicted_us", "fitted"]],
        figure=draw.by_gpu(drawn),
    )


def residuals(context: Context) -> Exhibit:
    """Signed error against sparsity."""
    joined = context.joined[context.joined["kernel"].isin(VARYING)]
    by_sparsity = error_statistics(joined, ["kernel", "gpu", "sparsity"])
    worst = by_sparsity.loc[by_sparsity["bias"].abs().idxmax()]
    return Exhibit(
        name="residuals_by_sparsity",
        title="Where the error sits",
        finding=(
            f"The largest systematic error is {worst['bias']:+.0%}: {TITLES[worst['kernel']]} on {worst['gpu']} at "
            f"{worst['sparsity']:.0%} sparsity."
        ),
        evidence="Dots: median over shapes; bars: the middle 80 %. Grey: 10 % and 20 %.",
        sources=tuple(sorted(joined["source"].unique())),
        table=by_sparsity,
        figure=draw.residuals_by_sparsity(joined, TITLES),
    )


def crossover_points(context: Context) -> Exhibit:
    """Measured and predicted sparsity at which sparse overtakes dense."""
    table = crossovers(context.joined[context.joined["kernel"] != NOT_TRUSTED]).dropna()
    table["difference"] = table["predicted"] - table["measured"]
    groups = table.groupby(["kernel", "gpu"])["difference"]
    means = groups.apply(lambda values: values.abs().mean())
    listed = ", ".join(f"{TITLES[kernel]} on {gpu} {100 * value:.1f}" for (kernel, gpu), value in means.items())
    return Exhibit(
        name="crossovers",
        title="From which sparsity on does sparse win?",
        finding=f"The predicted crossover misses the measured one by, in points of sparsity: {listed}.",
        evidence="Crossover with cuBLAS on the same GPU, shape and N, interpolated between measured sparsities.",
        sources=tuple(sorted(table["source"].unique())),
        table=table,
        figure=draw.crossovers(table, TITLES),
    )


def interval_coverage(context: Context) -> Exhibit:
    """Share of held-out rows inside their 90 % interval."""
    table = coverage(context.joined, context.calibration)
    by_kind = table.groupby("where")["covered"].mean()
    shown = table.assign(covered=table["covered"].map(lambda value: percent(value, 0)))
    return Exhibit(
        name="coverage",
        title="Do the 90 % intervals hold?",
        finding=(
            f"Averaged over kernels, {percent(by_kind['inside'], 0)} of the held-out rows lie inside their interval "
            f"within the evidence, and {percent(by_kind['another GPU'], 0)} on a GPU that was left out."
        ),
        evidence=(
            "Intervals come from shapes and token counts left out of the fit in turn; on another GPU from the "
            "residuals of the remaining foreign GPUs. cuSPARSE is not scored."
        ),
        sources=tuple(sorted(context.joined["source"].unique())),
        table=table,
        shown=shown,
    )


def errors(context: Context) -> Exhibit:
    """Error of every kernel model, fitted and held-out rows."""
    joined = context.joined.assign(rows_of=np.where(context.joined["fitted"], "fitted", "held out"))
    statistics = error_statistics(joined, ["kernel", "source", "gpu", "rows_of"])
    on_fig9 = statistics[(statistics["source"] == "flash-llm-fig9") & (statistics["rows_of"] == "held out")]
    met = [name for name, goal in GOALS.items() if on_fig9.set_index("kernel")["mean"][name] <= goal]
    far = statistics[statistics["mean"] > 0.2]
    return Exhibit(
        name="errors",
        title="How wrong is it?",
        finding=(
            f"{len(met)} of {len(GOALS)} kernels meet their goal on the held-out N = 16 rows "
            f"({', '.join(f'{TITLES[name]} {percent(goal, 0)}' for name, goal in GOALS.items())}). "
            f"{len(far)} of the {len(statistics)} groups below miss by more than 20 % on average: do not trust the "
            f"models there."
        ),
        evidence=(
            "Relative error of the time, predicted / measured - 1. Mean and median of its size, the worst and the bias "
            "with sign, rank correlation. Rows of status derived are speed-ups turned into times by the cuBLAS model."
        ),
        sources=tuple(sorted(joined["source"].unique())),
        table=statistics,
        shown=_formatted(statistics),
    )


def _formatted(statistics: pd.DataFrame) -> pd.DataFrame:
    shown = statistics.copy()
    for column in ("mean", "median"):
        shown[column] = shown[column].map(percent)
    for column in ("worst", "bias"):
        shown[column] = shown[column].map(lambda value: f"{100 * value:+.1f} %")
    shown["rank"] = shown["rank"].map(lambda value: "" if np.isnan(value) else f"{value:.3f}")
    return shown.rename(columns={"rows_of": "rows of", "rank": "rank corr."})


CHAPTER = Chapter(
    "Can you trust it?",
    "Errors on rows no parameter was fitted on: other token counts, other GPUs, other people's measurements.",
    (across_gpus, residuals, crossover_points, interval_coverage, errors),
    question="Can you trust it?",
    headline="interval_coverage",
)
