"""What can this machine do? Read rates by working set, multiply-adds, matrix products, and what a parallel call costs.

Each count of threads is measured in a process of its own (``python -m kernels_numba.bench.machine --threads 2``),
because the threads of BLAS are counted when it is loaded; it prints a line of JSON for each step. Everything is
repeated while its share of the time lasts, at least `REPEATS` times: medians, and interquartile ranges as a share of
them. Nothing is set, pinned or flushed.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from kernels_numba.bench.threads import lines_of, print_lines, usable_cores
from kernels_numba.bench.timing import Library
from kernels_numba.formats.encoded import memory_bytes

MODULE = "kernels_numba.bench.machine"  # of a process with other threads
REPEATS = 5
SMALLEST_SET = 2**15
BEYOND_CACHE = 4  # working sets up to so many times the last-level cache
MOST_OF_MEMORY = 4  # but no more than the fourth part of memory
UNKNOWN_CACHE = 2**26  # taken where the system does not say: 64 MiB
ROUND_BYTES = 2**27  # read in one sample, so that the call itself hardly counts
GEMM_SIZE, GPU_GEMM_SIZE = 2048, 8192
OTHER_STEPS = 6  # beside one a working set
FMA_STEPS, CHAIN_STEPS, CALLS = 500_000, 10_000_000, 200
SIMD = (
    "avx2", "avx512f", "avx512_vbmi2", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8", "asimd",
    "sve", "sve2", "bf16",
)  # fmt: skip
SYSFS_CACHES, CPUINFO = Path("/sys/devices/system/cpu/cpu0/cache"), Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Rate:
    """Median of what was measured, and its interquartile range as a share of it."""

    value: float
    spread: float

    @classmethod
    def of(cls, amount: float, samples_s: Sequence[float]) -> Rate:
        """``amount`` a second, from the seconds that it took."""
        low, middle, high = np.percentile(amount / np.array(samples_s), (25, 50, 75))
        return cls(_rounded(middle), _rounded((high - low) / middle, 2))


def _rounded(value: float, digits: int = 4) -> float:
    return float(f"{value:.{digits}g}")


def repeated(run: Callable[[], object], seconds: float) -> list[float]:
    """Seconds of each of at least `REPEATS` runs, as many as fit into ``seconds``; one before is not counted."""
    run()
    samples: list[float] = []
    while len(samples) < REPEATS or sum(samples) < seconds:
        start = time.perf_counter()
        run()
        samples.append(time.perf_counter() - start)
    return samples


def read_rate(values: Any, threads: int, seconds: float) -> Rate:
    """Bytes/s at which ``threads`` threads read ``values`` over and over, each its own part."""
    from kernels_numba.bench import machine_njit as loops

    rounds = max(1, ROUND_BYTES // values.nbytes)
    nowhere, sums = np.zeros(8, np.int64), np.zeros((threads, loops.LANES), np.float32)
    read_bytes = values.nbytes // (4 * threads * loops.STEP) * 4 * threads * loops.STEP * rounds
    return Rate.of(read_bytes, repeated(lambda: loops.read(values, rounds, nowhere, sums), seconds))


def multiply_add_rate(threads: int, seconds: float) -> Rate:
    """FLOP/s of float32 multiply-adds (2 each) from registers."""
    from kernels_numba.bench import machine_njit as loops

    factors, sums = np.full(loops.LANES, 1e-3, np.float32), np.zeros((threads, loops.LANES), np.float32)
    flops = 2 * loops.SUMS * loops.LANES * FMA_STEPS * threads
    return Rate.of(flops, repeated(lambda: loops.multiply_add(FMA_STEPS, factors, sums), seconds))


def clock_rate(seconds: float) -> Rate:
    """Cycles/s of one thread, counted by a chain of operations of one cycle each."""
    from kernels_numba.bench import machine_njit as loops

    return Rate.of(loops.CYCLES_A_STEP * CHAIN_STEPS, repeated(lambda: loops.chain(CHAIN_STEPS), seconds))


def call_cost(threads: int, seconds: float) -> Rate:
    """Seconds of a parallel call that does next to nothing; calls follow each other, so that the threads stay awake."""
    from kernels_numba.bench import machine_njit as loops

    marks = np.zeros(threads, np.int64)

    def many() -> None:
        for _ in range(CALLS):
            loops.nothing(marks)

    return Rate.of(1.0, [CALLS / sample for sample in repeated(many, seconds)])  # seconds, not their inverse


def numpy_gemm_rate(seconds: float) -> Rate:
    """FLOP/s of a square float32 product of NumPy."""
    a, b = (np.random.default_rng(seed).random((GEMM_SIZE, GEMM_SIZE), np.float32) for seed in (0, 1))
    out = np.empty_like(a)
    return Rate.of(2 * GEMM_SIZE**3, repeated(lambda: np.matmul(a, b, out=out), seconds))


def torch_gemm_rate(threads: int, kind: str, seconds: float) -> Rate | None:
    """FLOP/s of a square product of PyTorch in ``kind``, e.g. "bfloat16"; None where it is not installed."""
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    torch.set_num_threads(threads)
    a, b = (torch.rand((GEMM_SIZE, GEMM_SIZE)).to(getattr(torch, kind)) for _ in range(2))
    out = torch.empty_like(a)
    return Rate.of(2 * GEMM_SIZE**3, repeated(lambda: torch.mm(a, b, out=out), seconds))


def working_sets(memory_bytes: float, cache_bytes: float) -> list[int]:
    """Powers of two from the first-level cache to beyond the last, at most a quarter of memory."""
    most = min(memory_bytes / MOST_OF_MEMORY, BEYOND_CACHE * cache_bytes)
    sizes = [SMALLEST_SET]
    while sizes[-1] * 2 <= most:
        sizes.append(sizes[-1] * 2)
    return sizes


def steps(sizes: Sequence[int], threads: int, seconds: float) -> Iterator[tuple[str, Rate | None]]:
    """Everything that one process measures, a name and a rate at a time; half of the seconds go to reading."""
    from kernels_numba.bench import machine_njit as loops

    values = np.empty(sizes[-1] // 4, np.float32)
    loops.fill(values)
    for size in sizes:
        yield f"read {size}", read_rate(values[: size // 4], threads, seconds / 2 / len(sizes))
    del values
    share = seconds / 12
    yield "clock_hz", clock_rate(share)
    yield "call", call_cost(threads, share)
    yield "fp32_fma", multiply_add_rate(threads, share)
    yield "fp32_gemm", numpy_gemm_rate(share)
    yield "torch_fp32_gemm", torch_gemm_rate(threads, "float32", share)
    yield "bf16_gemm", torch_gemm_rate(threads, "bfloat16", share)


def thread_counts(cores: int) -> list[int]:
    """1, 2, 4, ... and all of them."""
    return sorted({2**power for power in range(cores.bit_length())} | {cores})


def measure_machine(
    threads: Sequence[int], seconds: float, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """The machine as a file of ``data/hardware`` states it, measured with each count of threads in turn.

    Parameters
    ----------
    threads : ascending counts, at most `usable_cores`.
    seconds : for all of them together; a little more is taken to start.
    progress : told the steps done and all there are.

    Raises
    ------
    RuntimeError
        If a process fails; the message ends with its last line.
    """
    sizes = working_sets(memory_bytes(), cache_bytes())
    found: list[dict[str, Rate | None]] = []
    total = len(threads) * (len(sizes) + OTHER_STEPS)
    for count in threads:
        done = len(found) * (len(sizes) + OTHER_STEPS)
        rates: dict[str, Rate | None] = {}
        for name, fields in lines_of(MODULE, count, "--seconds", f"{seconds / len(threads):g}"):
            rates[name] = None if fields is None else Rate(**fields)
            progress(done + len(rates), total)
        found.append(rates)
    return described(threads, sizes, found)


def described(threads: Sequence[int], sizes: Sequence[int], found: Sequence[dict[str, Rate | None]]) -> dict[str, Any]:
    """Groups and keys of the file, from the rates of each count of threads."""

    def column(name: str) -> list[Rate]:
        return [rate for rates in found if (rate := rates[name]) is not None]

    reads = [[rates[f"read {size}"] for size in sizes] for rates in found]
    peak: dict[str, list[float]] = {}
    for name in ("fp32_fma", "fp32_gemm", "torch_fp32_gemm", "bf16_gemm"):
        if column(name):
            peak |= {name: [rate.value for rate in column(name)], f"{name}_spread": [r.spread for r in column(name)]}
    return {
        "name": f"{processor_name()}, {usable_cores()} cores",
        "architecture": "cpu",
        "cores": usable_cores(),
        "threads": list(threads),
        "simd": simd_flags(),
        "clock_hz": column("clock_hz")[0].value,
        "memory": {"size_bytes": int(memory_bytes())},
        "reads": {
            "sizes_bytes": list(sizes),
            "bytes_per_s": [[rate.value for rate in row if rate] for row in reads],
            "spread": [[rate.spread for rate in row if rate] for row in reads],
        },
        "peak": peak,
        "call": {"seconds": [rate.value for rate in column("call")], "spread": [r.spread for r in column("call")]},
        "measured": provenance(),
    }


def provenance() -> dict[str, str]:
    """Date, versions and method."""
    told = {"date": time.strftime("%Y-%m-%d"), "python": platform.python_version()}
    packages = ("numpy", "numba", "torch")
    told |= {name: version(name) for name in packages if importlib.util.find_spec(name) is not None}
    return told | {
        "source": f"lscd measure on {platform.system()} {platform.machine()}: kernels_numba/bench/machine.py"
    }


def cache_bytes(directory: Path = SYSFS_CACHES) -> int:
    """Size of the last-level cache; 64 MiB where the system does not say."""
    sizes = [path.read_text().strip() for path in sorted(directory.glob("index*/size"))]
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    return max((int(size[:-1]) * units[size[-1]] for size in sizes if size[-1:] in units), default=UNKNOWN_CACHE)


def _cpuinfo(*keys: str) -> str:
    lines = CPUINFO.read_text(encoding="utf-8").splitlines() if CPUINFO.is_file() else []
    found = (line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() in keys)
    return next(found, "")


def processor_name() -> str:
    """What the processor calls itself."""
    return _cpuinfo("model name", "Model") or platform.processor() or platform.machine()


def simd_flags() -> list[str]:
    """Vector and matrix instructions of `SIMD` that it says it has."""
    flags = set(_cpuinfo("flags", "Features").split())
    return [name for name in SIMD if name in flags]


def measure_gpu(library: Library, copy_bytes_per_s: float) -> dict[str, float | None]:
    """Copy rate, FP16 product and launch of the current GPU; a product is None where the library has none."""
    from kernels_numba.bench.timing import AbsentError

    a, x, out = (library.full((GPU_GEMM_SIZE, GPU_GEMM_SIZE), np.float16, 0.0) for _ in range(3))
    tiny = library.full((1,), np.float16, 0.0)
    try:
        gemm_us = library.time([library.dense(a, x, out)]).time_us
    except AbsentError:
        gemm_us = None
    launch = library.time([lambda: tiny.__setitem__(slice(None), 0.0)], replay=False)
    rate = None if gemm_us is None else 2 * GPU_GEMM_SIZE**3 / gemm_us * 1e6
    return {"copy_bytes_per_s": copy_bytes_per_s, "fp16_gemm_flops_per_s": rate, "launch_s": launch.time_us / 1e6}


def main(arguments: list[str] | None = None) -> int:
    """Measure with the threads of this process, a line of JSON a step."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=15.0)
    options = parser.parse_args(arguments)
    sizes = working_sets(memory_bytes(), cache_bytes())
    print_lines([name, rate and asdict(rate)] for name, rate in steps(sizes, options.threads, options.seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
