"""What does each operator of a run cost: FLOP, bytes, what it waits for, time, share?

The rows add up to what `perfmodel.serving.evaluate` says: one list of operators (`phases`) makes both.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.catalog.language_model import LanguageModel
from perfmodel.catalog.specs import Gpu
from perfmodel.serving import phases
from perfmodel.serving.group import make_group, whole
from perfmodel.serving.systems import System
from perfmodel.serving.work import Operator, merged

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

PREFILL, DECODE = "prefill", "decode"
COLUMNS = (
    "phase", "operator", "count", "flop", "bytes", "weight_bytes", "cache_bytes", "intensity", "flops_per_s", "bound",
    "time_s", "share",
)  # fmt: skip


def operator_table(
    model: str | LanguageModel,
    gpu: str | Gpu,
    system: str | System,
    *,
    batch: ArrayLike,
    input_len: ArrayLike = 64,
    output_len: ArrayLike = 512,
    pipeline_parallel: ArrayLike = 1,
    **asked: Any,
) -> pd.DataFrame:
    """Operators of one prefill and of one mean step of decoding, on one of the GPUs; the busiest where experts differ.

    Parameters
    ----------
    model, gpu, system, batch, input_len, output_len, pipeline_parallel, asked
        As `perfmodel.serving.evaluate`, one number each.

    Returns
    -------
    pandas.DataFrame
        `COLUMNS`, a row for each phase and name, in the order in which they are added up: ``count`` in a pass;
        ``flop`` (NaN of what is no product of matrices), ``bytes`` over device memory, those of weights and of the
        cache among them, ``intensity`` in FLOP a byte, ``flops_per_s`` reached, ``bound`` the resource that would take
        longest alone, ``time_s`` of all of them, which add up to TTFT and TPOT, and its ``share`` of the phase.
        Without tokens to decode there is no such phase; what takes no time has no row.

    Raises
    ------
    ValueError
        As `evaluate`; if a value is an array of several.

    Notes
    -----
    What counts as FLOP and bytes stands in `work`. The products of a stream are without their launches, which are an
    operator of their own. With a draft a step is the share of a pass that one token takes, counts too.

    Examples
    --------
    Seven billion weights read once for a token:

    >>> table = operator_table("llama-2-7b", "a100-80gb", "vllm", batch=1)
    >>> step = table[table["phase"] == "decode"].set_index("operator")
    >>> float(step["weight_bytes"].sum().round(-8)), step.loc["mlp-in", "bound"]
    (13200000000.0, 'memory')
    """
    counts: dict[str, Any] = {"input_len": input_len, "output_len": output_len, "pipeline_parallel": pipeline_parallel}
    one = {name: _one(name, value) for name, value in ({"batch": batch, **counts} | asked).items()}
    b, prompt, new, stages = (whole(name, one[name]) for name in ("batch", *counts))
    group, _ = make_group(model, gpu, system, **{name: one[name] for name in (*counts, *asked)})
    load = (np.ceil(b / group.expert_parallel), prompt, new, stages)
    found = {PREFILL: phases.prefill(group, load)} | ({DECODE: phases.decode(group, load)} if new > 1 else {})
    return _table([row for phase, operators in found.items() for row in _rows(phase, operators)])


def beside(own: pd.DataFrame, dense: pd.DataFrame) -> pd.DataFrame:
    """``own`` with ``dense_time_s`` of the same operators in another table, and ``speedup`` over it.

    Operators of ``dense`` alone end their phase, with no time of their own, so that both columns add up.
    """
    import pandas as pd

    taken = dict(zip(_keys(dense), dense["time_s"], strict=True))
    alone = dense[[key not in set(_keys(own)) for key in _keys(dense)]]
    if len(alone):
        nothing = alone.select_dtypes("number").mul(0.0)
        both = pd.concat([own, alone.assign(**nothing)])
        own = both.sort_values("phase", ascending=False, kind="stable", ignore_index=True)  # prefill, then decode
    dense_s = np.array([taken.get(key, 0.0) for key in _keys(own)])
    return own.assign(dense_time_s=dense_s, speedup=dense_s / own["time_s"].where(own["time_s"] > 0))


def _keys(table: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(table["phase"], table["operator"], strict=True))


def _one(name: str, value: Any) -> Any:
    """``value``, out of its array if it is in one."""
    if np.size(value) != 1:
        raise ValueError(f"{name} must be one number in a table of operators, got {np.size(value)} of them")
    return np.ravel(value)[0] if np.ndim(value) else value


def _rows(phase: str, operators: Iterable[Operator]) -> list[tuple[Any, ...]]:
    named: dict[str, list[Operator]] = {}
    for operator in operators:
        named.setdefault(operator.name, []).append(operator)
    rows = [merged(same) for same in named.values()]
    rows = [operator for operator in rows if operator.time_s > 0]
    total_s = float(sum(operator.time_s for operator in rows))
    return [(phase, *_cells(operator, total_s)) for operator in rows]


def _cells(operator: Operator, total_s: float) -> tuple[Any, ...]:
    work, time_s = operator.work(), float(operator.time_s)
    counts = [float(count) for count in (work.flop, work.bytes, work.weight_bytes, work.cache_bytes)]
    flop, moved = counts[:2]
    rates = flop / moved if moved else np.nan, flop / time_s
    return operator.name, operator.count, *counts, *rates, operator.bound, time_s, time_s / total_s


def _table(rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(dict(zip(COLUMNS, zip(*rows, strict=True), strict=True)))
