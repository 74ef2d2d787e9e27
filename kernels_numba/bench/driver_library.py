"""The driver alone as the bench's library: our kernels can be checked and timed where nothing else is installed.

No PyTorch, CuPy or numba-cuda: memory, copies, events and graphs by `gpu.driver`. So there is no cuBLAS and no
cuSPARSE. Everything happens on one stream of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels_numba.bench.timing import AbsentError, Library, Run, launch_all
from kernels_numba.formats import Csr
from kernels_numba.gpu import device
from kernels_numba.gpu.driver import NON_BLOCKING, bindings
from kernels_numba.gpu.launch import Launch

NOT_A_NUMBER = 0xFFFF  # NaN as float16, and twice as float32


class DeviceArray:
    """Row-major array in a GPU's memory, which is freed with the last array that lies in it."""

    def __init__(self, library: DriverLibrary, shape: tuple[int, ...], dtype: Any, owner: Any = None, address: int = 0):
        self._library, self.shape, self.dtype = library, shape, np.dtype(dtype)
        self.nbytes = int(np.prod(shape)) * self.dtype.itemsize
        self._owner = owner or _Memory(max(self.nbytes, 1))
        self.address = address or self._owner.address

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Where the array lies."""
        return {"data": (self.address, False), "shape": self.shape, "typestr": self.dtype.str, "version": 3}

    def __getitem__(self, index: int) -> DeviceArray:
        part = self.nbytes // self.shape[0]
        return DeviceArray(self._library, self.shape[1:], self.dtype, self._owner, self.address + index * part)

    def __setitem__(self, index: object, value: Any) -> None:
        """Fill all of it with a number, or with another array."""
        if isinstance(value, DeviceArray):
            self._library.copy_into(self, value)
        else:
            self._library.fill(self, value)


class _Memory:
    """Owner of a piece of memory."""

    def __init__(self, nbytes: int):
        self._free = bindings().cuMemFree
        self.address = int(device.succeed(bindings().cuMemAlloc(nbytes)))

    def __del__(self) -> None:
        if hasattr(self, "address"):
            self._free(self.address)


class DriverLibrary(Library):
    """Arrays, copies, events and graphs by the driver."""

    name = "driver"

    def __init__(self) -> None:
        device.current_ordinal()  # makes a context
        self._driver = bindings()
        self._stream = device.succeed(self._driver.cuStreamCreate(NON_BLOCKING))
        self._start, self._end = (device.succeed(self._driver.cuEventCreate(0)) for _ in range(2))

    def asarray(self, array: NDArray[Any]) -> DeviceArray:
        """Copy to the GPU."""
        host = np.ascontiguousarray(array)
        found = DeviceArray(self, host.shape, host.dtype)
        if host.nbytes:
            device.succeed(self._driver.cuMemcpyHtoD(found.address, host.ctypes.data, host.nbytes))
        self.synchronize()  # the stream does not wait for the default one, on which that copy is
        return found

    def copy(self, array: DeviceArray) -> DeviceArray:
        """Copy of an array, on the GPU."""
        found = DeviceArray(self, array.shape, array.dtype)
        self.copy_into(found, array)
        return found

    def copy_into(self, target: DeviceArray, source: DeviceArray) -> None:
        """Copy one array into another of the same size."""
        todo = self._driver.cuMemcpyDtoDAsync(target.address, source.address, source.nbytes, self._stream)
        device.succeed(todo)

    def full(self, shape: tuple[int, ...], dtype: Any, value: float) -> DeviceArray:
        """New array on the GPU."""
        found = DeviceArray(self, shape, dtype)
        self.fill(found, value)
        return found

    def fill(self, array: DeviceArray, value: float) -> None:
        """Set all elements to a number whose 16-bit words are alike: 0, NaN, or any of float16.

        Raises
        ------
        ValueError
            If they are not.
        """
        words = np.full(1, value, array.dtype).view(np.uint16)
        word = NOT_A_NUMBER if np.isnan(value) else int(words[0])
        if not np.isnan(value) and (words != word).any():
            raise ValueError(f"value: {value}; allowed: 0 or NaN for {array.dtype}")
        device.succeed(self._driver.cuMemsetD16Async(array.address, word, array.nbytes // 2, self._stream))

    def to_host(self, array: DeviceArray) -> NDArray[Any]:
        """Copy to the host, after all work is done."""
        self.synchronize()
        host = np.empty(array.shape, array.dtype)
        if host.nbytes:
            device.succeed(self._driver.cuMemcpyDtoH(host.ctypes.data, array.address, host.nbytes))
        return host

    def run(self, launch: Launch) -> None:
        """Put one of our launches on the stream."""
        device.run(launch, int(self._stream))

    def dense(self, a: Any, x: Any, out: Any) -> Run:
        """No cuBLAS: raises `timing.AbsentError`."""
        raise AbsentError("cublas needs PyTorch or CuPy")

    def sparse(self, weights: Csr, x: Any, out: Any) -> Run | None:
        """No cuSPARSE."""
        return None

    def synchronize(self) -> None:
        """Wait until the GPU has done all its work."""
        device.succeed(self._driver.cuCtxSynchronize())

    def on_own_stream(self) -> AbstractContextManager[None]:
        """Everything is on it anyway."""
        return nullcontext()

    def capture(self, products: Sequence[Run]) -> Run:
        """Capture the products in a graph; return what replays it."""
        mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        device.succeed(self._driver.cuStreamBeginCapture(self._stream, mode))
        try:
            launch_all(products)()
        finally:  # a stream left in capture would refuse everything after
            graph = device.succeed(self._driver.cuStreamEndCapture(self._stream))
        ready = device.succeed(self._driver.cuGraphInstantiate(graph, 0))
        return lambda: device.succeed(self._driver.cuGraphLaunch(ready, self._stream))

    def elapsed_ms(self, run: Run, count: int) -> float:
        """Milliseconds between events before and after ``count`` runs."""
        device.succeed(self._driver.cuEventRecord(self._start, self._stream))
        for _ in range(count):
            run()
        device.succeed(self._driver.cuEventRecord(self._end, self._stream))
        device.succeed(self._driver.cuEventSynchronize(self._end))
        return float(device.succeed(self._driver.cuEventElapsedTime(self._start, self._end)))
