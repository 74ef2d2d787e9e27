"""Are the kernels right on a real GPU, and how fast are they beside cuBLAS and cuSPARSE?

``python -m kernels_numba.bench_gpu --check`` compares every kernel with float64 on fresh random problems, with outputs
poisoned by NaN and every product run twice. ``--bench`` times them on the paper's matrix shapes and writes a table and
its provenance into ``data/measured/<gpu>/``. Needs numba-cuda and PyTorch or CuPy; a plain checkout is enough.

Method: events around replays of a CUDA graph; median of 9 stretches of about 15 ms. ``cold`` rotates through copies of
the weights that together exceed the L2 cache three times over, ``warm`` repeats one copy. Weights are random in value
and place; cuBLAS accumulates in float32. A device-to-device copy gives the ceiling of memory bandwidth.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels_numba.encoded import EncodedWeight
from kernels_numba.formats import Csr, Dense, encode_csr, encode_tiled_csl, encode_two_four
from kernels_numba.gpu_library import Library, Timing, open_library
from kernels_numba.launch import Launch, launches, make_plan, with_aligned_rows
from kernels_numba.reference import check_product

NO_GPU = 2
SHAPES = ((7168, 7168), (28672, 7168), (7168, 28672), (36864, 9216), (9216, 36864))  # layers of OPT-30B and OPT-66B
COLUMNS = (8, 16, 32, 64)
SPARSITIES = (0.7, 0.8, 0.9)
CHECKS = ((1, 1, 1), (127, 63, 7), (129, 65, 16), (1000, 520, 24), (768, 2048, 32), (300, 1000, 64), (256, 512, 100))
CHECK_DENSITIES = (0.0, 0.1, 0.3, 0.51, 1.0)
L2_FACTOR = 3
MAX_COPIES = 24
WARM_PRODUCTS = 10
COPY_BYTES = 2**31
SOURCE = "lscd-bench-gpu"
PACKAGES = (
    "numba",
    "numba-cuda",
    "cuda-core",
    "cuda-bindings",
    "nvidia-nvvm",
    "nvidia-nvjitlink",
    "torch",
    "cupy-cuda13x",
)
# Name that the driver reports -> file in data/hardware; others become their name in small letters.
KEYS = {
    "NVIDIA A100-SXM4-80GB": "a100-80gb",
    "NVIDIA A100-SXM4-40GB": "a100-40gb",
    "NVIDIA H100 80GB HBM3": "h100",
    "NVIDIA H200": "h200",
    "NVIDIA B200": "b200",
    "NVIDIA L40S": "l40s",
    "NVIDIA GeForce RTX 4090": "rtx-4090",
    "NVIDIA GeForce RTX 3090": "rtx-3090",
    "NVIDIA RTX A6000": "rtx-a6000",
    "NVIDIA RTX A5000": "rtx-a5000",
}


@dataclass(frozen=True)
class Row:
    """One measured time, in the columns of every evidence table."""

    gpu: str
    kernel: str
    m: int
    k: int
    n: int
    sparsity: float
    time_us: float
    time_err_us: float
    status: str
    cache: str
    source: str
    note: str


@dataclass(frozen=True)
class Gpu:
    """The GPU at hand: key in the catalogue, what plans need, and the measured ceiling of memory bandwidth."""

    key: str
    arch: str
    sm_count: int
    l2_bytes: int
    copy_bytes_per_s: float = float("nan")


def random_weights(m: int, k: int, sparsity: float, rng: np.random.Generator) -> NDArray[np.float16]:
    """fp16 matrix with random values at random places; sparsity to 1/256, values from 256 different ones."""
    table = rng.standard_normal(256).astype(np.float16)
    a = table[rng.integers(0, 256, (m, k), np.uint8)]
    a[rng.integers(0, 256, (m, k), np.uint8) < round(256 * sparsity)] = 0
    return a


class Product:
    """One of our products on the GPU: weights in some copies, x, and outputs to be filled."""

    def __init__(self, library: Library, weights: EncodedWeight, x: NDArray[np.float16], gpu: Gpu, **options: Any):
        self.library, self.weights, self.n = library, with_aligned_rows(weights), x.shape[1]
        as_fp32 = options.pop("as_fp32", False)
        self.plan = make_plan(self.weights, self.n, arch=gpu.arch, sm_count=gpu.sm_count, **options)
        padding = ((0, self.plan.k - x.shape[0]), (0, self.plan.n_padded - self.n))
        self.x = library.asarray(np.pad(x, padding))
        dtype = np.float32 if as_fp32 else np.float16
        self.out = library.full((self.plan.m, self.plan.n_padded), dtype, np.nan)
        split = self.plan.partials > 1
        self.workspace = library.full(self.plan.workspace_shape, np.float32, np.nan) if split else None
        self.as_fp32 = as_fp32

    @property
    def bytes(self) -> int:
        """Bytes that the product must move at least: weights, x and output once."""
        itemsize = 4 if self.as_fp32 else 2
        return self.weights.nbytes + 2 * self.plan.k * self.plan.n_padded + itemsize * self.plan.outputs

    def upload(self) -> dict[str, Any]:
        """One copy of the weights on the GPU."""
        buffers = self.weights.buffers.items()
        return {name: self.library.asarray(b if b.size else np.zeros(16, b.dtype)) for name, b in buffers}

    def launches(self, buffers: dict[str, Any]) -> list[Launch]:
        """Launches of this product with one copy of the weights."""
        return launches(self.plan, buffers, self.x, self.out, self.workspace, as_fp32=self.as_fp32)

    def runner(self, buffers: dict[str, Any]) -> Callable[[], None]:
        """Function that puts the product on the stream."""
        todo = self.launches(buffers)

        def run() -> None:
            for launch in todo:
                self.library.run(launch)

        return run

    def result(self) -> NDArray[Any]:
        """Output on the host, without padding."""
        return self.library.to_host(self.out)[:, : self.n]


def check_kernels(
    library: Library, gpu: Gpu, seed: int, checks: Iterable[tuple[int, int, int]] = CHECKS
) -> Iterator[str]:
    """Yield one line for every product that is wrong, or that differs between two runs; yield "" for a right one."""
    rng = np.random.default_rng(seed)
    for m, k, n in checks:
        for density in CHECK_DENSITIES:
            a = rng.standard_normal((m, k)).astype(np.float16)
            a[rng.random((m, k)) >= density] = 0
            x = rng.standard_normal((k, n)).astype(np.float16)
            encoders = (encode_tiled_csl, encode_two_four, Dense, encode_csr, partial(encode_csr, index_bits=16))
            for weights in (encode(a) for encode in encoders):
                for split_k in (None,) if isinstance(weights, Csr) else (None, 1, 3):
                    what = f"{type(weights).__name__} {m} x {k} x {n} density {density} split_k {split_k}"
                    yield _check_product(
                        Product(library, weights, x, gpu, split_k=split_k, as_fp32=m % 2 == 1), x, what
                    )


def _check_product(product: Product, x: NDArray[np.float16], what: str) -> str:
    """Empty, or what is wrong."""
    run = product.runner(product.upload())
    run()
    first = product.result().copy()
    run()
    try:
        check_product(first, product.weights, np.pad(x, ((0, product.plan.k - x.shape[0]), (0, 0))), what)
    except AssertionError as error:
        return str(error)
    same = np.array_equal(first, product.result(), equal_nan=True)
    return "" if same else f"{what}: two runs differ, which means a race"


class Bench:
    """Measures products and keeps the rows."""

    def __init__(self, library: Library, gpu: Gpu, report: Callable[[str], None]):
        self.library, self.gpu, self.report = library, gpu, report
        self.rows: list[Row] = []

    def add(
        self, kernel: str, shape: tuple[int, int, int], sparsity: float, cache: str, timing: Timing, nbytes: int
    ) -> None:
        """Keep one result and report it."""
        rate = nbytes / timing.time_us * 1e6
        note = f"{rate / 1e9:.0f} GB/s"
        if cache == "cold":
            note += f", {rate / self.gpu.copy_bytes_per_s:.2f} of a copy"
        times = (round(timing.time_us, 3), round(timing.error_us, 3))
        self.rows.append(Row(self.gpu.key, kernel, *shape, round(sparsity, 4), *times, "value", cache, SOURCE, note))
        self.report(f"{kernel:16} {shape!s:24} {sparsity:.2f} {cache} {timing.time_us:9.2f} us  {note}")

    def ours(self, kernel: str, weights: EncodedWeight, x: NDArray[np.float16], sparsity: float) -> None:
        """Time one of our kernels, cold and warm."""
        product = Product(self.library, weights, x, self.gpu)
        copies = [product.upload() for _ in range(copies_beyond_l2(weights.nbytes, self.gpu.l2_bytes))]
        shape = (product.plan.m, product.plan.k, x.shape[1])
        runners = [product.runner(copy) for copy in copies]
        self.add(kernel, shape, sparsity, "cold", self.library.time(runners), product.bytes)
        self.add(kernel, shape, sparsity, "warm", self.library.time(runners[:1] * WARM_PRODUCTS), product.bytes)

    def cublas(self, a: NDArray[np.float16], x: NDArray[np.float16]) -> None:
        """Time the vendor's dense product, cold and warm."""
        copies = [self.library.asarray(a) for _ in range(copies_beyond_l2(a.nbytes, self.gpu.l2_bytes))]
        on_gpu, out = self.library.asarray(x), self.library.full((a.shape[0], x.shape[1]), np.float16, np.nan)
        runners = [self.library.dense(copy, on_gpu, out) for copy in copies]
        shape, nbytes = (*a.shape, x.shape[1]), a.nbytes + x.nbytes + 2 * a.shape[0] * x.shape[1]
        for cache, chosen in (("cold", runners), ("warm", runners[:1] * WARM_PRODUCTS)):
            todo = [runner for runner in chosen if runner is not None]
            if todo:
                self.add("cublas", shape, 0.0, cache, self.library.time(todo), nbytes)

    def cusparse(self, weights: Csr, x: NDArray[np.float16], sparsity: float) -> None:
        """Time the vendor's sparse product; a library that cannot do it is reported and left out."""
        try:
            product = self.library.sparse(weights, self.library.asarray(x))
            if product is None:
                return
            timing = self.library.time([product] * 2)
        except RuntimeError as error:
            self.report(f"cusparse left out: {str(error).splitlines()[0]}")
            return
        nbytes = weights.nbytes + x.nbytes + 2 * weights.shape[0] * x.shape[1]
        self.add("cusparse", (*weights.shape, x.shape[1]), sparsity, "warm", timing, nbytes)

    def shape(self, m: int, k: int, rng: np.random.Generator, left: Callable[[], bool]) -> None:
        """All kernels, columns and sparsities of one matrix shape, as long as there is time left."""
        xs = [rng.standard_normal((k, n)).astype(np.float16) for n in COLUMNS]
        a = random_weights(m, k, 0.0, rng)
        for x in xs:
            self.cublas(a, x)
            self.ours("lscd-dense", Dense(a), x, 0.0)
        for sparsity in SPARSITIES:
            if not left():
                return
            a = random_weights(m, k, sparsity, rng)
            exact = 1 - np.count_nonzero(a) / a.size
            tiled, two_four = encode_tiled_csl(a), encode_two_four(a, index_bits=16)
            csr = encode_csr(a, index_bits=16)
            for x in xs:
                self.ours("lscd-tiled-csl", tiled, x, exact)
                self.ours("lscd-two-four", two_four, x, exact)
            self.ours("lscd-csr", csr, xs[0], exact)
            self.cusparse(encode_csr(a), xs[0], exact)


def copies_beyond_l2(nbytes: int, l2_bytes: int) -> int:
    """Copies of a buffer that together exceed the L2 cache `L2_FACTOR` times, at least 2."""
    return min(MAX_COPIES, max(2, -(-L2_FACTOR * l2_bytes // max(nbytes, 1)) + 1))


def run_bench(
    bench: Bench, minutes: float, seed: int, keep: Callable[[list[Row]], object] = len
) -> list[tuple[int, int]]:
    """Measure shape after shape; return those for which no time was left.

    ``keep`` gets all rows after each shape, so that a run that dies loses one shape only.
    """
    end, rng, skipped = time.monotonic() + 60 * minutes, np.random.default_rng(seed), []
    for m, k in SHAPES:
        if time.monotonic() > end:
            skipped.append((m, k))
        else:
            bench.shape(m, k, rng, lambda: time.monotonic() < end)
            keep(bench.rows)
    return skipped


def write_table(rows: list[Row], provenance: dict[str, Any], directory: Path) -> Path:
    """Write the rows as CSV and what they come from as JSON beside it; return the path of the table."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "kernels_lscd.csv"
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(Row.__dataclass_fields__), lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    partial.replace(path)
    path.with_suffix(".json").write_text(json.dumps(provenance, indent=1) + "\n")
    return path


def gpu_key(name: str) -> str:
    """Key of the catalogue for a driver's device name."""
    return KEYS.get(name, re.sub(r"[^a-z0-9]+", "-", name.lower().removeprefix("nvidia ")).strip("-"))


def describe_gpu(library: Library) -> tuple[Gpu, dict[str, Any]]:
    """The GPU at hand with its measured copy rate, and the provenance of everything measured on it."""
    from numba import cuda

    from kernels_numba import device

    present = cuda.get_current_device()
    name = present.name.decode() if isinstance(present.name, bytes) else str(present.name)
    source = library.full((COPY_BYTES // 2,), np.float16, 1.0)
    target = library.full((COPY_BYTES // 2,), np.float16, 0.0)
    timing = library.time([lambda: target.__setitem__(slice(None), source)])
    rate = 2 * COPY_BYTES / timing.time_us * 1e6
    gpu = Gpu(gpu_key(name), device.current_arch(), device.sm_count(), int(present.L2_CACHE_SIZE), rate)
    provenance = {
        "gpu": name,
        "date": time.strftime("%Y-%m-%d"),
        "method": " ".join((__doc__ or "").split("Method: ")[1].split()),
        "library": library.name,
        "python": platform.python_version(),
        "versions": {package: _version(package) for package in PACKAGES},
        "nvidia_smi": _nvidia_smi(),
        **{key: value for key, value in asdict(gpu).items() if key != "key"},
    }
    return gpu, provenance


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _nvidia_smi() -> dict[str, str] | None:
    """Driver, clocks and power limit as found; read only."""
    fields = ("driver_version", "clocks.sm", "clocks.mem", "clocks.max.sm", "power.limit", "ecc.mode.current")
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return dict(zip(fields, (value.strip() for value in text.splitlines()[0].split(",")), strict=True))


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m kernels_numba.bench_gpu", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--check", action="store_true", help="compare every kernel with float64")
    parser.add_argument("--bench", action="store_true", help="time every kernel and write the table")
    parser.add_argument("--minutes", type=float, default=6.0, help="start nothing new after this long (default 6)")
    parser.add_argument("--seed", type=int, default=None, help="seed of the random problems; new each time if absent")
    default = Path(__file__).resolve().parent.parent / "data" / "measured"
    parser.add_argument("--output", type=Path, default=default, help="directory for <gpu>/kernels_lscd.csv")
    options = parser.parse_args(arguments)
    if not (options.check or options.bench):
        parser.error("give --check, --bench, or both")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the checks, the bench, or both; return the exit code: 0 fine, 1 a kernel is wrong, 2 no GPU."""
    options = parse_arguments(arguments)

    def report(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    try:
        library = open_library()
    except RuntimeError as error:
        sys.stderr.write(f"bench_gpu: {error}\n")
        return NO_GPU
    seed = int(np.random.default_rng().integers(2**31)) if options.seed is None else options.seed
    gpu, provenance = describe_gpu(library)
    report(f"{provenance['gpu']}, {gpu.sm_count} SMs, copy {gpu.copy_bytes_per_s / 1e9:.0f} GB/s, seed {seed}")
    if options.check:
        outcomes = list(check_kernels(library, gpu, seed))
        wrong = [outcome for outcome in outcomes if outcome]
        for line in wrong:
            report(f"WRONG {line}")
        report(f"{len(outcomes) - len(wrong)} of {len(outcomes)} products are right")
        if wrong:
            return 1
    if options.bench:
        directory = options.output / gpu.key
        rows, provenance = measure(
            library,
            gpu,
            provenance,
            options.minutes,
            seed,
            report,
            lambda so_far: write_table(so_far, provenance, directory),
        )
        path = write_table(rows, provenance, directory)
        skipped = provenance["shapes_left_out"]
        report(f"wrote {len(rows)} rows to {path}" + (f"; no time left for {skipped}" if skipped else ""))
    return 0


def measure(
    library: Library,
    gpu: Gpu,
    provenance: dict[str, Any],
    minutes: float,
    seed: int,
    report: Callable[[str], None],
    keep: Callable[[list[Row]], object] = len,
) -> tuple[list[Row], dict[str, Any]]:
    """Benchmark the GPU at hand; the rows, and what they come from."""
    bench = Bench(library, gpu, report)
    skipped = run_bench(bench, minutes, seed, keep)
    return bench.rows, provenance | {"seed": seed, "shapes_left_out": skipped}


def measure_here(minutes: float, seed: int) -> tuple[str, list[Row], dict[str, Any]]:
    """Benchmark this machine's GPU in silence: what a worker of a cluster runs.

    Returns the GPU's key in the catalogue, the rows and their provenance. Raises RuntimeError without a GPU.
    """
    library = open_library()
    gpu, provenance = describe_gpu(library)
    return gpu.key, *measure(library, gpu, provenance, minutes, seed, lambda line: None)


if __name__ == "__main__":
    raise SystemExit(main())
