"""How fast are the CPU kernels beside NumPy, SciPy and PyTorch on the same machine, in the same minutes?

``python -m kernels_numba.bench.cpu`` encodes random weights in our fastest CPU format, checks every contestant
against float64, and times them in turn, round after round, so that a busy neighbour disturbs all alike. A pause
before each lets the threads of the one before stop spinning (measured: without it each lost up to half of a small
machine to its predecessor); an unmeasured run after the pause warms the caches. Weights are
float16 for us and float32 for the peers, whose kernels know no float16 on a CPU; x is float32 for all. A ratio above
1 means that we are faster than the best peer. Then it times the encoder of condensed strips, which searches for orders
of their columns, against the goal of 20 million weights a second on all threads together.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import scipy
from numpy.typing import NDArray

from kernels_numba.cpu import kernels as cpu
from kernels_numba.cpu.panel_csr import encode_panel_csr
from kernels_numba.formats import encode_condensed
from kernels_numba.formats.layout import STRIP_M

SIZES = ((7168, 7168), (14336, 14336))
TOKENS = (8, 16, 32)
SPARSITIES = (0.7, 0.8, 0.9)
OURS = "ours"
ENCODED, ENCODED_SPARSITIES = (2048, 2048), (0.5, 0.65, 0.7, 0.75, 0.8, 0.9)
ENCODER_GOAL = 20e6  # weights a second
CHECKED_ROWS = 64
PAUSE_S = 0.05  # OpenBLAS threads spin for about 2**26 cycles after a call

Product = Callable[[NDArray[np.float32]], Any]


@dataclass(frozen=True)
class Timing:
    """Times of one contestant over the rounds, in seconds."""

    samples: NDArray[np.float64]

    @property
    def median_s(self) -> float:
        """Median time."""
        return float(np.median(self.samples))

    @property
    def spread(self) -> float:
        """Interquartile range as a fraction of the median."""
        low, high = np.percentile(self.samples, (25, 75))
        return float((high - low) / self.median_s)


def random_weights(m: int, k: int, sparsity: float, rng: np.random.Generator) -> NDArray[np.float16]:
    """Normal float16 weights, each zero with probability ``sparsity``; made row block by row block to save memory."""
    a = np.empty((m, k), np.float16)
    for first in range(0, m, 1024):
        part = a[first : first + 1024]
        part[:] = rng.standard_normal(part.shape, dtype=np.float32)
        part[rng.random(part.shape, dtype=np.float32) < sparsity] = 0
    return a


def contestants(a: NDArray[np.float16]) -> dict[str, Product]:
    """Each contestant's product as a function of x; PyTorch only where it is installed."""
    ours = encode_panel_csr(a)
    wide = a.astype(np.float32)
    sparse = scipy.sparse.csr_matrix(wide)
    found: dict[str, Product] = {
        OURS: lambda x: cpu.spmm(ours, x),
        "numpy dense": lambda x: wide @ x,
        "scipy csr": lambda x: sparse @ x,
    }
    torch = _torch()
    if torch is not None:
        starts, columns, values = (torch.from_numpy(part) for part in (sparse.indptr, sparse.indices, sparse.data))
        with warnings.catch_warnings():  # PyTorch calls its CSR a beta, once a process
            warnings.simplefilter("ignore", UserWarning)
            torch_csr = torch.sparse_csr_tensor(starts, columns, values, size=wide.shape, check_invariants=False)
        found["torch csr"] = lambda x: (torch_csr @ torch.from_numpy(x)).numpy()
    return found


def measure(runs: dict[str, Product], x: NDArray[np.float32], rounds: int) -> dict[str, Timing]:
    """Time all contestants in turn, ``rounds`` times; each measured run follows a pause and an unmeasured one."""
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            time.sleep(PAUSE_S)
            run(x)
            start_s = time.perf_counter()
            run(x)
            samples[name].append(time.perf_counter() - start_s)
    return {name: Timing(np.array(times)) for name, times in samples.items()}


def check(runs: dict[str, Product], a: NDArray[np.float16], x: NDArray[np.float32]) -> None:
    """Compare the first rows of every contestant's product with float64; raises ValueError if one is wrong."""
    rows = a[:CHECKED_ROWS].astype(np.float64)
    expected = rows @ x.astype(np.float64)
    allowed = 1e-5 * (np.abs(rows) @ np.abs(x.astype(np.float64)) + 1)
    for name, run in runs.items():
        error = np.abs(run(x)[:CHECKED_ROWS] - expected)
        if not (error <= allowed).all():
            raise ValueError(f"{name}: error {error.max():.3g}; allowed: {allowed.max():.3g}")


def compare(m: int, k: int, sparsity: float, *, rounds: int) -> Iterator[tuple[int, dict[str, Timing]]]:
    """Check and time all contestants on one random weight; yields n and the timings, one n after the other."""
    rng = np.random.default_rng((m, k, round(100 * sparsity)))
    a = random_weights(m, k, sparsity, rng)
    runs = contestants(a)
    for n in TOKENS:
        x = rng.standard_normal((k, n), dtype=np.float32)
        check(runs, a, x)
        yield n, measure(runs, x, rounds)


def ratio_to_best_peer(timings: dict[str, Timing]) -> float:
    """Median time of the fastest peer over ours."""
    best = min(timing.median_s for name, timing in timings.items() if name != OURS)
    return best / timings[OURS].median_s


def time_encoder(sparsity: float, *, rounds: int, shape: tuple[int, int] = ENCODED) -> tuple[Timing, Timing]:
    """Times of encoding a random matrix as condensed strips: by the clock, and of the processor over the threads.

    The second is what the first would be if nobody else ran and all threads ended together.
    """
    a = random_weights(*shape, sparsity, np.random.default_rng(round(100 * sparsity)))
    clock, processor = np.empty(rounds), np.empty(rounds)
    encode_condensed(a[:STRIP_M])
    for i in range(rounds):
        start_s, worked_s = time.perf_counter(), time.process_time()
        encode_condensed(a)
        clock[i] = time.perf_counter() - start_s
        processor[i] = (time.process_time() - worked_s) / numba.get_num_threads()
    return Timing(clock), Timing(processor)


def encoder_row(sparsity: float, clock: Timing, processor: Timing, weights: int = math.prod(ENCODED)) -> str:
    """One line: million weights a second with their spread, by the clock and by the processor, and over the goal."""
    rates = [weights / timing.median_s for timing in (clock, processor)]
    cells = [f"{rate / 1e6:8.1f} ±{t.spread:4.0%}" for rate, t in zip(rates, (clock, processor), strict=True)]
    return f"{sparsity:>5.0%} {' '.join(cells)} {rates[0] / ENCODER_GOAL:7.2f} {rates[1] / ENCODER_GOAL:7.2f}"


def row(m: int, k: int, n: int, sparsity: float, timings: dict[str, Timing]) -> str:
    """One line of the table: milliseconds with spread per contestant, and the ratio."""
    cells = " ".join(f"{timing.median_s * 1e3:8.2f} ±{timing.spread:4.0%}" for timing in timings.values())
    return f"{m:>6} x {k:<6} {n:>3} {sparsity:>5.0%} {cells} {ratio_to_best_peer(timings):7.2f}"


def summary(ratios: list[float]) -> str:
    """Geometric mean and worst ratio in one sentence."""
    mean = float(np.exp(np.mean(np.log(ratios))))
    return f"{len(ratios)} cases: geometric mean {mean:.2f}x the best peer, worst {min(ratios):.2f}x"


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        return None
    return torch


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="the smaller size only, few rounds: about half a minute")
    parser.add_argument("--rounds", type=int, default=15, help="measured rounds per case (default 15)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Print the table and its summary; exit code 0."""
    import warnings

    options = _parser().parse_args(arguments)
    warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")  # PyTorch, once per process
    sizes, rounds = (SIZES[:1], 5) if options.quick else (SIZES, options.rounds)
    write = sys.stdout.write
    write("PyTorch not installed: its CSR is missing from the comparison\n" if _torch() is None else "")
    ratios: list[float] = []
    for m, k in sizes:
        for sparsity in SPARSITIES:
            for n, timings in compare(m, k, sparsity, rounds=rounds):
                if not ratios:
                    names = " ".join(f"{name + ' ms':>14}" for name in timings)
                    write(f"{'shape':>15} {'n':>3} {'zeros':>5} {names}   ratio\n")
                ratios.append(ratio_to_best_peer(timings))
                write(row(m, k, n, sparsity, timings) + "\n")
                sys.stdout.flush()
    write(summary(ratios) + "\n")
    write("encoding condensed strips, million weights/s by clock and by processor; both over the goal of 20\n")
    for sparsity in ENCODED_SPARSITIES:
        write(encoder_row(sparsity, *time_encoder(sparsity, rounds=rounds)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
