"""Chapter "End to end": whole OPT models on A100s, predicted, beside what the paper shows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lscd.report.exhibit import Chapter, Context, Exhibit, mean_errors, percent
from perfmodel.catalog import load_gpu, load_model
from perfmodel.evidence.collectives_fit import GPUS as ALL_REDUCE_GPUS
from perfmodel.evidence.collectives_fit import measured_all_reduces, predict_collectives
from perfmodel.evidence.runs import evaluated, predict_runs
from perfmodel.evidence.runs import published_runs as load_published
from perfmodel.plotting import serving as draw
from perfmodel.serving.planning import plan
from perfmodel.serving.run import evaluate
from perfmodel.serving.systems import SYSTEMS
from perfmodel.serving.transformer import Part
from perfmodel.units import GIGA

GPU = "a100-80gb"
SPARSITY = 0.8
LENGTHS: dict[str, Any] = {"input_len": 64, "output_len": 512}
BATCHES = np.array([8, 12, 16, 24, 32, 48, 64])
SOURCES = ("flash-llm-fig13", "flash-llm-fig15", "flash-llm-fig16")
ALL_REDUCE_SOURCES = (
    "aiconfigurator-nccl",
    "aiconfigurator-vllm-all-reduce",
    "aiconfigurator-sglang-all-reduce",
    "aiconfigurator-tensorrt-llm",
)
TITLES = {name: system.title for name, system in SYSTEMS.items()}
# Systems and numbers of GPUs the paper shows: Figs 13, 15 and 16.
SHOWN: dict[str, dict[str, tuple[int, ...]]] = {
    "opt-30b": {"flash-llm": (1,), "fastertransformer": (1, 2), "deepspeed": (1, 2)},
    "opt-66b": {"flash-llm": (2,), "fastertransformer": (2, 4), "deepspeed": (2, 4)},
    "opt-175b": {"flash-llm": (4,), "fastertransformer": (8,)},
}
PANELS = {"opt-30b": "OPT-30B (Fig 13)", "opt-66b": "OPT-66B (Fig 15)", "opt-175b": "OPT-175B (Fig 16a)"}
COST_SYSTEMS = tuple(SYSTEMS)  # the paper's three
MEMORY_PARTS = ("weights", "kv_cache", "activations", "workspace", "reserve")
PART_NAMES = tuple(str(part) for part in Part)
BREAKDOWN = "flash-llm-fig16"
GOALS = {"opt-66b": 0.025, "opt-30b": 0.03, "opt-175b": 0.04}  # mean error on the fitted model and on those held out


def predicted_runs() -> pd.DataFrame:
    """Predicted throughput of everything `SHOWN`, only runs that fit."""
    parts = []
    for model, systems in SHOWN.items():
        for system, counts in systems.items():
            for gpus in counts:
                run = evaluate(model, GPU, system, batch=BATCHES, sparsity=SPARSITY, gpus=gpus, **LENGTHS)
                keys = {"model": model, "system": system, "gpus": gpus, "batch": BATCHES}
                rows = pd.DataFrame({**keys, "tokens_per_gpu_s": run.tokens_per_gpu_s, "fits": run.memory.fits})
                parts.append(rows[rows["fits"]])
    return pd.concat(parts, ignore_index=True).drop(columns="fits")


def published_runs() -> pd.DataFrame:
    """Published runs that fit, with prediction and error of the time per token, as `lscd validate` has it."""
    runs = load_published()
    runs = runs[runs["fits"]].reset_index(drop=True)
    runs["predicted_tokens_per_gpu_s"] = predict_runs(runs)
    runs["error"] = runs["tokens_per_gpu_s"] / runs["predicted_tokens_per_gpu_s"] - 1
    return runs


def throughput(context: Context) -> Exhibit:
    """Tokens per GPU-second against batch, three models."""
    lines, seen = predicted_runs(), published_runs()
    best = seen[seen["model"] == "opt-66b"].query("gpus == 2").groupby("system")
    published, predicted = (best[column].max() for column in ("tokens_per_gpu_s", "predicted_tokens_per_gpu_s"))
    ratios = [
        f"{predicted['flash-llm'] / predicted[name]:.1f}x {TITLES[name]} "
        f"(published {published['flash-llm'] / published[name]:.1f}x)"
        for name in ("deepspeed", "fastertransformer")
    ]
    means = mean_errors(seen, "model")
    worst = seen.loc[seen["error"].abs().idxmax()]
    keys = ["model", "system", "gpus", "batch"]
    return Exhibit(
        name="throughput",
        title="Tokens per GPU-second",
        finding=(
            f"Best against best on two GPUs, OPT-66B in Flash-LLM yields {' and '.join(ratios)}. "
            f"Mean error of the time per token: {percent(means['opt-66b'])} on OPT-66B, and on two models that took no "
            f"part in the fit {percent(means['opt-30b'])} (OPT-30B) and {percent(means['opt-175b'])} (OPT-175B); the "
            f"worst miss is {TITLES[worst['system']]} on {load_model(worst['model']).name} at batch {worst['batch']}: "
            f"{worst['error']:+.0%}."
        ),
        evidence=(
            "Lines predicted, markers published; a line ends where memory does. 64 input and 512 output tokens, "
            "80 % sparsity in Flash-LLM. Of these figures only OPT-66B was fitted; OPT-30B also says how wide "
            "intervals must be, OPT-175B is a test and nothing else."
        ),
        sources=SOURCES,
        table=lines.merge(
            seen[[*keys, "tokens_per_gpu_s"]].rename(columns={"tokens_per_gpu_s": "published_tokens_per_gpu_s"}),
            on=keys,
            how="left",
        ),
        figure=draw.throughput(lines, seen, PANELS),
    )


def breakdown(context: Context) -> Exhibit:
    """Fig 16b: GPU-seconds of OPT-175B by part, published beside predicted."""
    parts = context.parts[context.parts["source"] == BREAKDOWN]
    assert not parts["fitted"].any()
    worst = parts.loc[parts["error"].abs().idxmax()]
    totals = parts.groupby(["system", "batch"])[["gpu_s", "predicted_gpu_s"]].sum()
    off = (totals["predicted_gpu_s"] / totals["gpu_s"] - 1).abs()
    fewer = totals.loc["fastertransformer"] / totals.loc["flash-llm"]
    gains = [f"{fewer[which].min():.1f} to {fewer[which].max():.1f}" for which in ("gpu_s", "predicted_gpu_s")]
    saved = [_saved(parts, which) for which in ("gpu_s", "predicted_gpu_s")]
    return Exhibit(
        name="opt_175b_breakdown",
        title="Where the GPU-seconds go: OPT-175B (Fig 16b)",
        finding=(
            f"Half the GPUs do the work: Flash-LLM on four needs {gains[0]} times fewer GPU-seconds than "
            f"FasterTransformer on eight (predicted {gains[1]}). It saves {saved[0]} of the matrix products' "
            f"(predicted {saved[1]}). Whole runs are off by {percent(off.mean())} on average; the parts by: "
            f"{part_means(parts)}; worst {worst['part']} of {TITLES[worst['system']]} at batch {worst['batch']}: "
            f"{worst['error']:+.0%}."
        ),
        evidence=(
            "OPT-175B was never fitted, neither its throughput nor these bars. GPU-seconds of the whole run of 512 "
            "tokens, all GPUs. One published bar end, FasterTransformer's communication at batch 8, is hidden in the "
            "figure and follows from the throughput."
        ),
        sources=(BREAKDOWN,),
        table=parts[
            ["system", "gpus", "batch", "sparsity", "part", "gpu_s", "err", "predicted_gpu_s", "error", "note"]
        ],
        figure=draw.breakdown_beside(_beside(parts), PART_NAMES, same_scale=True),
    )


def _saved(parts: pd.DataFrame, which: str) -> str:
    """Range over batches of the share of the products' GPU-seconds that Flash-LLM saves, for prose."""
    seconds = parts[parts["part"] == Part.MATMUL].pivot_table(index="batch", columns="system", values=which)
    share = 1 - seconds["flash-llm"] / seconds["fastertransformer"]
    return f"{percent(share.min(), 0)} to {percent(share.max(), 0)}"


def part_means(parts: pd.DataFrame) -> str:
    """Mean absolute error of each part in rows of `joined_parts`, for prose."""
    means = mean_errors(parts, "part")
    return ", ".join(f"{part} {percent(means[part], 0)}" for part in PART_NAMES)


def _beside(parts: pd.DataFrame) -> pd.DataFrame:
    """Rows of `joined_parts` as `draw.breakdown_beside` takes them: a run a row, a panel a system."""
    runs = parts_of_runs(parts, ["system", "gpus", "batch"])
    panel = runs["system"].map(TITLES) + " on " + runs["gpus"].astype(str) + " GPUs"
    return runs.assign(panel=panel, label="batch " + runs["batch"].astype(str))


def parts_of_runs(parts: pd.DataFrame, run: list[str]) -> pd.DataFrame:
    """Rows of `joined_parts`, a run (columns ``run``) a row: its published parts, and ``predicted_`` before each."""
    wide = parts.pivot_table(index=run, columns="part", values=["gpu_s", "predicted_gpu_s"], sort=False).fillna(0.0)
    columns = {part: wide["gpu_s"][part] for part in PART_NAMES}
    columns |= {f"predicted_{part}": wide["predicted_gpu_s"][part] for part in PART_NAMES}
    return pd.DataFrame(columns).reset_index()


def memory(context: Context) -> Exhibit:
    """What fills the memory, and which runs do not fit."""
    shown = (
        ("opt-30b", "fastertransformer", 1, 16), ("opt-30b", "fastertransformer", 1, 32),
        ("opt-30b", "flash-llm", 1, 64), ("opt-66b", "fastertransformer", 2, 16),
        ("opt-66b", "fastertransformer", 2, 32), ("opt-66b", "flash-llm", 2, 64),
        ("opt-175b", "fastertransformer", 4, 8), ("opt-175b", "fastertransformer", 8, 64),
        ("opt-175b", "flash-llm", 4, 64),
    )  # fmt: skip
    rows = []
    for model, system, gpus, batch in shown:
        needed = evaluate(model, GPU, system, batch=batch, sparsity=SPARSITY, gpus=gpus, **LENGTHS).memory
        label = f"{PANELS[model].split(' ')[0]}, {TITLES[system]}, {gpus} GPU{'s' * (gpus > 1)}, batch {batch}"
        rows.append({"label": label, **{part: float(getattr(needed, part)) / GIGA for part in MEMORY_PARTS}})
    table = pd.DataFrame(rows)
    published = load_published()
    fits = published["fits"].to_numpy()
    agree = sum(int((run.memory.fits == fits[place]).sum()) for place, run in evaluated(published))
    capacity = load_gpu(GPU).dram.size_bytes / GIGA
    return Exhibit(
        name="memory",
        title="What fills the memory",
        finding=(
            f"The verdict fits or out of memory agrees with {agree} of {len(published)} published runs (a run without "
            f"a point ran out of memory). Sparse weights turn into room for the KV cache, hence for larger batches."
        ),
        evidence=(
            "Bytes counted from shapes and formats, KV cache at its full length; only the framework's reserve "
            "(1.5 GB) is an assumption, and the published pattern does not depend on it within 0.5 to 4 GB."
        ),
        sources=SOURCES,
        table=table.rename(columns={part: f"{part}_gb" for part in MEMORY_PARTS}),
        figure=draw.memory(table, MEMORY_PARTS, capacity),
    )


def cost(context: Context) -> Exhibit:
    """Dollars per million tokens of OPT-66B, best batch of each system and number of GPUs."""
    found = plan("opt-66b", GPU, sparsity=SPARSITY, systems=COST_SYSTEMS, **LENGTHS)
    rows = []
    for option in found.options:
        assert option.usd_per_million_tokens is not None  # the catalogue knows the A100's price
        low, high = option.usd_per_million_tokens
        keys = {"system": option.system, "gpus": option.gpus, "batch": option.batch}
        rates = {"tokens_per_gpu_s": option.tokens_per_gpu_s, "usd_low": low, "usd_high": high}
        rows.append({**keys, **rates, "extrapolated": option.extrapolated})
    table = pd.DataFrame(rows)
    sparse, dense = found.best("flash-llm"), found.best("fastertransformer")
    assert sparse is not None
    assert dense is not None
    start = found.break_even_sparsity
    pays = "at no sparsity" if start is None else f"from {percent(start, 0)} sparsity on"
    return Exhibit(
        name="cost",
        title="What a million tokens costs",
        finding=(
            f"Flash-LLM holds OPT-66B on {found.fewest_gpus('flash-llm')} GPU, dense weights need "
            f"{found.fewest_gpus('fastertransformer')}. With unlimited requests and each system at its best batch "
            f"(Flash-LLM {sparse.batch} on {sparse.gpus} GPUs, FasterTransformer {dense.batch} on {dense.gpus}), "
            f"sparse pays {pays}: at large batches the weights are no longer what is read most."
        ),
        evidence=(
            "Predicted; bars span the cloud prices of an A100. Batches above 64 lie outside the evidence, for "
            "Flash-LLM's kernel too."
        ),
        sources=(),
        table=table,
        figure=draw.cost(table, TITLES),
    )


def errors(context: Context) -> Exhibit:
    """Error of the end-to-end model by model and system, and of the all-reduce model."""
    runs = published_runs()
    runs["group"] = runs["model"] + ", " + runs["system"].map(TITLES)
    groups = [_summary(name, rows["error"], bool(rows["fitted"].all())) for name, rows in runs.groupby("group")]
    for gpu in ALL_REDUCE_GPUS:
        rows = measured_all_reduces(gpu)
        rows["error"] = predict_collectives(rows) / (rows["time_us"] * 1e-6) - 1
        for library, part in rows.groupby("library"):
            groups.append(_summary(f"all-reduce, {library}, {gpu}", part["error"], gpu == GPU))
    table = pd.DataFrame(groups)
    shown = table.copy()
    for column in ("mean", "worst", "bias"):
        shown[column] = shown[column].map(lambda value: f"{100 * value:.1f} %")
    means = mean_errors(runs, "model")
    met = {model: "met" if means[model] <= goal else "missed" for model, goal in GOALS.items()}
    goals = [
        f"{load_model(model).name} {percent(means[model], 2)} (goal {percent(goal)}, {met[model]})"
        for model, goal in GOALS.items()
    ]
    return Exhibit(
        name="end_to_end_errors",
        title="How wrong is that?",
        finding=(f"Mean error of the time per token: {goals[0]}; held out: {goals[1]} and {goals[2]}."),
        evidence=(
            "Error of a run's time per token, and of an all-reduce's time, predicted / published - 1. Five numbers for "
            "all models: four fitted on OPT-66B and a profile of small kernels on an RTX 4090, the wait at an "
            "all-reduce on a published breakdown of LLaMA-70B."
        ),
        sources=(*SOURCES, "quant-llm-figures", *ALL_REDUCE_SOURCES),
        table=table,
        shown=shown,
    )


def _summary(name: object, error: pd.Series, fitted: bool) -> dict[str, object]:
    worst = float(error.loc[error.abs().idxmax()])
    return {
        "group": str(name),
        "rows of": "fitted" if fitted else "held out",
        "rows": len(error),
        "mean": float(error.abs().mean()),
        "worst": worst,
        "bias": float(error.mean()),
    }


CHAPTER = Chapter(
    "End to end",
    "OPT models generating 512 tokens on A100s: throughput, time, memory and cost, with one set of numbers for all.",
    (throughput, breakdown, memory, cost, errors),
    question="How much does a whole model gain?",
    headline="throughput",
)
