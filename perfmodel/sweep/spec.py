"""What may a sweep ask for? Reads a parsed TOML spec and refuses what is wrong before any work starts.

.. code-block:: toml

    [sweep]
    target = "predict"            # or "e2e"
    columns = ["time_us"]         # optional: which results to keep

    [axes]
    gpu = ["a100-80gb", "h100"]
    kernel = "all"
    n = {log_start = 8, log_stop = 4096, count = 10}
    sparsity = {start = 0.5, stop = 0.9, step = 0.1}

    [[zipped]]                    # axes that move together
    m = [36864, 9216]
    k = [9216, 36864]

    [constraints]
    possible = true               # leave out what the kernel or model cannot do, instead of refusing the sweep
    speedup_vs_dense = {min = 1}  # keep rows within a range
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog import gpu_names, load_device, load_model, model_names
from perfmodel.catalog.names import unknown_name
from perfmodel.catalog.specs import Activations, Cache, Launch
from perfmodel.formats import check_sparsity
from perfmodel.kernels import GPU_KERNELS, Call, kernel_model
from perfmodel.serving.systems import SYSTEMS, load_system
from perfmodel.sweep.grid import Column, Dimension, Grid

LIMIT_POINTS = 20_000_000
LARGEST_POINTS = 100_000_000_000  # a hundred thousand chunks, a week on one machine
LARGEST_AXIS = 1_000_000
LARGEST_WHOLE = 2**31 - 1
EVERYTHING = "all"
POSSIBLE = "possible"

_CHECK_NAME: dict[str, Callable[[str], object]] = {
    "gpu": load_device,
    "kernel": kernel_model,
    "model": load_model,
    "system": load_system,
    "launch": lambda name: Call.of(launch=name),
    "cache": lambda name: Call.of(cache=name),
    "activations": lambda name: Call.of(activations=name),
}
_ALL_NAMES = {
    "gpu": gpu_names,
    "kernel": lambda: tuple(GPU_KERNELS),  # as all GPUs are meant; kernels of CPUs are named
    "model": model_names,
    "system": lambda: tuple(SYSTEMS),
    "launch": lambda: tuple(map(str, Launch)),
    "cache": lambda: tuple(map(str, Cache)),
    "activations": lambda: tuple(map(str, Activations)),
}
WHOLE = {"m", "k", "n", "split_k", "gpus", "batch", "input_len", "output_len", "pipeline_parallel", "expert_parallel"}
_RANGE_KEYS = ({"start", "stop", "step"}, {"log_start", "log_stop", "count"})
SCALES = ("dram_bandwidth_scale", "l2_bandwidth_scale", "tensor_peak_scale", "clock_scale")
SMALLEST_SCALE, LARGEST_SCALE = 1e-6, 1e6  # further out, floating-point numbers of the models overflow


@dataclass(frozen=True)
class Target:
    """What a sweep evaluates at each point.

    Attributes
    ----------
    required, optional : tuple of str
        Axes that a spec must and may have.
    results : dict
        Result columns and their kind: "number", "flag" or "text".
    default : tuple of str
        Results kept where a spec names none.
    """

    required: tuple[str, ...]
    optional: tuple[str, ...]
    results: dict[str, str]
    default: tuple[str, ...]


_GPU_SECONDS = ("matmul_gpu_s", "attention_gpu_s", "other_gpu_s", "comm_gpu_s")
TARGETS = {
    "predict": Target(
        required=("gpu", "kernel", "m", "k", "n", "sparsity"),
        optional=("launch", "cache", "activations", "split_k", *SCALES),
        results={
            "n_padded": "number", "time_us": "number", "speedup_vs_dense": "number", "bound": "text",
            "extrapolated": "flag", "lo_us": "number", "hi_us": "number", "at_least": "flag",
            "dram_bytes": "number",
        },
        default=("n_padded", "time_us", "speedup_vs_dense", "bound", "extrapolated", "at_least"),
    ),
    "e2e": Target(
        required=("model", "gpu", "gpus", "system", "sparsity", "batch", "input_len", "output_len"),
        optional=("pipeline_parallel", "expert_parallel"),
        results={
            "fits": "flag", "memory_gb": "number", "tokens_per_gpu_s": "number", "ttft_ms": "number",
            "tpot_ms": "number", **dict.fromkeys(_GPU_SECONDS, "number"), "usd_per_million_tokens": "number",
            "extrapolated": "flag", "at_least": "flag",
        },
        default=("fits", "memory_gb", "tokens_per_gpu_s", "ttft_ms", "tpot_ms", "usd_per_million_tokens",
                 "extrapolated", "at_least"),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Spec:
    """A checked sweep.

    Attributes
    ----------
    target : str
        "predict" or "e2e".
    columns : tuple of str
        Result columns to keep, in this order.
    grid : Grid
        Its points.
    keep : dict
        Column -> (lowest, highest) value of the rows kept; a flag is 0 or 1.
    possible : bool
        Leave out impossible points instead of refusing them.
    """

    target: str
    columns: tuple[str, ...]
    grid: Grid
    keep: dict[str, tuple[float, float]]
    possible: bool

    @classmethod
    def of(cls, parsed: Mapping[str, Any]) -> Spec:
        """Read and check a parsed spec; names may be replaced by "all".

        Raises
        ------
        ValueError
            Unknown table, target, axis, name or column, missing axis, empty axis, value out of range; the message
            says which, and what is allowed.
        """
        for table in parsed:
            if table not in ("sweep", "axes", "zipped", "constraints"):
                raise ValueError(unknown_name("table", table, ("sweep", "axes", "zipped", "constraints")))
        head = _table(parsed, "sweep")
        for key in head:
            if key not in ("target", "columns", "title"):
                raise ValueError(unknown_name("key of [sweep]", key, ("target", "columns", "title")))
        if not isinstance(head.get("title", ""), str):
            raise ValueError(f"title is {_said(head['title'])}, allowed is a text in quotes")
        name = str(head.get("target", ""))
        if name not in TARGETS:
            raise ValueError(unknown_name("target", name, TARGETS))
        target = TARGETS[name]
        columns = head.get("columns", target.default)
        if not isinstance(columns, list | tuple) or not all(isinstance(column, str) for column in columns):
            raise ValueError(f"columns is {_said(columns)}, allowed is a list of names of {', '.join(target.results)}")
        for column in columns:
            if column not in target.results:
                raise ValueError(unknown_name("result column", column, target.results))
            if list(columns).count(column) > 1:
                raise ValueError(f"columns names {column} twice")
        grid = Grid.of(_dimensions(parsed, target))
        constraints = dict(_table(parsed, "constraints"))
        possible = constraints.pop(POSSIBLE, False)
        if not isinstance(possible, bool):
            raise ValueError(f"possible is {_said(possible)}, allowed is true or false")
        keep = {column: _bounds(column, value, grid, target) for column, value in constraints.items()}
        return cls(name, tuple(columns), grid, keep, possible)


def check_size(spec: Spec, yes: bool) -> None:
    """Refuse more than `LIMIT_POINTS` points unless ``yes``, and more than `LARGEST_POINTS` in any case."""
    if spec.grid.points > LARGEST_POINTS:
        raise ValueError(
            f"the sweep has {spec.grid.points:.4g} points, allowed are at most {LARGEST_POINTS:,}; cut it into several"
        )
    if spec.grid.points > LIMIT_POINTS and not yes:
        raise ValueError(
            f"the sweep has {spec.grid.points:,} points, more than {LIMIT_POINTS:,}; "
            "use fewer values, or allow it with --yes"
        )


def _table(parsed: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    table = parsed.get(key, {})
    if not isinstance(table, Mapping):
        raise ValueError(f"[{key}] must be a table of keys, got {_said(table)}")
    return table


def _dimensions(parsed: Mapping[str, Any], target: Target) -> list[Dimension]:
    groups = [{axis: values} for axis, values in _table(parsed, "axes").items()]
    zipped = parsed.get("zipped", [])
    if not isinstance(zipped, list) or not all(isinstance(group, Mapping) and group for group in zipped):
        raise ValueError("zipped axes are written [[zipped]], one group of equally long lists each")
    known, found = target.required + target.optional, []
    for group in [*groups, *zipped]:
        for axis in group:
            if axis not in known:
                raise ValueError(unknown_name("axis", axis, known))
            if axis in found:
                raise ValueError(f"axis {axis} is given twice")
            found.append(axis)
    missing = [axis for axis in target.required if axis not in found]
    if missing:
        raise ValueError(f"missing ax{'e' if len(missing) > 1 else 'i'}s {', '.join(missing)}")
    return [_dimension(group) for group in [*groups, *zipped]]


def _dimension(group: Mapping[str, Any]) -> Dimension:
    columns = {axis: _values(axis, value) for axis, value in group.items()}
    lengths = {axis: len(column) for axis, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"zipped axes must be equally long, got {lengths}")
    return Dimension(columns)


def _values(axis: str, value: Any) -> Column:
    if axis in _CHECK_NAME:
        return _names(axis, list(_ALL_NAMES[axis]()) if value == EVERYTHING else value)
    if isinstance(value, Mapping):
        return _checked(axis, _range(axis, value))
    numbers = value if isinstance(value, list) else [value]
    if not all(_is_number(number) for number in numbers):
        raise ValueError(f"axis {axis} must hold numbers, got {_said(value)}")
    return _checked(axis, np.asarray([_float(number) for number in numbers], dtype=np.float64))


def _names(axis: str, value: Any) -> tuple[str, ...]:
    names = value if isinstance(value, list) else [value]
    if not names:
        raise ValueError(f"axis {axis} is empty")
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"axis {axis} holds {_said(name)}, allowed are names in quotes")
        _CHECK_NAME[axis](name)
    return tuple(names)


def _range(axis: str, value: Mapping[str, Any]) -> NDArray[np.float64]:
    """Numbers of an inclusive range; rounded to 12 digits, so that steps of 0.1 hit 0.3."""
    got = f"got {_said(dict(value))}"
    if set(value) not in _RANGE_KEYS:
        raise ValueError(f"axis {axis} is a list, {{start, stop, step}} or {{log_start, log_stop, count}}, {got}")
    if not all(_is_number(number) for number in value.values()):
        raise ValueError(f"axis {axis}: a range holds numbers, {got}")
    given = {key: _float(number) for key, number in value.items()}
    if "count" in given:
        low, high, count = given["log_start"], given["log_stop"], given["count"]
        if not (0 < low <= high < np.inf and count >= 1 and count == np.floor(count)):
            raise ValueError(f"axis {axis}: a log range needs 0 < log_start <= log_stop and a count >= 1, {got}")
        _check_length(axis, count)
        _checked(axis, _rounded(axis, np.asarray([low, high])))
        points = _rounded(axis, np.geomspace(low, high, int(count)))
        return np.unique(points) if axis in WHOLE else points
    start, stop, step = given["start"], given["stop"], given["step"]
    if not (0 < step < np.inf and -np.inf < start <= stop < np.inf):
        raise ValueError(f"axis {axis}: a range needs start <= stop and a step above 0, {got}")
    count = np.floor((stop - start) / step + 1e-9) + 1
    _check_length(axis, count)
    _checked(axis, np.asarray([start, min(start + step * (count - 1), stop)]))
    return np.round(start + step * np.arange(int(count)), 12)


def _rounded(axis: str, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.round(numbers) if axis in WHOLE else numbers


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _float(number: float) -> float:
    """The number; infinite where an integer is larger than floating-point numbers are."""
    try:
        return float(number)
    except OverflowError:
        return np.inf if number > 0 else -np.inf


def _said(value: object) -> str:
    """What was given, shortened."""
    try:
        return reprlib.repr(value)
    except ValueError:  # Python writes no integers of more than 4,300 digits
        return "a number of thousands of digits"


def _check_length(axis: str, count: float) -> None:
    if not count <= LARGEST_AXIS:
        raise ValueError(f"axis {axis} has {count:,.0f} values, allowed are at most {LARGEST_AXIS:,}")


def _checked(axis: str, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    if numbers.size == 0:
        raise ValueError(f"axis {axis} is empty")
    _check_length(axis, numbers.size)
    if axis == "sparsity":
        return check_sparsity(numbers)
    if axis in WHOLE:
        wrong = ~((numbers >= 1) & (numbers <= LARGEST_WHOLE) & (np.floor(numbers) == numbers))
        allowed = f"a whole number from 1 to {LARGEST_WHOLE:,}"
    else:
        wrong = ~((numbers >= SMALLEST_SCALE) & (numbers <= LARGEST_SCALE))
        allowed = f"a factor from {SMALLEST_SCALE:g} to {LARGEST_SCALE:,.0f}"
    if wrong.any():
        raise ValueError(f"axis {axis} holds {numbers[wrong][0]:g}, allowed is {allowed}")
    return numbers


def _bounds(column: str, value: Any, grid: Grid, target: Target) -> tuple[float, float]:
    """Lowest and highest value a constraint keeps."""
    kinds = {axis: "text" if isinstance(grid.column(axis), tuple) else "number" for axis in grid.axes} | target.results
    usable = [name for name, kind in kinds.items() if kind != "text"]
    if column not in usable:
        raise ValueError(unknown_name("constraint", column, [POSSIBLE, *usable]))
    if isinstance(value, bool) and kinds[column] == "flag":
        return float(value), float(value)
    ends = value.values() if isinstance(value, Mapping) and set(value) <= {"min", "max"} else ()
    if ends and all(_is_number(end) and np.isfinite(_float(end)) for end in ends) and kinds[column] == "number":
        low, high = _float(value.get("min", -np.inf)), _float(value.get("max", np.inf))
        if low <= high:
            return low, high
    allowed = "true or false" if kinds[column] == "flag" else "{min = ..., max = ...}, finite, with min <= max"
    raise ValueError(f"constraint {column} is {_said(value)}, allowed is {allowed}")
