"""How many points per second do sweeps evaluate and store on this machine, and in how much memory?

``python -m perfmodel.sweep.bench``. A *point* of ``predict`` is one (GPU, m, k, n, sparsity) with the time of one
kernel, its speed-up, its bound and whether it is extrapolated; of ``e2e`` one whole run. "Evaluated" ends at Arrow
tables in memory, on all threads; "stored" is what a user waits for, from the spec to the finished Parquet file. Grids
have awkward sizes and sparsities, as users' have. Each scaling size runs in a process of its own, whose peak memory
is printed.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from perfmodel.kernels import GPU_KERNELS
from perfmodel.sweep.runner import DEFAULT_THREADS, run
from perfmodel.sweep.table import Plan, chunk_table

GOALS = {"predict": 5e6, "e2e": 5e5}
MEMORY_GOAL_BYTES = 1e9
SCALING = (10_000, 100_000, 1_000_000, 10_000_000, 100_000_000)
KIB = 1024


def predict_axes(points: int, kernels: list[str]) -> dict[str, Any]:
    """Axes with about ``points`` points in all: 8 token counts, 25 sparsities, and as many shapes as that leaves."""
    side = max(1, round(math.sqrt(points / (len(kernels) * 200))))
    return {
        "gpu": "a100-80gb",
        "kernel": kernels,
        "m": (1000 + 37 * np.arange(side)).tolist(),
        "k": (1000 + 41 * np.arange(side)).tolist(),
        "n": [1, 8, 12, 16, 32, 64, 128, 512],
        "sparsity": np.round(0.5 + 0.019 * np.arange(25), 3).tolist(),
    }


def e2e_axes(points: int) -> dict[str, Any]:
    """Axes of whole runs with about ``points`` points: 2 models, 3 systems, 4 GPU counts, 5 sparsities, 16 batches."""
    side = max(1, round(math.sqrt(points / 1920)))
    return {
        "model": ["opt-30b", "llama-2-70b"],
        "gpu": "a100-80gb",
        "system": "all",
        "gpus": [1, 2, 4, 8],
        "sparsity": [0.0, 0.6, 0.7, 0.8, 0.9],
        "batch": (1 + 5 * np.arange(16)).tolist(),
        "input_len": (64 + np.arange(side) % 960).tolist(),
        "output_len": (64 + np.arange(side) % 960).tolist(),
    }


def plan_of(target: str, axes: dict[str, Any]) -> Plan:
    """Plan of these axes that leaves impossible points out."""
    return Plan.of({"sweep": {"target": target}, "axes": axes, "constraints": {"possible": True}})


def evaluated_per_s(plan: Plan, rounds: int = 3) -> float:
    """Points per second of evaluation on all threads; the best of ``rounds``."""
    best_s = math.inf
    with ThreadPoolExecutor(DEFAULT_THREADS) as pool:
        for _ in range(rounds):
            start_s = time.perf_counter()
            for _table in pool.map(lambda index: chunk_table(plan, index).num_rows, range(plan.spec.grid.chunks)):
                pass
            best_s = min(best_s, time.perf_counter() - start_s)
    return plan.spec.grid.points / best_s


def stored(points: int) -> str:
    """One line of the scaling table: rate from spec to file, its size, peak memory of this process."""
    plan = plan_of("predict", predict_axes(points, list(GPU_KERNELS)))
    with TemporaryDirectory() as folder:
        out = Path(folder) / "sweep.parquet"
        start_s = time.perf_counter()
        run(plan, out, yes=True)
        seconds = time.perf_counter() - start_s
        size = out.stat().st_size
    peak = peak_memory_bytes()
    verdict = "" if peak <= MEMORY_GOAL_BYTES else f" (goal: at most {MEMORY_GOAL_BYTES / 1e6:.0f} MB)"
    return (
        f"{plan.spec.grid.points:>12,} points stored in {seconds:7.2f} s: {plan.spec.grid.points / seconds:9.3g} "
        f"points/s, file {size / 1e6:8.1f} MB, peak memory {peak / 1e6:5.0f} MB{verdict}"
    )


def peak_memory_bytes() -> float:
    """Largest resident memory of this process so far."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak if sys.platform == "darwin" else KIB * peak)  # Linux counts in KiB


def main(arguments: list[str] | None = None) -> int:
    """Print the rates and the scaling; exit code 0."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="scale to a million points only: about ten seconds")
    parser.add_argument("--points", type=int, help="only the scaling line of this many points")
    options = parser.parse_args(arguments)
    if options.points:
        sys.stdout.write(stored(options.points) + "\n")
        return 0
    points = 1_000_000 if options.quick else 10_000_000
    for target, axes in (
        ("predict", predict_axes(points, list(GPU_KERNELS))),
        *((f"predict {kernel}", predict_axes(points // 10, [kernel])) for kernel in GPU_KERNELS),
        ("e2e", e2e_axes(points // 2)),
    ):
        name = target.split()[0]
        rate = evaluated_per_s(plan_of(name, axes))
        goal = f" (goal {GOALS[target]:.1g})" if target in GOALS else ""
        sys.stdout.write(f"{target}: {rate:.2g} points/s evaluated{goal}\n")
        sys.stdout.flush()
    for size in SCALING[: 3 if options.quick else None]:
        command = [sys.executable, "-m", "perfmodel.sweep.bench", "--points", str(size)]
        sys.stdout.write(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
