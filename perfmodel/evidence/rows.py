"""Evidence in one table: published and measured kernel times, and published speed-ups turned into times.

Some papers print only speed-ups over cuBLAS. They become times through the cuBLAS model on the same GPU (status
``derived``), so their error includes that model's, about 3 %.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog import (
    gpu_names,
    load_device,
    load_gpu,
    load_kernel_times,
    load_sources,
    load_table,
)
from perfmodel.catalog.checks import KERNEL_TIME_COLUMNS, OPTIONAL_COLUMNS
from perfmodel.catalog.cpu import THREADS_MARK
from perfmodel.catalog.specs import Activations, Cache, Launch
from perfmodel.kernels import BASELINE, KERNELS, Call, Machine, Shape

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

SPEEDUP_TABLES = ("measured/a100-80gb/quant_llm_speedup.csv", "published/marlin_speedup.csv")
SPEEDUP_NAMES = {"tensorrt-llm-w8": "int8"}  # evidence name -> modelled kernel
DIRTY_SHARE, DIRTY_PER_READ = 0.25, 0.5


def derived_times(dense_parameters: Any) -> pd.DataFrame:
    """Times that published speed-ups over cuBLAS imply, in the schema of kernel times."""
    import pandas as pd

    columns = ["gpu", "kernel", "m", "k", "n", "speedup", "source"]
    table = pd.concat([load_table(name)[columns] for name in SPEEDUP_TABLES], ignore_index=True)
    model, machine = KERNELS[BASELINE], machines(table)
    shape = Shape.of(table["m"].to_numpy(), table["k"].to_numpy(), table["n"].to_numpy(), 0.0)
    dense_us = model.time(machine, shape, dense_parameters).time_s * 1e6
    table = table.assign(
        kernel=table["kernel"].replace(SPEEDUP_NAMES),
        sparsity=0.0,
        time_us=dense_us / table["speedup"],
        time_err_us=np.nan,
        status="derived",
        note="speed-up over cuBLAS, times our cuBLAS model",
        **OPTIONAL_COLUMNS | {"cache": "warm"},
    )
    return table[list(KERNEL_TIME_COLUMNS)]


def kernel_evidence(dense_parameters: Any) -> pd.DataFrame:
    """Every kernel time there is: read, and derived from speed-ups."""
    import pandas as pd

    return with_residency(pd.concat([load_kernel_times(), derived_times(dense_parameters)], ignore_index=True))


def with_residency(rows: pd.DataFrame) -> pd.DataFrame:
    """``rows`` with a column ``resident``: True where warm calls have their weights, all copies, in the L2 or nearly.

    Such rows are neither fitted nor scored with the others: what they time is rather the L2 than device memory. None
    of a CPU is one: its models take the rate at the working set, in whichever cache that is.
    """
    resident, known = np.zeros(len(rows), dtype=bool), gpu_names()
    for (kernel, gpu), places in rows.groupby(["kernel", "gpu"]).indices.items():
        if kernel in KERNELS and gpu in known:
            group = rows.iloc[places]
            weights = KERNELS[str(kernel)].format.bytes_of(*(group[c].to_numpy(float) for c in ("m", "k", "sparsity")))
            resident[places] = calls(group).resident(Machine.of(load_gpu(str(gpu))), weights)
    return rows.assign(resident=resident)


def devices_in_words(names: pd.Series) -> str:
    """How many GPUs and CPUs these are, e.g. "3 GPUs"; a CPU with other threads in use is no other."""
    bases = names.str.partition(THREADS_MARK)
    counts = {kind: bases.loc[mine, 0].nunique() for kind, mine in (("GPU", bases[1] == ""), ("CPU", bases[1] != ""))}
    return " and ".join(f"{count} {kind}{'s' * (count > 1)}" for kind, count in counts.items() if count)


class Rows:
    """Evidence that is equal, and hashes alike, where rows and GPUs are: what is fitted to it can be cached."""

    def __init__(self, table: pd.DataFrame) -> None:
        from pandas.util import hash_pandas_object

        self.table = table
        of_rows = hash_pandas_object(table[[*KERNEL_TIME_COLUMNS, "resident"]]).to_numpy()
        of_gpus = [np.asarray(number, dtype=np.float64) for number in vars(machines(table)).values()]
        self._digest = b"".join(part.tobytes() for part in (of_rows, *of_gpus))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rows) and self._digest == other._digest

    def __hash__(self) -> int:
        return hash(self._digest)


def shapes_of(rows: pd.DataFrame) -> Shape:
    """The product of each row."""
    return Shape.of(*(rows[column].to_numpy(dtype=np.float64) for column in ("m", "k", "n", "sparsity")))


def machines(rows: pd.DataFrame) -> Machine:
    """The GPU or CPU of each row."""
    gpus = list(rows["gpu"].unique())
    return Machine.stack([load_device(gpu) for gpu in gpus], rows["gpu"].map({gpu: i for i, gpu in enumerate(gpus)}))


def calls(rows: pd.DataFrame) -> Call:
    """How the harness of each row called its kernel.

    A cold one emptied the L2 before each launch; a warm one finds what its last call left there.
    """
    graph, warm = (rows["launch"] == Launch.GRAPH).to_numpy(), (rows["cache"] == Cache.WARM).to_numpy()
    copies, split_k = (rows[name].to_numpy(dtype=np.float64) for name in ("copies", "split_k"))
    return Call(graph, warm, copies, split_k, (rows["activations"] == Activations.QUANTISED).to_numpy())


def flush_s(rows: pd.DataFrame, machine: Machine, read_bytes: Array) -> Array:
    """Seconds that are not the kernel's, where a harness flushed the L2 with a memset before each launch.

    That leaves dirty lines there; what the kernel brings in throws them out, and they are written back first.
    """
    dirty = np.minimum(DIRTY_SHARE * machine.l2_bytes, DIRTY_PER_READ * read_bytes)
    by_memset = {name for name, source in load_sources().items() if source.dirty_flush}
    return np.where(rows["source"].isin(by_memset), dirty / machine.dram_bytes_per_s, 0.0)
