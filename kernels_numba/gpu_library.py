"""PyTorch or CuPy as the bench sees them: arrays, cuBLAS, cuSPARSE, and timing by events over graph replays.

How long does a kernel take, without what the host adds? All launches of one measurement are captured in one CUDA graph
that touches different copies of the weights in turn; its replays are timed by events on the stream.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kernels_numba import device
from kernels_numba.formats import Csr
from kernels_numba.launch import Launch

REPEATS = 9
TARGET_MS = 15.0  # length of one timed stretch: long against the resolution of events
WARM_UP_REPLAYS = 3


@dataclass(frozen=True)
class Timing:
    """Median microseconds of one product, and half the interquartile range over the repeats."""

    time_us: float
    error_us: float


class Library(Protocol):
    """What the bench needs from a GPU array library."""

    name: str

    def asarray(self, array: NDArray[Any]) -> Any:
        """Copy to the GPU."""

    def full(self, shape: tuple[int, ...], dtype: Any, value: float) -> Any:
        """New array on the GPU."""

    def to_host(self, array: Any) -> NDArray[Any]:
        """Copy to the host, after all work is done."""

    def run(self, launch: Launch) -> None:
        """Put one of our launches on the current stream."""

    def time(self, products: Sequence[Callable[[], None]]) -> Timing:
        """Time of one of the products when all run one after the other, again and again."""

    def dense(self, a: Any, x: Any, out: Any) -> Callable[[], None] | None:
        """``out = a @ x`` by cuBLAS."""

    def sparse(self, weights: Csr, x: Any) -> Callable[[], None] | None:
        """``weights @ x`` by cuSPARSE, or None if the library has no fp16 product."""


def summarise(samples_us: Sequence[float]) -> Timing:
    """Median and half the interquartile range."""
    low, _, high = statistics.quantiles(samples_us, n=4)
    return Timing(statistics.median(samples_us), (high - low) / 2)


def time_replays(replay: Callable[[], None], stretch_ms: Callable[[int], float], products: int) -> Timing:
    """Repeat stretches of replays, each long enough for the events' resolution.

    Parameters
    ----------
    replay : runs all products once.
    stretch_ms : milliseconds that a number of replays takes.
    products : products in one replay.
    """
    for _ in range(WARM_UP_REPLAYS):
        replay()
    count = max(1, round(TARGET_MS / max(stretch_ms(1), 1e-3)))
    return summarise([stretch_ms(count) * 1e3 / count / products for _ in range(REPEATS)])


class Torch:
    """PyTorch: cuBLAS through ``torch.mm``, cuSPARSE through sparse CSR tensors."""

    name = "torch"

    def __init__(self) -> None:
        import torch

        self._torch = torch
        # fp32 accumulation throughout, as in our kernels: cuBLAS may else add up split-K parts in fp16.
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False

    def asarray(self, array: NDArray[Any]) -> Any:
        """Copy to the GPU; unsigned words travel as signed ones, which every PyTorch knows."""
        signed = {"uint32": np.int32, "uint16": np.int16}.get(array.dtype.name, array.dtype)
        return self._torch.from_numpy(np.ascontiguousarray(array).view(signed)).cuda()

    def full(self, shape: tuple[int, ...], dtype: Any, value: float) -> Any:
        """New array on the GPU."""
        return self._torch.full(shape, value, dtype=getattr(self._torch, np.dtype(dtype).name), device="cuda")

    def to_host(self, array: Any) -> NDArray[Any]:
        """Copy to the host, after all work is done."""
        self._torch.cuda.synchronize()
        return array.cpu().numpy()

    def run(self, launch: Launch) -> None:
        """Put one of our launches on the current stream."""
        device.run(launch, int(self._torch.cuda.current_stream().cuda_stream))

    def time(self, products: Sequence[Callable[[], None]]) -> Timing:
        """Time by graph replay."""
        cuda = self._torch.cuda
        for product in products:
            product()
        cuda.synchronize()
        graph = cuda.CUDAGraph()
        with cuda.graph(graph):
            for product in products:
                product()

        def stretch_ms(count: int) -> float:
            start, end = (cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            for _ in range(count):
                graph.replay()
            end.record()
            end.synchronize()
            return float(start.elapsed_time(end))

        return time_replays(graph.replay, stretch_ms, len(products))

    def dense(self, a: Any, x: Any, out: Any) -> Callable[[], None] | None:
        """``out = a @ x`` by cuBLAS."""
        return lambda: self._torch.mm(a, x, out=out)

    def sparse(self, weights: Csr, x: Any) -> Callable[[], None] | None:
        """``weights @ x`` by cuSPARSE."""
        parts = (self.asarray(buffer) for buffer in (weights.row_ptr, weights.col_idx, weights.values))
        matrix = self._torch.sparse_csr_tensor(*parts, size=weights.shape)
        return lambda: self._torch.sparse.mm(matrix, x)


class Cupy:
    """CuPy: cuBLAS through ``cupy.matmul``; its sparse matrices know no fp16."""

    name = "cupy"

    def __init__(self) -> None:
        import cupy

        self._cupy = cupy
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._stream.use()

    def asarray(self, array: NDArray[Any]) -> Any:
        """Copy to the GPU."""
        return self._cupy.asarray(array)

    def full(self, shape: tuple[int, ...], dtype: Any, value: float) -> Any:
        """New array on the GPU."""
        return self._cupy.full(shape, value, dtype)

    def to_host(self, array: Any) -> NDArray[Any]:
        """Copy to the host, after all work is done."""
        self._stream.synchronize()
        return self._cupy.asnumpy(array)

    def run(self, launch: Launch) -> None:
        """Put one of our launches on the current stream."""
        device.run(launch, int(self._stream.ptr))

    def time(self, products: Sequence[Callable[[], None]]) -> Timing:
        """Time by graph replay."""
        for product in products:
            product()
        self._stream.synchronize()
        self._stream.begin_capture()
        for product in products:
            product()
        graph = self._stream.end_capture()

        def replay() -> None:
            graph.launch(self._stream)

        def stretch_ms(count: int) -> float:
            start, end = self._cupy.cuda.Event(), self._cupy.cuda.Event()
            start.record(self._stream)
            for _ in range(count):
                replay()
            end.record(self._stream)
            end.synchronize()
            return float(self._cupy.cuda.get_elapsed_time(start, end))

        return time_replays(replay, stretch_ms, len(products))

    def dense(self, a: Any, x: Any, out: Any) -> Callable[[], None] | None:
        """``out = a @ x`` by cuBLAS."""
        return lambda: self._cupy.matmul(a, x, out=out)

    def sparse(self, weights: Csr, x: Any) -> Callable[[], None] | None:
        """No fp16 product in CuPy's sparse matrices."""
        return None


def open_library() -> Library:
    """PyTorch if it sees a GPU, else CuPy.

    Raises
    ------
    RuntimeError
        If there is no GPU, or neither library; one sentence that says what is missing.
    """
    if not device.is_available():
        raise RuntimeError("no NVIDIA GPU or driver found; `lscd kernels check` proves the kernels without one")
    for make in (Torch, Cupy):
        try:
            library = make()
            library.full((1,), np.float16, 0.0)
        except (ImportError, RuntimeError, AssertionError):
            continue
        return library
    raise RuntimeError("neither PyTorch nor CuPy with CUDA found; install one of them beside numba-cuda")
