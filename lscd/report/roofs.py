"""How far are our kernels from the roof, and which roof is it? Lower bounds beside simulated times, none measured."""

from __future__ import annotations

from itertools import product

import pandas as pd

from lscd.report.exhibit import Context, Exhibit, gpu_title, percent
from perfmodel.pipeline import runs_on, simulate
from perfmodel.pipeline.bounds import bounds
from perfmodel.plotting import roofs as draw

KERNELS = {
    "cublas": "cuBLAS",
    "bitmap": "SpInfer",
    "numba-tiled-csl": "Tiled-CSL",
    "numba-bitmap": "bitmap",
    "numba-bitmap-pairs": "bitmap of pairs",
    "numba-condensed": "condensed",
    "numba-condensed-pairs": "condensed, by register",
    "numba-bitmap-bulk": "bitmap, streamed",
    "numba-condensed-pairs-bulk": "by register, streamed",
}
NEVER_RUN = tuple(name for name in KERNELS if name.startswith("numba"))
GPUS, SPARSITIES = ("a100-80gb", "h100", "h200", "rtx-4090"), (0.5, 0.6, 0.7, 0.8, 0.9)
SHAPE, TOKENS = (36864, 9216), 16
# What readers know the resources by; a scheduler's slots and the pipes behind them are all instructions.
ROOFS = {
    "DRAM": "memory", "SHARED": "shared memory", "ISSUE": "instructions", "ALU": "instructions", "FMA": "instructions",
    "XU": "population counts", "TENSOR": "Tensor Cores",
}  # fmt: skip


def roof_table() -> pd.DataFrame:
    """Columns ``gpu, kernel, sparsity, bound_us, roof, simulated_us, reached``: the share of the last that is bound.

    No row where the GPU lacks what the kernel needs.
    """
    rows = []
    for gpu, kernel, s in product(GPUS, KERNELS, SPARSITIES):
        if not runs_on(kernel, gpu):
            continue
        found = bounds(kernel, gpu, *SHAPE, TOKENS, s)
        time_s = simulate(kernel, gpu, *SHAPE, TOKENS, s, seed=None).time_s
        rows.append((gpu, kernel, s, found.time_s * 1e6, ROOFS[found.roof.name], time_s * 1e6, found.time_s / time_s))
    columns = ["gpu", "kernel", "sparsity", "bound_us", "roof", "simulated_us", "reached"]
    return pd.DataFrame(rows, columns=columns)


def how_far_from_the_roof(context: Context) -> Exhibit:
    """Simulated times of kernels on four GPUs, coloured by what bounds them, with the share of that bound."""
    table = roof_table()
    sparse = table[table["sparsity"].isin((0.8, 0.9))]
    groups = [
        sparse[sparse["kernel"].isin((f"numba-{kind}", f"numba-{kind}-pairs"))] for kind in ("bitmap", "condensed")
    ]
    at = [group.groupby(["gpu", "sparsity"])["simulated_us"].min() for group in groups]
    gain = at[0] / at[1]
    ahead = {gpu: [percent(s, 0) for s in (0.8, 0.9) if gain[gpu, s] > 1] for gpu in GPUS}
    told = ", ".join(f"{gpu_title(gpu)} {min(gain[gpu]):.2f} to {max(gain[gpu]):.2f}x" for gpu in GPUS if ahead[gpu])
    behind = ", ".join(gpu_title(gpu) for gpu in GPUS if not ahead[gpu])
    return Exhibit(
        name="how_far_from_the_roof",
        title="How far from the roof, and which roof?",
        finding=(
            f"Simulated, never run: at 80 and 90 % sparsity condensed strips beat the better bitmap where decoding or "
            f"shared memory binds it ({told}), and lose to it on the {behind}, whose memory is slow enough to hide a "
            f"bitmap's decoding."
        ),
        evidence=(
            "Microseconds, simulated; below, the share that the bound alone would take. Slanted: our kernels, which "
            f"nobody has run. {SHAPE[0]} x {SHAPE[1]}, N = {TOKENS}. The bound is the longest time that any one "
            "resource needs for the counted work at its datasheet rate, device memory at its pins; launch counts in "
            "the time. Streamed kernels need bulk copies, which Hopper and newer cards have."
        ),
        sources=("flash-llm-fig9", "spinfer-rerun-boxplot"),
        table=table,
        figure=draw.roofs(table, KERNELS, {gpu: gpu_title(gpu) for gpu in GPUS}, NEVER_RUN),
    )
