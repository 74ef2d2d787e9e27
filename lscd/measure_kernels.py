"""`lscd measure --kernels`: how far are the models of CPU kernels from this machine? Predicted first, timed second."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernels_numba.bench import cpu_times
from kernels_numba.bench.cpu_times import PRODUCT, QUICK, Grid
from lscd.printing import headline, print_table, say
from perfmodel.catalog import load_device
from perfmodel.catalog.cpu import THREADS_MARK
from perfmodel.kernels import kernel_model
from perfmodel.prediction import predict
from perfmodel.units import MICRO, MILLI

if TYPE_CHECKING:
    import pandas as pd

SOURCE = "lscd-measure"


def predictions(machine: str, threads: Sequence[int], grid: Grid = QUICK) -> pd.DataFrame:
    """Times of every product that is timed, before it is: ``gpu``, `PRODUCT`, ``predicted_us``.

    Parameters
    ----------
    machine : file of `lscd measure`, or a CPU of the catalogue.
    grid : the products.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for count in threads:
        gpu = f"{machine}{THREADS_MARK}{count}"
        cpu = load_device(gpu)
        for product in cpu_times.products(grid):
            if kernel_model(product["kernel"]).refusal(cpu) is None:
                seconds = predict(gpu=cpu, cache="warm", **product).time_s
                rows.append({"gpu": gpu, **product, "predicted_us": float(seconds) / MICRO})
    return pd.DataFrame(rows)


def timed(machine: str, threads: Sequence[int], progress: Callable[[], object], grid: Grid = QUICK) -> pd.DataFrame:
    """Rows of kernel times of a grid, as ``data/measured`` has them; `progress` is called after each.

    Raises
    ------
    RuntimeError
        If a process fails.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for count in threads:
        for row in cpu_times.measured(count, grid):
            rows.append({"gpu": f"{machine}{THREADS_MARK}{count}", "source": SOURCE, **cpu_times.FIXED, **row})
            progress()
    return pd.DataFrame(rows).reindex(columns=cpu_times.COLUMNS)


def compared(foretold: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """Both side by side, with ``error``: predicted / measured - 1."""
    rows = foretold.merge(found[["gpu", *PRODUCT, "time_us", "time_err_us"]], on=["gpu", *PRODUCT], validate="1:1")
    return rows.assign(error=rows["predicted_us"] / rows["time_us"] - 1)


def as_rows(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """``rows`` for ``--json``."""
    return [{**row, "threads": _threads(row["gpu"])} for row in rows.to_dict("records")]


def print_compared(rows: pd.DataFrame) -> None:
    """Every product on all threads, then the mean error of each kernel by threads."""
    most = rows[rows["gpu"] == rows["gpu"].iloc[-1]].sort_values(["kernel", "m", "sparsity", "n"], kind="stable")
    cells = [
        (
            row.kernel, f"{row.m} x {row.k}", str(row.n), f"{row.sparsity:.0%}", _ms(row.predicted_us),
            _ms(row.time_us), f"±{row.time_err_us / row.time_us:.0%}", f"{row.error:+.0%}",
        )
        for row in most.itertuples()
    ]  # fmt: skip
    print_table(
        ("kernel", "shape", "N", "zeros", "predicted ms", "measured ms", "spread", "error"), cells, text=("kernel",)
    )
    size = np.abs(rows["error"])
    headline(
        f"Mean error {size.mean():.1%} on {len(rows)} products that no fit of ours saw, median {size.median():.1%}."
    )
    for (kernel, gpu), group in rows.groupby(["kernel", "gpu"], sort=False):
        mean, bias = group["error"].abs().mean(), group["error"].mean()
        say(f"{kernel}, {_threads(str(gpu))} thread(s): {mean:.1%}, bias {bias:+.1%}.")


def _threads(gpu: str) -> int:
    return int(gpu.rpartition(THREADS_MARK)[2])


def _ms(microseconds: float) -> str:
    return f"{microseconds * MICRO / MILLI:.3g}"
