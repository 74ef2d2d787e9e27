"""Chapter "One matrix product": the paper's kernel figures, predicted, beside the evidence."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lscd.report.exhibit import Chapter, Context, Exhibit, mean_errors, percent, pruned_to, rests_on
from perfmodel.catalog import load_gpu, load_table
from perfmodel.evidence.summary import GOALS, held_out
from perfmodel.formats import FORMATS, break_even_sparsity
from perfmodel.kernels import BASELINE, KERNELS
from perfmodel.plotting import kernels as draw
from perfmodel.prediction import predict
from perfmodel.roofline import MemoryLevel, attainable_flops_per_s, intensity, ridge_point, roofline_time

GPU = "a100-80gb"
FIGURE_KERNELS = ("cublas", "flash-llm", "sparta", "sputnik", "cusparse")
SWEEP_SHAPE = {"m": 36864, "k": 9216, "n": 8}
PUBLISHED = {"flash-llm-fig9", "flash-llm-sweep"}
TITLES = {name: model.title for name, model in KERNELS.items()}
FORMAT_TITLES = {name: fmt.title for name, fmt in FORMATS.items()}
# Of each family of formats those that people ask for; `lscd formats` lists all.
STORED = (
    "dense", "csr", "sputnik-csr", "coo", "tiled-csl", "sparta", "bitmap", "macko", "2:4", "6:8", "2:4-fp8", "int4-2:4",
    "gqsa-w4s50", "df11", "fp8-row", "fp6", "fp5", "int4", "nvfp4",
)  # fmt: skip
HELD_OUT_TOKENS = 16  # the panel of Fig 9 that no model was fitted on


def skinny_roofline(context: Context) -> Exhibit:
    """OPT's skinny products on the A100 roofline, dense and sparse."""
    gpu = load_gpu(GPU)
    at = np.geomspace(1, 1000, 200)
    roof = pd.DataFrame({"intensity": at, "flops_per_s": attainable_flops_per_s(gpu, at)})
    points = context.benchmark
    points = points[points["kernel"].isin(["cublas", "flash-llm"]) & (points["sparsity"] == 0.8)].copy()
    shape = (points["m"], points["k"], points["n"])
    dense, sparse = (
        intensity(FORMATS[name], MemoryLevel.DRAM, *shape, points["sparsity"]) for name in ("dense", "tiled-csl")
    )
    points["intensity"] = np.where(points["kernel"] == "cublas", dense, sparse)
    points["flops_per_s"] = points["predicted_tflops"] * 1e12
    points["published_flops_per_s"] = points["tflops"] * 1e12
    columns = ["kernel", "m", "k", "n", "sparsity", "intensity", "flops_per_s", "published_flops_per_s"]
    cublas = points[points["kernel"] == "cublas"]
    share = (roofline_time(gpu, cublas["m"], cublas["k"], cublas["n"]) / (cublas["time_us"] * 1e-6)).mean()
    finding = (
        f"At 8 to 32 tokens every OPT product lies at {cublas['intensity'].min():.0f} to "
        f"{points['intensity'].max():.0f} FLOP per byte, far left of the ridge at {ridge_point(gpu):.0f}: "
        f"memory decides. cuBLAS reaches {percent(share, 0)} of its roof; 80 % sparse weights lift the roof."
    )
    return Exhibit(
        name="roofline",
        title="Skinny products are bound by memory",
        finding=finding,
        evidence=f"{gpu.name}. Rates as published in Fig 9 (markers) and by the kernel models (dashes), 80 % sparsity.",
        sources=("flash-llm-fig9",),
        table=points[columns],
        figure=draw.roofline(roof, points, TITLES),
    )


def time_against_sparsity(context: Context) -> Exhibit:
    """Execution time against sparsity: the paper's motivation figure."""
    grid = np.round(np.arange(0.5, 1.0001, 0.005), 4)
    parts = []
    for name in FIGURE_KERNELS:
        parts.append(sweep_line(name, GPU, **SWEEP_SHAPE, sparsity=grid))
    lines = pd.concat(parts, ignore_index=True)
    seen = context.joined[context.joined["source"] == "flash-llm-sweep"]
    markers = at_every_sparsity(seen, "flash-llm")
    wide = lines.pivot_table(index="sparsity", columns="kernel", values="time_us")
    cross = {name: _first_below(wide[name], wide[BASELINE]) for name in ("flash-llm", "sparta", "sputnik")}
    ours = seen[seen["kernel"] == "flash-llm"].assign(size=lambda rows: rows["error"].abs())
    fitted, held_out = ours[ours["fitted"]], ours[~ours["fitted"]]
    finding = (
        f"Flash-LLM beats cuBLAS from {percent(cross['flash-llm'], 0)} sparsity on, SparTA from "
        f"{percent(cross['sparta'], 0)}, Sputnik from {percent(cross['sputnik'], 0)}; and at 100 % Flash-LLM still "
        f"takes {wide['flash-llm'].iloc[-1]:.0f} us, the price of computing dense."
    )
    return Exhibit(
        name="time_against_sparsity",
        title="Time against sparsity",
        finding=finding,
        evidence=(
            "M/K/N = 36864/9216/8 on an A100, called in a loop as in the benchmark. Of Flash-LLM's points those up to "
            f"{percent(fitted['sparsity'].max(), 0)} took part in the fit (mean error {percent(fitted['size'].mean())}"
            f", worst {percent(fitted['size'].max())}); the L2 holds the weights of the others (mean error "
            f"{percent(held_out['size'].mean())}). Dotted: outside the fitted sparsities. cuSPARSE takes at least as "
            "long as its line says."
        ),
        sources=("flash-llm-sweep",),
        table=lines.merge(
            markers[["kernel", "sparsity", "time_us"]].rename(columns={"time_us": "published_us"}),
            on=["kernel", "sparsity"],
            how="left",
        ),
        figure=draw.time_against_sparsity(lines, markers, TITLES, top_us=900),
    )


def sweep_line(kernel: str, gpu: str, *, sparsity: np.ndarray, **shape: int) -> pd.DataFrame:
    """Predicted times of one product over ``sparsity``, called in a loop: columns of `draw.time_against_sparsity`."""
    p = predict(kernel, gpu, **shape, sparsity=sparsity, cache="warm")
    columns = {"time_us": p.time_s * 1e6, "extrapolated": p.extrapolated, "at_least": p.at_least}
    return pd.DataFrame({"kernel": kernel, "sparsity": sparsity, **columns})


def at_every_sparsity(rows: pd.DataFrame, like: str) -> pd.DataFrame:
    """``rows`` of `join_predictions`, the dense one drawn at each sparsity that the kernel ``like`` was measured at."""
    levels = sorted(rows.loc[rows["kernel"] == like, "sparsity"].unique())
    dense = rows[rows["kernel"] == BASELINE].drop(columns="sparsity")
    dense = dense.merge(pd.DataFrame({"sparsity": levels}), how="cross")
    return pd.concat([rows[rows["kernel"] != BASELINE], dense], ignore_index=True)


def _first_below(times: pd.Series, baseline: pd.Series) -> float:
    """Lowest sparsity from which ``times`` stays below ``baseline``."""
    above = times.index[times >= baseline]
    return float(times.index[0] if above.empty else times.index[times.index > above.max()].min())


def held_out_of_fig9(joined: pd.DataFrame) -> pd.DataFrame:
    """Rows of `join_predictions` on the panel of Fig 9 that no model was fitted on, without bounds."""
    rows = held_out(joined)
    return rows[(rows["source"] == "flash-llm-fig9") & (rows["n"] == HELD_OUT_TOKENS)]


def kernel_benchmark(context: Context) -> Exhibit:
    """Fig 9: 36 groups x three batch sizes x five kernels."""
    table = context.benchmark
    unseen = held_out_of_fig9(context.joined)
    errors = mean_errors(unseen, "kernel")
    worst = unseen.loc[unseen[unseen["kernel"].isin(GOALS)]["error"].abs().idxmax()]
    listed = ", ".join(f"{TITLES[name]} {percent(errors[name])}" for name in GOALS)
    finding = (
        f"On the N = 16 panel, which no model was fitted on, the mean error is: {listed}. The worst miss is "
        f"{TITLES[worst['kernel']]} at {worst['m']} x {worst['k']}, {worst['sparsity']:.0%}: {worst['error']:+.0%}."
    )
    columns = ["m", "k", "n", "sparsity", "kernel", "time_us", "predicted_us", "tflops", "predicted_tflops", "fitted"]
    return Exhibit(
        name="kernel_benchmark",
        title="The kernel benchmark of the paper (Fig 9)",
        finding=finding,
        evidence=(
            "Dense-equivalent rate 2MNK/t on an A100, called in a loop. N = 8 and 32 took part in the fit where the L2 "
            "does not hold the weights, N = 16 did not. cuSPARSE's bars are mostly upper bounds of its rate, and its "
            "dashes are: it is not scored."
        ),
        sources=("flash-llm-fig9",),
        table=table[columns],
        figure=draw.kernel_benchmark(table, TITLES),
    )


def scatter(context: Context) -> Exhibit:
    """Predicted against published times."""
    joined = context.joined[context.joined["source"].isin(PUBLISHED) & ~context.joined["at_least"]]
    joined = joined[joined["status"] == "value"]
    held_out = joined[~joined["fitted"]]
    within = [(held_out["error"].abs() <= band).mean() for band in (0.1, 0.2)]
    return Exhibit(
        name="predicted_against_published",
        title="Predicted against published",
        finding=(
            f"Of the {len(held_out)} held-out points {percent(within[0], 0)} lie within 10 % and "
            f"{percent(within[1], 0)} within 20 % of the published time."
        ),
        evidence=(
            "All points of the two kernel figures that state a time, but cuSPARSE's, whose model only bounds it; "
            "hollow markers took part in the fit."
        ),
        sources=("flash-llm-fig9", "flash-llm-sweep"),
        table=joined[["source", "kernel", "m", "k", "n", "sparsity", "time_us", "predicted_us", "error", "fitted"]],
        figure=draw.predicted_against_measured(joined, TITLES),
    )


def speedups(context: Context) -> Exhibit:
    """Mean speed-up of Flash-LLM against the paper's headline."""
    table = _mean_speedups(context)
    error = (table["model"] / table["figure"] - 1).abs()
    averages = table.groupby("baseline")["model"].mean()
    dense = table[table["baseline"] == "cuBLAS"]
    gains = ", ".join(f"{row.figure:.1f}x ({row.model:.1f}x)" for row in dense.itertuples())
    levels = ", ".join(f"{100 * sparsity:.0f}" for sparsity in dense["sparsity"])
    return Exhibit(
        name="speedups",
        title="The headline, recomputed",
        finding=(
            f"At {levels} % sparsity Flash-LLM is on average {gains} as fast as cuBLAS: published, and in brackets "
            f"predicted. Over Sputnik it gains {averages['Sputnik']:.1f}x by the model, over SparTA "
            f"{averages['SparTA']:.1f}x (abstract: 2.9x and 1.5x). The model misses these means by "
            f"{percent(error.mean())} on average, {percent(error.max())} at worst."
        ),
        evidence="Arithmetic mean of the ratio over 12 shapes and N = 8, 16, 32, as the paper averages.",
        sources=("flash-llm-readme", "flash-llm-fig9"),
        table=table,
        figure=draw.speedups(table),
    )


def _mean_speedups(context: Context) -> pd.DataFrame:
    """``baseline, sparsity``, and the mean speed-up as the ``headline``, the ``figure`` and the ``model`` have it."""
    headline = load_table("published/speedups.csv")
    headline = headline[(headline["level"] == "kernel") & headline["sparsity"].notna()]
    times = context.benchmark.pivot_table(
        index=["m", "k", "n", "sparsity"], columns="kernel", values=["time_us", "predicted_us"]
    )
    rows = []
    for row in headline.itertuples():
        group = times.xs(row.sparsity, level="sparsity")
        figure, model = (
            (group[which][row.baseline] / group[which]["flash-llm"]).mean() for which in ("time_us", "predicted_us")
        )
        rows.append((TITLES[str(row.baseline)].split(" (")[0], row.sparsity, row.speedup, figure, model))
    return pd.DataFrame(rows, columns=["baseline", "sparsity", "headline", "figure", "model"])


def storage(context: Context) -> Exhibit:
    """Bits per weight of published formats, break-even points, and how far three models can be pruned."""
    grid = np.round(np.linspace(0, 1, 101), 4)
    m = k = 12288
    published = {name: FORMATS[name] for name in STORED}
    sizes = pd.concat(
        [
            pd.DataFrame(
                {
                    "format": name,
                    "sparsity": grid,
                    "bits": fmt.bits_per_weight(m, k, grid),
                    "depends_on_sparsity": fmt.depends_on_sparsity and name != "dense",
                }
            )
            for name, fmt in published.items()
        ],
        ignore_index=True,
    )
    even = {name: _break_even(name, "dense", m, k) for name in ("tiled-csl", "bitmap")}
    against_int4 = _break_even("bitmap", "int4", m, k)
    reached = pruned_to("opt-66b", "llama-2-7b", "llama-3.1-8b")
    listed = ", ".join(f"{name} {limit.share}" for name, limit in reached.items())
    return Exhibit(
        name="storage",
        title="What a sparse format costs, and where it breaks even",
        finding=(
            f"Tiled-CSL is smaller than dense FP16 from {percent(even['tiled-csl'], 0)} sparsity on, a bitmap from "
            f"{percent(even['bitmap'], 0)}; to be smaller than INT4 a bitmap of FP16 values needs "
            f"{percent(against_int4, 0)}. Published one-shot pruning reaches, by model: {listed}."
        ),
        evidence=(
            "Exact bytes of the layouts at 12288 x 12288, zeros at random, padding and scales counted. Triangles: "
            f"{rests_on(reached)}"
        ),
        sources=tuple(sorted({source for limit in reached.values() for source in limit.sources})),
        table=sizes,
        figure=draw.storage(sizes, {name: limit.sparsity for name, limit in reached.items()}, FORMAT_TITLES),
    )


def _break_even(sparse: str, other: str, m: int, k: int) -> float:
    """Break-even sparsity, NaN if there is none."""
    found = break_even_sparsity(FORMATS[sparse], FORMATS[other], m, k)
    return float("nan") if found is None else found


CHAPTER = Chapter(
    "One matrix product",
    "Five published kernels on an A100: what the closed-form models say, beside what the paper shows.",
    (skinny_roofline, time_against_sparsity, kernel_benchmark, scatter, speedups, storage),
    question="How much does one product gain?",
    headline="speedups",
)
