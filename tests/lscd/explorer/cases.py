"""Settings that the explorer's tests share."""

from __future__ import annotations

from lscd.explorer import words
from lscd.explorer.state import State
from lscd.explorer.view import view


def facts(state: State) -> dict[str, words.Fact]:
    return {fact.name: fact for fact in words.facts(view(state))}
