"""The bench's GPU, with the emulator in its place: a dry run proves the bench, and times nothing.

Products are NumPy's or the emulator's, "times" the wall clock of one run on the CPU. Such rows carry the GPU "emulator"
and the status "dry-run".
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels_numba.bench.product import Gpu
from kernels_numba.bench.session import DRY_RUN_GPU
from kernels_numba.bench.timing import Library, Run, Timing, launch_all
from kernels_numba.formats import Csr
from kernels_numba.gpu.emulate import run_on_emulator
from kernels_numba.gpu.launch import Launch

# A Hopper, which runs all kernels, with an L2 so small that two copies of the weights exceed it: no product is timed
# warm beside.
GPU = Gpu(DRY_RUN_GPU, "sm_90", sm_count=4, l2_bytes=1024, copy_bytes_per_s=1e9)


class Emulated(Library):
    """NumPy arrays, and our kernels on the emulator."""

    name = "emulator"

    def asarray(self, array: NDArray[Any]) -> Any:
        """Copy."""
        return array.copy()

    def copy(self, array: Any) -> Any:
        """Copy."""
        return array.copy()

    def full(self, shape: tuple[int, ...], dtype: Any, value: float) -> Any:
        """New array."""
        return np.full(shape, value, dtype)

    def to_host(self, array: Any) -> NDArray[Any]:
        """The array itself."""
        host: NDArray[Any] = array
        return host

    def run(self, launch: Launch) -> None:
        """Execute one of our launches."""
        run_on_emulator(launch, GPU.arch)

    def dense(self, a: Any, x: Any, out: Any) -> Run:
        """``out = a @ x``."""
        return lambda: np.matmul(a, x, out=out)

    def sparse(self, weights: Csr, x: Any, out: Any) -> Run | None:
        """``out = weights @ x``."""
        return lambda: np.matmul(weights.decode(), x, out=out)

    def synchronize(self) -> None:
        """Nothing is ever under way."""

    def on_own_stream(self) -> AbstractContextManager[None]:
        """There are no streams."""
        return nullcontext()

    def capture(self, products: Sequence[Run]) -> Run:
        """What runs the products."""
        return launch_all(products)

    def elapsed_ms(self, run: Run, count: int) -> float:
        """Milliseconds of wall clock."""
        start = time.perf_counter()
        for _ in range(count):
            run()
        return 1e3 * (time.perf_counter() - start)

    def time(self, products: Sequence[Run], *, replay: bool = True) -> Timing:
        """Wall clock of one run of the first product: an emulator's repeats tell nothing."""
        return Timing(1e3 * self.elapsed_ms(products[0], 1), 0.0, replay)
