"""Chapter "Sparse against the rivals of 2026": FP8, NVFP4, INT4 and 2:4, with what is measured of them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lscd.report.exhibit import Chapter, Context, Exhibit, gpu_title, percent
from lscd.report.kernels import TITLES
from perfmodel.catalog import gpu_names, load_gpu
from perfmodel.catalog.specs import Gpu
from perfmodel.evidence.validation import two_four_speedups
from perfmodel.kernels import KERNELS
from perfmodel.kernels.limits import streamed_share
from perfmodel.overtaking import LAYER_OF, SPARSITIES, Overtaking, overtaking, winners
from perfmodel.plotting import rivals as draw

RIVALS = ("fp8", "nvfp4", "int4")
TOKENS = 16
AMPERE = 8.0
MAP_GPUS = ("a100-80gb", "h100", "b200", "l40s", "rtx-4090", "rtx-5090")
MAP_TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
MAP_SPARSITIES = np.round(np.arange(0.3, 0.9501, 0.025), 4)
PATTERN_KERNELS = ("two-four", "two-four-int8", "two-four-fp8")
SOURCES = ("flash-llm-fig9", "spinfer-rerun-boxplot", "aiconfigurator-gemm", "aiconfigurator-quantised")


def bytes_per_cycle(gpu: Gpu) -> float:
    """Bytes that the memory sustains for each SM and clock: what a kernel on the chip must keep up with."""
    rate = streamed_share(gpu.dram) * gpu.dram.bandwidth_bytes_per_s
    return rate / (gpu.clock.sm_count * gpu.clock.hz)


def overtakes(context: Context) -> Exhibit:
    """From which sparsity the best sparse kernel is faster than FP8, NVFP4 and INT4, GPU by GPU."""
    cards = {name: load_gpu(name) for name in gpu_names()}
    able = [name for name, card in cards.items() if not card.architecture.amd and _capability(card) >= AMPERE]
    able.sort(key=lambda name: bytes_per_cycle(cards[name]))
    found = [
        overtaking(name, rival, TOKENS)
        for name in able
        for rival in RIVALS
        if KERNELS[rival].refusal(cards[name]) is None
    ]
    table = pd.DataFrame([vars(each) for each in found])
    table.insert(1, "bytes_per_cycle_and_sm", table["gpu"].map({name: bytes_per_cycle(cards[name]) for name in able}))
    fp8 = [each for each in found if each.rival == "fp8"]
    nowhere = {rival: [e.gpu for e in found if e.rival == rival and np.isnan(e.sparsity)] for rival in RIVALS}
    of_int4 = [each.sparsity for each in found if each.rival == "int4" and not np.isnan(each.sparsity)]
    reached = sorted((each for each in fp8 if not np.isnan(each.sparsity)), key=lambda each: each.sparsity)
    return Exhibit(
        name="overtaking",
        title="From which sparsity does sparse overtake FP8, NVFP4 and INT4?",
        finding=(
            f"At {TOKENS} tokens the best sparse kernel overtakes FP8 from {_words(reached[0])} to "
            f"{_words(reached[-1])}, and nowhere up to {percent(SPARSITIES[-1], 0)} on {_listed(nowhere['fp8'])}. "
            f"INT4 is overtaken from {percent(min(of_int4), 0)} at best, and nowhere on {len(nowhere['int4'])} of "
            f"{len(able)} GPUs. The less a GPU's memory brings to each SM, the more pruning buys."
        ),
        evidence=(
            f"One layer of {LAYER_OF}, products replayed from a graph; GPUs from little to much memory rate for each "
            "SM. Sparse: the fastest measured kernel for zeros anywhere. Both sides are predictions; both are within "
            f"their evidence on {_listed(sorted({each.gpu for each in found if not each.extrapolated})) or 'no GPU'} "
            "only. FP8 and NVFP4 quantise the activations in a launch of their own."
        ),
        sources=SOURCES,
        table=table,
        figure=draw.overtaking(table, TITLES, {name: _label(cards[name]) for name in able}),
    )


def _capability(gpu: Gpu) -> float:
    return float(gpu.compute_capability)


def _label(gpu: Gpu) -> str:
    return f"{gpu.key} ({bytes_per_cycle(gpu):.1f})"


def _words(each: Overtaking) -> str:
    ends = [percent(end, 0) if not np.isnan(end) else "never" for end in (each.low, each.high)]
    return f"{percent(each.sparsity, 0)} ({ends[0]} to {ends[1]}) on {each.gpu}"


def _listed(gpus: list[str]) -> str:
    names = list(gpus)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""


def winner_map(context: Context) -> Exhibit:
    """The fastest kernel over sparsity and tokens on six GPUs."""
    table = pd.concat([winners(gpu, MAP_TOKENS, MAP_SPARSITIES) for gpu in MAP_GPUS], ignore_index=True)
    pruned = table["change"].str.contains("pruned")
    share = pruned.groupby(table["gpu"], sort=False).mean()
    plain = (table["change"] == "pruned").groupby(table["gpu"], sort=False).mean()
    listed = ", ".join(f"{gpu_title(gpu)} {percent(value, 0)}" for gpu, value in share.items())
    sure = (pruned & table["clear"]).groupby(table["gpu"], sort=False).mean()
    return Exhibit(
        name="winner_map",
        title="Who is fastest where?",
        finding=(
            f"A kernel that prunes is predicted the fastest at this share of the map: {listed}. By its interval it is "
            f"clearly so at {percent(sure.min(), 0)} to {percent(sure.max(), 0)}, and without rounding too it wins at "
            f"{percent(plain.min(), 0)} to {percent(plain.max(), 0)}."
        ),
        evidence=(
            f"One layer of {LAYER_OF}, products replayed from a graph, all kernels that somebody has measured and "
            "that the GPU runs; patterns from their own sparsity on. Hatched: the winner is outside its evidence "
            "there, by GPU, tokens, sparsity or size."
        ),
        sources=(*SOURCES, "quant-llm-figures", "slidesparse"),
        table=table,
        figure=draw.winner_map(table, TITLES, {gpu: gpu_title(gpu) for gpu in MAP_GPUS}),
    )


def two_four(context: Context) -> Exhibit:
    """2:4 over dense of its own precision, as measured and as predicted."""
    pairs = two_four_speedups(context.joined)
    pairs = pairs[pairs["kernel"].isin(PATTERN_KERNELS) & np.isclose(pairs["sparsity"], 0.5)]
    table = pairs.groupby(["gpu", "kernel", "n"], as_index=False)[["measured", "predicted"]].median()
    few, many = (table[table["n"] == n]["measured"] for n in (table["n"].min(), table["n"].max()))
    unseen = pairs[~pairs["fitted"]]
    error = (unseen["predicted"] / unseen["measured"] - 1).abs().mean()
    right = ((unseen["predicted"] > 1) == (unseen["measured"] > 1)).mean()
    return Exhibit(
        name="two_four_measured",
        title="2:4 is rarely slower than dense",
        finding=(
            f"Median over a model's matrices, 2:4 runs at {few.min():.2f}x to {few.max():.2f}x of dense at "
            f"{table['n'].min()} tokens and {many.min():.2f}x to {many.max():.2f}x at {table['n'].max()}: in few "
            "tokens it reads fewer bytes, in many it multiplies half. Small matrices and an H100's FP16 gain least."
        ),
        evidence=(
            "cuSPARSELt over cuBLASLt in the same precision, best of an algorithm search, warm caches, matrices of "
            f"at least 4 million weights. On {len(unseen)} products that no fit saw the predicted speed-up is off by "
            f"{percent(error)} on average and on the right side of 1 in {percent(right)}."
        ),
        sources=("slidesparse",),
        table=table,
        figure=draw.two_four_measured(
            table, TITLES, {gpu: gpu_title(gpu) for gpu in table["gpu"].unique()}, PATTERN_KERNELS
        ),
    )


CHAPTER = Chapter(
    "Sparse against the rivals of 2026",
    "FP8 on Hopper, NVFP4 on Blackwell, INT4 and 2:4 everywhere: what sparse has to beat today.",
    (overtakes, winner_map, two_four),
    question="Against FP8, NVFP4 and INT4?",
    headline="overtakes",
)
