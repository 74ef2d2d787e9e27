"""What may callers give for a whole number, a name, a path? Checked here for every function that is asked from outside.

Whatever is wrong, type or value, is a `ValueError`: a sentence that names the argument, what was given and what is
allowed. Arrays of numbers are checked in `arrays`, which needs NumPy; this does not, so that ``lscd --help`` is quick.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from operator import index
from typing import Any

from perfmodel.catalog.records import LARGEST_SIZE

LONGEST_NAME = 255  # bytes of a file's


def whole_number(name: str, value: Any, low: int = 1, high: int = LARGEST_SIZE) -> int:
    """``value`` as one int from ``low`` to ``high``; ValueError for anything else."""
    try:
        found = None if isinstance(value, bool) else index(value)
    except TypeError:
        found = None
    if found is None or not low <= found <= high:
        most = f" and at most {'2**40' if high == LARGEST_SIZE else high}" if found is not None and found > high else ""
        raise ValueError(f"{name} must be a whole number of at least {low}{most}, got {shown(value)}")
    return found


def wholes(name: str, values: Any) -> tuple[int, ...]:
    """``values`` as one or more ints from 1 on; ValueError for anything else."""
    if not _many(values):
        raise ValueError(f"{name} is {shown(values)}, allowed are one or more whole numbers")
    found = tuple(whole_number(name, one) for one in values)
    if not found:
        raise ValueError(f"{name} is empty, needed is at least one")
    return found


def _many(value: Any) -> bool:
    """Whether there is something to go through; an array without axes is none, though it is of the type."""
    return isinstance(value, Iterable) and getattr(value, "ndim", 1) > 0


def text(name: str, value: Any) -> str:
    """``value`` if it is text; ValueError for anything else."""
    if not isinstance(value, str):
        raise ValueError(f"{name} is {shown(value)}, allowed is a name, as text")
    return value


def texts(name: str, value: Any) -> tuple[str, ...]:
    """``value`` as names; one text alone is none, since its letters would count as names."""
    if isinstance(value, str | bytes) or not _many(value):
        raise ValueError(f"{name} is {shown(value)}, allowed is a sequence of names")
    return tuple(text(name, one) for one in value)


def path_text(name: str, value: Any) -> str:
    """``value`` as text if it can name a file; ValueError for anything else."""
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
        raise ValueError(f"{name} is {shown(value)}, allowed is a name or a path")
    found = os.fspath(value)
    try:
        parts = os.fsencode(found).split(b"/")
    except UnicodeEncodeError:
        parts = [b"\0"]
    if b"\0" in b"".join(parts) or max(map(len, parts)) > LONGEST_NAME:
        raise ValueError(f"{name} is {shown(found)}, allowed is a name or a path that a file may have")
    return found


def record(name: str, value: Any, kind: type[Any]) -> None:
    """Refuse what is no record of a kind."""
    if not isinstance(value, kind):
        raise ValueError(f"{name} is {shown(value)}, allowed is a {kind.__name__}")


def shown(value: Any, longest: int = 60) -> str:
    """``value`` as messages repeat it: on one line, and cut."""
    too_long = isinstance(value, int) and abs(value) >= 10**longest  # Python refuses to write the longest ones
    words = f"an integer of {value.bit_length()} bits" if too_long else " ".join(repr(value).split())
    return words if len(words) <= longest else f"{words[:longest]}…"
