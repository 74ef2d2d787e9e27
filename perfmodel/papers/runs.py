"""Answers about whole models: throughput, latency, shares of the time, memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.papers.asked import Answer, Asked, UnansweredError, listed, over
from perfmodel.serving.run import Serving, evaluate
from perfmodel.serving.transformer import Part
from perfmodel.units import GIGA, MILLI

Array = NDArray[np.float64]

# What a framework keeps beside weights, cache and buffers is known no better (`perfmodel.serving.memory`).
RESERVE_MAY_BE_LESS_GB, RESERVE_MAY_BE_MORE_GB = 1.0, 2.5


def run_speedup(asked: Asked) -> Answer:
    """Tokens per GPU-second of the system over those of the baseline; both errors independent."""
    own, other = ((run.tokens_per_gpu_s, *run.tokens_per_gpu_s_interval) for run in (_run(asked, 0), _run(asked, 1)))
    return asked.answer(*over(other, own))  # of rates the own one stands above


def run_rate(asked: Asked) -> Answer:
    """Output tokens per second of all GPUs together, prefill included."""
    run = _run(asked)
    low, high = run.tokens_per_gpu_s_interval
    return asked.answer(run.tokens_per_s, low * run.gpus, high * run.gpus)


def ttft_ms(asked: Asked) -> Answer:
    """Milliseconds to the first token."""
    run = _run(asked)
    return asked.answer(*(seconds / MILLI for seconds in (run.ttft_s, *run.ttft_s_interval)))


def tpot_ms(asked: Asked) -> Answer:
    """Milliseconds between tokens."""
    run = _run(asked)
    return asked.answer(*(seconds / MILLI for seconds in (run.tpot_s, *run.tpot_s_interval)))


def tpot_speedup(asked: Asked) -> Answer:
    """Time between tokens of the baseline over that of the system; both errors independent."""
    own, other = ((run.tpot_s, *run.tpot_s_interval) for run in (_run(asked, 0), _run(asked, 1)))
    return asked.answer(*over(own, other))


def prompt_rate(asked: Asked) -> Answer:
    """Tokens of prompts read per second."""
    run = _run(asked)
    tokens = asked.numbers("batch", 1.0) * asked.numbers("input_len")
    low, high = run.ttft_s_interval
    return asked.answer(*(tokens / seconds for seconds in (run.ttft_s, high, low)))


def part_share(asked: Asked) -> Answer:
    """Share of a run's time that one of `Part` has; as far off as the run is, the rest staying as it is."""
    run, name = _run(asked), asked.text("kernel")
    part_s = run.parts[Part(name)]
    low, high = run.tokens_per_gpu_s_interval
    ends = (part_s * run.tokens_per_gpu_s / end for end in (high, low))
    shares = (one / (one + run.total_s - part_s) for one in ends)
    return asked.answer(part_s / run.total_s, *shares)


def memory_gb(asked: Asked) -> Answer:
    """GB in use on each GPU."""
    used = _run(asked, timed=False).memory.total / GIGA
    return asked.answer(used, used - RESERVE_MAY_BE_LESS_GB, used + RESERVE_MAY_BE_MORE_GB)


def _run(asked: Asked, side: int = 0, *, timed: bool = True) -> Serving:
    """The run of the system (0) or of the baseline (1); a bound will not do where its time is asked for."""
    system = asked.text("baseline_system" if side else "system")
    pruned = asked.sides("sparsity", "0/0")[side]
    axes = [listed(asked.sides(name, default)[side]) for name, default in (("gpus", "1"), ("batch", "1"))]
    gpus, batch = (np.ravel(axis) for axis in np.meshgrid(*axes, indexing="ij"))
    lengths: dict[str, Any] = {name: listed(asked.sides(name)[side]) for name in ("input_len", "output_len")}
    how = {"sparsity": float(pruned), "gpus": gpus, "batch": batch, **lengths}
    run = evaluate(asked.sides("model")[side], asked.text("gpu"), system, **how)
    low, high = run.tokens_per_gpu_s_interval
    if timed and (not np.isfinite(high).all() or (low == 0).any()):
        raise UnansweredError(f"only a bound is known of {system}")
    return run
