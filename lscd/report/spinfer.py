"""Chapter "SpInfer, measured by its authors": the figures of the paper on the bitmap kernel, predicted."""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np
import pandas as pd

from lscd.report.exhibit import Chapter, Context, Exhibit, gpu_title, mean_errors, percent
from lscd.report.kernels import TITLES, at_every_sparsity, sweep_line
from lscd.report.serving import PART_NAMES, part_means, parts_of_runs
from perfmodel.catalog import load_model, load_table
from perfmodel.evidence.runs import DOUBTFUL_PROFILE, evaluated, spinfer_runs
from perfmodel.evidence.speedups import (
    QUARTILES,
    TOKEN_SWEEP_TABLE,
    boxplot_shapes,
    boxplots,
    head_to_head,
    predicted_boxplots,
    same_winner,
)
from perfmodel.evidence.summary import second_sources
from perfmodel.evidence.validation import crossovers
from perfmodel.kernels import BASELINE, BOUNDED, KERNELS
from perfmodel.plotting import kernels as draw_kernels
from perfmodel.plotting import serving as draw_serving
from perfmodel.plotting import spinfer as draw
from perfmodel.prediction import predict

GPU = "rtx-4090"
SWEEP_SHAPE = {"m": 28672, "k": 8192, "n": 16}
SWEEP_KERNELS = ("cublas", "bitmap", "flash-llm-noreorder", "sparta", "sputnik")
SWEEP, BOXES, TOKENS = "spinfer-fig1", "spinfer-fig10", "spinfer-fig16"
RUNS, PARTS = "spinfer-fig13-14", "spinfer-fig15"
SYSTEMS = {
    "fastertransformer+bitmap": "SpInfer",
    "fastertransformer+flash-llm-noreorder": "Flash-LLM, not reordered",
    "fastertransformer": "FasterTransformer",
    "deepspeed": "DeepSpeed",
}
BATCHES = (8, 12, 16, 24, 32)
SETUP = ["gpu", "model", "gpus"]
HIDDEN = ("rtx-4090", "opt-30b", 4)  # two series of this panel lie under others: a missing point says nothing there
FITTED_ON = (
    "SpInfer's kernel and Flash-LLM's without reordering were fitted to quartiles of speed-ups that a third party "
    "measured on an A100, never to figures of this paper"
)


def time_against_sparsity(context: Context) -> Exhibit:
    """SpInfer's figure 1: time against sparsity on an RTX 4090."""
    grid = np.round(np.arange(0.3, 0.9001, 0.01), 4)
    lines = pd.concat([sweep_line(name, GPU, **SWEEP_SHAPE, sparsity=grid) for name in SWEEP_KERNELS])
    seen = context.joined[context.joined["source"] == SWEEP]
    assert not seen["fitted"].any()
    markers = at_every_sparsity(seen, "bitmap")
    errors = _means(seen)
    worst = seen.loc[seen["error"].abs().idxmax()]
    listed = ", ".join(
        f"{TITLES[row.kernel]} {percent(row.predicted, 0)} (published {percent(row.measured, 0)})"
        for row in crossovers(seen).dropna().itertuples()
    )
    own, dense = seen[seen["kernel"] == "bitmap"], seen[seen["kernel"] == BASELINE].iloc[0]
    ahead, really = (int((own[name] < dense[name]).sum()) for name in ("predicted_us", "time_us"))
    return Exhibit(
        name="spinfer_time_against_sparsity",
        title="Time against sparsity on an RTX 4090 (SpInfer, Fig 1)",
        finding=(
            f"Predicted to beat cuBLAS from these sparsities on: {listed}; SpInfer at {ahead} of the {len(own)} "
            f"sparsities shown (published {really}). Mean error: {errors}; worst {_miss(worst)}."
        ),
        evidence=(
            f"M/K/N = 28672/8192/16, called in a loop as in the benchmark. {FITTED_ON}. SparTA and Sputnik come from "
            "Flash-LLM's figures on an A100; of this card the fit saw cuBLAS at one token. Dotted: on a GPU that the "
            "kernel was not fitted on."
        ),
        sources=(SWEEP,),
        table=lines.merge(
            markers[["kernel", "sparsity", "time_us"]].rename(columns={"time_us": "published_us"}),
            on=["kernel", "sparsity"],
            how="left",
        ),
        figure=draw_kernels.time_against_sparsity(lines, markers, TITLES, top_us=1200),
    )


def _means(rows: pd.DataFrame) -> str:
    """Mean absolute error of each kernel, for prose."""
    return ", ".join(f"{TITLES[str(kernel)]} {percent(mean)}" for kernel, mean in mean_errors(rows, "kernel").items())


def _miss(row: pd.Series) -> str:
    return f"{TITLES[row['kernel']]} at {percent(row['sparsity'], 0)}: {row['error']:+.0%}"


@cache
def quartile_table() -> pd.DataFrame:
    """Published and predicted quartiles of figure 10, in the columns of `draw.quartiles`; no kernel of `BOUNDED`."""
    names = dict(zip(QUARTILES, draw.QUARTILES, strict=True))
    table = predicted_boxplots({}).rename(
        columns=names | {f"predicted_{a}": f"predicted_{b}" for a, b in names.items()}
    )
    return table[(table["source"] == BOXES) & ~table["kernel"].isin(BOUNDED)].sort_index(ignore_index=True)


def box_plots(context: Context) -> Exhibit:
    """SpInfer's figure 10: quartiles of the speed-up over cuBLAS on 31 shapes."""
    table, seen = quartile_table(), second_sources()
    seen = seen[seen["source"] == BOXES]
    worst = seen.loc[seen["error"].abs().idxmax()]
    pairs = head_to_head(seen)
    spread, predicted_spread = (_spread(table, which) for which in ("", "predicted_"))
    boxes = boxplots()
    bounded = boxes.loc[(boxes["source"] == BOXES) & boxes["kernel"].isin(BOUNDED), "speedup_median"]
    return Exhibit(
        name="spinfer_box_plots",
        title=f"Speed-ups on {len(boxplot_shapes())} shapes (SpInfer, Fig 10)",
        finding=(
            f"Of two kernels whose published medians differ by more than 5 % the models name the faster one in "
            f"{int(same_winner(pairs).sum())} of {len(pairs)} cases. The medians are off by {_means(seen)} on average; "
            f"worst {_miss(worst)} on {gpu_title(worst['gpu'])} at N = {worst['n']}. The middle half of the shapes "
            f"spans {percent(spread, 0)} of the median as published, {percent(predicted_spread, 0)} as predicted."
        ),
        evidence=(
            f"No box was fitted. {FITTED_ON}. Speed-ups over the model's own cuBLAS, calls in a loop; an error is that "
            f"of the time, cuBLAS's included. Left out is cuSPARSE, published medians {bounded.min():.2f} to "
            f"{bounded.max():.2f}: our model knows no more than a lower bound of its time, taken from the best "
            "shapes of this very figure."
        ),
        sources=(BOXES, "spinfer-rerun-boxplot"),
        table=table,
        figure=draw.quartiles(table, TITLES, _gpus(table)),
    )


def _spread(table: pd.DataFrame, which: str) -> float:
    """Median width of the boxes over their medians."""
    return float(((table[f"{which}q3"] - table[f"{which}q1"]) / table[f"{which}median"]).median())


def _gpus(table: pd.DataFrame) -> dict[str, str]:
    return {gpu: gpu_title(gpu) for gpu in table["gpu"].unique()}


def many_tokens(context: Context) -> Exhibit:
    """SpInfer's figure 16: from 8 to 4096 tokens."""
    markers = load_table(TOKEN_SWEEP_TABLE)
    lines = pd.concat(
        [_token_line(str(kernel), sparsity) for kernel, sparsity in product(markers["kernel"].unique(), (0.5, 0.6))]
    )
    seen = second_sources()
    seen = seen[seen["source"] == TOKENS]
    worst = seen.loc[seen["error"].abs().idxmax()]
    ends = {name: _last_above_one(lines, name) for name in markers["kernel"].unique()}
    ahead = ", ".join(f"{TITLES[name]} up to {tokens} tokens" for name, tokens in ends.items())
    right = int(same_winner(seen).sum())
    large = seen[seen["n"] == seen["n"].max()]
    published, predicted = (large.groupby("kernel")[name].mean()["bitmap"] for name in ("published", "predicted"))
    return Exhibit(
        name="spinfer_many_tokens",
        title="From 8 to 4096 tokens (SpInfer, Fig 16)",
        finding=(
            f"Predicted to beat cuBLAS at 60 % sparsity: {ahead}. Which side of cuBLAS a kernel is on is right in "
            f"{right} of {len(seen)} points; at {seen['n'].max()} tokens SpInfer runs at {published:.2f} of its speed, "
            f"predicted {predicted:.2f}. Mean error of the time: "
            f"{_means(seen)}; worst {_miss(worst)}, N = {worst['n']}."
        ),
        evidence=(
            f"28672 x 8192 on an RTX 4090, calls in a loop. {FITTED_ON}, and to at most 32 tokens. Lines are dotted: "
            "all of this is outside what the kernels were fitted on; they join the token counts that a kernel takes "
            "without padding."
        ),
        sources=(TOKENS,),
        table=lines.merge(
            markers[["kernel", "n", "sparsity", "speedup"]].rename(columns={"speedup": "published_speedup"}),
            on=["kernel", "n", "sparsity"],
            how="left",
        ),
        figure=draw.token_sweep(lines, markers, TITLES),
    )


def _token_line(kernel: str, sparsity: float) -> pd.DataFrame:
    """Predicted speed-ups over the token counts that ``kernel`` takes."""
    asked = np.unique(np.round(np.geomspace(8, 4096, 46)))
    n = np.unique(KERNELS[kernel].padded_n(asked))
    p = predict(kernel, GPU, SWEEP_SHAPE["m"], SWEEP_SHAPE["k"], n, sparsity, cache="warm")
    columns = {"n": n.astype(int), "speedup": p.speedup_vs_dense, "extrapolated": p.extrapolated}
    return pd.DataFrame({"kernel": kernel, "sparsity": sparsity, **columns})


def _last_above_one(lines: pd.DataFrame, kernel: str) -> int:
    rows = lines[(lines["kernel"] == kernel) & (lines["sparsity"] == 0.6) & (lines["speedup"] > 1)]
    return int(rows["n"].max())


def end_to_end(context: Context) -> Exhibit:
    """SpInfer's figures 13 and 14: tokens per GPU-second of whole models."""
    seen = context.runs[context.runs["source"] == RUNS].sort_values(["gpu", *SETUP[1:]], kind="stable")
    assert not seen["fitted"].any()
    asked = run_grid(spinfer_runs())
    lines, fits = asked[asked["fits"]], asked[asked["batch"].isin(seen["batch"].unique())]
    means = mean_errors(seen, "system")
    listed = ", ".join(f"{title} {percent(means[name])}" for name, title in SYSTEMS.items())
    worst = seen.groupby([*SETUP, "system"], as_index=False)["error"].agg(mean=lambda error: error.abs().mean())
    worst = worst.loc[worst["mean"].idxmax()]
    gains, predicted = _gains(seen)
    agree, cases = _memory_verdicts(fits, seen)
    keys = [*SETUP, "system", "batch", "output_len"]
    return Exhibit(
        name="spinfer_end_to_end",
        title="Whole models on two other cards (SpInfer, Figs 13 and 14)",
        finding=(
            f"Mean error of the time of a token in {len(seen)} runs that no fit has seen: {listed}. The farthest off "
            f"is {SYSTEMS[worst['system']]} in {', '.join(_names(worst))}: {percent(worst['mean'])}. Over "
            f"FasterTransformer on as many GPUs SpInfer yields {gains:.2f}x in the median, predicted {predicted:.2f}x."
        ),
        evidence=(
            "The systems' numbers were fitted on OPT-66B and a breakdown of LLaMA-70B on A100s, and on the small "
            "kernels of figure 15's runs on the RTX 4090, but to no throughput of these cards; that only "
            "tells how wide the intervals of other cards must be. "
            f"{FITTED_ON}. 60 % sparsity and a prompt of 8 tokens are inferred, not printed. A line ends where memory "
            f"does; whether a run fits agrees with the figures in {agree} of {cases} cases, OPT-30B on four RTX 4090 "
            "left out, where markers hide others. FasterTransformer on the RTX A6000 is doubtful: faster "
            "than the memory can be read."
        ),
        sources=(RUNS, "flash-llm-fig15", PARTS),
        table=asked.drop(columns=["setup", "input_len"]).merge(
            seen[[*keys, "tokens_per_gpu_s", "note"]].rename(
                columns={"tokens_per_gpu_s": "published_tokens_per_gpu_s", "note": "published_note"}
            ),
            on=keys,
            how="left",
        ),
        figure=draw.end_to_end(lines, seen.assign(setup=_setups(seen)), SYSTEMS),
    )


def run_grid(published: pd.DataFrame) -> pd.DataFrame:
    """Every system, batch and length on every setup of ``published``: ``tokens_per_gpu_s`` predicted, and ``fits``."""
    cases = published[SETUP].drop_duplicates().merge(pd.DataFrame({"system": list(SYSTEMS)}), how="cross")
    for name, values in (("batch", BATCHES), ("output_len", sorted(published["output_len"].unique()))):
        cases = cases.merge(pd.DataFrame({name: list(values)}), how="cross")
    sparsity = published.groupby("system")["sparsity"].first()
    cases = cases.assign(input_len=published["input_len"].iloc[0], sparsity=cases["system"].map(sparsity))
    rate, fits = np.empty(len(cases)), np.empty(len(cases), dtype=bool)
    for place, run in evaluated(cases):
        rate[place], fits[place] = run.tokens_per_gpu_s, run.memory.fits
    return cases.assign(tokens_per_gpu_s=rate, fits=fits, setup=_setups(cases))


def _names(row: pd.Series) -> tuple[str, str, str]:
    """Model, card and number of cards of a run, as they are written."""
    count = "1 GPU" if row["gpus"] == 1 else f"{row['gpus']} GPUs"
    return load_model(row["model"]).name, gpu_title(row["gpu"]), count


def _setups(rows: pd.DataFrame) -> list[str]:
    return ["\n".join(_names(row)) for _, row in rows.iterrows()]


def _gains(seen: pd.DataFrame) -> tuple[float, float]:
    """Median throughput of SpInfer over FasterTransformer's, published and predicted, where the figures show both."""
    times = seen.pivot_table(
        index=[*SETUP, "batch", "output_len"], columns="system", values=["time_us", "predicted_us"]
    )
    gains = [
        (times[which]["fastertransformer"] / times[which]["fastertransformer+bitmap"]).dropna().median()
        for which in ("time_us", "predicted_us")
    ]
    return float(gains[0]), float(gains[1])


def _memory_verdicts(asked: pd.DataFrame, seen: pd.DataFrame) -> tuple[int, int]:
    """How many of the cases have a published point just where the model says that the run fits."""
    keys = [*SETUP, "system", "batch", "output_len"]
    asked = asked[asked[SETUP].apply(tuple, axis=1) != HIDDEN].merge(seen[keys].assign(shown=True), on=keys, how="left")
    return int((asked["fits"] == asked["shown"].notna()).sum()), len(asked)


def breakdown(context: Context) -> Exhibit:
    """SpInfer's figure 15: GPU-seconds by part."""
    seen = context.parts[context.parts["source"] == PARTS]
    held_out = seen[~seen["fitted"]]
    sound = held_out[held_out["system"] != DOUBTFUL_PROFILE]
    worst = sound.loc[sound["error"].abs().idxmax()]
    listed, doubtful = (part_means(rows) for rows in (sound, held_out[held_out["system"] == DOUBTFUL_PROFILE]))
    runs = [*SETUP, "system"]
    totals = seen.groupby(runs)[["gpu_s", "predicted_gpu_s"]].sum()
    error = (totals["predicted_gpu_s"] / totals["gpu_s"] - 1).abs()
    count = int(seen["fitted"].sum())
    return Exhibit(
        name="spinfer_breakdown",
        title="Where the GPU-seconds go (SpInfer, Fig 15)",
        finding=(
            f"Whole runs are off by {percent(error.mean())} on average, {percent(error.max(), 0)} at worst. Parts of "
            f"SpInfer and Flash-LLM that no fit has seen: {listed}; the worst is {worst['part']} of "
            f"{SYSTEMS[worst['system']]}, {', '.join(_names(worst))}: {worst['error']:+.0%}. Of "
            f"FasterTransformer, whose profile is doubtful: {doubtful}."
        ),
        evidence=(
            f"Batch 16 and 256 output tokens, inferred, not printed. Fitted are the {count} bars called other of "
            f"SpInfer and Flash-LLM on the RTX 4090, nothing else here. {FITTED_ON}. FasterTransformer's attention is "
            "published faster than its KV cache can be read, its products of OPT-30B on the RTX A6000 faster than "
            "their weights."
        ),
        sources=(PARTS, "flash-llm-fig15"),
        table=seen[
            [*runs, "sparsity", "batch", "input_len", "output_len", "part", "gpu_s", "err", "predicted_gpu_s", "fitted"]
        ],
        figure=draw_serving.breakdown_beside(beside(seen, SYSTEMS), PART_NAMES, same_scale=False),
    )


def beside(parts: pd.DataFrame, systems: dict[str, str]) -> pd.DataFrame:
    """Rows of `joined_parts` as `draw_serving.breakdown_beside` takes them: a run a row, a panel per model and GPU."""
    table = parts_of_runs(parts, [*SETUP, "system"]).sort_values(SETUP, kind="stable", ignore_index=True)
    names = table.apply(_names, axis=1, result_type="expand")
    return table.assign(panel=names[0] + " on " + names[1], label=table["system"].map(systems) + "\n" + names[2])


CHAPTER = Chapter(
    "SpInfer, measured by its authors",
    "The paper on the bitmap kernel, on two cards that its kernel was not fitted on: "
    "kernels, many tokens and whole models.",
    (time_against_sparsity, box_plots, many_tokens, end_to_end, breakdown),
    question="Does it hold for another kernel on other cards?",
    headline="end_to_end",
)
