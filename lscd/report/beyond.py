"""Chapter "Beyond the paper": a kernel of our own, and what pruning costs beside what it buys."""

from __future__ import annotations

import numpy as np

from lscd.report.column_orders import column_orders
from lscd.report.exhibit import Chapter, Context, Exhibit, gpu_title, percent
from lscd.report.own_kernels import GPUS, own_kernels, speedups
from lscd.report.pruning_table import DEFAULT_GPUS, LARGE_MATRIX, TOKENS, trade_off
from lscd.report.roofs import how_far_from_the_roof
from perfmodel.plotting import beyond as draw

SPARSITIES = np.round(np.arange(0.3, 0.9501, 0.05), 4)
LEVEL = 0.6
SOURCES = {"own": ("flash-llm-fig9",), "study": ("minilm-pruning",)}


def own_kernel(context: Context) -> Exhibit:
    """The register-decoding bitmap kernel, predicted from its counted instructions."""
    table = speedups(GPUS, SPARSITIES)
    at = table[np.isclose(table["sparsity"], LEVEL)].set_index("gpu")
    listed = ", ".join(
        f"{gpu_title(gpu)} {row['speedup']:.1f}x ({row['low']:.1f} to {row['high']:.1f})" for gpu, row in at.iterrows()
    )
    return Exhibit(
        name="own_bitmap_kernel",
        title="Decoding straight into Tensor-Core operands",
        finding=(
            f"At {percent(LEVEL, 0)} sparsity our bitmap kernel, which nobody has measured, should beat cuBLAS by "
            f"these factors: {listed}."
        ),
        evidence=(
            "Not measured on any GPU. Instructions, wavefronts and registers are counted from the compiled kernel, its "
            "results are checked on the emulator; the band spans stated ranges of what cannot be counted. Ours are "
            "dashed, published kernels dotted outside their evidence. "
            "36864 x 9216, N = 16."
        ),
        sources=SOURCES["own"],
        table=table,
        figure=draw.own_kernel(table, {gpu: gpu_title(gpu) for gpu in GPUS}),
    )


def accuracy_beside_speed(context: Context) -> Exhibit:
    """Measured quality of a pruned model beside predicted speed at the same sparsity."""
    table = trade_off(DEFAULT_GPUS)
    row = table[np.isclose(table["sparsity"], LEVEL)].iloc[0]
    kept = row["top1_wanda"] / table["top1_wanda"].iloc[0]
    bought = ", ".join(f"{row[f'speedup_{gpu}']:.1f}x on {gpu_title(gpu)}" for gpu in DEFAULT_GPUS)
    m, k = LARGE_MATRIX
    return Exhibit(
        name="accuracy_and_speed",
        title="What pruning costs, and what it buys",
        finding=(
            f"At {percent(LEVEL, 0)} zeros without retraining, all-MiniLM-L6-v2 keeps {percent(kept, 0)} of its "
            f"retrieval accuracy (Wanda), while a large matrix would run {bought}: speed alone does not decide."
        ),
        evidence=(
            f"Quality and bytes measured on the model's own trained weights; speed predicted for a {m} x {k} matrix of "
            f"OPT-30B at N = {TOKENS}, which may keep more or less at the same sparsity, for the fastest sparse kernel "
            "that rounds nothing, dotted outside its evidence; below 1 all of them lose to cuBLAS."
        ),
        sources=SOURCES["study"],
        table=table,
        figure=draw.accuracy_and_speed(table, {gpu: gpu_title(gpu) for gpu in DEFAULT_GPUS}),
    )


CHAPTER = Chapter(
    "Beyond the paper",
    "A kernel without the paper's on-chip floor, and real weights.",
    (own_kernel, own_kernels, how_far_from_the_roof, column_orders, accuracy_beside_speed),
    question="And a better kernel?",
    headline="own_kernel",
)
