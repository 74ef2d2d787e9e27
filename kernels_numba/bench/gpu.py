"""Are the kernels right on a real GPU, and how fast are they beside cuBLAS and cuSPARSE?

``python -m kernels_numba.bench.gpu --check`` compares every kernel with float64 on fresh random problems (`check_gpu`).
``--bench`` times them on the paper's matrix shapes, the most telling ones first, and writes a table and its provenance
into ``data/measured/<gpu>/`` after each matrix; ``--minutes`` limits it, ``--resume`` goes on where it ended. Needs
numba-cuda and PyTorch or CuPy; a plain checkout is enough.

Method: events around replays of a CUDA graph (launch "graph") or around launches one by one ("stream": what cannot
be captured, an upper bound where launching takes as long); 60 ms of warm-up, then the median of 9 stretches of about
8 ms. ``cold`` rotates through copies of the weights that together exceed the L2 cache three times over, while x and
the output, which are small, stay in it; ``warm`` repeats one copy and is left out where that would be read from
memory all the same (cuSPARSE: warm only). Weights are random in value and place. Every product is compared with a
float64 product before and after its timing, in poisoned outputs; "error" is the larger relative error of the two, and
a wrong product has no row. cuBLAS accumulates in float32. A device-to-device copy gives the ceiling of memory
bandwidth. Clocks are left alone and reported.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels_numba.bench.check_gpu import check_kernels
from kernels_numba.bench.library import Library, Run, Timing, launch_all, open_library
from kernels_numba.bench.product import Gpu, Product, accuracy, copies_beyond_l2, random_weights, upload
from kernels_numba.bench.provenance import Row, describe_gpu, gpu_state, read_table, write_table
from kernels_numba.formats import Dense, EncodedWeight, encode_bitmap, encode_csr, encode_tiled_csl, encode_two_four
from kernels_numba.gpu.launch import with_aligned_rows

BAD_INPUT = NO_GPU = 2
# The paper's layers of OPT-66B, OPT-30B and OPT-175B, the largest effect of loading sparse first.
SHAPES = (
    (36864, 9216), (9216, 36864), (28672, 7168), (7168, 28672), (9216, 9216), (7168, 7168), (27648, 9216),
    (21504, 7168), (12288, 12288), (36864, 12288), (49152, 12288), (12288, 49152),
)  # fmt: skip
COLUMNS = (8, 16, 32)
SPARSITIES = (0.8, 0.7, 0.9, 0.6, 0.5, 0.4)
Encoder = Callable[[NDArray[np.float16]], EncodedWeight]
ENCODERS: dict[str, Encoder] = {
    "lscd-tiled-csl": encode_tiled_csl,
    "lscd-bitmap": encode_bitmap,
    "lscd-bitmap-pairs": partial(encode_bitmap, width=2),
    "lscd-two-four": partial(encode_two_four, index_bits=16),
    "lscd-csr": partial(encode_csr, index_bits=16),
}
WARM_PRODUCTS = 10
WARM_L2_FACTOR = 2  # of weights larger than this many L2 caches, repetition leaves next to nothing in the cache
LOST = 2  # matrices in a row without a single row: the GPU is gone, after a fault for example
SOURCE = "lscd-bench-gpu"
Step = tuple[int, int, float]  # m, k, sparsity


def steps() -> Iterator[Step]:
    """Matrices in the order of their worth: each shape dense and at the paper's middle sparsity, then the others."""
    for sparsity in SPARSITIES:
        for m, k in SHAPES:
            if sparsity == SPARSITIES[0]:
                yield m, k, 0.0
            yield m, k, sparsity


@dataclass(frozen=True)
class Problem:
    """Activations x (k, n), the float64 product with the weights at hand, and their exact sparsity."""

    x: NDArray[np.float16]
    expected: NDArray[np.float64]
    sparsity: float

    @property
    def shape(self) -> tuple[int, int, int]:
        """(m, k, n)."""
        return self.expected.shape[0], *self.x.shape


class Bench:
    """Measures products; keeps rows, the steps it took, and what failed."""

    def __init__(self, library: Library, gpu: Gpu, report: Callable[[str], None], uuid: str = ""):
        self.library, self.gpu, self.report, self.uuid = library, gpu, report, uuid
        self.rows: list[Row] = []
        self.steps: list[dict[str, Any]] = []
        self.failures: list[str] = []
        self.load: Run | None = None  # what keeps the GPU busy: the last product

    def left_out(self) -> list[Step]:
        """Matrices that are not measured yet, in order."""
        done = {(step["m"], step["k"], step["sparsity"]) for step in self.steps}
        return [step for step in steps() if step not in done]

    def state_under_load(self) -> dict[str, str] | None:
        """Clocks, power and throttle reasons of the GPU while it repeats the last product."""
        found: list[dict[str, str] | None] = [None]
        self.attempt("state under load", lambda: found.insert(0, gpu_state(self.uuid, self.load)))
        self.load = None  # frees its weights
        return found[0]

    def attempt(self, what: str, work: Callable[[], None]) -> None:
        """Do some work; whatever goes wrong is reported and kept, so that one kernel cannot cost the others."""
        try:
            work()
        except Exception as error:
            self.failures.append(f"{what}: {type(error).__name__}: {str(error).partition(chr(10))[0]}")
            self.report(f"FAILED {self.failures[-1]}")

    def measure(
        self,
        kernel: str,
        problem: Problem,
        runners: list[Run],
        out: Any,
        nbytes: tuple[int, int],
        *,
        replay: bool = True,
    ) -> None:
        """Check a product, time it and check it again.

        Cold if there are copies to rotate through, and warm if not, or if the weights may stay in the L2 cache.
        ``nbytes`` are those of the weights and of everything the product must move. ``replay=False`` is for cuSPARSE,
        which is not captured, and which may multiply what was in its output by beta = 0: no NaN there.
        """
        n, poison = problem.shape[2], np.nan if replay else 0.0
        out[...] = poison
        runners[0]()
        errors = [accuracy(self.library.to_host(out)[:, :n], problem.expected)]
        out[...] = poison
        timings = {"cold": self.library.time(runners, replay=replay)} if len(runners) > 1 else {}
        if not timings or nbytes[0] < WARM_L2_FACTOR * self.gpu.l2_bytes:
            timings["warm"] = self.library.time(runners[:1] * WARM_PRODUCTS, replay=replay)
        errors.append(accuracy(self.library.to_host(out)[:, :n], problem.expected))
        self.load = launch_all([*runners, self.library.synchronize])
        for cache, timing in timings.items():
            self.keep(kernel, problem, cache, timing, nbytes[1], max(errors))

    def keep(self, kernel: str, problem: Problem, cache: str, timing: Timing, nbytes: int, error: float) -> None:
        """Keep one result and report it."""
        rate = nbytes / timing.time_us * 1e6
        of_copy = f", {rate / self.gpu.copy_bytes_per_s:.2f} of a copy" if cache == "cold" else ""
        launch = "graph" if timing.replayed else "stream"
        note = f"{rate / 1e9:.0f} GB/s{of_copy}, error {error:.1e}"
        times = (round(timing.time_us, 3), round(timing.error_us, 3))
        sparsity, status = round(problem.sparsity, 4), "upper_bound" if timing.host_bound else "value"
        row = Row(self.gpu.key, kernel, *problem.shape, sparsity, *times, status, cache, SOURCE, note, launch)
        self.rows.append(row)
        self.report(f"{kernel:16} {problem.shape!s:24} {sparsity:.2f} {cache} {timing.time_us:9.2f} us  {note}")

    def ours(self, kernel: str, encode: Encoder, a: NDArray[np.float16], problems: list[Problem]) -> None:
        """Measure one of our kernels; all problems share the copies of the weights."""
        weights = with_aligned_rows(encode(a))
        copies = upload(self.library, weights, copies_beyond_l2(weights.nbytes, self.gpu.l2_bytes))

        def one(problem: Problem) -> None:
            product = Product(self.library, weights, problem.x, self.gpu)
            runners: list[Run] = [product.runner(copy) for copy in copies]
            self.measure(kernel, problem, runners, product.out, (weights.nbytes, product.bytes))

        for problem in problems:
            self.attempt(f"{kernel} {problem.shape} at {problem.sparsity:.2f}", partial(one, problem))

    def cublas(self, on_gpu: Any, nbytes: int, problems: list[Problem]) -> None:
        """Measure the vendor's dense product."""
        copies = [on_gpu, *(self.library.copy(on_gpu) for _ in range(copies_beyond_l2(nbytes, self.gpu.l2_bytes) - 1))]

        def one(problem: Problem) -> None:
            m, k, n = problem.shape
            x, out = self.library.asarray(problem.x), self.library.full((m, n), np.float16, np.nan)
            runners = [self.library.dense(copy, x, out) for copy in copies]
            self.measure("cublas", problem, runners, out, (nbytes, nbytes + 2 * n * (m + k)))

        for problem in problems:
            self.attempt(f"cublas {problem.shape}", partial(one, problem))

    def cusparse(self, a: NDArray[np.float16], problem: Problem) -> None:
        """Measure the vendor's sparse product, if the library has it, warm: it is far from memory's speed."""
        weights, (m, k, n) = encode_csr(a), problem.shape
        out = self.library.full((m, n), np.float16, 0.0)
        run = self.library.sparse(weights, self.library.asarray(problem.x), out)
        if run is not None:
            nbytes = weights.nbytes, weights.nbytes + 2 * n * (m + k)
            self.measure("cusparse", problem, [run], out, nbytes, replay=False)

    def step(self, m: int, k: int, sparsity: float, seed: int) -> None:
        """All kernels and columns of one matrix."""
        rng = np.random.default_rng([seed, m, k, round(100 * sparsity)])
        a = random_weights(m, k, sparsity, rng)
        exact_sparsity = 1 - np.count_nonzero(a) / a.size
        on_gpu = self.library.asarray(a)
        problems = []
        for n in COLUMNS:
            x = rng.standard_normal((k, n)).astype(np.float16)
            problems.append(Problem(x, self.library.exact(on_gpu, self.library.asarray(x)), exact_sparsity))
        if sparsity == 0:
            self.cublas(on_gpu, a.nbytes, problems)
            self.attempt(f"lscd-dense {(m, k)}", partial(self.ours, "lscd-dense", Dense, a, problems))
            return
        for kernel, encode in ENCODERS.items():
            self.attempt(f"{kernel} {(m, k)} at {sparsity}", partial(self.ours, kernel, encode, a, problems))
        self.attempt(f"cusparse {(m, k)} at {sparsity}", partial(self.cusparse, a, problems[0]))


def run_bench(bench: Bench, minutes: float, seed: int, keep: Callable[[], object]) -> None:
    """Measure matrix after matrix, without those that ``bench`` has measured already.

    A matrix is started only if, at the last one's pace, it ends in time. ``keep`` is called after each, so that a run
    that dies loses one matrix only. A GPU that is gone ends the run.
    """
    end = time.monotonic() + 60 * minutes
    pace: dict[bool, float] = {}  # seconds per weight, dense and sparse
    lost = 0
    for m, k, sparsity in bench.left_out():
        start, before = time.monotonic(), len(bench.rows)
        if start + pace.get(sparsity > 0, 0.0) * m * k >= end:
            continue
        bench.attempt(f"{(m, k)} at {sparsity}", partial(bench.step, m, k, sparsity, seed))
        seconds, rows = time.monotonic() - start, len(bench.rows) - before
        pace[sparsity > 0] = seconds / (m * k)
        lost = 0 if rows else lost + 1
        if lost == LOST:
            break
        if rows:
            fields = {"m": m, "k": k, "sparsity": sparsity, "rows": rows, "seconds": round(seconds, 1)}
            bench.steps.append(fields | {"state_under_load": bench.state_under_load()})
        keep()


def measure(
    bench: Bench, provenance: dict[str, Any], minutes: float, keep: Callable[[list[Row], dict[str, Any]], object]
) -> dict[str, Any]:
    """Benchmark the GPU at hand; return the provenance of the rows. ``keep`` gets both after every matrix."""

    def so_far() -> dict[str, Any]:
        return provenance | {"left_out": bench.left_out(), "failures": bench.failures, "steps": bench.steps}

    run_bench(bench, minutes, provenance["seed"], lambda: keep(bench.rows, so_far()))
    return so_far()


def measure_here(minutes: float, seed: int) -> tuple[str, list[Row], dict[str, Any]]:
    """Benchmark this machine's GPU in silence: what a worker of a cluster runs.

    Returns the GPU's key in the catalogue, the rows and their provenance. Raises RuntimeError without a GPU.
    """
    library = open_library()
    gpu, provenance = describe_gpu(library, _method())
    bench = Bench(library, gpu, lambda line: None, provenance["uuid"])
    return gpu.key, bench.rows, measure(bench, provenance | {"seed": seed}, minutes, lambda rows, so_far: None)


def _method() -> str:
    return " ".join((__doc__ or "").split("Method: ")[1].split())


def _minutes(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text}; allowed: a positive number")
    return value


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m kernels_numba.bench.gpu", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--check", action="store_true", help="compare every kernel with float64")
    parser.add_argument("--bench", action="store_true", help="time every kernel and write the table")
    parser.add_argument("--minutes", type=_minutes, default=8.0, help="time for the bench (default 8)")
    parser.add_argument("--resume", action="store_true", help="keep the table's rows and measure what it lacks")
    parser.add_argument(
        "--seed", type=int, default=None, help="of the random problems; bench 0, check a new one each time"
    )
    default = Path(__file__).resolve().parent.parent / "data" / "measured"
    parser.add_argument("--output", type=Path, default=default, help="directory for <gpu>/kernels_lscd.csv")
    options = parser.parse_args(arguments)
    if not (options.check or options.bench):
        parser.error("give --check, --bench, or both")
    if options.seed is not None and options.seed < 0:
        parser.error(f"argument --seed: {options.seed}; allowed: 0 or more")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the checks, the bench, or both; return the exit code: 0 fine, 1 a kernel is wrong or failed, 2 no GPU."""
    options = parse_arguments(arguments)
    try:
        library = open_library()
        gpu, provenance = describe_gpu(library, _method())
        provenance["seed"] = options.seed or 0
        bench = Bench(library, gpu, _report, provenance["uuid"])
        directory = options.output / gpu.key
        if options.resume:
            bench.rows, earlier = read_table(directory, provenance)
            bench.steps, bench.failures = earlier.get("steps", []), earlier.get("failures", [])
        directory.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError, ValueError) as error:
        sys.stderr.write(f"bench.gpu: {error}\n")
        return NO_GPU
    _report(f"{provenance['gpu']}, {gpu.sm_count} SMs, copy {gpu.copy_bytes_per_s / 1e9:.0f} GB/s")
    fine = not options.check or _check(library, gpu, options.seed)
    if options.bench:
        provenance = measure(bench, provenance, options.minutes, partial(write_table, directory=directory))
        path = write_table(bench.rows, provenance, directory)
        _report(f"wrote {len(bench.rows)} rows to {path}; {len(provenance['left_out'])} matrices left out")
        fine = fine and bool(bench.rows) and not bench.failures
    return 0 if fine else 1


def _report(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _check(library: Library, gpu: Gpu, seed: int | None) -> bool:
    """Run the checks, report each that fails; whether all passed."""
    seed, outcomes = int(np.random.default_rng().integers(2**31)) if seed is None else seed, []
    for outcome in check_kernels(library, gpu, seed):
        outcomes.append(outcome)
        if outcome:
            _report(f"WRONG {outcome}")
    _report(f"{outcomes.count('')} of {len(outcomes)} products are right (seed {seed})")
    return outcomes.count("") == len(outcomes)


if __name__ == "__main__":
    raise SystemExit(main())
