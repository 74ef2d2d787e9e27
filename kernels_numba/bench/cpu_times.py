"""How long do matrix products take on this CPU? Rows for the evidence, by kernel, shape, sparsity, tokens and threads.

``python -m kernels_numba.bench.cpu_times --output rows.csv --gpu NAME --source KEY`` times every contestant of
`bench.cpu` on a grid, each thread count in a process of its own: the threads of BLAS are counted when it is loaded. The
same product is called again and again, ``cache`` warm, as the layers of a small model are from token to token.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernels_numba.bench import cpu
from kernels_numba.bench.threads import usable_cores, with_threads

COLUMNS = (
    "gpu", "kernel", "m", "k", "n", "sparsity", "time_us", "time_err_us", "status", "cache", "source", "note",
)  # fmt: skip
DENSE = ("cpu-dense16", "numpy-fp32", "torch-fp32", "torch-bf16")  # read zeros too: timed at one sparsity
LEFT_OUT = ("torch-csr",)


@dataclass(frozen=True)
class Grid:
    """Products to time: every shape at every sparsity and number of tokens, ``rounds`` times."""

    shapes: tuple[tuple[int, int], ...]
    sparsities: tuple[float, ...]
    tokens: tuple[int, ...]
    rounds: int

    @property
    def weights(self) -> list[tuple[int, int, float]]:
        """Shapes and sparsities, a random weight each."""
        return [(m, k, sparsity) for (m, k), sparsity in itertools.product(self.shapes, self.sparsities)]


# Of a language model of 135 million parameters, of ones fifty times larger, and beyond every cache.
FULL = Grid(
    ((576, 576), (1536, 576), (2048, 2048), (4096, 4096), (11008, 4096), (4096, 14336), (14336, 14336)),
    (0.5, 0.6, 0.7, 0.8, 0.9), (1, 2, 4, 8, 16), 7,
)  # fmt: skip
QUICK = Grid(((1536, 576), (4096, 4096)), (0.5, 0.7, 0.9), (1, 4, 16), 5)


def time_grid(grid: Grid, progress: Callable[[], None] = lambda: None) -> Iterator[dict[str, Any]]:
    """Rows ``kernel, m, k, n, sparsity, time_us, time_err_us`` of the contestants, on the threads of this process.

    The error is half the interquartile range. Kernels that read zeros too are timed once for all sparsities.
    """
    for m, k, sparsity in grid.weights:
        first = sparsity == grid.sparsities[0]
        names = [name for name in cpu.kernel_names() if name not in LEFT_OUT and (first or name not in DENSE)]
        for found in cpu.compare(m, k, sparsity, rounds=grid.rounds, tokens=grid.tokens, kernels=names):
            for name, timing in found.timings.items():
                share = 0.0 if name in DENSE else sparsity
                size = {"kernel": name, "m": m, "k": k, "n": found.n, "sparsity": share}
                error_us = timing.median_s * timing.spread / 2 * 1e6
                yield size | {"time_us": round(timing.median_s * 1e6, 2), "time_err_us": round(error_us, 2)}
        progress()


def _child(threads: int, arguments: Sequence[str]) -> None:
    """Run this module on ``threads`` threads; its lines go to where ours do."""
    command = [sys.executable, "-m", "kernels_numba.bench.cpu_times", "--threads", str(threads), *arguments]
    subprocess.run(command, env=with_threads(threads), check=True)


def _write(options: argparse.Namespace, grid: Grid) -> None:
    """Append the rows of this process to the output."""
    same = {"gpu": f"{options.gpu}@{options.threads}", "status": "value", "cache": "warm", "source": options.source}
    with options.output.open("a", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        for row in time_grid(grid):
            table.writerow(same | row)
            file.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, required=True, help="CSV to write")
    parser.add_argument("--gpu", required=True, help="name of the machine in the rows, before @threads")
    parser.add_argument("--source", required=True, help="key of data/sources.toml")
    parser.add_argument("--quick", action="store_true", help="two shapes only")
    parser.add_argument("--threads", type=int, default=0, help="this many; by default 1 and all, one after the other")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Write the rows; exit code 0."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    if options.threads:
        _write(options, QUICK if options.quick else FULL)
        return 0
    with options.output.open("w", newline="") as file:
        csv.DictWriter(file, COLUMNS, lineterminator="\n").writeheader()
    for threads in sorted({1, usable_cores()}):
        _child(threads, arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
