"""What happened when on one SM: a table for the Gantt picture, and a trace for Chrome's or Perfetto's viewer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from perfmodel.pipeline.program import Wait

if TYPE_CHECKING:
    import pandas as pd

    from perfmodel.pipeline.simulate import Simulation

BACKGROUND_ROWS = ("load", "multiply", "store")  # go on after their instructions have been issued
PERFETTO_TIME_UNIT = "ns"


def timeline(simulation: Simulation, sm: int = 0) -> pd.DataFrame:
    """Every stage that did something on one simulated SM, in order of time.

    Returns
    -------
    pandas.DataFrame
        ``slot`` (place of the block on the SM), ``block``, ``step``, ``tile`` (along K, of this block), ``buffer``,
        ``stage``, ``row``, ``begin_cycles``, ``end_cycles``, ``begin_us``, ``end_us``, ``waits_for``. Loads and
        products last until their result is there, other stages until the next one may be issued.

    Raises
    ------
    ValueError
        If there is no such SM; names the range.
    """
    import pandas as pd

    count = len(simulation.load.weight)
    if not 0 <= sm < count:
        raise ValueError(f"sm is {sm}, allowed is 0 to {count - 1} (simulated SMs)")
    e, stages = simulation.events, simulation.program.stages
    chosen = np.flatnonzero((e.sm == sm) & (e.blamed[:, 1] != -1))
    stage = simulation.table.stage[e.part[chosen]]
    table = pd.DataFrame(
        {
            "block": e.block[chosen],
            "step": e.step[chosen],
            "stage": stage,
            "begin_cycles": e.ready_cycles[chosen],
            "issued_cycles": e.issued_cycles[chosen],
            "done_cycles": e.done_cycles[chosen],
            "waits_for": [str(simulation.wait(int(event), 1)) for event in chosen],
        }
    ).groupby(["block", "step", "stage"], as_index=False)
    merged = table.agg(
        begin_cycles=("begin_cycles", "min"), issued=("issued_cycles", "max"), done=("done_cycles", "max"),
        waits_for=("waits_for", "last"),
    )  # fmt: skip
    merged["row"] = [stages[index].row for index in merged["stage"]]
    behind = [0 if stages[index].prepares and not stages[index].skip_first else 1 for index in merged["stage"]]
    lag = (simulation.program.buffers - 1) * np.array(behind)
    merged["tile"] = merged["step"] - lag
    merged["buffer"] = merged["tile"] % simulation.program.buffers
    merged["stage"] = [stages[index].name for index in merged["stage"]]
    merged["end_cycles"] = merged["done"].where(merged["row"].isin(BACKGROUND_ROWS), merged["issued"])
    for end in ("begin", "end"):
        merged[f"{end}_us"] = merged[f"{end}_cycles"] / simulation.machine.clock_hz * 1e6
    merged["slot"] = merged["block"].map(_slots(merged))
    return merged.drop(columns=["issued", "done"]).sort_values(["begin_cycles", "block"], ignore_index=True)


def _slots(table: pd.DataFrame) -> dict[int, int]:
    """Place of each block on its SM: the first that is free when it starts."""
    free: list[float] = []
    slots = {}
    for block, begin, end in _spans(table):
        slot = next((place for place, until in enumerate(free) if until <= begin), len(free))
        free[slot : slot + 1] = [end]
        slots[block] = slot
    return slots


def _spans(table: pd.DataFrame) -> list[tuple[int, float, float]]:
    spans = table.groupby("block").agg(begin=("begin_cycles", "min"), end=("end_cycles", "max")).reset_index()
    return list(spans.sort_values(["begin", "block"]).itertuples(index=False, name=None))


def perfetto_trace(simulation: Simulation, sm: int = 0) -> dict[str, Any]:
    """Trace-event JSON of one SM, for https://ui.perfetto.dev or chrome://tracing.

    One process per resident block, one thread per row of stages; times in microseconds.

    References
    ----------
    Google, "Trace Event Format", section on complete events.
    """
    table = timeline(simulation, sm)
    rows = list(dict.fromkeys(stage.row for stage in simulation.program.stages))
    events: list[dict[str, Any]] = []
    for slot in sorted(table["slot"].unique()):
        events.append(_label("process_name", int(slot), 0, f"SM {sm}, resident block {slot}"))
        events += [_label("thread_name", int(slot), index, row) for index, row in enumerate(rows)]
    for entry in table.itertuples(index=False):
        events.append(
            {
                "name": entry.stage, "cat": entry.row, "ph": "X", "pid": int(entry.slot), "tid": rows.index(entry.row),
                "ts": float(entry.begin_us), "dur": float(entry.end_us - entry.begin_us),
                "args": {"block": int(entry.block), "tile": int(entry.tile), "buffer": int(entry.buffer),
                         "begin_cycles": float(entry.begin_cycles), "waits_for": entry.waits_for},
            }
        )  # fmt: skip
    other = {"kernel": simulation.program.name, "gpu": simulation.machine.gpu.key, "time_us": simulation.time_s * 1e6}
    return {"traceEvents": events, "displayTimeUnit": PERFETTO_TIME_UNIT, "otherData": other}


def _label(kind: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": process, "tid": thread, "args": {"name": name}}


def stall_table(simulations: dict[str, Simulation]) -> pd.DataFrame:
    """What each simulation waits for, a row for each: ``time_us`` and a share per `Wait`."""
    import pandas as pd

    rows = {name: {"time_us": s.time_s * 1e6, **{str(w): s.waits[w] for w in Wait}} for name, s in simulations.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("case").reset_index()


def busy_table(simulations: dict[str, Simulation]) -> pd.DataFrame:
    """How busy each resource is: one row per simulation."""
    import pandas as pd

    return pd.DataFrame([{"case": name, **s.busy} for name, s in simulations.items()])
