"""Evidence in one table: published and measured kernel times, and published speed-ups turned into times.

Some papers print only speed-ups over cuBLAS. They become times through the cuBLAS model on the same GPU (status
``derived``), so their error includes that model's, about 3 %.
"""

from __future__ import annotations

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


def boxplot_speedups(model: KernelModel, parameters: Any, dense_parameters: Any) -> pd.DataFrame:
    """Published quartiles of the speed-up over cuBLAS on an A100, 31 shapes, beside the model's.

    Returns
    -------
    pandas.DataFrame
        ``kernel, n, sparsity, quartile, published, predicted``; empty if the table does not show the kernel.
    """
    import pandas as pd

    table = load_table(BOXPLOT_TABLE)
    table = table[table["kernel"].replace(BOXPLOT_NAMES) == model.name]
    shapes = boxplot_shapes()
    n, sparsity = (table[name].to_numpy()[:, None] for name in ("n", "sparsity"))
    machine = Machine.of(load_gpu("a100-40gb"))
    shape = Shape.of(shapes["m"].to_numpy()[None, :], shapes["k"].to_numpy()[None, :], n, sparsity)
    dense_s = KERNELS[BASELINE].time(machine, shape, dense_parameters).time_s
    ratio = np.broadcast_to(dense_s / model.time(machine, shape, parameters).time_s, (len(table), len(shapes)))
    parts = [
        pd.DataFrame(
            {
                "kernel": model.name,
                "n": table["n"],
                "sparsity": table["sparsity"],
                "quartile": quantile,
                "published": table[column],
                "predicted": np.quantile(ratio, quantile, axis=1),
            }
        )
        for column, quantile in QUARTILES.items()
    ]
    return pd.concat(parts, ignore_index=True)
