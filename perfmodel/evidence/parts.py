"""How far are the parts of a whole model from their own tables?

Attention, experts, collectives, power, served load, and steps on a CPU.

`kernel_fit` and `runs` have what lies beside them: single products, and whole batches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from perfmodel.evidence.attention_fit import measured_attention, predict_attention
from perfmodel.evidence.collectives_fit import FIT_GPU, GPUS, measured_collectives, predict_collectives
from perfmodel.evidence.cpu_host_fit import joined_steps
from perfmodel.evidence.experts_fit import measured_experts, predict_experts
from perfmodel.evidence.power_fit import log_errors, measured_power
from perfmodel.evidence.rows import devices_in_words
from perfmodel.evidence.runs import joined_served
from perfmodel.serving.energy import calibrated_power
from perfmodel.units import MICRO

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["part", "gpu", "source", "fitted", "error"]
SERVED = "time between tokens under load"


def part_errors() -> pd.DataFrame:
    """One row for each measurement of a part.

    Returns
    -------
    pandas.DataFrame
        ``part``, ``gpu``, ``source`` (engine or library, else the table's source), ``fitted``, ``error`` (predicted /
        measured - 1). Caches that the L2 holds in part are left out.
    """
    import pandas as pd

    attention = measured_attention()
    attention = attention[~attention["resident"]].reset_index(drop=True)
    experts = measured_experts()
    sums = pd.concat([measured_collectives(gpu) for gpu in GPUS], ignore_index=True)
    sums["fitted"] = (sums["gpu"] == FIT_GPU) & (sums["operation"] == "all-reduce")
    power = measured_power()
    power = power[power["dram_busy"].notna()]
    steps = joined_steps()
    tables = [
        _timed("attention, " + attention["kind"], attention["engine"], attention, predict_attention(attention)),
        _timed("layer of experts", experts["engine"], experts, predict_experts(experts)),
        _timed(sums["operation"], sums["library"], sums, predict_collectives(sums)),
        power.assign(part="power of a board", error=np.expm1(log_errors(power, calibrated_power()))),
        joined_served().assign(part=SERVED),
        steps.assign(part="decoding step on a CPU", source=steps["kernel"]),
    ]
    return pd.concat([table[COLUMNS] for table in tables], ignore_index=True)


def _timed(part: str | pd.Series, source: pd.Series, rows: pd.DataFrame, predicted_s: np.ndarray) -> pd.DataFrame:
    return rows.assign(part=part, source=source, error=predicted_s / (rows["time_us"] * MICRO) - 1)


def part_summary() -> pd.DataFrame:
    """One row a part, on rows that no fit saw.

    Returns
    -------
    pandas.DataFrame
        Index: part. ``rows, devices`` (in words), ``mean, median`` (absolute error), ``bias`` (median of its sign),
        ``worst`` (device and engine with the largest mean error) and ``worst_mean``.
    """
    import pandas as pd

    found = {}
    rows = part_errors()
    for part, group in rows[~rows["fitted"]].groupby("part"):
        size = group["error"].abs()
        by_case = size.groupby(group["source"] + " on " + group["gpu"]).mean()
        found[part] = {
            "rows": len(group),
            "devices": devices_in_words(group["gpu"]),
            "mean": size.mean(),
            "median": size.median(),
            "bias": group["error"].median(),
            "worst": by_case.idxmax(),
            "worst_mean": by_case.max(),
        }
    return pd.DataFrame.from_dict(found, orient="index")
