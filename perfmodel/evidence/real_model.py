"""What does pruning a real language model cost and what does it gain? Measured quality beside measured speed.

Quality is that of ``measured/smollm2/pruning.csv``, speed that of ``measured/smollm2/decoding.csv``: the same model on
one CPU, with as many zeros. Rounded weights have no speed here: none of our CPU kernels multiplies integers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perfmodel.catalog import load_table
from perfmodel.evidence.cpu_host_fit import joined_steps

if TYPE_CHECKING:
    import pandas as pd

GPU = "xeon-emerald-rapids-2c@2"
QUALITY_TABLE = "measured/smollm2/pruning.csv"


def quality_and_speed(batch: int = 1, gpu: str = GPU) -> pd.DataFrame:
    """Rows of the pruning study with the fastest measured kernel for their zeros.

    Returns
    -------
    pandas.DataFrame
        Columns of ``pruning.csv``, and ``kernel``, ``tokens_per_s`` and ``predicted_tokens_per_s`` of ``batch``
        sequences together; missing where nothing was measured at that sparsity.
    """
    quality = load_table(QUALITY_TABLE)
    fastest = fastest_steps(batch, gpu).set_index("sparsity")
    zeros = quality["sparsity_wanted"].where(~quality["method"].str.startswith("int"))
    columns = ["kernel", "tokens_per_s", "predicted_tokens_per_s"]
    return quality.join(zeros.rename("zeros")).join(fastest[columns], on="zeros")


def fastest_steps(batch: int = 1, gpu: str = GPU) -> pd.DataFrame:
    """The fastest measured kernel at each sparsity: rows of `short_steps`."""
    steps = short_steps(gpu)
    steps = steps[steps["batch"] == batch]
    return steps.loc[steps.groupby("sparsity")["step_ms"].idxmin()].reset_index(drop=True)


def short_steps(gpu: str = GPU) -> pd.DataFrame:
    """Rows of `joined_steps` on one machine, those with the shortest context."""
    steps = joined_steps()
    return steps[(steps["gpu"] == gpu) & (steps["context"] == steps["context"].min())]
