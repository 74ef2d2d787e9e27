"""Published runs of whole models, their parts where a figure shows them, and what is predicted for each.

Six tables hold throughput of batches that start together: Flash-LLM's own figures (`published_runs`), SpInfer's on two
other cards (`spinfer_runs`), other systems on the A100 (`outside_runs`, `engine_runs`), vLLM with 2:4 (`vllm_runs`),
and what people report in public threads (`public_reports`); a seventh holds runs under load (`served_runs`). The column
``fitted`` says what takes part in a fit of the systems (`hosts_fit` for engines).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog import load_gpu, load_model, load_table
from perfmodel.kernels import Machine
from perfmodel.serving.rows import RUN_COLUMNS
from perfmodel.serving.run import Serving, evaluate
from perfmodel.serving.steady import serve
from perfmodel.serving.systems import ENGINES, HostParameters, SystemParameters, load_system
from perfmodel.serving.transformer import Part, all_matrices
from perfmodel.units import MICRO, MILLI

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

FIT_GPU, FIT_MODEL = "a100-80gb", "opt-66b"
# What SlideSparse's harness moves for each output of a product beyond vLLM: its kernels leave 32-bit sums (INT8) or
# 16-bit ones (FP8), which another kernel reads, scales and writes in 16 bits.
SCALED_APART_BYTES = {"int8": 10.0, "fp8": 6.0}
HARNESS_SOURCE = "slidesparse-vllm"
PUBLIC_SOURCE = "public-reports"
QUEUEING_SOURCES = ("llm-inference-bench", "aiconfigurator-served")
TEST_MODEL = "opt-175b"  # takes part in no fit, and no spread either
WAIT_MODEL, WAIT_CATALOGUE_MODEL, WAIT_MIN_BATCH = "llama-70b", "llama-2-70b", 4
PROFILE_SOURCE, PROFILE_GPU = "spinfer-fig15", "rtx-4090"
DOUBTFUL_PROFILE = "fastertransformer"  # its attention there is faster than the memory it reads
QUANT_LLM_TABLE = f"measured/{FIT_GPU}/quant_llm_e2e_breakdown.csv"
QUANT_LLM_READ_S = 0.5  # half-width of a bar of its breakdown
QUANT_LLM_SYSTEMS = {"dense-fp16": "fastertransformer", "quant-llm-w6": "fastertransformer+quant-llm-w6"}


# Rows that each engine's host is fitted to: on one GPU, so that no all-reduce is among them; of the newer versions on
# as few as they were measured on.
_BENCH = "source == 'llm-inference-bench' and gpus == 1"
STATIC_FITS = {
    "vllm-v0": f"{_BENCH} and system == 'vllm-v0'",
    "tensorrt-llm-v0": f"{_BENCH} and system == 'tensorrt-llm-v0'",
    "deepspeed-mii": f"{_BENCH} and system == 'deepspeed-mii'",
    "sglang": "system == 'sglang' and gpus == 2",
}
OUTSIDE_FITS = {"gpt-fast": "system == 'gpt-fast' and model == 'llama-2-7b'"}
HARNESS_FITS = {"vllm-eager": "sparsity == 0 and gpu in ['a100-80gb-pcie', 'h100-pcie']"}
SERVED_FITS = {
    "vllm-v1": "system == 'vllm-v1' and gpus == 2",
    "tensorrt-llm-v1": "system == 'tensorrt-llm-v1' and gpus == 1",
}


def published_runs() -> pd.DataFrame:
    """Throughput in Flash-LLM's figures: `data/published/e2e.csv` with ``fitted`` saying which rows are fitted."""
    runs = load_table("published/e2e.csv")
    runs["fitted"] = (runs["model"] == FIT_MODEL) & runs["fits"]
    return runs


def spinfer_runs() -> pd.DataFrame:
    """Throughput that SpInfer's figures show, which no fit has seen: `data/published/e2e_spinfer.csv`."""
    return load_table("published/e2e_spinfer.csv").assign(fitted=False)


def outside_runs() -> pd.DataFrame:
    """Published runs of other systems: `data/published/e2e_outside.csv`."""
    runs = load_table("published/e2e_outside.csv")
    return runs.assign(fitted=np.logical_or.reduce([runs.eval(rows) for rows in OUTSIDE_FITS.values()]))


def vllm_runs() -> pd.DataFrame:
    """Runs of vLLM with 2:4 and dense 8-bit weights: `data/measured/vllm_two_four.csv`.

    The host is fitted on dense runs of two cards; none with a pattern takes part. A prompt takes tens of milliseconds
    at least, as where the host launches every kernel, so they are taken to be runs without graphs.
    """
    runs = load_table("measured/vllm_two_four.csv").assign(fits=True, err=np.nan)
    return runs.assign(fitted=np.logical_or.reduce([runs.eval(rows) for rows in HARNESS_FITS.values()]))


def engine_runs() -> pd.DataFrame:
    """Batches of vLLM, TensorRT-LLM, DeepSpeed-MII, gpt-fast and SGLang: `data/measured/engine_runs.csv`.

    Batches whose cache does not fit beside the weights are served one part after the other: they are neither fitted nor
    scored.
    """
    runs = load_table("measured/engine_runs.csv").assign(fits=True, err=np.nan)
    runs["fitted"] = np.logical_or.reduce([runs.eval(rows) for rows in STATIC_FITS.values()])
    return runs


def served_runs() -> pd.DataFrame:
    """Runs under a constant load on H100s, mean TTFT and TPOT: `data/measured/served_runs.csv`."""
    runs = load_table("measured/served_runs.csv")
    return runs.assign(fitted=np.logical_or.reduce([runs.eval(rows) for rows in SERVED_FITS.values()]))


def public_reports() -> pd.DataFrame:
    """Runs that people report in public threads, which only judge: `data/published/public_reports.csv`.

    ``quantity`` is the ``total`` time of a run, its ``tpot`` or that of one ``pass``; tokens and rate are of that time.
    """
    runs = load_table("published/public_reports.csv")
    tokens = runs["batch"] * np.where(runs["quantity"] == "total", runs["output_len"], 1)
    rate = tokens / (runs["time_ms"] * MILLI * runs["gpus"])
    return runs.assign(tokens_per_gpu_s=rate, fits=True, err=np.nan, fitted=False)


def times_tokens(runs: pd.DataFrame) -> NDArray[np.bool_]:
    """True for runs of which the time between tokens is known, and not that of the whole run."""
    return (runs["quantity"].fillna("total") != "total").to_numpy() if "quantity" in runs else np.zeros(len(runs), bool)


def batch_runs() -> pd.DataFrame:
    """All published batches that start together and fitted into memory."""
    import pandas as pd

    tables = [published_runs(), spinfer_runs(), outside_runs(), engine_runs(), vllm_runs(), public_reports()]
    runs = pd.concat(tables, ignore_index=True)
    return runs[runs["fits"]].reset_index(drop=True)


def joined_runs(
    parameters: SystemParameters | None = None, host: HostParameters | None = None, runs: pd.DataFrame | None = None
) -> pd.DataFrame:
    """`batch_runs`, all by default, with their prediction beside them.

    Returns
    -------
    pandas.DataFrame
        Columns of the tables, ``fitted``, and GPU-microseconds per output token, prefill included: ``time_us`` as
        published, ``predicted_us``, ``error`` (predicted / published - 1, signed).
    """
    runs = batch_runs() if runs is None else runs.reset_index(drop=True)
    runs["time_us"] = 1 / (runs["tokens_per_gpu_s"] * MICRO)
    runs["predicted_us"], queued = np.nan, np.zeros(len(runs), dtype=bool)
    for place, run in evaluated(runs, parameters, host):
        rate = predicted_rate(runs.iloc[place], run)
        runs.loc[runs.index[place], "predicted_us"] = 1 / (rate * MICRO)
        queued[place] = ~np.broadcast_to(run.memory.fits, run.total_s.shape)
    runs["error"] = runs["predicted_us"] / runs["time_us"] - 1
    return runs[~(queued & runs["source"].isin(QUEUEING_SOURCES))].reset_index(drop=True)


def joined_served(host: HostParameters | None = None, runs: pd.DataFrame | None = None) -> pd.DataFrame:
    """Served runs with ``predicted_ms`` of the TPOT, its ``error`` and ``ttft_error`` (predicted / measured - 1)."""
    found = served_runs() if runs is None else runs
    found = found.assign(predicted_ms=np.nan, predicted_ttft_ms=np.nan).reset_index(drop=True)
    for (model, gpu, system), place in found.groupby(["model", "gpu", "system"]).indices.items():
        rows = found.iloc[place]
        asked: dict[str, Any] = {name: rows[name].to_numpy() for name in ("input_len", "output_len", "gpus")}
        load = serve(model, gpu, system, users=rows["concurrency"].to_numpy(), host=host, **asked)
        found.loc[found.index[place], "predicted_ms"] = load.tpot_s / MILLI
        found.loc[found.index[place], "predicted_ttft_ms"] = load.ttft_s / MILLI
    error = found["predicted_ms"] / found["tpot_ms"] - 1
    return found.assign(error=error, ttft_error=found["predicted_ttft_ms"] / found["ttft_ms"] - 1)


def errors_of(systems: Sequence[str]) -> pd.DataFrame:
    """``system, gpu, fitted, error`` of the runs of these systems, batches and served ones; no others are predicted."""
    return _errors(lambda name: name in systems)


def errors_of_engines(systems: Sequence[str]) -> pd.DataFrame:
    """The same of their engines, in any version and with any weights."""
    engines = {engine_of(name) for name in systems}
    return _errors(lambda name: engine_of(name) in engines)


def _errors(chosen: Callable[[str], bool]) -> pd.DataFrame:
    import pandas as pd

    batches, served = (table[table["system"].map(chosen)] for table in (batch_runs(), served_runs()))
    columns = ["system", "gpu", "fitted", "error"]
    return pd.concat([joined_runs(runs=batches)[columns], joined_served(runs=served)[columns]], ignore_index=True)


def engine_of(system: str) -> str:
    """``vllm`` for "vllm-v1+fp8"."""
    return system.partition("+")[0].removesuffix("-v0").removesuffix("-v1")


def of_today(systems: pd.Series) -> pd.Series:
    """Which of these names are systems of `ENGINES`, whatever their weights: attention and host are an engine's own."""
    return systems.isin([name for name in systems.unique() if name.partition("+")[0] in ENGINES])


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
        rate[place] = predicted_rate(runs.iloc[place], run)
    return rate


def predicted_rate(rows: pd.DataFrame, run: Serving) -> Array:
    """Tokens per GPU-second of runs of one model, GPU and system, less what the harness of their source adds."""
    seconds = np.where(rows["source"] == HARNESS_SOURCE, _scaled_apart_s(rows), 0.0) if "source" in rows else 0.0
    whole, between = run.tokens / (run.total_s + seconds), rows["batch"] / run.tpot_s
    return np.asarray(np.where(times_tokens(rows), between, whole) / run.gpus)


def _scaled_apart_s(rows: pd.DataFrame) -> Array:
    """Seconds in which SlideSparse's harness scales the outputs of all products of a run in kernels of their own."""
    first = rows.iloc[0]
    each = next((size for name, size in SCALED_APART_BYTES.items() if name in first["system"]), 0.0)
    matrices = all_matrices(load_model(first["model"]).shape)
    outputs = sum(float(matrix.layers * matrix.m) for matrix in matrices if matrix.prunable)
    tokens = rows["batch"] * (rows["input_len"] + rows["output_len"] - 1)
    return np.asarray(tokens * outputs * each / Machine.of(load_gpu(first["gpu"])).streamed_bytes_per_s)


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

    ``host`` replaces the stored one of every engine; the paper's systems wait for none.
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
