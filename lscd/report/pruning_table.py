"""Accuracy, size and speed side by side: the measured pruning study joined with predicted times.

    python -m lscd.report.pruning_table [GPU ...]

prints a Markdown table. Quality and bytes are those of all-MiniLM-L6-v2, measured. Its own matrices are too small for
any format to matter, so the speed-up is predicted for a matrix of OPT-30B at the same sparsity; no claim is made that
OPT-30B keeps as much quality there. It is that of the fastest sparse kernel, below 1 where all of them lose to cuBLAS.
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfmodel.catalog import load_gpu, load_table
from perfmodel.kernels import KERNELS
from perfmodel.kernels.rivals import rivals
from perfmodel.prediction import predict

TABLE = "measured/minilm/pruning_quality.csv"
LARGE_MATRIX = (28672, 7168)  # first MLP matrix of OPT-30B
TOKENS = 8
DEFAULT_GPUS = ("a100-80gb", "rtx-4090")


def trade_off(gpus: tuple[str, ...] = DEFAULT_GPUS) -> pd.DataFrame:
    """One row for each sparsity of the study.

    Returns
    -------
    pandas.DataFrame
        ``sparsity``; ``top1_accuracy`` and ``mean_cosine`` of ``magnitude`` and of ``wanda``; ``tiled_csl`` and
        ``bitmap`` size over dense FP16; for each GPU the predicted ``speedup_`` over cuBLAS of the fastest sparse
        kernel that rounds nothing at ``LARGE_MATRIX`` and ``TOKENS``, that ``kernel_``, and whether it is
        ``extrapolated_``.
    """
    study = load_table(TABLE)
    by_method = {name: rows.set_index("sparsity_wanted") for name, rows in study.groupby("method")}
    wanda, magnitude = (pd.concat([by_method["none"], by_method[name]]) for name in ("wanda", "magnitude"))
    table = pd.DataFrame({"sparsity": magnitude.index})
    for name, rows in (("magnitude", magnitude), ("wanda", wanda)):
        table[f"top1_{name}"] = rows["top1_accuracy"].to_numpy()
        table[f"cosine_{name}"] = rows["mean_cosine"].to_numpy()
    for name in ("tiled_csl", "bitmap"):
        table[f"size_{name}"] = (magnitude[f"{name}_bytes"] / magnitude["dense_bytes"]).to_numpy()
    for gpu in gpus:
        table = table.join(_fastest(gpu, table["sparsity"].to_numpy()))
    return table


def _fastest(gpu: str, sparsity: NDArray[np.float64]) -> pd.DataFrame:
    """The fastest measured kernel for zeros anywhere that keeps FP16 values, even where it is slower than dense."""
    record = load_gpu(gpu)
    exact = [model.name for model in rivals() if model.format.change == "pruned" and not model.patterns]
    found = [
        predict(name, record, *LARGE_MATRIX, TOKENS, sparsity)
        for name in exact
        if KERNELS[name].padded_n(TOKENS) == TOKENS
    ]
    best = np.argmax([p.speedup_vs_dense for p in found], axis=0)
    columns = {
        f"speedup_{gpu}": [float(found[i].speedup_vs_dense[row]) for row, i in enumerate(best)],
        f"kernel_{gpu}": [found[i].kernel for i in best],
        f"extrapolated_{gpu}": [bool(found[i].extrapolated[row]) for row, i in enumerate(best)],
    }
    return pd.DataFrame(columns)


def markdown(table: pd.DataFrame) -> str:
    """The table as it stands in docs/weights.md."""
    gpus = [name.removeprefix("speedup_") for name in table if name.startswith("speedup_")]
    header = ["zeros", "top-1, magnitude", "top-1, Wanda", "Tiled-CSL / dense", "bitmap / dense"]
    lines = [header + [f"predicted on {gpu}" for gpu in gpus], ["---:"] * (len(header) + len(gpus))]
    for row in table.to_dict("records"):
        cells = [f"{row['sparsity']:.0%}", f"{row['top1_magnitude']:.1%}", f"{row['top1_wanda']:.1%}"]
        cells += [f"{row['size_tiled_csl']:.2f}", f"{row['size_bitmap']:.2f}"]
        for gpu in gpus:
            star = "\\*" if row[f"extrapolated_{gpu}"] else ""
            cells.append(f"{row[f'speedup_{gpu}']:.2f}x{star} {row[f'kernel_{gpu}']}")
        lines.append(cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.stdout.write(markdown(trade_off(tuple(sys.argv[1:]) or DEFAULT_GPUS)) + "\n")
