"""The simulator's parameters in use: what is free, what was fitted, and what a kernel without a fit borrows."""

from __future__ import annotations

from dataclasses import dataclass, replace

from perfmodel.catalog import load_calibration
from perfmodel.catalog.specs import Launch
from perfmodel.kernels.base import free

PIPELINE_FILE = "calibration/pipeline.json"
PIPES = "pipes"  # the entry whose share of the pipes holds for every kernel
DECODERS = ("bitmap", "bitmap-pairs", "condensed", "condensed-pairs")  # our kernels that decode records
CODED_DECODERS = ("bitmap-8", "bitmap-4", "condensed-pairs-8", "condensed-pairs-4")  # and of codes
# What a kernel without a fit of its own takes over: the same on-chip stages were fitted there.
BORROWED = {
    "flash-llm-noreorder": "flash-llm",
    "bitmap": "flash-llm",
    "numba-tiled-csl": "flash-llm",
    **{f"numba-{kind}{end}": "flash-llm" for kind in DECODERS for end in ("", "-bulk")},
    **{f"numba-{kind}": "flash-llm" for kind in CODED_DECODERS},
    "numba-dense": "cublas",
}


@dataclass(frozen=True)
class PipelineParameters:
    """Free parameters of the simulator: physical quantities that no datasheet gives."""

    fill_bytes_per_cycle: float = free(67.0, 16.0, 128.0, "rate of cp.async into shared memory, zero-fill included")
    issue_interval_cycles: float = free(6.0, 1.0, 10.0, "cycles between two dependent instructions of a warp")
    barrier_cycles: float = free(58.0, 5.0, 200.0, "cycles a block-wide barrier costs the slowest warp and the rest")
    block_cycles: float = free(1000.0, 0.0, 6000.0, "cycles until a new block issues: set-up, cold instruction cache")
    pipe_share: float = free(0.72, 0.4, 1.0, "share of its slots in which a scheduler issues, a pipe takes a warp")
    launch_s: float = free(5e-6, 5e-7, 1.5e-5, "seconds from one kernel of a stream to the next")


def load_parameters(kernel: str, launch: Launch = Launch.STREAM) -> PipelineParameters:
    """Calibrated parameters of a kernel, launched from a stream or replayed from a graph.

    Raises
    ------
    ValueError
        If there is no calibration file, or it is damaged; names the file.
    """
    found = load_calibration(PIPELINE_FILE)
    name = BORROWED.get(kernel, kernel)
    if name not in found or PIPES not in found:
        raise ValueError(f"{PIPELINE_FILE} has no kernel {kernel!r}, allowed are {sorted({*found, *BORROWED})}")
    parameters = PipelineParameters(**{**found[name].parameters, **found[PIPES].parameters})
    if launch is Launch.GRAPH:
        parameters = replace(parameters, launch_s=found["cublas-graph"].parameters["launch_s"])
    return parameters
