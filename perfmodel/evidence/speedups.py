"""Speed-ups that sources print instead of times, and what our models give for the same: second sources in the open.

A box plot sums up one kernel on 31 shapes. What the model says is put through the same: its own speed-ups over its own
cuBLAS, called in a loop as the benchmark did, and their quartiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog import load_gpu, load_kernel_times, load_table
from perfmodel.catalog.specs import Precision
from perfmodel.crossing import crossing
from perfmodel.kernels import BASELINE, KERNELS, Call, KernelModel, Machine, Shape
from perfmodel.kernels.fits import calibrated

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

BOXPLOT_TABLES = ("measured/a100-40gb/spinfer_boxplot.csv", "published/spinfer_boxplot.csv")
TOKEN_SWEEP_TABLE = "published/spinfer_n_sweep.csv"
BOXPLOT_NAMES = {"spinfer": "bitmap"}
BOXPLOT_SHAPES_SOURCE = "macko-bench"  # its 31 shapes are those of SpInfer's benchmark
QUARTILES = {"speedup_q1": 0.25, "speedup_median": 0.5, "speedup_q3": 0.75}
DENSE_PARTNERS = {Precision.FP8: "fp8", Precision.INT8: "int8-w8a8"}  # of kernels on the Sparse Tensor Cores
CLEARLY = 0.05  # two times that differ by less are a tie in the sources


def boxplot_shapes() -> pd.DataFrame:
    """The shapes ``m, k`` whose speed-ups the quartiles sum up."""
    times = load_kernel_times("measured/rtx-3090/*")
    return times.loc[times["source"] == BOXPLOT_SHAPES_SOURCE, ["m", "k"]].drop_duplicates()


def boxplots() -> pd.DataFrame:
    """Every published quartile of a speed-up over cuBLAS: ``source, gpu, kernel, n, sparsity`` and `QUARTILES`."""
    import pandas as pd

    table = pd.concat([load_table(name) for name in BOXPLOT_TABLES], ignore_index=True)
    table["kernel"] = table["kernel"].replace(BOXPLOT_NAMES)
    return table[["source", "gpu", "kernel", "n", "sparsity", *QUARTILES]]


def boxplot_quartiles(table: pd.DataFrame) -> Array:
    """The quartiles that rows of `boxplots` state, one after the other, in the order of `boxplot_predictor`."""
    return table[list(QUARTILES)].to_numpy(dtype=np.float64).ravel("F")


def boxplot_predictor(
    model: KernelModel, gpu: str, table: pd.DataFrame, dense_parameters: Any
) -> Callable[[Any], Array]:
    """Parameters -> the model's own quartiles for rows of `boxplots`: first the first ones, then the medians."""
    shapes = boxplot_shapes()
    n, sparsity = (table[name].to_numpy()[:, None] for name in ("n", "sparsity"))
    machine, call = Machine.of(load_gpu(gpu)), Call(warm=True)
    shape = Shape.of(shapes["m"].to_numpy(), shapes["k"].to_numpy(), n, sparsity)
    dense_s = KERNELS[BASELINE].time(machine, shape, dense_parameters, call).time_s

    def quartiles(parameters: Any) -> Array:
        ratio = dense_s / model.time(machine, shape, parameters, call).time_s
        ratio = np.broadcast_to(ratio, (len(table), len(shapes)))
        return np.quantile(ratio, list(QUARTILES.values()), axis=1).ravel()

    return quartiles


def published_speedups(baselines: dict[str, Any]) -> pd.DataFrame:
    """Every speed-up over cuBLAS that a second source prints, beside the model's.

    Parameters
    ----------
    baselines
        Parameters of the dense model by source, where a source's own cuBLAS was fitted; else the stored ones.

    Returns
    -------
    pandas.DataFrame
        ``source, gpu, kernel, n, sparsity, published, predicted, error`` and ``shapes``, how many the median is of;
        ``error`` is that of the time, so predicted too fast is negative, as everywhere.
    """
    import pandas as pd

    table = pd.concat([_boxplot_medians(baselines), _token_sweep()], ignore_index=True)
    return table.assign(error=table["published"] / table["predicted"] - 1)


def predicted_boxplots(baselines: dict[str, Any]) -> pd.DataFrame:
    """`boxplots`, kernel by kernel, with the model's own quartiles beside them, ``predicted_`` before their names.

    ``baselines`` as `published_speedups` takes them.
    """
    import pandas as pd

    parts = []
    for (source, gpu, kernel), table in boxplots().groupby(["source", "gpu", "kernel"], sort=False):
        model, dense = KERNELS[str(kernel)], baselines.get(str(source), calibrated(BASELINE))
        quartiles = boxplot_predictor(model, str(gpu), table, dense)(calibrated(model.name))
        levels = quartiles.reshape(len(QUARTILES), len(table))
        parts.append(
            table.assign(**{f"predicted_{name}": level for name, level in zip(QUARTILES, levels, strict=True)})
        )
    return pd.concat(parts)


def _boxplot_medians(baselines: dict[str, Any]) -> pd.DataFrame:
    table = predicted_boxplots(baselines)
    part = table[["source", "gpu", "kernel", "n", "sparsity"]]
    medians = {"published": table["speedup_median"], "predicted": table["predicted_speedup_median"]}
    return part.assign(**medians, shapes=len(boxplot_shapes()))


def _token_sweep() -> pd.DataFrame:
    import pandas as pd

    parts = []
    for (gpu, kernel), table in load_table(TOKEN_SWEEP_TABLE).groupby(["gpu", "kernel"], sort=False):
        model, machine, call = KERNELS[str(kernel)], Machine.of(load_gpu(str(gpu))), Call(warm=True)
        shape = Shape.of(*(table[name].to_numpy() for name in ("m", "k", "n", "sparsity")))
        own_s, dense_s = (
            kernel.time(machine, shape, calibrated(kernel.name), call).time_s for kernel in (model, KERNELS[BASELINE])
        )
        part = table[["source", "gpu", "kernel", "n", "sparsity"]]
        parts.append(part.assign(published=table["speedup"], predicted=dense_s / own_s, shapes=1))
    return pd.concat(parts, ignore_index=True)


def break_evens(speedups: pd.DataFrame) -> pd.DataFrame:
    """Sparsity from which the median speed-up is above 1: ``source, gpu, kernel, n, published, predicted``.

    NaN where it is not reached, or passed already at the lowest sparsity shown.
    """
    import pandas as pd

    found = []
    for key, rows in speedups.groupby(["source", "gpu", "kernel", "n"], sort=False):
        if rows["sparsity"].nunique() > 2:
            rows = rows.sort_values("sparsity")
            at = rows["sparsity"].to_numpy()
            found.append((*key, *(crossing(at, 1 / rows[name].to_numpy()) for name in ("published", "predicted"))))
    return pd.DataFrame(found, columns=["source", "gpu", "kernel", "n", "published", "predicted"])


def head_to_head(speedups: pd.DataFrame) -> pd.DataFrame:
    """Every two kernels of one source, GPU, N and sparsity: which is ahead, as published and as predicted.

    Returns
    -------
    pandas.DataFrame
        ``source, gpu, n, sparsity, first, second, published, predicted``: the last two are the speed of the first over
        the second; pairs within 5 % of each other as published are left out.
    """
    import pandas as pd

    return pd.DataFrame(
        _pairs(speedups),
        columns=["source", "gpu", "n", "sparsity", "first", "second", "published", "predicted"],
    )


def _pairs(speedups: pd.DataFrame) -> Iterator[tuple[Any, ...]]:
    for key, rows in speedups.groupby(["source", "gpu", "n", "sparsity"], sort=False):
        for (_, first), (_, second) in combinations(rows.iterrows(), 2):
            published, predicted = (first[name] / second[name] for name in ("published", "predicted"))
            if is_clear(published):
                yield (*key, first["kernel"], second["kernel"], published, predicted)


def is_clear(ratio: Any) -> Any:
    """Whether two times of this ``ratio`` differ by more than `CLEARLY`; a number or an array."""
    return np.abs(np.log(ratio)) > np.log1p(CLEARLY)


def same_winner(pairs: pd.DataFrame) -> Array:
    """1 where both columns ``published`` and ``predicted`` (ratios) say the same of who is ahead, else 0."""
    return np.asarray((pairs["published"] > 1) == (pairs["predicted"] > 1), dtype=np.float64)


def dense_partner(kernel: str) -> str:
    """The kernel that keeps all weights and is called dense beside ``kernel``."""
    model = KERNELS[kernel]
    return DENSE_PARTNERS.get(model.precision, BASELINE) if model.sparse_cores else BASELINE


def against_dense(joined: pd.DataFrame) -> pd.DataFrame:
    """Measured times beside the dense one of the same source and product: who is faster, really and predicted.

    Dense is cuBLAS in FP16; for the Sparse Tensor Cores in 8 bits it is the dense kernel of 8 bits (`dense_partner`),
    so that the gain of pruning is not mixed with that of rounding.

    Parameters
    ----------
    joined
        As `perfmodel.evidence.validation.join_predictions` gives it.

    Returns
    -------
    pandas.DataFrame
        ``source, gpu, kernel, dense, m, k, n, sparsity, published, predicted``: time of kernel ``dense`` over that of
        ``kernel``, measured and predicted, where the measured ones differ by more than 5 %.
    """
    case = ["source", "gpu", "m", "k", "n", "dense"]
    others = joined[(joined["kernel"] != BASELINE) & ~joined["at_least"]]
    others = others.assign(dense=others["kernel"].map(dense_partner))
    dense = joined[joined["kernel"].isin({BASELINE, *DENSE_PARTNERS.values()})].rename(columns={"kernel": "dense"})
    dense = dense.groupby(case, as_index=False)[["time_us", "predicted_us"]].median()
    pairs = others.merge(dense, on=case, suffixes=("", "_dense"))
    pairs["published"] = pairs["time_us_dense"] / pairs["time_us"]
    pairs["predicted"] = pairs["predicted_us_dense"] / pairs["predicted_us"]
    columns = [*case, "kernel", "sparsity", "published", "predicted"]
    return pairs.loc[is_clear(pairs["published"]), columns].reset_index(drop=True)
