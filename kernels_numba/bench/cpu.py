"""How fast are the CPU kernels beside NumPy, SciPy and PyTorch on the same machine, in the same minutes?

``python -m kernels_numba.bench.cpu`` encodes random weights, checks every contestant against float64, and times them in
turn, round after round, so that a busy neighbour disturbs all alike. A pause before each lets the threads of the one
before stop spinning (measured: without it each lost up to half of a small machine to its predecessor); unmeasured
calls after the pause warm caches and clock. Contestants have the names of the kernel models. Those of float32 tokens
multiply float16 (ours) or float32 weights (the peers, whose kernels know no float16 on a CPU); those named bf16 have
weights and activations of bfloat16. A ratio above 1 means that the faster of our bitmaps is faster than the best peer
of all; beside it the rate at which that bitmap reads its weights. Then it times the encoder of condensed strips, which
searches for orders of their columns, against the goal of 20 million weights a second on all threads together.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numba
import numpy as np
import scipy
from numpy.typing import NDArray

from kernels_numba.cpu import kernels as cpu
from kernels_numba.cpu.bitmap import encode_cpu_bitmap
from kernels_numba.cpu.panel_csr import encode_panel_csr
from kernels_numba.formats import Dense, Element, EncodedWeight, encode_condensed
from kernels_numba.formats.encoded import narrowed
from kernels_numba.formats.layout import STRIP_M

SIZES = ((7168, 7168), (14336, 14336))
TOKENS = (1, 4, 8, 16)
SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.9)
OURS = ("cpu-bitmap", "cpu-bitmap-bf16")
FLOAT_ERROR, BRAIN_ERROR = 1e-5, 2.0**-7  # of the sum of magnitudes
ENCODED, ENCODED_SPARSITIES = (2048, 2048), (0.5, 0.65, 0.7, 0.75, 0.8, 0.9)
ENCODER_GOAL = 20e6  # weights a second
CHECKED_ROWS = 64
CELL = 18
PAUSE_S = 0.05  # OpenBLAS threads spin for about 2**26 cycles after a call
STEADY_S = 0.01  # of calls before those that are timed, and of those: a core that has slept is slow for milliseconds

Product = Callable[[], Any]
Activations = NDArray[np.float32]


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


@dataclass(frozen=True)
class Contestant:
    """Encoded weights: how to get ready to multiply activations (k, n) float32, and the bytes that are read of them."""

    ready: Callable[[Activations], Product]
    nbytes: int


def contestants(a: NDArray[np.float16], kernels: Sequence[str] = ()) -> dict[str, Contestant]:
    """Each contestant by name, or those named; PyTorch only where it is installed."""
    return {name: make() for name, make in _makers(a).items() if not kernels or name in kernels}


def kernel_names() -> tuple[str, ...]:
    """Names of all contestants that can be had here."""
    return tuple(_makers(np.empty((1, 1), np.float16)))


def _makers(a: NDArray[np.float16]) -> dict[str, Callable[[], Contestant]]:
    """How to make each contestant; nothing is encoded before it is asked for."""

    @cache
    def wide() -> Activations:
        return a.astype(np.float32)

    @cache
    def sparse() -> Any:
        return scipy.sparse.csr_matrix(wide())

    def brain() -> EncodedWeight:
        return encode_cpu_bitmap(narrowed(wide(), Element.BFLOAT16), element=Element.BFLOAT16)

    found = {
        "cpu-bitmap": lambda: _ours(encode_cpu_bitmap(a)),
        "cpu-bitmap-bf16": lambda: _ours(brain()),
        "cpu-panel-csr": lambda: _ours(encode_panel_csr(a)),
        "cpu-dense16": lambda: _ours(Dense(a)),
        "numpy-fp32": lambda: Contestant(lambda x: lambda: wide() @ x, wide().nbytes),
        "scipy-csr": lambda: Contestant(lambda x: lambda: sparse() @ x, _csr_bytes(sparse())),
    }
    if _torch() is None:
        return found
    return found | {
        "torch-fp32": lambda: _torch_linear(wide(), "float32"),
        "torch-bf16": lambda: _torch_linear(wide(), "bfloat16"),
        "torch-csr": lambda: _torch_csr(sparse()),
    }


def _csr_bytes(sparse: Any) -> int:
    return int(sparse.data.nbytes + sparse.indices.nbytes + sparse.indptr.nbytes)


def _ours(weights: EncodedWeight) -> Contestant:
    """One of our kernels; weights of bfloat16 meet activations of bfloat16."""

    def ready(x: Activations) -> Product:
        if weights.element is not Element.BFLOAT16:
            return lambda: cpu.spmm(weights, x)
        bits = narrowed(x, Element.BFLOAT16)
        return lambda: cpu.spmm(weights, bits, element=Element.BFLOAT16)

    return Contestant(ready, weights.nbytes)


def _torch_linear(wide: Activations, kind: str) -> Contestant:
    """PyTorch's linear layer in a number format, with activations (n, k) as it wants them."""
    torch = _torch()
    weights = torch.from_numpy(wide).to(getattr(torch, kind))

    def ready(x: Activations) -> Product:
        rows = torch.from_numpy(np.ascontiguousarray(x.T)).to(weights.dtype)
        return lambda: torch.nn.functional.linear(rows, weights)

    return Contestant(ready, weights.numel() * weights.element_size())


def _torch_csr(sparse: Any) -> Contestant:
    """PyTorch's CSR product."""
    torch = _torch()
    parts = (torch.from_numpy(part) for part in (sparse.indptr, sparse.indices, sparse.data))
    with warnings.catch_warnings():  # PyTorch calls its CSR a beta, once a process
        warnings.simplefilter("ignore", UserWarning)
        csr = torch.sparse_csr_tensor(*parts, size=sparse.shape, check_invariants=False)

    def ready(x: Activations) -> Product:
        tokens = torch.from_numpy(x)
        return lambda: csr @ tokens

    return Contestant(ready, _csr_bytes(sparse))


def measure(runs: dict[str, Product], rounds: int) -> dict[str, Timing]:
    """Time all contestants in turn, ``rounds`` times, each after a pause."""
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            time.sleep(PAUSE_S)
            seconds_a_call(run)
            samples[name].append(seconds_a_call(run))
    return {name: Timing(np.array(times)) for name, times in samples.items()}


def seconds_a_call(run: Product) -> float:
    """Seconds of a call among calls of at least `STEADY_S` together."""
    start_s, calls, elapsed_s = time.perf_counter(), 0, 0.0
    while elapsed_s < STEADY_S:
        run()
        calls, elapsed_s = calls + 1, time.perf_counter() - start_s
    return elapsed_s / calls


def check(runs: dict[str, Product], a: NDArray[np.float16], x: NDArray[np.float32]) -> None:
    """Compare the first rows of every contestant's product with float64; raises ValueError if one is wrong."""
    rows = a[:CHECKED_ROWS].astype(np.float64)
    expected = rows @ x.astype(np.float64)
    size = np.abs(rows) @ np.abs(x.astype(np.float64)) + 1
    for name, run in runs.items():
        allowed = (BRAIN_ERROR if name.endswith("bf16") else FLOAT_ERROR) * size
        error = np.abs(_product_of(name, run)[:CHECKED_ROWS] - expected)
        if not (error <= allowed).all():
            raise ValueError(f"{name}: error {error.max():.3g}; allowed: {allowed.max():.3g}")


def _product_of(name: str, run: Product) -> NDArray[Any]:
    """What a contestant computes, as an array (m, n)."""
    product = run()
    if not name.startswith("torch"):
        return np.asarray(product)
    return np.asarray(product.float().numpy() if name == "torch-csr" else product.float().numpy().T)


@dataclass(frozen=True)
class Compared:
    """Timings of one product by contestant, and the bytes of weights that each reads."""

    n: int
    timings: dict[str, Timing]
    nbytes: dict[str, int]

    @property
    def best(self) -> str:
        """The faster of our bitmaps."""
        return min(OURS, key=lambda name: self.timings[name].median_s)

    @property
    def ratio(self) -> float:
        """Median time of the fastest peer over that of `best`."""
        peers = min(timing.median_s for name, timing in self.timings.items() if not name.startswith("cpu-"))
        return peers / self.timings[self.best].median_s

    @property
    def bytes_per_s(self) -> float:
        """Rate at which `best` reads its weights."""
        return self.nbytes[self.best] / self.timings[self.best].median_s


def compare(
    m: int, k: int, sparsity: float, *, rounds: int, tokens: Sequence[int] = (), kernels: Sequence[str] = ()
) -> Iterator[Compared]:
    """Check and time contestants, all of them by default, on one random weight; yields one n after the other."""
    rng = np.random.default_rng((m, k, round(100 * sparsity)))
    a = random_weights(m, k, sparsity, rng)
    taking_part = contestants(a, kernels)
    nbytes = {name: one.nbytes for name, one in taking_part.items()}
    for n in tokens or TOKENS:
        x = rng.standard_normal((k, n), dtype=np.float32)
        runs = {name: one.ready(x) for name, one in taking_part.items()}
        check(runs, a, x)
        yield Compared(n, measure(runs, rounds), nbytes)


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


def row(m: int, k: int, sparsity: float, found: Compared) -> str:
    """One line of the table: milliseconds with spread per contestant, the ratio, and GB/s."""
    cells = " ".join(f"{t.median_s * 1e3:{CELL - 6}.2f} ±{t.spread:4.0%}" for t in found.timings.values())
    tail = f"{found.ratio:7.2f} {found.bytes_per_s / 1e9:6.1f} {found.best}"
    return f"{m:>6} x {k:<6} {found.n:>3} {sparsity:>5.0%} {cells} {tail}"


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
    write("PyTorch not installed: it is missing from the comparison\n" if _torch() is None else "")
    ratios: list[float] = []
    for m, k in sizes:
        for sparsity in SPARSITIES:
            for found in compare(m, k, sparsity, rounds=rounds):
                if not ratios:
                    names = " ".join(f"{name + ' ms':>{CELL}}" for name in found.timings)
                    write(f"{'shape':>15} {'n':>3} {'zeros':>5} {names}   ratio   GB/s of the faster bitmap\n")
                ratios.append(found.ratio)
                write(row(m, k, sparsity, found) + "\n")
                sys.stdout.flush()
    write(summary(ratios) + "\n")
    write("encoding condensed strips, million weights/s by clock and by processor; both over the goal of 20\n")
    for sparsity in ENCODED_SPARSITIES:
        write(encoder_row(sparsity, *time_encoder(sparsity, rounds=rounds)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
