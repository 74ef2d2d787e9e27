"""Launching on GPUs, with a driver in NumPy's memory: streams, several GPUs, threads, padding, errors."""

from __future__ import annotations

import ctypes
import gc
import threading
import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kernels_numba.formats import Dense, Element, TiledCsl, encode_bitmap, encode_tiled_csl
from kernels_numba.formats.encoded import narrowed
from kernels_numba.gpu import device, variants
from kernels_numba.gpu.compile import ARCHITECTURES
from kernels_numba.gpu.emulate import run_on_emulator
from kernels_numba.gpu.launch import Launch
from kernels_numba.reference import check_product
from kernels_numba.spmm import spmm
from tests.conftest import NO_COMPILER

driver = pytest.importorskip("cuda.bindings.driver", reason=NO_COMPILER, exc_type=ImportError)
OK = driver.CUresult.CUDA_SUCCESS
RNG = np.random.default_rng(5)
A = RNG.standard_normal((130, 70)).astype(np.float16)
A[RNG.random(A.shape) < 0.7] = 0


class OnGpu:
    """Array of host memory that says it lies on a GPU."""

    def __init__(self, values: NDArray[Any], ordinal: int = 0, stream: int | None = None) -> None:
        self.values, self.shape, self.size, self.ordinal = values, values.shape, values.size, ordinal
        self.__cuda_array_interface__ = values.__array_interface__ | {"stream": stream, "version": 3}

    def copy_to_host(self) -> NDArray[Any]:
        return self.values

    def __getitem__(self, index: int) -> OnGpu:
        return OnGpu(self.values[index])


class FakeDriver:
    """Two GPUs that run kernels on the emulator; remembers contexts, streams and arrays."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, x_ordinal: int) -> None:
        self.contexts: list[int] = []
        self.loaded: list[tuple[str, int]] = []
        self.streams: set[int] = set()
        self.arrays: list[OnGpu] = []
        self.waits: list[int] = []  # arrays there were whenever the host waited for the GPU
        self.capturing: set[int] = set()
        replacements: dict[str, Any] = {
            "cuDeviceGet": lambda ordinal: (OK, ordinal),
            "cuDevicePrimaryCtxRetain": lambda gpu: (OK, gpu),
            "cuCtxPushCurrent": lambda context: (self.contexts.append(context), (OK,))[1],
            "cuCtxPopCurrent": lambda: (OK, self.contexts.pop()),
            "cuCtxGetDevice": lambda: (OK, self.contexts[-1]),
            "cuPointerGetAttribute": lambda attribute, pointer: (OK, x_ordinal),
            "cuCtxSynchronize": lambda: (self.waits.append(len(self.arrays)), (OK,))[1],
            "cuMemsetD16Async": lambda pointer, value, count, stream: self.set(pointer, value, 2 * count, stream),
            "cuMemsetD32Async": lambda pointer, value, count, stream: self.set(pointer, value, 4 * count, stream),
            "cuStreamIsCapturing": lambda stream: (OK, int(stream in self.capturing)),
            "cuMemcpy2DAsync": self.copy,
        }
        for name, function in replacements.items():
            monkeypatch.setattr(driver, name, function)
        device._primary_context.cache_clear()
        monkeypatch.setattr("numba.cuda.to_device", self.keep)
        monkeypatch.setattr("numba.cuda.device_array", lambda shape, dtype: self.keep(np.ones(shape, dtype)))
        monkeypatch.setattr(device, "is_available", lambda: True)
        monkeypatch.setattr(device, "_arch_of", lambda ordinal: "sm_80")
        monkeypatch.setattr(device, "_sm_count_of", lambda ordinal: 2)
        monkeypatch.setattr(device, "run", self.run)

    def keep(self, values: NDArray[Any]) -> OnGpu:
        # Buffers of 2 GPUs, 16-byte aligned as a GPU's are.
        aligned = np.empty(values.nbytes + 16, np.uint8)
        start = -aligned.ctypes.data % 16
        own = aligned[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
        own[...] = values
        self.arrays.append(OnGpu(own, self.contexts[-1] if self.contexts else 0))
        return self.arrays[-1]

    def set(self, pointer: int, value: int, n_bytes: int, stream: int) -> tuple[Any]:
        self.streams.add(stream)
        ctypes.memset(pointer, value, n_bytes)
        return (OK,)

    def copy(self, block: Any, stream: int) -> tuple[Any]:
        assert block.srcMemoryType == block.dstMemoryType == driver.CUmemorytype.CU_MEMORYTYPE_DEVICE
        self.streams.add(stream)
        for row in range(block.Height):
            source, target = int(block.srcDevice) + row * block.srcPitch, int(block.dstDevice) + row * block.dstPitch
            ctypes.memmove(target, source, block.WidthInBytes)
        return (OK,)

    def run(self, launch: Launch, stream: int) -> None:
        self.streams.add(stream)
        arguments = tuple(a.values if isinstance(a, OnGpu) else a for a in launch.arguments)
        run_on_emulator(replace(launch, arguments=arguments), "sm_80")


@pytest.mark.parametrize("n", [8, 11])
@pytest.mark.parametrize("encode", [encode_tiled_csl, Dense])
def test_a_product_stays_on_the_gpu_and_stream_of_x(monkeypatch: pytest.MonkeyPatch, encode: Any, n: int) -> None:
    """K = 70 and n = 11 are padded for the dense kernel; the result is contiguous, so that it may be the next x."""
    fake = FakeDriver(monkeypatch, x_ordinal=1)
    x = fake.keep(RNG.standard_normal((70, n)).astype(np.float16))
    x.__cuda_array_interface__["stream"] = 7
    weights = encode(A)
    out = spmm(weights, x, split_k=3)
    check_product(out.values, weights, x.values)
    assert out.values.flags.c_contiguous
    assert fake.streams == {7}
    assert {array.ordinal for array in fake.arrays if array is not x} == {1}
    assert fake.contexts == []


@pytest.mark.parametrize("typestr", ["<V2", "<i2", "<u2"])
@pytest.mark.parametrize("out_dtype", [None, np.float32])
def test_bfloat16_on_the_gpu_under_each_of_its_names(
    monkeypatch: pytest.MonkeyPatch, typestr: str, out_dtype: Any
) -> None:
    """PyTorch and JAX call it 2 opaque bytes, bits may come as integers; n = 11 and K = 70 are padded."""
    fake = FakeDriver(monkeypatch, x_ordinal=0)
    x = fake.keep(narrowed(RNG.standard_normal((70, 11)), Element.BFLOAT16))
    x.__cuda_array_interface__["typestr"] = typestr
    weights = Dense(narrowed(A.astype(np.float32), Element.BFLOAT16), Element.BFLOAT16)
    out = spmm(weights, x, split_k=2, out_dtype=out_dtype).values
    assert out.dtype == (out_dtype or np.uint16)
    check_product(out, weights, x.values)


def test_records_on_the_gpu_leave_their_flags_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three blocks share two rows of tiles; the second product finds the same flags."""
    fake = FakeDriver(monkeypatch, x_ordinal=0)
    x, weights = fake.keep(RNG.standard_normal((70, 8)).astype(np.float16)), encode_bitmap(A)
    for _ in range(2):
        check_product(spmm(weights, x, split_k=2).values, weights, x.values)
    (flags,) = (array.values for array in fake.arrays if array.values.dtype == np.uint32 and array.size >= 1 << 14)
    assert not flags.any()


def test_flags_belong_to_a_thread_and_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Handle 2 is the default stream of whichever thread uses it; zeros have arrived before a launch reads them."""
    fake = FakeDriver(monkeypatch, x_ordinal=0)
    found: list[Any] = []

    def ask(stream: int = 2, count: int = 5) -> None:
        with device.on_gpu(0):
            found.append(device.zeroed_flags(None, count, stream))
        assert fake.waits[-1] == len(fake.arrays)

    ask()
    ask()
    ask(stream=7)
    other = threading.Thread(target=ask)
    other.start()
    other.join()
    ask(count=1 << 15)
    assert found[0] is found[1]
    assert len({id(flags) for flags in found}) == 4
    assert found[-1].size == 1 << 15


def test_a_captured_graph_zeroes_flags_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeDriver(monkeypatch, x_ordinal=0)
    fake.capturing = {9}
    with device.on_gpu(0):
        flags, again = (device.zeroed_flags(OnGpu(np.zeros(1, np.float16)), 5, 9) for _ in range(2))
    assert flags is not again
    assert flags.values.nbytes == 20
    assert not flags.values.view(np.uint32).any()
    assert fake.streams == {9}
    assert fake.waits == []


def test_results_of_pytorch_have_the_dtype_of_x() -> None:
    torch = pytest.importorskip("torch")
    x = torch.zeros((2, 2), dtype=torch.bfloat16)
    assert device.empty_like(x, (3, 4), Element.BFLOAT16).dtype == torch.bfloat16
    assert device.empty_like(x, (3, 4), Element.FLOAT32).dtype == torch.float32
    assert device.empty_like(x.view(torch.int16), (3, 4), Element.BFLOAT16).dtype == torch.int16


def test_host_activations_take_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeDriver(monkeypatch, x_ordinal=0)
    weights, x = encode_tiled_csl(A), RNG.standard_normal((70, 3)).astype(np.float16)
    check_product(spmm(weights, x, backend="cuda"), weights, x)


def test_weights_are_kept_for_each_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeDriver(monkeypatch, x_ordinal=0)
    weights: TiledCsl = encode_tiled_csl(A)
    for ordinal in (0, 1, 0, 1):
        with device.on_gpu(ordinal):
            _, buffers = device.upload(weights)
            assert {buffer.ordinal for buffer in buffers.values()} == {ordinal}
    assert len(fake.arrays) == 2 * len(weights.buffers)


def test_code_is_loaded_once_on_each_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeDriver(monkeypatch, x_ordinal=0)
    shared: list[int] = []
    monkeypatch.setattr(driver, "cuModuleLoadData", lambda cubin: (OK, ("module", fake.contexts[-1])))
    monkeypatch.setattr(driver, "cuModuleGetFunction", lambda module, name: (OK, (*module, name)))
    monkeypatch.setattr(driver, "cuFuncSetAttribute", lambda f, a, value: (shared.append(value), (OK,))[1])
    device.load.cache_clear()
    variant = variants.dense(8)
    assert [device.load(variant, ordinal) for ordinal in (0, 1, 0)] == [
        ("module", 0, b"dense_n8"), ("module", 1, b"dense_n8"), ("module", 0, b"dense_n8"),
    ]  # fmt: skip
    assert shared == [ARCHITECTURES["sm_80"].shared_bytes_per_block] * 2  # what a launch takes is its own choice
    device.load.cache_clear()


def test_a_thread_without_a_gpu_gets_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh thread has no context; that of GPU 0 becomes current."""
    made: list[Any] = []
    none = (driver.CUresult.CUDA_ERROR_INVALID_CONTEXT, None)
    monkeypatch.setattr(driver, "cuCtxGetDevice", lambda: none)
    monkeypatch.setattr(driver, "cuInit", lambda flags: (OK,))
    monkeypatch.setattr(driver, "cuCtxSetCurrent", lambda context: (made.append(context), (OK,))[1])
    monkeypatch.setattr(device, "_primary_context", lambda ordinal: ("context", ordinal))
    assert device.current_ordinal() == 0
    assert made == [("context", 0)]


def test_failures_of_the_driver_are_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    failure = driver.CUresult.CUDA_ERROR_ILLEGAL_ADDRESS
    monkeypatch.setattr(driver, "cuGetErrorString", lambda error: (OK, b"an illegal memory access"))
    with pytest.raises(RuntimeError, match=r"CUDA driver: an illegal memory access \(CUDA_ERROR_ILLEGAL_ADDRESS\)"):
        device.succeed((failure, None))
    monkeypatch.setattr(driver, "cuGetErrorString", lambda error: (driver.CUresult.CUDA_ERROR_INVALID_VALUE, None))
    with pytest.raises(RuntimeError, match="unknown error"):
        device.succeed((failure,))


def test_uploaded_weights_are_freed_with_their_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("numba.cuda.to_device", lambda buffer: buffer)
    monkeypatch.setattr(device, "current_ordinal", lambda: 0)
    monkeypatch.setattr(device, "succeed", lambda result: None)
    monkeypatch.setattr("cuda.bindings.driver.cuCtxSynchronize", lambda: None)
    weights = encode_tiled_csl(np.eye(8, dtype=np.float16))
    seen = weakref.ref(weights)
    assert device.upload(weights)[0] is weights
    del weights
    gc.collect()
    assert seen() is None


def test_launch_arguments_reach_the_driver_as_addresses_and_integers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `device.run` hands to the driver, with the driver replaced."""

    from kernels_numba.gpu import variants

    class Array:
        def __init__(self) -> None:
            self.__cuda_array_interface__ = {"data": (0xABC0, False)}

    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(device, "load", lambda variant, ordinal: ("function", ordinal))
    monkeypatch.setattr(device, "current_ordinal", lambda: 1)
    monkeypatch.setattr(driver, "cuLaunchKernel", lambda *given: calls.append(given) or (driver.CUresult.CUDA_SUCCESS,))
    device.run(Launch(variants.reduce(), (3, 1, 1), (Array(), Array(), 1024, 2, 0), 0), stream=7)
    function, *geometry, parameters, _ = calls[0]
    assert function == ("function", 1)
    assert geometry == [3, 1, 1, 128, 1, 1, 0, 7]
    values, types = parameters
    assert values == (0xABC0, 0xABC0, 1024, 2, 0)
    # Pointers and the 64-bit number of outputs take 8 bytes, the other integers 4.
    assert [ctypes.sizeof(t) for t in types] == [8, 8, 8, 4, 4]
