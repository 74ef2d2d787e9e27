"""What to say when a name is not known: the nearest ones first, then all."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Message for an unknown ``name``; names that begin with it count as nearest.

    Examples
    --------
    >>> unknown_name("GPU", "a100", ["a100-40gb", "a100-80gb", "h100"])
    "unknown GPU 'a100': did you mean a100-40gb or a100-80gb? Known are a100-40gb, a100-80gb, h100"
    """
    names = list(known)
    typed = name.strip().lower()
    near = [other for other in names if typed and other.startswith(typed)]
    near = near[:3] or difflib.get_close_matches(typed, names, n=1, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"unknown {kind} {name!r}: {hint}Known are {', '.join(names) or 'none'}"
