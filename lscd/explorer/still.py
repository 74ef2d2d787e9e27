"""A property that an answer shares with others: computed once for all questions that differ in zeros alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")


class Still(Generic[T]):
    """What `still` makes of a method; its owner has a mapping ``kept``, which all that share the property share."""

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self.compute, self.__doc__ = compute, compute.__doc__

    def __get__(self, owner: Any, _: type | None = None) -> T:
        if owner is None:
            return cast("T", self)
        kept: dict[str, Any] = owner.kept
        name = self.compute.__name__
        if name not in kept:
            kept[name] = self.compute(owner)
        return cast("T", kept[name])


def still(compute: Callable[[Any], T]) -> Still[T]:
    """A property that zeros do not change, so that it stays while a slider of them moves."""
    return Still(compute)
