"""The simulator's parameters in use: what is free, what was fitted, and what a kernel without a fit borrows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from perfmodel.catalog import load_calibration
from perfmodel.catalog.specs import FittedKernel
from perfmodel.kernels.base import free

PIPELINE_FILE = "calibration/pipeline.json"
# What a kernel without a fit of its own takes over: the same on-chip stages were fitted there.
BORROWED = {
    "bitmap": "flash-llm",
    "numba-tiled-csl": "flash-llm",
    "numba-bitmap": "flash-llm",
    "numba-bitmap-pairs": "flash-llm",
    "numba-dense": "cublas",
}
# Parameters of a fit that hold for the fits after it; the others start from the defaults.
SHARED = {"flash-llm": ("outstanding_bytes",)}


@dataclass(frozen=True)
class PipelineParameters:
    """Free parameters of the simulator: physical quantities that no datasheet gives."""

    outstanding_bytes: float = free(15500.0, 6000.0, 60000.0, "bytes one SM can have in flight to device memory")
    fill_bytes_per_cycle: float = free(67.0, 16.0, 128.0, "rate of cp.async into shared memory, zero-fill included")
    issue_interval_cycles: float = free(6.0, 1.0, 10.0, "cycles between two dependent instructions of a warp")
    barrier_cycles: float = free(58.0, 5.0, 200.0, "cycles a block-wide barrier costs the slowest warp and the rest")
    block_cycles: float = free(1000.0, 0.0, 6000.0, "cycles until a new block issues: set-up, cold instruction cache")
    launch_s: float = free(5e-6, 5e-7, 1.5e-5, "seconds from one kernel of a stream to the next")


class Submission(StrEnum):
    """How the host starts kernels: queued one by one in a stream, or replayed from a recorded graph."""

    STREAM = "stream"
    GRAPH = "graph"


def load_parameters(kernel: str, submission: Submission = Submission.STREAM) -> PipelineParameters:
    """Calibrated parameters of a kernel.

    Raises
    ------
    ValueError
        If there is no calibration file, or it is damaged; names the file.
    """
    found = load_calibration(PIPELINE_FILE)
    name = BORROWED.get(kernel, kernel)
    if name not in found:
        raise ValueError(f"{PIPELINE_FILE} has no kernel {kernel!r}, allowed are {sorted({*found, *BORROWED})}")
    parameters = replace(stacked(name, found, ("cublas",)), **found[name].parameters)
    if submission is Submission.GRAPH:
        parameters = replace(parameters, launch_s=found["cublas-graph"].parameters["launch_s"])
    return parameters


def stacked(name: str, found: dict[str, FittedKernel], after: tuple[str, ...]) -> PipelineParameters:
    """What the fits in ``after`` leave to kernel ``name``, on top of the defaults."""
    base = PipelineParameters()
    for earlier in after:
        values = found[earlier].parameters
        base = replace(base, **{key: values[key] for key in SHARED.get(name, tuple(values))})
    return base
