"""PyTorch, CuPy or the bare driver as the bench sees them: arrays, cuBLAS, cuSPARSE, graphs and events."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels_numba.bench.driver_library import DriverLibrary
from kernels_numba.bench.timing import Library, Run, launch_all
from kernels_numba.formats import Csr
from kernels_numba.gpu import device
from kernels_numba.gpu.driver import gpu_count
from kernels_numba.gpu.launch import Launch

logger = logging.getLogger(__name__)


class Torch(Library):
    """PyTorch: cuBLAS through ``torch.mm``, cuSPARSE through ``torch.addmm`` with a CSR tensor."""

    name = "torch"

    def __init__(self) -> None:
        import torch

        self.torch = torch
        self._stream = torch.cuda.Stream()
        # fp32 accumulation throughout, as in our kernels: cuBLAS may else add up split-K parts in fp16.
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False

    def asarray(self, array: NDArray[Any]) -> Any:
        """Copy to the GPU; unsigned words travel as signed ones, which every PyTorch knows."""
        signed = f"i{array.itemsize}" if array.dtype.kind == "u" and array.itemsize > 1 else array.dtype
        return self.torch.from_numpy(np.ascontiguousarray(array).view(signed)).cuda()

    def copy(self, array: Any) -> Any:
        """Copy of an array, on the GPU."""
        return array.clone()

    def full(self, shape: tuple[int, ...], dtype: Any, value: float) -> Any:
        """New array on the GPU."""
        return self.torch.full(shape, value, dtype=getattr(self.torch, np.dtype(dtype).name), device="cuda")

    def to_host(self, array: Any) -> NDArray[Any]:
        """Copy to the host, after all work is done."""
        self.synchronize()
        host: NDArray[Any] = array.cpu().numpy()
        return host

    def run(self, launch: Launch) -> None:
        """Put one of our launches on the current stream."""
        device.run(launch, int(self.torch.cuda.current_stream().cuda_stream))

    def dense(self, a: Any, x: Any, out: Any) -> Run:
        """``out = a @ x`` by cuBLAS."""
        return lambda: self.torch.mm(a, x, out=out)

    def sparse(self, weights: Csr, x: Any, out: Any) -> Run | None:
        """``out = weights @ x`` by cuSPARSE: with beta = 0 and its own output as input, addmm launches nothing else."""
        buffers = (weights.row_ptr, weights.col_idx, weights.values)
        row_ptr, col_idx, values = (self.asarray(buffer) for buffer in buffers)
        matrix = self.torch.sparse_csr_tensor(row_ptr, col_idx, values, size=weights.shape)
        return lambda: self.torch.addmm(out, matrix, x, beta=0, alpha=1, out=out)

    def release(self) -> None:
        """Give unused memory back."""
        self.torch.cuda.empty_cache()

    def synchronize(self) -> None:
        """Wait until the GPU has done all its work."""
        self.torch.cuda.synchronize()

    def on_own_stream(self) -> Any:
        """Context in which the current stream is the bench's own."""
        return self.torch.cuda.stream(self._stream)

    def capture(self, products: Sequence[Run]) -> Run:
        """Capture the products in a graph; return what replays it."""
        cuda = self.torch.cuda
        graph = cuda.CUDAGraph()
        try:
            with cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                launch_all(products)()
        except BaseException:
            cuda.set_stream(self._stream)  # a capture that breaks off may leave another one current
            raise
        replay: Run = graph.replay
        return replay

    def elapsed_ms(self, run: Run, count: int) -> float:
        """Milliseconds between events before and after ``count`` runs."""
        start, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(count):
            run()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end))


class Cupy(Library):
    """CuPy: cuBLAS through ``cupy.matmul``, which CuPy lets nobody capture; its sparse matrices know no fp16."""

    name = "cupy"

    def __init__(self) -> None:
        import cupy

        self._cupy = cupy
        self._stream = cupy.cuda.Stream(non_blocking=True)

    def asarray(self, array: NDArray[Any]) -> Any:
        """Copy to the GPU."""
        return self._cupy.asarray(array)

    def copy(self, array: Any) -> Any:
        """Copy of an array, on the GPU."""
        return array.copy()

    def full(self, shape: tuple[int, ...], dtype: Any, value: float) -> Any:
        """New array on the GPU."""
        return self._cupy.full(shape, value, dtype)

    def to_host(self, array: Any) -> NDArray[Any]:
        """Copy to the host, after all work is done."""
        self.synchronize()
        host: NDArray[Any] = self._cupy.asnumpy(array)
        return host

    def run(self, launch: Launch) -> None:
        """Put one of our launches on the current stream."""
        device.run(launch, int(self._cupy.cuda.get_current_stream().ptr))

    def dense(self, a: Any, x: Any, out: Any) -> Run:
        """``out = a @ x`` by cuBLAS."""
        return lambda: self._cupy.matmul(a, x, out=out)

    def sparse(self, weights: Csr, x: Any, out: Any) -> Run | None:
        """No fp16 product in CuPy's sparse matrices."""
        return None

    def release(self) -> None:
        """Give unused memory back."""
        self._cupy.get_default_memory_pool().free_all_blocks()

    def synchronize(self) -> None:
        """Wait until the GPU has done all its work."""
        self._cupy.cuda.Device().synchronize()

    def on_own_stream(self) -> Any:
        """Context in which the current stream is the bench's own."""
        return self._stream

    def capture(self, products: Sequence[Run]) -> Run:
        """Capture the products in a graph; return what replays it."""
        self._stream.begin_capture()
        try:
            launch_all(products)()
        finally:  # a stream left in capture would refuse everything after
            graph = self._stream.end_capture()
        return lambda: graph.launch(self._stream)

    def elapsed_ms(self, run: Run, count: int) -> float:
        """Milliseconds between events before and after ``count`` runs."""
        start, end = self._cupy.cuda.Event(), self._cupy.cuda.Event()
        start.record(self._stream)
        for _ in range(count):
            run()
        end.record(self._stream)
        end.synchronize()
        return float(self._cupy.cuda.get_elapsed_time(start, end))


def open_library() -> Library:
    """PyTorch if it sees a GPU, else CuPy, else the driver alone.

    Raises
    ------
    RuntimeError
        If there is no GPU or no driver.
    """
    if not gpu_count():
        raise RuntimeError("no NVIDIA GPU or driver found; `lscd kernels check` proves the kernels without a GPU")
    for make in (Torch, Cupy):
        try:
            library = make()
            library.full((1,), np.float16, 0.0)
        except (ImportError, OSError, RuntimeError, AssertionError) as error:
            logger.info("%s: %s", make.name, str(error).strip().partition("\n")[0])
            continue
        return library
    return DriverLibrary()
