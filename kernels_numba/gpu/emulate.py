"""The GPU kernels without a GPU: their launches, executed on the PTX emulator with exact counters."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels_numba.formats import Element, EncodedWeight
from kernels_numba.formats.encoded import output_element
from kernels_numba.gpu.compile import Variant, compile_ptx
from kernels_numba.gpu.launch import (
    DEFAULT_ARCH,
    DEFAULT_SM_COUNT,
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
) -> tuple[NDArray[Any], list[Any]]:
    """Run the GPU kernels' PTX on the CPU.

    Parameters
    ----------
    x : (k, n), float16, or bfloat16 (uint16 bit patterns) for weights of that type.
    out_dtype : float32, or the weights' own type, which is the default.

    Returns
    -------
    (m, n) array, bfloat16 as uint16, and the emulator's ``LaunchResult`` of every launch with its exact counters.
    """
    x, weights = activations_for(weights, x), with_aligned_rows(weights)
    plan = make_plan(weights, x.shape[1], split_k=split_k, arch=arch, sm_count=sm_count)
    n = x.shape[1]
    x = np.pad(x, ((0, plan.k - x.shape[0]), (0, plan.n_padded - n)))
    element = output_element(out_dtype, plan.variant.element)
    out = np.full((plan.m, plan.n_padded), NAN[element], element.storage)
    workspace = np.full(plan.workspace_shape, np.nan, np.float32) if plan.partials > 1 else None
    buffers = {name: buffer if buffer.size else np.zeros(16, buffer.dtype) for name, buffer in weights.buffers.items()}
    results = []
    for launch in launches(plan, buffers, x, out, workspace, as_fp32=out.dtype == np.float32):
        results.append(run_on_emulator(launch.variant, launch.grid, launch.arguments, arch))
    return np.ascontiguousarray(out[:, :n]), results


def run_on_emulator(variant: Variant, grid: tuple[int, int, int], arguments: tuple[Any, ...], arch: str) -> Any:
    """Execute one launch's PTX on NumPy arrays, in place; returns the emulator's ``LaunchResult``."""
    from kernels_numba import ptx_emulator

    ptx, entry = compile_ptx(variant, arch)
    return ptx_emulator.launch(
        ptx,
        kernel=entry,
        grid=grid,
        block=variant.threads,
        args=arguments,
        dynamic_shared_bytes=variant.shared_bytes,
    )
