"""The GPU kernels without a GPU: their launches, executed on the PTX emulator with exact counters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels_numba import ptx_emulator
from kernels_numba.formats import Element, EncodedWeight
from kernels_numba.formats.encoded import output_element
from kernels_numba.gpu import work
from kernels_numba.gpu.compile import compile_ptx
from kernels_numba.gpu.launch import (
    DEFAULT_ARCH,
    DEFAULT_SM_COUNT,
    Launch,
    activations_for,
    launches,
    make_plan,
    with_aligned_rows,
)

# What marks outputs that no block wrote.
NAN = {Element.FLOAT16: np.nan, Element.BFLOAT16: 0x7FFF, Element.FLOAT32: np.nan}


def emulate(
    weights: EncodedWeight,
    x: NDArray[Any],
    *,
    split_k: int | None = None,
    out_dtype: Any = None,
    arch: str = DEFAULT_ARCH,
    sm_count: int = DEFAULT_SM_COUNT,
    streamed: bool = False,
) -> tuple[NDArray[Any], list[Any]]:
    """Run the GPU kernels' PTX on the CPU; ``streamed`` as in `launch.make_plan`.

    Parameters
    ----------
    x : (k, n), float16, or bfloat16 (uint16 bit patterns) for weights of that type.
    out_dtype : float32, or the weights' own type, which is the default.

    Returns
    -------
    (m, n) array, bfloat16 as uint16, and the emulator's ``LaunchResult`` of every launch with its exact counters.

    Raises
    ------
    PtxError
        If a kernel misbehaves, or does other work than its plan asks for (`work`).
    """
    x, weights = activations_for(weights, x), with_aligned_rows(weights)
    plan = make_plan(weights, x.shape[1], split_k=split_k, arch=arch, sm_count=sm_count, streamed=streamed)
    n = x.shape[1]
    x = np.pad(x, ((0, plan.k - x.shape[0]), (0, plan.n_padded - n)))
    element = output_element(out_dtype, plan.variant.element)
    out = np.full((plan.m, plan.n_padded), NAN[element], element.storage)
    workspace = np.full(plan.workspace_shape, np.nan, np.float32) if plan.workspace_shape else None
    flags = np.zeros(plan.flags, np.uint32) if plan.flags else None
    buffers = {name: buffer if buffer.size else np.zeros(16, buffer.dtype) for name, buffer in weights.buffers.items()}
    jobs = launches(plan, buffers, x, out, workspace, flags, as_fp32=out.dtype == np.float32)
    results = [run_on_emulator(job, arch) for job in jobs]
    assert flags is None or not flags.any(), "a block left its flag raised: the next launch would read stale sums"
    if found := [*work.split_faults(plan, split_k), *work.faults(plan, weights, jobs, results)]:
        raise ptx_emulator.PtxError("; ".join(found))
    return np.ascontiguousarray(out[:, :n]), results


def run_on_emulator(launch: Launch, arch: str, blocks: Iterable[tuple[int, int, int]] | None = None) -> Any:
    """Execute one launch's PTX on NumPy arrays, in place, or some of its blocks; returns the ``LaunchResult``."""
    ptx, entry = compile_ptx(launch.variant, arch)
    return ptx_emulator.launch(
        ptx,
        kernel=entry,
        grid=launch.grid,
        block=launch.variant.threads,
        args=launch.arguments,
        dynamic_shared_bytes=launch.shared_bytes,
        blocks=blocks,
    )
