"""How far from the roof, and which roof? The least time each resource of a GPU needs for the work of a kernel.

Only counted work and datasheet rates enter: nothing waits, nothing is shared unevenly, no launch costs anything. Device
memory runs at its pins, schedulers issue in every cycle, every pipe takes a warp as often as it can, Tensor Cores run
at their peak or what the board can power. A kernel cannot be faster than the longest of these times; what is lost
beyond it is the subject of `simulate`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from perfmodel.catalog import load_gpu
from perfmodel.catalog.specs import Gpu
from perfmodel.pipeline.machine import Machine
from perfmodel.pipeline.parameters import PipelineParameters
from perfmodel.pipeline.program import Program, Resource
from perfmodel.pipeline.simulate import checked_product, program_of
from perfmodel.pipeline.stages import Product, WhatIf, covered

BOUNDING = (
    Resource.DRAM, Resource.ISSUE, Resource.ALU, Resource.FMA, Resource.XU, Resource.SHARED, Resource.TENSOR,
)  # fmt: skip


@dataclass(frozen=True)
class Bounds:
    """Seconds each of `BOUNDING` needs alone at its peak rate; ``program`` is what was counted."""

    program: Program
    seconds: dict[Resource, float]

    @property
    def roof(self) -> Resource:
        """The resource that needs longest."""
        return max(self.seconds, key=lambda resource: self.seconds[resource])

    @property
    def time_s(self) -> float:
        """Seconds below which no run of this kernel can be."""
        return self.seconds[self.roof]


def bounds(kernel: str, gpu: str | Gpu, m: int, k: int, n: int, sparsity: float = 0.0) -> Bounds:
    """Lower bounds of ``C[m, n] = A[m, k] @ B[k, n]`` on one kernel and GPU, without launch and reduction.

    Parameters
    ----------
    kernel : str
        Name in `PROGRAMS`.
    gpu : str or Gpu
        Catalogue name, path of a TOML file, or a record.
    m, k, n : int
        Rows and columns of the weights; tokens. At least 1.
    sparsity : float
        Fraction of zero weights, 0 to 1; zeros lie evenly.

    Returns
    -------
    Bounds

    Raises
    ------
    ValueError
        Unknown names, sizes or values out of range; names value and range.

    Notes
    -----
    The demand of one block that takes all of K, times the blocks: sharing K only adds partial sums.
    """
    product = checked_product(m, k, n, sparsity)
    machine = _ideal_machine(load_gpu(gpu))
    program = program_of(kernel)(machine, product, WhatIf())
    seconds = demand_of(program, product) * machine.cycles_per_unit / machine.clock_hz
    on_chip = [resource for resource in BOUNDING if resource is not Resource.DRAM]
    seconds[on_chip] /= machine.sm_count
    return Bounds(program, {resource: float(seconds[resource]) for resource in BOUNDING})


def demand_of(program: Program, product: Product) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Work (resources,) of the whole product, with K in one piece."""
    tile, pad = program.tile, program.pad_nonzeros
    blocks = math.ceil(product.m / tile.rows) * math.ceil(product.n / tile.columns)
    tiles = math.ceil(product.k / tile.depth)
    kept = tile.rows * tile.depth * covered(product, tile) * (1 - product.sparsity)
    return program.demand(tiles, math.ceil(kept / pad) * pad * tiles) * blocks


def _ideal_machine(gpu: Gpu) -> Machine:
    """A GPU whose memory runs at its pins, and whose pipes and shared memory are never idle."""
    parameters = PipelineParameters(pipe_share=1.0, fill_bytes_per_cycle=float(gpu.sm.shared_bytes_per_clock))
    machine = Machine.of(gpu, parameters)
    machine.cycles_per_unit[Resource.DRAM] = machine.clock_hz / gpu.dram.bandwidth_bytes_per_s
    return machine
