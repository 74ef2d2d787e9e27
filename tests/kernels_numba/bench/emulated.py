"""The bench's GPU, with the emulator in its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kernels_numba.bench import gpu as bench_gpu
from kernels_numba.bench.gpu import Bench, Problem
from kernels_numba.bench.library import Library, Run, Timing
from kernels_numba.bench.product import Gpu
from kernels_numba.bench.provenance import code_version
from kernels_numba.formats import Csr
from kernels_numba.gpu.emulate import run_on_emulator
from kernels_numba.gpu.launch import Launch

GPU = Gpu("h200", "sm_80", 132, 50 * 2**20, 4e12)


class Emulated(Library):
    """A library whose GPU is the emulator and whose clock always says 10 microseconds."""

    name = "emulator"

    def __init__(self) -> None:
        self.timed: list[int] = []

    def asarray(self, array: NDArray[Any]) -> Any:
        return array.copy()

    def copy(self, array: Any) -> Any:
        return array.copy()

    def full(self, shape: tuple[int, ...], dtype: Any, value: float) -> Any:
        return np.full(shape, value, dtype)

    def to_host(self, array: Any) -> NDArray[Any]:
        return array

    def run(self, launch: Launch) -> None:
        run_on_emulator(launch, "sm_80")

    def time(self, products: Sequence[Run], *, replay: bool = True) -> Timing:
        self.timed.append(len(products))
        products[0]()
        return Timing(10.0, 0.5, replay)

    def dense(self, a: Any, x: Any, out: Any) -> Run:
        return lambda: np.matmul(a, x, out=out)

    def sparse(self, weights: Csr, x: Any, out: Any) -> Run | None:
        return lambda: np.matmul(weights.decode(), x, out=out)

    def exact(self, a: Any, x: Any) -> NDArray[np.float64]:
        return a.astype(np.float64) @ x.astype(np.float64)

    def synchronize(self) -> None: ...

    def on_own_stream(self) -> Any: ...

    def capture(self, products: Sequence[Run]) -> Run: ...

    def elapsed_ms(self, run: Run, count: int) -> float: ...


def problem(a: NDArray[np.float16], n: int = 8) -> Problem:
    x = np.random.default_rng(4).standard_normal((a.shape[1], n)).astype(np.float16)
    return Problem(x, a.astype(np.float64) @ x, 1 - np.count_nonzero(a) / a.size)


def bench(library: Library | None = None) -> Bench:
    return Bench(library or Emulated(), GPU, lambda line: None)


def small_bench(monkeypatch: pytest.MonkeyPatch, shapes: Sequence[tuple[int, int]] = ((64, 64), (32, 128))) -> Emulated:
    """Let the bench run on the emulator, with small problems."""
    library = Emulated()
    monkeypatch.setattr(bench_gpu, "SHAPES", tuple(shapes))
    monkeypatch.setattr(bench_gpu, "SPARSITIES", (0.8,))
    monkeypatch.setattr(bench_gpu, "COLUMNS", (8,))
    monkeypatch.setattr(bench_gpu, "open_library", lambda: library)
    described = {"gpu": "NVIDIA H200", "uuid": "GPU-0", **code_version()}
    monkeypatch.setattr(bench_gpu, "describe_gpu", lambda library, method: (GPU, described | {"method": method}))

    def state(uuid: str, meanwhile: Run) -> dict[str, str]:
        meanwhile()
        return {"clocks.sm": "1980 MHz"}

    monkeypatch.setattr(bench_gpu, "gpu_state", state)
    return library
