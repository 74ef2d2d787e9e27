"""Tile-level simulation of a kernel's software pipeline: why a product takes as long as it does, on any GPU.

`simulate` is the front door; `programs` describes the kernels, `engine` runs them, `words` says what is said of them.
"""

from perfmodel.pipeline.parameters import PipelineParameters, load_parameters
from perfmodel.pipeline.program import Program, Resource, Stage, Tile, Wait, Work
from perfmodel.pipeline.simulate import PREDICTED_BY, PROGRAMS, Simulation, refusal, runs_on, simulate
from perfmodel.pipeline.stages import WhatIf

__all__ = [
    "PREDICTED_BY", "PROGRAMS", "PipelineParameters", "Program", "Resource", "Simulation", "Stage", "Tile", "Wait",
    "WhatIf", "Work", "load_parameters", "refusal", "runs_on", "simulate",
]  # fmt: skip
