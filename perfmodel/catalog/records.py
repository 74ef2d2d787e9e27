"""Ground of all records: frozen, strict about their keys, and the ranges their numbers may have."""

from __future__ import annotations

from typing import Annotated

import msgspec

LARGEST_SIZE = 2**40  # of a matrix, a batch, a model: far beyond any, and products of three stay finite
# The upper limit is beyond any quantity here; it keeps out the `inf` that TOML allows.
Positive = Annotated[float, msgspec.Meta(gt=0, lt=1e30)]
PositiveInt = Annotated[int, msgspec.Meta(gt=0, le=LARGEST_SIZE)]
Natural = Annotated[int, msgspec.Meta(ge=0, le=LARGEST_SIZE)]
Text = Annotated[str, msgspec.Meta(min_length=1)]


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all records: immutable and strict about its keys.

    ``kw_only`` is not inherited, so each record repeats it.
    """


def check_order(key: str, value: float, limit: float) -> None:
    """Refuse a ``value`` above ``limit``; the message names the key and both."""
    if value > limit:
        raise ValueError(f"{key} is {value:g}, allowed is at most {limit:g}")
