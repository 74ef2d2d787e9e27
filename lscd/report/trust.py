"""Chapter "Can you trust it?": every prediction against every measurement there is."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lscd.report.exhibit import Chapter, Context, Exhibit, mean_errors, percent
from lscd.report.kernels import TITLES, held_out_of_fig9
from lscd.report.leaderboard import leaderboard
from perfmodel.crossing import crossing
from perfmodel.evidence.kernel_fit import BOXPLOT_SOURCE
from perfmodel.evidence.speedups import boxplot_shapes
from perfmodel.evidence.summary import (
    GOALS,
    MEASURED_ROWS,
    PAIRS,
    TWO_FOUR_ROWS,
    flash_llm_break_evens,
    held_out,
    kernel_summary,
    second_sources,
    verdicts,
)
from perfmodel.evidence.uncertainty import coverage
from perfmodel.evidence.validation import crossovers, error_statistics, nearest_evidence, row_kinds
from perfmodel.kernels import BOUNDED, CPU_KERNELS
from perfmodel.plotting import validation as draw
from perfmodel.prediction import predict, predict_all

WELL_MET = 0.15  # mean error of a GPU
VARYING = ("flash-llm", "sparta", "sputnik", "macko")
RERUN_TOKENS = 8
SOURCE_TITLES = {
    BOXPLOT_SOURCE: "rerun by others",
    "spinfer-fig10": "SpInfer, Fig 10",
    "spinfer-fig16": "SpInfer, Fig 16",
}


def summary(context: Context) -> Exhibit:
    """A line a kernel on held-out rows: what `lscd validate` prints first."""
    table = kernel_summary(context.joined)
    answered = verdicts(context.joined)
    judged = table.drop(index=list(BOUNDED))
    worst = judged["worst_mean"].idxmax()
    rows, patterns, pairs = (answered.loc[name] for name in (MEASURED_ROWS, TWO_FOUR_ROWS, PAIRS))
    return Exhibit(
        name="validation_summary",
        title="Every kernel in a line",
        finding=(
            f"Who is faster than dense is right in {percent(rows['right'])} of {rows['cases']:,.0f} measured rows that "
            f"differ by more than 5 %, whether 2:4 is in {percent(patterns['right'])} of {patterns['cases']:,.0f}, and "
            f"which of two kernels is ahead in {percent(pairs['right'])} of {pairs['cases']:,.0f} published pairs. The "
            f"farthest off is {TITLES[worst]} on "
            f"{judged['worst'][worst]}: {percent(judged['worst_mean'][worst], 0)} on average."
        ),
        evidence=(
            "Mean absolute error of the time on rows that no fit saw. Rows whose weights the L2 holds time another "
            "memory and are counted apart; where a model gives a lower bound only (cuSPARSE beyond one token) nothing "
            "is counted. A V100's cuBLAS took an algorithm that reaches half of its memory's rate."
        ),
        sources=tuple(sorted(held_out(context.joined)["source"].unique())),
        table=table.rename_axis("kernel").reset_index(),
        shown=_shown_summary(table),
    )


def _shown_summary(table: pd.DataFrame) -> pd.DataFrame:
    worst = table["worst"] + " " + table["worst_mean"].map(lambda value: percent(value, 0))
    in_l2 = table["l2_mean"].map(lambda value: percent(value, 0)) + " on " + table["l2_rows"].map("{:,}".format)
    return pd.DataFrame(
        {
            "kernel": [TITLES[kernel] for kernel in table.index],
            "rows": table["rows"].map("{:,}".format).to_numpy(),
            "devices": table["devices"].to_numpy(),
            "mean error": table["mean"].map(percent).to_numpy(),
            "worst device": worst.to_numpy(),
            "weights in the L2": in_l2.where(table["l2_rows"] > 0, "").to_numpy(),
            "in its 90 % interval": table["covered"].map(lambda value: percent(value, 0)).to_numpy(),
            "high / low": table["width"].map("{:.2f}".format).to_numpy(),
        }
    )


def question(joined: pd.DataFrame, gpu: str, m: int, k: int, n: int, sparsity: float) -> pd.DataFrame:
    """What each measured kernel is predicted to take for one product, fastest first, and what stands behind it.

    Returns
    -------
    pandas.DataFrame
        Index: kernel. ``predicted [us], low, high`` (infinite where only a bound is known); ``unseen rows here`` and
        ``mean error`` on this GPU's held-out rows from device memory, and ``nearest``, the nearest row there is of this
        GPU, in words with its error: empty where there is none.
    """
    unseen = held_out(joined[(joined["gpu"] == gpu) & ~joined["resident"]])
    found = {}
    for tokens, p in predict_all(gpu, m, k, n, sparsity):
        if not p.measured:
            continue
        rows = unseen.loc[unseen["kernel"] == p.kernel, "error"].abs()
        near = nearest_evidence(joined, p.kernel, gpu, m, k, tokens, float(p.sparsity), resident=bool(p.resident))
        ends = (p.time_s, p.lo_s, np.inf if p.at_least else p.hi_s)
        found[p.kernel] = {
            **dict(zip(("predicted [us]", "low", "high"), (round(float(end) * 1e6, 1) for end in ends), strict=True)),
            "unseen rows here": len(rows),
            "mean error": percent(rows.mean()) if len(rows) else "",
            "nearest": "" if near is None else _product(near),
        }
    return pd.DataFrame.from_dict(found, orient="index").sort_values("predicted [us]")


def _product(row: pd.Series) -> str:
    """A row of evidence in words, and how far the model is from it."""
    size = f"{row['m']:,.0f} x {row['k']:,.0f}, N = {row['n']:.0f}, {percent(row['sparsity'], 0)}"
    return f"{size} ({row['error']:+.0%})"


def other_sources(context: Context) -> Exhibit:
    """Published speed-ups over cuBLAS of second sources against the model's, and two break-evens."""
    table = second_sources()
    ends = flash_llm_break_evens()
    rerun = ends[(ends["source"] == BOXPLOT_SOURCE) & (ends["n"] == RERUN_TOKENS)].iloc[0]
    authors = float(crossover_sparsity_of("flash-llm", str(rerun["gpu"]), RERUN_TOKENS))
    by_source = table.assign(size=table["error"].abs()).groupby(["source", "gpu", "kernel"])["size"].mean()
    worst = by_source.idxmax()
    return Exhibit(
        name="second_sources",
        title="Second sources: two encoders, two break-evens",
        finding=(
            f"A rerun on an A100 by a third party, whose encoder does not reorder, has Flash-LLM pay from "
            f"{percent(rerun['published'], 0)} sparsity on at {RERUN_TOKENS} tokens; the variant's model says "
            f"{percent(rerun['predicted'], 0)}, and with the authors' encoder {percent(authors, 0)}. Over all "
            f"{len(table)} published speed-ups of second sources the mean error is "
            f"{percent(table['error'].abs().mean())}; the worst group is {TITLES[worst[2]]} on {worst[1]} "
            f"({SOURCE_TITLES[worst[0]]}): {percent(by_source[worst], 0)}."
        ),
        evidence=(
            "Medians over 31 shapes (SpInfer's figure 10 and the rerun) and single shapes (its figure 16), speed-ups "
            "over cuBLAS. Of these only the rerun's SpInfer and Flash-LLM without reordering were fitted, at N = 8, 32."
        ),
        sources=tuple(sorted(table["source"].unique())),
        table=table,
        figure=draw.second_sources(table.assign(source=table["source"].map(SOURCE_TITLES)), TITLES),
    )


def crossover_sparsity_of(kernel: str, gpu: str, n: int) -> float:
    """Sparsity from which ``kernel`` beats cuBLAS in the median of the box plots' shapes, by the model."""
    shapes = boxplot_shapes()
    m, k = (shapes[name].to_numpy()[:, None] for name in ("m", "k"))
    at = np.linspace(0.3, 0.95, 131)
    speedup = np.median(predict(kernel, gpu, m, k, n, at, cache="warm").speedup_vs_dense, axis=0)
    return crossing(at, 1 / speedup)


def across_gpus(context: Context) -> Exhibit:
    """Errors on all GPUs with evidence."""
    joined = context.joined[~context.joined["kernel"].isin(BOUNDED | CPU_KERNELS.keys()) & ~context.joined["resident"]]
    statistics = error_statistics(joined[~joined["fitted"]], ["gpu"]).sort_values("mean")
    met = statistics[statistics["mean"] <= WELL_MET]
    worst = ", ".join(f"{row.gpu} {percent(row.mean, 0)}" for row in statistics.tail(3).iloc[::-1].itertuples())
    fitted = ", ".join(dict.fromkeys(joined.loc[joined["fitted"], "gpu"]))
    return Exhibit(
        name="predicted_by_gpu",
        title="Every GPU, predicted from its datasheet",
        finding=(
            f"On rows that no parameter was fitted on, {len(met)} of {len(statistics)} GPUs are met within "
            f"{percent(WELL_MET, 0)} in the mean. The worst: {worst}."
        ),
        evidence=(
            f"Every kernel but cuSPARSE, weights beyond the L2. Some rows of {fitted} were fitted, of the others none. "
            "Shown are the rows that were not, their number in brackets: medians, and lines over the middle 80 %. A "
            "GPU with a handful of rows has only long products, the fastest of many."
        ),
        sources=tuple(sorted(joined["source"].unique())),
        table=statistics,
        figure=draw.by_gpu(joined, TITLES),
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
        evidence="Markers: median over shapes; bands: the middle 80 %. Grey: 10 % and 20 %.",
        sources=tuple(sorted(joined["source"].unique())),
        table=by_sparsity,
        figure=draw.residuals_by_sparsity(joined, TITLES),
    )


def crossover_points(context: Context) -> Exhibit:
    """Measured and predicted sparsity at which sparse overtakes dense."""
    table = crossovers(context.joined[~context.joined["kernel"].isin(BOUNDED) & ~context.joined["resident"]]).dropna()
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
    """Share of held-out rows inside their 90 % interval, and how wide it is."""
    table = coverage(context.joined, context.calibration)
    inside = (table["covered"] * table["rows"]).groupby(table["where"]).sum() / table.groupby("where")["rows"].sum()
    memory = table[~table["where"].str.contains("L2")].groupby("kernel")["width"].median()
    return Exhibit(
        name="coverage",
        title="Do the 90 % intervals hold?",
        finding=(
            f"{percent(inside['inside'], 0)} of the held-out rows lie inside their interval within the evidence, and "
            f"{percent(inside['another GPU'], 0)} on a GPU that was left out. The upper end is {memory['cublas']:.2f} "
            f"times the lower for dense products, {memory['flash-llm']:.2f} times for Flash-LLM, whose interval "
            "reaches to the encoder without reordering."
        ),
        evidence=(
            "Intervals come from shapes and token counts left out of the fit in turn; on another GPU from the "
            "residuals of the remaining foreign GPUs. Products with their weights in the L2 are groups of their own."
        ),
        sources=tuple(sorted(context.joined["source"].unique())),
        table=table,
        figure=draw.covered(table, TITLES),
    )


def errors(context: Context) -> Exhibit:
    """Error of every kernel model, fitted and held-out rows."""
    joined = context.joined[~context.joined["at_least"]]
    joined = joined.assign(rows_of=row_kinds(joined))
    statistics = error_statistics(joined, ["kernel", "source", "gpu", "rows_of"])
    reached = mean_errors(held_out_of_fig9(joined), "kernel")
    met = [name for name, goal in GOALS.items() if reached[name] <= goal]
    far = statistics[statistics["mean"] > 0.2]
    return Exhibit(
        name="errors",
        title="How wrong is it?",
        finding=(
            f"{len(met)} of {len(GOALS)} kernels meet their goal on the held-out N = 16 rows "
            f"({', '.join(f'{TITLES[name]} {percent(goal)}' for name, goal in GOALS.items())}). "
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
    (summary, other_sources, across_gpus, residuals, crossover_points, interval_coverage, errors, leaderboard),
    question="Can you trust it?",
    headline="summary",
)
