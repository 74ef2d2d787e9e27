"""Evidence in one table: published and measured kernel times, and published speed-ups turned into times.

Some papers print only speed-ups over cuBLAS. They become times through the cuBLAS model on the same GPU (status
``derived``), so their error includes that model's, about 3 %.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog import load_gpu, load_kernel_times, load_sources, load_table
from perfmodel.catalog.checks import KERNEL_TIME_COLUMNS
from perfmodel.catalog.specs import Launch
from perfmodel.kernels import BASELINE, KERNELS, KernelModel, Machine, Shape

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

SPEEDUP_TABLE = "measured/a100-80gb/quant_llm_speedup.csv"
SPEEDUP_NAMES = {"tensorrt-llm-w8": "int8"}  # evidence name -> modelled kernel
BOXPLOT_TABLE = "measured/a100-40gb/spinfer_boxplot.csv"
BOXPLOT_NAMES = {"spinfer": "bitmap"}
BOXPLOT_SHAPES_SOURCE = "macko-bench"  # its 31 shapes are those of SpInfer's benchmark
QUARTILES = {"speedup_q1": 0.25, "speedup_median": 0.5, "speedup_q3": 0.75}


def derived_times(dense_parameters: Any) -> pd.DataFrame:
    """Times that published speed-ups over cuBLAS imply, in the schema of kernel times."""
    table = load_table(SPEEDUP_TABLE)
    model = KERNELS[BASELINE]
    machine = Machine.of(load_gpu(str(table["gpu"].iloc[0])))
    shape = Shape.of(table["m"].to_numpy(), table["k"].to_numpy(), table["n"].to_numpy(), 0.0)
    dense_us = model.time(machine, shape, dense_parameters).time_s * 1e6
    table = table.assign(
        kernel=table["kernel"].replace(SPEEDUP_NAMES),
        sparsity=0.0,
        time_us=dense_us / table["speedup"],
        time_err_us=np.nan,
        status="derived",
        cache="warm",
        note="speed-up over cuBLAS, times our cuBLAS model",
    )
    return table[list(KERNEL_TIME_COLUMNS)]


def kernel_evidence(dense_parameters: Any) -> pd.DataFrame:
    """Every kernel time there is: read, and derived from speed-ups."""
    import pandas as pd

    return pd.concat([load_kernel_times(), derived_times(dense_parameters)], ignore_index=True)


def launched_by_graph(rows: pd.DataFrame) -> NDArray[np.bool_]:
    """True for rows whose source replayed CUDA graphs, which saves most of the launch latency."""
    graph = {key for key, source in load_sources().items() if source.launch is Launch.GRAPH}
    return rows["source"].isin(graph).to_numpy()


def boxplot_shapes() -> pd.DataFrame:
    """The shapes ``m, k`` whose speed-ups the quartiles of `BOXPLOT_TABLE` sum up."""
    times = load_kernel_times("measured/rtx-3090/*")
    return times.loc[times["source"] == BOXPLOT_SHAPES_SOURCE, ["m", "k"]].drop_duplicates()


def boxplot_table(kernel: str) -> pd.DataFrame:
    """Published quartiles of one kernel's speed-up over cuBLAS on an A100 over the 31 shapes.

    Returns
    -------
    pandas.DataFrame
        ``n, sparsity`` and the columns of `QUARTILES`; empty if the table does not show the kernel.
    """
    table = load_table(BOXPLOT_TABLE)
    return table.loc[table["kernel"].replace(BOXPLOT_NAMES) == kernel, ["n", "sparsity", *QUARTILES]]


def boxplot_quartiles(table: pd.DataFrame) -> Array:
    """The quartiles that rows of `boxplot_table` state, one after the other, in the order of `boxplot_predictor`."""
    return table[list(QUARTILES)].to_numpy(dtype=np.float64).ravel("F")


def boxplot_predictor(model: KernelModel, table: pd.DataFrame, dense_parameters: Any) -> Callable[[Any], Array]:
    """Parameters -> the model's own quartiles for rows of `boxplot_table`: first the first ones, then the medians."""
    shapes = boxplot_shapes()
    n, sparsity = (table[name].to_numpy()[:, None] for name in ("n", "sparsity"))
    machine = Machine.of(load_gpu("a100-40gb"))
    shape = Shape.of(shapes["m"].to_numpy(), shapes["k"].to_numpy(), n, sparsity)
    dense_s = KERNELS[BASELINE].time(machine, shape, dense_parameters).time_s

    def quartiles(parameters: Any) -> Array:
        ratio = np.broadcast_to(dense_s / model.time(machine, shape, parameters).time_s, (len(table), len(shapes)))
        return np.quantile(ratio, list(QUARTILES.values()), axis=1).ravel()

    return quartiles
