"""Settings that the explorer's tests share."""

from __future__ import annotations

from lscd.explorer import words
from lscd.explorer.state import DENSE, State, engine_names, format_names, joined
from lscd.explorer.view import view
from perfmodel.serving.systems import HOST, VLLM

# Each engine as it is, and two with everything that they can read weights with.
SYSTEMS = tuple(
    dict.fromkeys(
        [joined(engine, DENSE) for engine in engine_names()]
        + [joined(engine, name) for engine in (HOST, VLLM) for name in format_names(unmeasured=True)]
    )
)


def facts(state: State) -> dict[str, words.Fact]:
    return {fact.name: fact for fact in words.facts(view(state))}


def drawn(chart: object) -> str:
    """A chart where a page would show it."""
    return f"<b data-chart={chart.name}></b>"  # type: ignore[attr-defined]
