"""NVIDIA's driver: through ``cuda.bindings`` where it is installed, else through ``ctypes`` alone.

So a machine with a driver and this package's own requirements runs kernels that were compiled elsewhere (`gpu.build`).
The stand-in has the calls that this project makes, with the names, arguments and results of ``cuda.bindings.driver``:
a tuple of the error code and what the call returns.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import POINTER, byref, c_float, c_int, c_size_t, c_uint, c_uint16, c_uint64, c_void_p
from enum import IntEnum
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

ATTRIBUTES = {
    "major": "COMPUTE_CAPABILITY_MAJOR",
    "minor": "COMPUTE_CAPABILITY_MINOR",
    "sm_count": "MULTIPROCESSOR_COUNT",
    "l2_bytes": "L2_CACHE_SIZE",
}
LIBRARIES = ("libcuda.so.1", "nvcuda.dll")
NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING
NAME_BYTES = 256
# Calls as cuda.h declares them: symbol, types of the results, which stand first there, and of the arguments.
_CALLS: dict[str, tuple[str, tuple[Any, ...], tuple[Any, ...]]] = {
    "cuInit": ("cuInit", (), (c_uint,)),
    "cuDriverGetVersion": ("cuDriverGetVersion", (c_int,), ()),
    "cuDeviceGetCount": ("cuDeviceGetCount", (c_int,), ()),
    "cuDeviceGet": ("cuDeviceGet", (c_int,), (c_int,)),
    "cuDeviceGetAttribute": ("cuDeviceGetAttribute", (c_int,), (c_int, c_int)),
    "cuDevicePrimaryCtxRetain": ("cuDevicePrimaryCtxRetain", (c_void_p,), (c_int,)),
    "cuCtxSetCurrent": ("cuCtxSetCurrent", (), (c_void_p,)),
    "cuCtxPushCurrent": ("cuCtxPushCurrent_v2", (), (c_void_p,)),
    "cuCtxPopCurrent": ("cuCtxPopCurrent_v2", (c_void_p,), ()),
    "cuCtxGetDevice": ("cuCtxGetDevice", (c_int,), ()),
    "cuCtxSynchronize": ("cuCtxSynchronize", (), ()),
    "cuPointerGetAttribute": ("cuPointerGetAttribute", (c_int,), (c_int, c_uint64)),
    "cuModuleLoadData": ("cuModuleLoadData", (c_void_p,), (ctypes.c_char_p,)),
    "cuModuleGetFunction": ("cuModuleGetFunction", (c_void_p,), (c_void_p, ctypes.c_char_p)),
    "cuFuncSetAttribute": ("cuFuncSetAttribute", (), (c_void_p, c_int, c_int)),
    "cuMemAlloc": ("cuMemAlloc_v2", (c_uint64,), (c_size_t,)),
    "cuMemFree": ("cuMemFree_v2", (), (c_uint64,)),
    "cuMemcpyHtoD": ("cuMemcpyHtoD_v2", (), (c_uint64, c_void_p, c_size_t)),
    "cuMemcpyDtoH": ("cuMemcpyDtoH_v2", (), (c_void_p, c_uint64, c_size_t)),
    "cuMemcpyDtoDAsync": ("cuMemcpyDtoDAsync_v2", (), (c_uint64, c_uint64, c_size_t, c_void_p)),
    "cuMemsetD16Async": ("cuMemsetD16Async", (), (c_uint64, c_uint16, c_size_t, c_void_p)),
    "cuMemsetD32Async": ("cuMemsetD32Async", (), (c_uint64, c_uint, c_size_t, c_void_p)),
    "cuStreamIsCapturing": ("cuStreamIsCapturing", (c_int,), (c_void_p,)),
    "cuStreamCreate": ("cuStreamCreate", (c_void_p,), (c_uint,)),
    "cuStreamBeginCapture": ("cuStreamBeginCapture_v2", (), (c_void_p, c_int)),
    "cuGraphInstantiate": ("cuGraphInstantiateWithFlags", (c_void_p,), (c_void_p, c_uint64)),
    "cuGraphLaunch": ("cuGraphLaunch", (), (c_void_p, c_void_p)),
    "cuEventCreate": ("cuEventCreate", (c_void_p,), (c_uint,)),
    "cuEventRecord": ("cuEventRecord", (), (c_void_p, c_void_p)),
    "cuEventSynchronize": ("cuEventSynchronize", (), (c_void_p,)),
    "cuEventElapsedTime": ("cuEventElapsedTime", (c_float,), (c_void_p, c_void_p)),
    "cuProfilerStart": ("cuProfilerStart", (), ()),
    "cuProfilerStop": ("cuProfilerStop", (), ()),
}
_ENUMS = {
    "CUdevice_attribute": {
        "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR": 75,
        "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR": 76,
        "CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT": 16,
        "CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE": 38,
    },
    "CUpointer_attribute": {"CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL": 9},
    "CUfunction_attribute": {"CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES": 8},
    "CUstreamCaptureMode": {"CU_STREAM_CAPTURE_MODE_THREAD_LOCAL": 1},
}
_Code = IntEnum("_Code", {"CUDA_SUCCESS": 0})


@cache
def bindings() -> Any:
    """``cuda.bindings.driver``, or its stand-in.

    Raises
    ------
    RuntimeError
        If there is neither that package nor a driver.
    """
    try:
        from cuda.bindings import driver
    except ImportError:
        return stand_in(_open())
    return driver


def gpu_count() -> int:
    """GPUs that the driver shows; 0 without a driver."""
    try:
        driver = bindings()
        error, *_ = driver.cuInit(0)
        if error != driver.CUresult.CUDA_SUCCESS:
            return 0
        error, count = driver.cuDeviceGetCount()
    except RuntimeError:  # the package is there, the driver is not
        return 0
    return int(count) if error == driver.CUresult.CUDA_SUCCESS else 0


def _open() -> ctypes.CDLL:
    for name in LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise RuntimeError(f"no NVIDIA driver: none of {', '.join(LIBRARIES)} loads")


class _Failure(int):
    """Error code of the driver, with its name."""

    name = ""


def stand_in(library: Any) -> Any:
    """Calls of a driver library, with the conventions of ``cuda.bindings.driver``."""
    calls: dict[str, Callable[..., Any]] = {name: partial(_call, library, name) for name in _CALLS}
    enums = {name: SimpleNamespace(**values) for name, values in _ENUMS.items()}
    calls |= {
        "cuDeviceGetName": partial(_name, library),
        "cuDeviceGetUuid": partial(_uuid, library),
        "cuStreamEndCapture": partial(_end_capture, library),
        "cuLaunchKernel": partial(_launch, library),
        "cuGetErrorString": partial(_words, library),
    }
    return SimpleNamespace(**calls, **enums, CUresult=_Code)


def _result(library: Any, code: int, *values: Any) -> tuple[Any, ...]:
    if code == 0:
        return _Code(0), *values
    failure, text = _Failure(code), ctypes.c_char_p()
    library.cuGetErrorName(code, byref(text))
    failure.name = text.value.decode() if text.value else str(code)
    return failure, *(None for _ in values)


def _call(library: Any, name: str, *given: Any) -> tuple[Any, ...]:
    symbol, results, types = _CALLS[name]
    values = [result() for result in results]
    arguments = [kind(argument) for kind, argument in zip(types, given, strict=True)]
    code = getattr(library, symbol)(*(byref(value) for value in values), *arguments)
    return _result(library, code, *(value.value for value in values))


def _name(library: Any, length: int, gpu: int) -> tuple[Any, ...]:
    text = ctypes.create_string_buffer(NAME_BYTES)
    return _result(library, library.cuDeviceGetName(text, NAME_BYTES, gpu), text.value)


def _uuid(library: Any, gpu: int) -> tuple[Any, ...]:
    found = (ctypes.c_char * 16)()
    return _result(library, library.cuDeviceGetUuid(found, gpu), SimpleNamespace(bytes=found.raw))


def _end_capture(library: Any, stream: int) -> tuple[Any, ...]:
    graph = c_void_p()  # the one result that stands last in cuda.h
    return _result(library, library.cuStreamEndCapture(c_void_p(stream), byref(graph)), graph.value)


def _words(library: Any, code: int) -> tuple[Any, ...]:
    text = ctypes.c_char_p()
    return _result(library, library.cuGetErrorString(int(code), byref(text)), text.value)


def _launch(library: Any, function: int, *rest: Any) -> tuple[Any, ...]:
    """``cuLaunchKernel``: six sizes, shared bytes, stream, (values, types) of the arguments, and nothing extra."""
    *sizes, shared_bytes, stream, (values, types), _ = rest
    arguments = [kind(value) for kind, value in zip(types, values, strict=True)]
    addresses = (c_void_p * len(arguments))(*(ctypes.cast(byref(argument), c_void_p) for argument in arguments))
    numbers = [c_uint(size) for size in (*sizes, shared_bytes)]
    code = library.cuLaunchKernel(c_void_p(function), *numbers, c_void_p(stream), addresses, POINTER(c_void_p)())
    return _result(library, code)
