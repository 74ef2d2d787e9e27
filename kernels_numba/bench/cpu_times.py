"""How long do matrix products take on this CPU? Rows for the evidence, by kernel, shape, sparsity, tokens and threads.

``python -m kernels_numba.bench.cpu_times --output rows.csv --gpu NAME --source KEY`` times every contestant of
`bench.cpu` on a grid, each thread count in a process of its own: the threads of BLAS are counted when it is loaded. The
same product is called again and again, ``cache`` warm, as the layers of a small model are from token to token.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from kernels_numba.bench import cpu
from kernels_numba.bench.passes import Row, faster, read_rows, write_rows
from kernels_numba.bench.threads import lines_of, print_lines, usable_cores

PRODUCT = ("kernel", "m", "k", "n", "sparsity")
COLUMNS = ("gpu", *PRODUCT, "time_us", "time_err_us", "status", "cache", "source", "note")
ROUGH = 0.1  # error as a share of the time from which a row is no better than one read off a figure
FIXED = {"status": "value", "cache": "warm"}
MODULE = "kernels_numba.bench.cpu_times"
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
    (0.5, 0.6, 0.7, 0.8, 0.9), (1, 2, 4, 8, 16), 5,
)  # fmt: skip
QUICK = Grid(((1536, 576), (11008, 4096)), (0.6, 0.8), (1, 4, 16), 5)


def products(grid: Grid) -> Iterator[dict[str, Any]]:
    """Products of `time_grid` in its order: ``kernel, m, k, n, sparsity``."""
    for m, k, sparsity in grid.weights:
        for n, name in itertools.product(grid.tokens, _taking_part(grid, sparsity)):
            yield {"kernel": name, "m": m, "k": k, "n": n, "sparsity": 0.0 if name in DENSE else sparsity}


def _taking_part(grid: Grid, sparsity: float) -> list[str]:
    """Contestants at a sparsity: kernels that read zeros too are timed once for all of them."""
    first = sparsity == grid.sparsities[0]
    return [name for name in cpu.kernel_names() if name not in LEFT_OUT and (first or name not in DENSE)]


def time_grid(grid: Grid) -> Iterator[dict[str, Any]]:
    """Rows ``kernel, m, k, n, sparsity, time_us, time_err_us`` of the contestants, on the threads of this process.

    The error is half the interquartile range.
    """
    for m, k, sparsity in grid.weights:
        names = _taking_part(grid, sparsity)
        for found in cpu.compare(m, k, sparsity, rounds=grid.rounds, tokens=grid.tokens, kernels=names):
            for name, timing in found.timings.items():
                share = 0.0 if name in DENSE else sparsity
                size = {"kernel": name, "m": m, "k": k, "n": found.n, "sparsity": share}
                error_us = timing.median_s * timing.spread / 2 * 1e6
                yield size | {"time_us": round(timing.median_s * 1e6, 2), "time_err_us": round(error_us, 2)}


def measured(threads: int, grid: Grid) -> Iterator[dict[str, Any]]:
    """Rows of `time_grid` as they come from a process that uses so many threads; errors as `lines_of`."""
    return lines_of(MODULE, threads, "--grid", json.dumps(astuple(grid)))


def _grid(text: str) -> Grid:
    """The grid that `measured` writes into a command."""
    return Grid(*json.loads(text))


def _status(row: Row) -> str:
    """Whether the time is as good as a published one."""
    return "rough" if float(row["time_err_us"]) > ROUGH * float(row["time_us"]) else "value"


def main(arguments: list[str] | None = None) -> int:
    """Write the rows to a file, or those of one count of threads as lines of JSON; exit code 0."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, help="CSV to write; without it, lines of JSON of this process")
    parser.add_argument("--gpu", help="name of the machine in the rows, before @threads")
    parser.add_argument("--source", help="key of data/sources.toml")
    parser.add_argument(
        "--grid", type=_grid, default=FULL, help="JSON: [[[m, k], ...], [sparsity, ...], [n, ...], rounds]"
    )
    parser.add_argument("--again", action="store_true", help="keep rows of an existing output that are faster")
    parser.add_argument("--threads", type=int, help="this many; by default 1 and all, one after the other")
    options = parser.parse_args(arguments)
    if options.output is None:
        print_lines(time_grid(options.grid))
        return 0
    counts = [options.threads] if options.threads else sorted({1, usable_cores()})
    before, part = read_rows(options.output) if options.again else [], options.output.with_suffix(".part")
    rows: list[Row] = []
    for threads in counts:
        same = {"gpu": f"{options.gpu}@{threads}", "source": options.source}
        for row in measured(threads, options.grid):
            rows.append(FIXED | same | row)
            write_rows(part, COLUMNS, rows)
    best = faster(rows, before, time="time_us", error="time_err_us", same=("gpu", *PRODUCT))
    write_rows(options.output, COLUMNS, [row | {"status": _status(row)} for row in best])
    part.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
