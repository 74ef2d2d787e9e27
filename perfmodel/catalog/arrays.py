"""What may callers give for a number, a share, a size, or arrays of them? Beside `arguments`, whose rule this follows.

Numbers are Python's, NumPy's, or arrays of them; text, bools and missing values are none.
"""

from __future__ import annotations

import math
import os
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog.arguments import shown
from perfmodel.catalog.records import LARGEST_SIZE
from perfmodel.units import GIGA

Array = NDArray[np.float64]

LARGEST_FLOAT = int(sys.float_info.max)
NUMERIC = "iuf"  # kinds of dtypes: integers and floats
BYTES_PER_POINT = 8 * 40  # arrays of a prediction and of what it is made of


def numbers(name: str, value: Any) -> Array:
    """``value`` as a float array: a number, or numbers in sequences or arrays; NaN counts, and what is beyond as inf.

    Raises
    ------
    ValueError
        If it is none, or is masked; names both.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise ValueError(f"{name} is a masked array, allowed is one without a mask: call its filled()")
    try:
        given = np.asarray(value)
        if _is_numeric(given):
            return _as_floats(given)
    except (TypeError, ValueError):  # ragged
        pass
    raise ValueError(f"{name} is {shown(value)}, allowed is a number or an array of numbers")


def _is_numeric(found: NDArray[Any]) -> bool:
    """Whether an array holds numbers only, or nothing: also Python's large ones, which NumPy keeps as objects."""
    if found.dtype.kind == "O":
        return all(isinstance(one, int | float) and not isinstance(one, bool) for one in found.flat)
    return found.dtype.kind in NUMERIC


def _as_floats(found: NDArray[Any]) -> Array:
    """Numbers as floats, Python's largest integers as infinite ones."""
    try:
        return found.astype(np.float64, copy=False)
    except OverflowError:
        kept = [float(one) if abs(one) <= LARGEST_FLOAT else math.inf * (1 if one > 0 else -1) for one in found.flat]
        return np.reshape(kept, found.shape)


def sizes(name: str, value: Any, least: float = 1.0) -> Array:
    """``value`` as floats, each from ``least`` to 2**40; ValueError names one that is not."""
    found = numbers(name, value)
    if np.any(low := ~(found >= least)):
        lowest = "positive" if least < 1 else f"at least {least:g}"
        raise ValueError(f"{name} must be {lowest}, got {found[low].flat[0]:g}")
    if np.any(high := found > LARGEST_SIZE):
        raise ValueError(f"{name} must be at most 2**40, got {found[high].flat[0]:g}")
    return found


def number(name: str, value: Any, low: float = -math.inf, high: float = math.inf, *, above: bool = False) -> float:
    """``value`` as one float from ``low`` to ``high``, or above ``low``, and without ends NaN too; ValueError else."""
    found = numbers(name, value)
    if found.size != 1:
        raise ValueError(f"{name} is {shown(value)}, allowed is one number")
    one = float(found.reshape(()))
    held = math.isfinite(low) or math.isfinite(high)
    if held and not (low <= one <= high and (one > low or not above)):
        ends = (f"{'above' if above else 'from'} {low:g}", low), (f"to {high:g}", high)
        allowed = " ".join(["a number", *(words for words, end in ends if math.isfinite(end))])
        raise ValueError(f"{name} is {one:g}, allowed is {allowed}")
    return one


def check_points(*shapes: tuple[int, ...]) -> None:
    """Refuse arrays that do not broadcast, or to more points than the memory of this machine holds; names both.

    Where the system does not say how much memory there is, any number will do.
    """
    try:
        points = math.prod(np.broadcast_shapes(*shapes))
    except ValueError:
        raise ValueError(f"arrays have the shapes {', '.join(map(str, shapes))}, which do not broadcast") from None
    try:
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return
    if points * BYTES_PER_POINT > there:
        needed = f"{points:g} points take {points * BYTES_PER_POINT / GIGA:,.0f} GB"
        raise ValueError(f"{needed}, allowed are the {there / GIGA:,.0f} GB of memory that this machine has")
