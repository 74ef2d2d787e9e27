"""Published runs of whole models, their parts where a figure shows them, and what is predicted for each.

Four tables hold throughput: Flash-LLM's own figures (`published_runs`), SpInfer's on two other cards (`spinfer_runs`),
other systems on the A100 (`outside_runs`), and vLLM with 2:4 (`vllm_runs`). The column ``fitted`` says what takes part
in the fit of the systems.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog import load_table
from perfmodel.serving.planning import RUN_COLUMNS
from perfmodel.serving.run import Serving, evaluate
from perfmodel.serving.systems import HostParameters, SystemParameters, load_system
from perfmodel.serving.transformer import Part
from perfmodel.units import MICRO

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

FIT_GPU, FIT_MODEL = "a100-80gb", "opt-66b"
HOST_FIT_GPUS = ("a100-80gb-pcie", "h100-pcie")
TEST_MODEL = "opt-175b"  # takes part in no fit, and no spread either
WAIT_MODEL, WAIT_CATALOGUE_MODEL, WAIT_MIN_BATCH = "llama-70b", "llama-2-70b", 4
PROFILE_SOURCE, PROFILE_GPU = "spinfer-fig15", "rtx-4090"
DOUBTFUL_PROFILE = "fastertransformer"  # its attention there is faster than the memory it reads
QUANT_LLM_TABLE = f"measured/{FIT_GPU}/quant_llm_e2e_breakdown.csv"
QUANT_LLM_READ_S = 0.5  # half-width of a bar of its breakdown
QUANT_LLM_SYSTEMS = {"dense-fp16": "fastertransformer", "quant-llm-w6": "fastertransformer+quant-llm-w6"}


def published_runs() -> pd.DataFrame:
    """Throughput in Flash-LLM's figures: `data/published/e2e.csv` with ``fitted`` saying which rows are fitted."""
    runs = load_table("published/e2e.csv")
    runs["fitted"] = (runs["model"] == FIT_MODEL) & runs["fits"]
    return runs


def spinfer_runs() -> pd.DataFrame:
    """Throughput that SpInfer's figures show, which no fit has seen: `data/published/e2e_spinfer.csv`."""
    return load_table("published/e2e_spinfer.csv").assign(fitted=False)


def outside_runs() -> pd.DataFrame:
    """Published runs of other systems, which no fit has seen: `data/published/e2e_outside.csv`."""
    return load_table("published/e2e_outside.csv").assign(fitted=False)


def vllm_runs() -> pd.DataFrame:
    """Runs of vLLM with 2:4 and dense 8-bit weights: `data/measured/vllm_two_four.csv`.

    The host is fitted on dense runs of two cards (`HOST_FIT_GPUS`); none with a pattern takes part.
    """
    runs = load_table("measured/vllm_two_four.csv").assign(fits=True, err=np.nan)
    dense = runs["sparsity"] == 0
    return runs.assign(fitted=dense & runs["gpu"].isin(HOST_FIT_GPUS))


def joined_runs(parameters: SystemParameters | None = None, host: HostParameters | None = None) -> pd.DataFrame:
    """All published runs that fitted into memory, with their prediction beside them.

    Returns
    -------
    pandas.DataFrame
        Columns of the tables, ``fitted``, and GPU-microseconds per output token, prefill included: ``time_us`` as
        published, ``predicted_us``, ``error`` (predicted / published - 1, signed).
    """
    import pandas as pd

    runs = pd.concat([published_runs(), spinfer_runs(), outside_runs(), vllm_runs()], ignore_index=True)
    runs = runs[runs["fits"]].reset_index(drop=True)
    runs["time_us"] = 1 / (runs["tokens_per_gpu_s"] * MICRO)
    runs["predicted_us"] = 1 / (predict_runs(runs, parameters, host) * MICRO)
    runs["error"] = runs["predicted_us"] / runs["time_us"] - 1
    return runs


def published_parts() -> pd.DataFrame:
    """GPU-seconds of whole runs by `Part`, as their figures show them.

    Returns
    -------
    pandas.DataFrame
        ``model, gpu, system``, `RUN_COLUMNS`, ``part, gpu_s, err`` (half-width of what was read), ``source, fitted``.
    """
    import pandas as pd

    parts = pd.concat([load_table("published/e2e_parts.csv"), _quant_llm_parts()], ignore_index=True)
    profile = (parts["source"] == PROFILE_SOURCE) & (parts["gpu"] == PROFILE_GPU) & (parts["part"] == Part.OTHER)
    waits = (parts["model"] == WAIT_CATALOGUE_MODEL) & (parts["part"] == Part.COMMUNICATION)
    waits &= parts["batch"] >= WAIT_MIN_BATCH
    return parts.assign(fitted=(profile & (parts["system"] != DOUBTFUL_PROFILE)) | waits)


def _quant_llm_parts() -> pd.DataFrame:
    """Quant-LLM's breakdown in the columns of `published_parts`; parts that a run does not have are left out."""
    table = load_table(QUANT_LLM_TABLE)
    keys = ["model", "gpu", "gpus", "system", "batch", "output_len", "source"]
    rows = table.rename(columns={f"{part}_s": str(part) for part in Part}).melt(
        keys, [str(part) for part in Part], var_name="part", value_name="seconds"
    )
    rows = rows[rows["seconds"] > 0]
    return rows.drop(columns="seconds").assign(
        model=rows["model"].replace(WAIT_MODEL, WAIT_CATALOGUE_MODEL),
        system=rows["system"].map(QUANT_LLM_SYSTEMS),
        input_len=1,
        sparsity=0.0,
        gpu_s=rows["seconds"] * rows["gpus"],
        err=QUANT_LLM_READ_S * rows["gpus"],
    )


def joined_parts() -> pd.DataFrame:
    """`published_parts` with ``predicted_gpu_s`` and ``error`` (predicted / published - 1, signed)."""
    parts = published_parts()
    parts["predicted_gpu_s"] = predict_parts(parts)
    parts["error"] = parts["predicted_gpu_s"] / parts["gpu_s"] - 1
    return parts


def predict_runs(
    runs: pd.DataFrame, parameters: SystemParameters | None = None, host: HostParameters | None = None
) -> Array:
    """Tokens per GPU-second predicted for rows with `RUN_COLUMNS`, ``model``, ``gpu`` and ``system``."""
    rate = np.empty(len(runs))
    for place, run in evaluated(runs, parameters, host):
        rate[place] = run.tokens_per_gpu_s
    return rate


def predict_parts(parts: pd.DataFrame, parameters: SystemParameters | None = None) -> Array:
    """GPU-seconds predicted for rows of `published_parts`."""
    seconds = np.empty(len(parts))
    for place, run in evaluated(parts, parameters):
        of_part = run.gpu_seconds
        seconds[place] = [of_part[Part(name)][i] for i, name in enumerate(parts["part"].iloc[place])]
    return seconds


def evaluated(
    runs: pd.DataFrame, parameters: SystemParameters | None = None, host: HostParameters | None = None
) -> Iterator[tuple[NDArray[np.intp], Serving]]:
    """Runs of one model, GPU and system after the other: where their rows stand, and what is predicted for them.

    ``host`` is vLLM's; no other system waits for one.
    """
    for (model, gpu, system), place in runs.groupby(["model", "gpu", "system"]).indices.items():
        group = runs.iloc[place]
        columns: dict[str, Any] = {name: group[name].to_numpy() for name in RUN_COLUMNS}
        yield (
            place,
            evaluate(
                str(model),
                str(gpu),
                str(system),
                **columns,
                parameters=parameters,
                host=host if load_system(str(system)).host else None,
            ),
        )
