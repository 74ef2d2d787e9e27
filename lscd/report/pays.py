"""Chapter "When and where does it pay?": sparse against dense over sparsity, tokens and GPUs."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lscd.report.exhibit import Chapter, Context, Exhibit, gpu_title, percent, pruned_to, rests_on
from lscd.report.kernels import TITLES
from lscd.report.rivals import bytes_per_cycle
from perfmodel.catalog import gpu_names, load_gpu
from perfmodel.kernels import BASELINE, KERNELS
from perfmodel.overtaking import LAYER_OF, bests
from perfmodel.plotting import pays as draw
from perfmodel.prediction import predict

MAP_GPUS = ("a100-80gb", "h100", "h200", "rtx-4090")
TOKENS = np.arange(8, 257, 8)  # others cost as much as the next multiple of 8
SPARSITIES = np.round(np.arange(0.3, 0.9501, 0.025), 4)
LEVEL, LEVEL_TOKENS = 0.6, 16
SHAPES_OF = ("opt-66b",)  # a model whose matrices the maps are of


def _opt_shapes(context: Context) -> tuple[np.ndarray, np.ndarray]:
    shapes = context.benchmark[["m", "k"]].drop_duplicates()
    return shapes["m"].to_numpy(), shapes["k"].to_numpy()


def _geometric_mean(values: np.ndarray) -> np.ndarray:
    return np.exp(np.log(values).mean(axis=-1))


def _map(gpu: str, m: np.ndarray, k: np.ndarray) -> pd.DataFrame:
    """Columns ``gpu, n, sparsity, speedup, extrapolated`` of one GPU, tokens padded to what Flash-LLM takes."""
    n, sparsity = (axis[..., None] for axis in np.meshgrid(TOKENS, SPARSITIES, indexing="ij"))
    sparse = predict("flash-llm", gpu, m, k, KERNELS["flash-llm"].padded_n(n), sparsity)
    speedup = _geometric_mean(predict(BASELINE, gpu, m, k, n).time_s / sparse.time_s)
    columns = {"n": n, "sparsity": sparsity, "speedup": speedup, "extrapolated": sparse.extrapolated.any(axis=-1)}
    return pd.DataFrame({"gpu": gpu} | {name: values.ravel() for name, values in columns.items()})


def speedup_maps(context: Context) -> Exhibit:
    """Flash-LLM over cuBLAS by sparsity and tokens on four GPUs."""
    m, k = _opt_shapes(context)
    table = pd.concat([_map(gpu, m, k) for gpu in MAP_GPUS], ignore_index=True)
    at_16 = table[(table["n"] == 16) & (table["speedup"] > 1)].groupby("gpu", sort=False)["sparsity"].min()
    listed = ", ".join(f"{gpu} {percent(value, 0)}" for gpu, value in at_16.items())
    reached = pruned_to(*SHAPES_OF)
    wide = table[(table["speedup"] > 1) & (table["sparsity"] == 0.8)].groupby("gpu", sort=False)["n"].max()
    ends = ", ".join(f"{gpu} {value}" for gpu, value in wide.items())
    return Exhibit(
        name="speedup_maps",
        title="Where Flash-LLM beats dense",
        finding=(
            f"At 16 tokens Flash-LLM beats dense from these sparsities on: {listed}. At 80 % sparsity it does so up "
            f"to this many tokens on the map: {ends}. Faster memory moves the border to the right, for the work on "
            "the chip stays."
        ),
        evidence=(
            "Geometric mean over the 12 OPT shapes of Fig 9, tokens padded to what the kernel takes. Hatched: outside "
            f"the evidence, from datasheets. Dotted: {rests_on(reached)}"
        ),
        sources=("flash-llm-fig9", *sorted({source for limit in reached.values() for source in limit.sources})),
        table=table,
        figure=draw.speedup_maps(
            table,
            {name: limit.sparsity for name, limit in reached.items()},
            {gpu: gpu_title(gpu) for gpu in MAP_GPUS},
        ),
    )


def _has_async_copy(gpu: str) -> bool:
    """Ampere and newer: what the published sparse Tensor-Core kernels need."""
    card = load_gpu(gpu)
    return float(card.compute_capability) >= 8.0 and not card.architecture.amd


def rivals_by_gpu(context: Context) -> Exhibit:
    """The fastest kernel that prunes, that rounds, and that does both, GPU by GPU, at a sparsity in reach."""
    cards = sorted(map(load_gpu, filter(_has_async_copy, gpu_names())), key=bytes_per_cycle)
    table = pd.concat([bests(card, LEVEL_TOKENS, LEVEL) for card in cards], ignore_index=True)
    by_change = table.pivot_table(index="gpu", columns="change", values="speedup", sort=False)
    ahead = (by_change["pruned"] > by_change["rounded"]).sum()
    both = (by_change["pruned and rounded"] > by_change["rounded"]).sum()
    sparse = by_change["pruned"]
    return Exhibit(
        name="rivals_by_gpu",
        title="Sparse against quantised, GPU by GPU",
        finding=(
            f"At {percent(LEVEL, 0)} sparsity and N = {LEVEL_TOKENS} the best kernel that prunes is ahead of the best "
            f"that rounds on {ahead} of {len(by_change)} GPUs, one that does both on {both}. Pruning alone gains most "
            f"on {sparse.idxmax()} ({sparse.max():.1f}x dense), least on {sparse.idxmin()} ({sparse.min():.1f}x): "
            "decoding is paid per SM, so it hides where memory is slow."
        ),
        evidence=(
            f"One layer of {LAYER_OF}, products replayed from a graph; of each kind the fastest kernel that somebody "
            "has measured, patterns at their own sparsity. GPUs in the order of the bytes that memory brings to each "
            "SM a cycle, in brackets. Quantised kernels change the weights, sparse ones drop them: compare accuracy "
            "too."
        ),
        sources=(
            "flash-llm-fig9",
            "quant-llm-figures",
            "spinfer-rerun-boxplot",
            "aiconfigurator-quantised",
            "slidesparse",
        ),
        table=table,
        figure=draw.bests_by_gpu(
            table, TITLES, {card.key: f"{card.key} ({bytes_per_cycle(card):.1f})" for card in cards}
        ),
    )


CHAPTER = Chapter(
    "When and where does it pay?",
    "The models, used: one kernel over sparsity and tokens, and its rivals over GPUs.",
    (speedup_maps, rivals_by_gpu),
    question="When and where?",
    headline="speedup_maps",
)
