"""Tables of runs: what is asked of each, what is predicted beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from perfmodel.catalog import load_model
from perfmodel.serving.contenders import change
from perfmodel.serving.run import Serving, evaluate
from perfmodel.serving.steady import Steady, serve
from perfmodel.serving.systems import load_system
from perfmodel.serving.transformer import Part
from perfmodel.units import GIGA, MILLI

if TYPE_CHECKING:
    import pandas as pd

RUN_COLUMNS = ("batch", "input_len", "output_len", "sparsity", "gpus")
SPLIT_COLUMNS = ("pipeline_parallel", "expert_parallel")
RESULT_COLUMNS = (
    "fits", "memory_gb", "tokens_per_gpu_s", "ttft_ms", "tpot_ms", "matmul_gpu_s", "attention_gpu_s", "other_gpu_s",
    "comm_gpu_s", "lo_tokens_per_gpu_s", "hi_tokens_per_gpu_s", "lo_ttft_ms", "hi_ttft_ms", "lo_tpot_ms", "hi_tpot_ms",
    "extrapolated", "change", "bound",
)  # fmt: skip


def evaluate_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Predict a table of runs.

    Parameters
    ----------
    rows : DataFrame
        ``model, gpu, system`` and `RUN_COLUMNS`, one run each; ``pipeline_parallel``, ``expert_parallel``, ``launch``
        and ``cache_bits`` if there are such columns.

    Returns
    -------
    DataFrame
        `RESULT_COLUMNS`, in the order and with the index of ``rows``: ``memory_gb`` per GPU, GPU-seconds of the whole
        run summed over all GPUs, ``lo_`` and ``hi_`` the ends of the 90 % interval, ``change`` what becomes of the
        weights or "not measured" (`change`), ``bound`` whether no kernel of the format is known, so that a real run is
        slower. Where the run does not fit there is no time (NaN), nor is there a longest time of a bound.

    Raises
    ------
    ValueError
        As `perfmodel.serving.evaluate`.
    """
    import pandas as pd

    parts = []
    for index, asked in _questions(rows, (*RUN_COLUMNS, *SPLIT_COLUMNS)):
        run, columns = evaluate(**asked), asked
        host, record = load_system(asked["system"]), load_model(asked["model"])
        marks = {
            "extrapolated": run.extrapolated,
            "change": [change(host, share, record) for share in columns["sparsity"]],
            "bound": host.is_bound,
        }
        parts.append(pd.DataFrame(result_columns(run) | interval_columns(run) | marks, index=index))
    return pd.concat(parts).sort_index().set_axis(rows.index)


def _questions(rows: pd.DataFrame, columns: Sequence[str]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Where rows of one model, GPU and system stand, and what they ask: those of ``columns`` that there are."""
    # The checkpoint's and the system's own; nothing split.
    rows = rows.fillna({"cache_bits": 0.0, "launch": "", "pipeline_parallel": 1, "expert_parallel": 1})
    apart = [name for name in ("launch", "cache_bits") if name in rows]
    keys = ["model", "gpu", "system"]
    for own, index in rows.groupby([*keys, *apart], sort=False).indices.items():
        group = rows.iloc[index]
        how: dict[str, Any] = {name: value for name, value in zip((*keys, *apart), own, strict=True) if value}
        yield index, how | {name: group[name].to_numpy() for name in columns if name in rows}


def result_columns(run: Serving) -> dict[str, Any]:
    """`RESULT_COLUMNS` but intervals and marks, as arrays; NaN where a run that does not fit has a time."""
    fits = np.broadcast_to(run.memory.fits, run.total_s.shape)
    seconds = run.gpu_seconds
    times = {
        "tokens_per_gpu_s": run.tokens_per_gpu_s,
        "ttft_ms": run.ttft_s / MILLI,
        "tpot_ms": run.tpot_s / MILLI,
        "matmul_gpu_s": seconds[Part.MATMUL],
        "attention_gpu_s": seconds[Part.ATTENTION],
        "other_gpu_s": seconds[Part.OTHER],
        "comm_gpu_s": seconds[Part.COMMUNICATION],
    }
    memory_gb = np.broadcast_to(run.memory.total / GIGA, fits.shape)
    return {"fits": fits, "memory_gb": memory_gb, **{name: np.where(fits, v, np.nan) for name, v in times.items()}}


def interval_columns(run: Serving) -> dict[str, Any]:
    """Ends of the 90 % intervals of predicted runs, as arrays; NaN where the run does not fit.

    Apart from `result_columns`, because they ask every kernel for its interval, and grids of millions of runs do not.
    """
    fits = np.broadcast_to(run.memory.fits, run.total_s.shape)
    ends = {
        "tokens_per_gpu_s": run.tokens_per_gpu_s_interval,
        "ttft_ms": tuple(seconds / MILLI for seconds in run.ttft_s_interval),
        "tpot_ms": tuple(seconds / MILLI for seconds in run.tpot_s_interval),
    }
    pairs = {f"{end}_{name}": both[i] for name, both in ends.items() for i, end in enumerate(("lo", "hi"))}
    return {name: np.where(fits & np.isfinite(value), value, np.nan) for name, value in pairs.items()}


SERVED_INPUTS = ("gpus", "sparsity", "users", "input_len", "output_len", *SPLIT_COLUMNS)
SERVED_COLUMNS = (
    "ttft_ms", "ttft_p90_ms", "tpot_ms", "tpot_p90_ms", "requests_per_s", "tokens_per_gpu_s", "decoding", "room",
    "prompt_share",
)  # fmt: skip


def serve_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Predict a table of servers under load.

    Parameters
    ----------
    rows : DataFrame
        ``model, gpu, system, gpus, sparsity, users, input_len, output_len``, one server each; ``expert_parallel``,
        ``launch`` and ``cache_bits`` if there are such columns.

    Returns
    -------
    DataFrame
        `SERVED_COLUMNS` of `perfmodel.serving.steady.Steady`, in the order and with the index of ``rows``; and
        ``bound`` as `evaluate_rows` has it.
    """
    import pandas as pd

    parts = []
    for index, asked in _questions(rows, SERVED_INPUTS):
        marks = {"bound": load_system(asked["system"]).is_bound}
        parts.append(pd.DataFrame(served_columns(serve(**asked)) | marks, index=index))
    return pd.concat(parts).sort_index().set_axis(rows.index)


def served_columns(load: Steady) -> dict[str, Any]:
    """`SERVED_COLUMNS` of a loaded server, as arrays."""
    milli = (seconds / MILLI for seconds in (load.ttft_s, load.ttft_p90_s, load.tpot_s, load.tpot_p90_s))
    counts = (load.requests_per_s, load.tokens_per_gpu_s, load.decoding, load.room, load.prompt_share)
    return dict(zip(SERVED_COLUMNS, (*milli, *counts), strict=True))
