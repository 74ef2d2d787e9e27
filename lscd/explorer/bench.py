"""How fast does the explorer answer, on the server's side? Random changes of one setting, each timed (`make bench`)."""

from __future__ import annotations

import sys
import time
from dataclasses import replace

import numpy as np

from lscd.explorer import html, page, words
from lscd.explorer.state import CARD, State, engine_names, format_names, joined, parted
from lscd.explorer.view import view
from perfmodel.catalog import gpu_names, model_names

CHANGES, GOAL_FACTS_MS, GOAL_ALL_MS = 240, 100, 400


def random_change(state: State, rng: np.random.Generator) -> State:
    """``state`` with one setting changed; it may be one that the models refuse."""
    engine, name = parted(state.system)
    choices = {
        "model": model_names(),
        "gpu": gpu_names(),
        "gpus": [1, 2, 4, 8],
        "system": [joined(engine, one) for one in format_names()] + [joined(one, name) for one in engine_names()],
        "sparsity": np.round(np.arange(0, 1.001, 0.01), 2).tolist(),
        "batch": [1, 4, 8, 16, 32, 64, 128],
        "input_len": [64, 512, 2048],
        "output_len": [64, 512, 2048],
        **{key: [0.5, 0.8, 1.0, 1.5, 2.0] for key in CARD[:-1]},
    }
    name = str(rng.choice(list(choices)))
    options = choices[name]
    return replace(state, **{name: options[rng.integers(len(options))]})


def answer_times_ms(changes: int = CHANGES, seed: int = 0) -> np.ndarray:
    """Milliseconds to the facts, and to facts, a panel in turn, and files, of each change: (changes, 2)."""
    rng, state = np.random.default_rng(seed), State()
    rows: list[tuple[float, float]] = []
    while len(rows) < changes:
        changed = random_change(state, rng)
        start = time.perf_counter()
        try:
            found = view(changed)
        except ValueError:  # a model that so many GPUs cannot share
            continue
        html.answer(found)
        html.tiles(found)
        facts = time.perf_counter()
        panel = html.PANELS[len(rows) % len(html.PANELS)].name
        html.panel(found, panel, page.draw)
        words.downloads(found, panel)
        rows.append((1e3 * (facts - start), 1e3 * (time.perf_counter() - start)))
        state = changed
    return np.array(rows)


def main() -> None:
    """Print median and worst beside the goal."""
    answer_times_ms(5)  # compiles, reads the catalogue
    times = answer_times_ms()
    goals = {"facts": GOAL_FACTS_MS, "facts, a panel and files": GOAL_ALL_MS}
    for (name, goal), column in zip(goals.items(), times.T, strict=True):
        sys.stdout.write(told(name, column, goal))


def told(name: str, times_ms: np.ndarray, goal: float) -> str:
    """A line: median and worst of ``times_ms`` beside the goal."""
    times = f"median {np.median(times_ms):.0f} ms, worst {times_ms.max():.0f} ms of {len(times_ms)}"
    return f"explorer, {name}: {times}, {np.mean(times_ms > goal):.0%} above {goal} ms\n"


if __name__ == "__main__":
    main()
