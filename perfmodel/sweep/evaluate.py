"""Results of one block of a sweep: the models called once, broadcast over the block's box of points."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog import load_device, load_gpu, load_model
from perfmodel.catalog.specs import Bound
from perfmodel.kernels import KERNELS, Call, KernelModel, Machine, Shape, baseline_of
from perfmodel.kernels.fits import calibrated, extrapolated, interval, kernel_fits
from perfmodel.serving.rows import result_columns
from perfmodel.serving.run import evaluate
from perfmodel.serving.systems import HOST, System, load_system
from perfmodel.serving.transformer import can_share, can_spread, shared_sizes
from perfmodel.sweep.grid import Block
from perfmodel.sweep.spec import SCALES, Spec

Array = NDArray[Any]
Mask = NDArray[np.bool_]
Columns = dict[str, Array]

SPLITS = ("gpus", "pipeline_parallel", "expert_parallel")
BOUNDS = tuple(str(bound) for bound in Bound)
_TENSOR_RATES = tuple(field.name for field in fields(Machine) if field.name.endswith("_flops_per_s"))
_SCALED = {
    "dram_bandwidth_scale": ("dram_bytes_per_s",),
    "l2_bandwidth_scale": ("l2_bytes_per_s",),
    "tensor_peak_scale": _TENSOR_RATES,
    "clock_scale": ("clock_hz", *_TENSOR_RATES),
}


def block_results(spec: Spec, block: Block) -> tuple[Columns, Array | None]:
    """Result columns of a block, and which of its points to keep (None: all).

    Columns broadcast to ``block.shape``; ``bound`` holds indices into `BOUNDS`. Impossible points are never kept
    (`check_possible` has refused them unless the spec leaves them out).
    """
    wanted = set(spec.columns) | (set(spec.keep) - set(spec.grid.axes))
    possible = _POSSIBLE[spec.target](block)
    columns = _EVALUATE[spec.target](block, wanted, possible)
    keep = None if possible.all() else possible
    for name, (low, high) in spec.keep.items():
        value = block.numbers[name] if name in block.numbers else columns[name]
        inside = (value >= low) & (value <= high)
        keep = inside if keep is None else keep & inside
    return columns, keep


def check_possible(spec: Spec) -> None:
    """Refuse impossible points, unless the spec leaves them out; looks at every block, evaluates none.

    Raises
    ------
    ValueError
        Names the kernel or model and the first impossible point.
    """
    if spec.possible:
        return
    for index in range(spec.grid.chunks):
        for block in spec.grid.chunk(index):
            possible = _POSSIBLE[spec.target](block)
            if not possible.all():
                message = _IMPOSSIBLE[spec.target](block, possible)
                raise ValueError(f"{message}; drop it, or leave such points out with possible = true")


def scaled_machine(machine: Machine, scales: Mapping[str, Any]) -> Machine:
    """The machine with rates multiplied: a what-if over ``SCALES``, each a scalar or an array."""
    for axis, factor in scales.items():
        machine = machine.with_(**{field: getattr(machine, field) * factor for field in _SCALED[axis]})
    return machine


def _predict(block: Block, wanted: set[str], possible: Mask) -> Columns:
    """Kernel times in microseconds; N is padded to what the kernel takes, the dense baseline keeps the N asked for."""
    calibration = kernel_fits()
    gpu, name = load_device(block.names["gpu"]), block.names["kernel"]
    model, x = KERNELS[name], block.numbers
    padded = np.where(possible, model.padded_n(x["n"]), x["n"])
    machine = scaled_machine(Machine.of(gpu), {axis: x[axis] for axis in SCALES if axis in x})
    shape = Shape(x["m"], x["k"], padded, model.own_sparsity(x["sparsity"]))
    how = {axis: block.names[axis] for axis in ("launch", "cache", "activations") if axis in block.names}
    call = Call.of(**how, split_k=x.get("split_k"))
    result = model.time(machine, shape, calibrated(name, calibration), call)
    columns = {"n_padded": padded, "time_us": result.time_s * 1e6, "dram_bytes": result.dram_bytes}
    if "speedup_vs_dense" in wanted:
        asked = Shape(x["m"], x["k"], x["n"], x["sparsity"])
        baseline = baseline_of(gpu)
        dense = KERNELS[baseline].time(machine, asked, calibrated(baseline, calibration), call)
        columns["speedup_vs_dense"] = dense.time_s / result.time_s
    if "bound" in wanted:
        held = call.mostly_hits(machine, model.format.bytes_of(shape.m, shape.k, shape.sparsity))
        longest = _longest(result.terms)
        columns["bound"] = np.where(held & (longest == BOUNDS.index(Bound.MEMORY)), BOUNDS.index(Bound.L2), longest)
    fit = calibration.get(name)
    if "extrapolated" in wanted:
        columns["extrapolated"] = extrapolated(fit, gpu.key, x["m"], x["k"], padded, x["sparsity"])
    if {"lo_us", "hi_us"} & wanted:
        lo_s, hi_s = interval(model, calibration, gpu.key, machine, shape, call, result)
        columns |= {"lo_us": lo_s * 1e6, "hi_us": np.where(np.isinf(hi_s), np.nan, hi_s * 1e6)}
    if "at_least" in wanted:
        columns["at_least"] = model.at_least(shape)
    return columns


def _longest(terms: Mapping[Bound, Array]) -> NDArray[np.int8]:
    """Index into `BOUNDS` of the longest of ``terms``; the first of equals, as `KernelTime.bound`."""
    (first, longest), *others = terms.items()
    code: Array = np.asarray(BOUNDS.index(first), dtype=np.int8)
    for bound, seconds in others:
        code = np.where(seconds > longest, np.int8(BOUNDS.index(bound)), code)
        longest = np.maximum(longest, seconds)
    return code


def _e2e(block: Block, wanted: set[str], possible: Mask) -> Columns:
    """Whole runs; one that can be, of one token on one GPU, stands in for an impossible one."""
    names = block.names
    system = load_system(names["system"])
    if system.refusal(load_gpu(names["gpu"])) is not None:
        system = load_system(HOST)
    x: dict[str, Any] = dict(block.numbers)
    if not possible.all():
        for axis in {"gpus", "pipeline_parallel", "expert_parallel", "input_len", "output_len"} & set(x):
            x[axis] = np.where(possible, x[axis], 1)
        x["sparsity"] = np.where(possible, x["sparsity"], system.own_sparsity(x["sparsity"]))
    # A dense system's times have no axis of sparsity; through the number of GPUs its results get one.
    x["gpus"] = np.broadcast_to(x["gpus"], np.broadcast_shapes(x["gpus"].shape, x["sparsity"].shape))
    run = evaluate(names["model"], names["gpu"], system, **x)
    at_least = np.full(run.total_s.shape, system.is_bound)
    columns = {**result_columns(run), "extrapolated": run.extrapolated, "at_least": at_least}
    if "usd_per_million_tokens" in wanted:
        price = run.usd_per_million_tokens
        columns["usd_per_million_tokens"] = np.where(run.memory.fits, np.nan if price is None else price[0], np.nan)
    return columns


def _possible_product(block: Block) -> Mask:
    model, x = KERNELS[block.names["kernel"]], block.numbers
    gpu, padded = load_device(block.names["gpu"]), model.padded_n(x["n"])
    takes = ~np.isnan(padded) & model.takes_sparsity(x["sparsity"])
    if model.refusal(gpu) is not None:
        return np.zeros_like(takes)
    return np.asarray(takes & model.has_room(gpu, np.where(takes, padded, 1.0), x["sparsity"]))


def _possible_run(block: Block) -> Mask:
    """True where the GPUs run the system and can share the model, and it knows enough positions."""
    shape, x = load_model(block.names["model"]).shape, block.numbers
    system = load_system(block.names["system"])
    runs = system.takes_sparsity(x["sparsity"]) & (system.refusal(load_gpu(block.names["gpu"])) is None)
    stages, spread = (x.get(axis, np.ones(())) for axis in ("pipeline_parallel", "expert_parallel"))
    shared = (stages <= shape.layers) & can_share(shape, x["gpus"] / (stages * spread)) & can_spread(shape, spread)
    return np.asarray(runs & shared & (x["input_len"] + x["output_len"] <= shape.max_positions))


def _first(block: Block, possible: Mask, axes: tuple[str, ...]) -> str:
    """``axis value`` of the first impossible point."""
    where = np.unravel_index(int(np.argmin(np.broadcast_to(possible, block.shape))), block.shape)
    values = ((axis, float(np.broadcast_to(block.numbers[axis], block.shape)[where])) for axis in axes)
    return ", ".join(f"{axis} {value:g}" for axis, value in values)


def _other_sparsity(asked: KernelModel | System, block: Block) -> str | None:
    """That a point has a sparsity other than that of the pattern of the kernel or system; None where none has."""
    taken = asked.takes_sparsity(block.numbers["sparsity"])
    if taken.all():
        return None
    own = " or ".join(f"{share:.3g}" for share in asked.patterns)
    return f"{asked.name} takes the sparsity of its pattern, {own}, got {_first(block, taken, ('sparsity',))}"


def _impossible_product(block: Block, possible: Mask) -> str:
    model = KERNELS[block.names["kernel"]]
    if (refusal := model.refusal(load_device(block.names["gpu"]))) is not None:
        return refusal
    if (refusal := _other_sparsity(model, block)) is not None:
        return refusal
    known = ~np.isnan(model.padded_n(block.numbers["n"]))
    if known.all():
        return f"{model.name} has no room in shared memory, first at {_first(block, possible, ('n', 'sparsity'))}"
    return f"{model.name} takes N of {model.supported_n}, got {_first(block, known, ('n',))}"


def _impossible_run(block: Block, possible: Mask) -> str:
    system = load_system(block.names["system"])
    if (refusal := system.refusal(load_gpu(block.names["gpu"]))) is not None:
        return refusal
    if (refusal := _other_sparsity(system, block)) is not None:
        return refusal
    axes = tuple(axis for axis in (*SPLITS, "input_len", "output_len") if axis in block.numbers)
    model = load_model(block.names["model"])
    shape = model.shape
    return (
        f"{model.key} has {shared_sizes(shape)} to share and knows {shape.max_positions} positions; "
        f"impossible is {_first(block, possible, axes)}"
    )


_EVALUATE: dict[str, Callable[[Block, set[str], Mask], Columns]] = {"predict": _predict, "e2e": _e2e}
_POSSIBLE: dict[str, Callable[[Block], Mask]] = {"predict": _possible_product, "e2e": _possible_run}
_IMPOSSIBLE: dict[str, Callable[[Block, Mask], str]] = {"predict": _impossible_product, "e2e": _impossible_run}
