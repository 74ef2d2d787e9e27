"""How long does one product take here, and what is "here"? The measurements behind `plan`, on GPU and CPU."""

from __future__ import annotations

import logging
import os
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np

from kernels_numba.formats import EncodedWeight
from kernels_numba.formats.encoded import narrowed

logger = logging.getLogger(__name__)

CPU_REPEATS, CPU_SECONDS = 5, 1.0  # at least 3 runs, then until either is reached
Measure = Callable[[EncodedWeight, int, int | None], float]


def timer(backend: str) -> Measure | None:
    """What measures on the backend; None, and a log line, where nothing can."""
    if backend == "cpu":
        return time_on_cpu
    from kernels_numba.bench.library import open_library

    try:
        open_library()
    except RuntimeError as error:
        logger.warning("plan: not measured: %s", error)
        return None
    return time_on_gpu


def time_on_cpu(weights: EncodedWeight, n: int, split_k: int | None = None) -> float:
    """Median microseconds of the CPU product after one warm-up run; K is never split there."""
    from kernels_numba.cpu import kernels as cpu

    x = np.random.default_rng(0).standard_normal((weights.shape[1], n)).astype(np.float32)
    cpu.spmm(weights, x)
    samples: list[float] = []
    while len(samples) < 3 or (len(samples) < CPU_REPEATS and sum(samples) < CPU_SECONDS):
        start = time.perf_counter()
        cpu.spmm(weights, x)
        samples.append(time.perf_counter() - start)
    return statistics.median(samples) * 1e6


def time_on_gpu(weights: EncodedWeight, n: int, split_k: int | None) -> float:
    """Median microseconds of the GPU product, cold: replays rotate through copies beyond the L2 cache."""
    from numba import cuda

    from kernels_numba.bench.library import open_library
    from kernels_numba.bench.product import Gpu, Product, copies_beyond_l2, upload
    from kernels_numba.gpu import device

    library = open_library()
    l2_bytes = int(cuda.get_current_device().L2_CACHE_SIZE)
    gpu = Gpu("", device.current_arch(), device.sm_count(), l2_bytes)
    x = narrowed(np.random.default_rng(0).standard_normal((weights.shape[1], n)), weights.element)
    product = Product(library, weights, x, gpu, split_k=split_k)
    copies = upload(library, product.weights, copies_beyond_l2(weights.nbytes, l2_bytes))
    return library.time([product.runner(copy) for copy in copies]).time_us


def device_identity(backend: str) -> str:
    """Name of what a measurement holds for: the device, its driver, and the compiler's version."""
    import numba

    if backend == "cpu":
        threads = int(numba.get_num_threads())
        return f"cpu {_processor()}, {threads} threads, numba {numba.__version__}"
    from cuda.bindings import driver
    from numba import cuda

    from kernels_numba.gpu import device

    name = cuda.get_current_device().name
    text = name.decode() if isinstance(name, bytes) else str(name)
    return f"cuda {text}, {device.current_arch()}, driver {driver.cuDriverGetVersion()[1]}, numba {numba.__version__}"


def _processor() -> str:
    """Model of the processor, as far as the system says."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = (line.partition(":")[2].strip() for line in file if line.startswith("model name"))
            return next(names, platform.processor() or platform.machine())
    except OSError:
        return platform.processor() or platform.machine() or f"{os.cpu_count()} cores"
