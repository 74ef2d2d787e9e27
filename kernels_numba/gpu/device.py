"""Running the compiled kernels on an NVIDIA GPU through the driver.

Why not Numba's own launch? The machine code that `compile` inspected and the emulator executed (as PTX) is what runs
here, byte for byte; more than 48 KB of shared memory can be asked for; and a launch costs a few microseconds.
Arrays stay where they are: anything with ``__cuda_array_interface__`` (PyTorch, CuPy, Numba, JAX) is used in place, on
the GPU that holds it: code and weights are kept for each GPU. Any thread may call.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary

import numpy as np

from kernels_numba.formats import Element, EncodedWeight
from kernels_numba.formats.encoded import check
from kernels_numba.gpu.compile import ARCHITECTURES, CompiledKernel, Variant, compile_kernel
from kernels_numba.gpu.driver import ATTRIBUTES, NAME_BYTES, bindings
from kernels_numba.gpu.launch import Launch, launches, make_plan, with_aligned_rows

_PARAMETER_TYPES = {"int64": ctypes.c_void_p, "int32": ctypes.c_int32}
Upload = tuple[EncodedWeight | None, dict[str, Any]]
_of_thread = threading.local()  # its ``flags`` by GPU and stream; every launch leaves them as it found them, zero
LEAST_FLAGS = 1 << 14  # more blocks than any GPU runs at once
_uploaded: WeakKeyDictionary[EncodedWeight, dict[int, Upload]] = WeakKeyDictionary()  # by weights, then by GPU


def is_available() -> bool:
    """Whether there is an NVIDIA GPU and a driver."""
    from numba import cuda

    return bool(cuda.is_available())


def is_supported() -> bool:
    """Whether there is a GPU that the kernels can be compiled for: Ampere or newer."""
    if not is_available():
        return False
    try:
        current_arch()
    except ValueError:
        return False
    return True


def succeed(result: tuple[Any, ...]) -> Any:
    """Value of a driver call, or RuntimeError with the driver's words."""
    driver = bindings()
    error, *values = result
    if error != driver.CUresult.CUDA_SUCCESS:
        _, words = driver.cuGetErrorString(error)
        raise RuntimeError(f"CUDA driver: {words.decode() if words else 'unknown error'} ({error.name})")
    return values[0] if values else None


def current_ordinal() -> int:
    """Number of the GPU that this thread works on; 0, from now on, in a thread that has none."""
    driver = bindings()
    error, ordinal = driver.cuCtxGetDevice()
    if error == driver.CUresult.CUDA_SUCCESS:
        return int(ordinal)
    succeed(driver.cuInit(0))
    succeed(driver.cuCtxSetCurrent(_primary_context(0)))  # PyTorch, CuPy and Numba share it
    return 0


def ordinal_of(array: Any) -> int:
    """Number of the GPU that holds an array with ``__cuda_array_interface__``."""
    driver = bindings()
    attribute = driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
    return int(succeed(driver.cuPointerGetAttribute(attribute, pointer(array))))


@cache
def _primary_context(ordinal: int) -> Any:
    driver = bindings()
    return succeed(driver.cuDevicePrimaryCtxRetain(succeed(driver.cuDeviceGet(ordinal))))


@contextmanager
def on_gpu(ordinal: int) -> Iterator[None]:
    """Let this thread work on a GPU, in the primary context that PyTorch, CuPy and Numba share, and then as before."""
    driver = bindings()
    succeed(driver.cuCtxPushCurrent(_primary_context(ordinal)))
    try:
        yield
    finally:
        succeed(driver.cuCtxPopCurrent())


def current_arch() -> str:
    """Architecture to compile for: the present GPU's own, or the newest known one of its generation below it.

    Raises
    ------
    ValueError
        If the GPU is older than every known architecture.
    """
    return _arch_of(current_ordinal())


@cache
def _arch_of(ordinal: int) -> str:
    major, minor = (attribute(name, ordinal) for name in ("major", "minor"))
    known = {sm.compute_capability: arch for arch, sm in ARCHITECTURES.items()}
    fitting = [cc for cc in known if cc[0] == major and cc[1] <= minor]
    check(fitting, "compute capability", f"{major}.{minor}", f"one of {', '.join(ARCHITECTURES)} or a successor")
    return known[max(fitting)]


def sm_count() -> int:
    """Streaming multiprocessors of the present GPU."""
    return _sm_count_of(current_ordinal())


@cache
def _sm_count_of(ordinal: int) -> int:
    return attribute("sm_count", ordinal)


def attribute(name: str, ordinal: int) -> int:
    """One of the driver's numbers about a GPU, by its name in `driver.ATTRIBUTES`."""
    driver = bindings()
    which = getattr(driver.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{ATTRIBUTES[name]}")
    return int(succeed(driver.cuDeviceGetAttribute(which, succeed(driver.cuDeviceGet(ordinal)))))


def name_and_uuid(ordinal: int) -> tuple[str, str]:
    """What the driver calls a GPU, and its own name ``GPU-...``, which stays the same among others."""
    driver = bindings()
    gpu = succeed(driver.cuDeviceGet(ordinal))
    name = succeed(driver.cuDeviceGetName(NAME_BYTES, gpu))
    return name.partition(b"\0")[0].decode(), f"GPU-{UUID(bytes=bytes(succeed(driver.cuDeviceGetUuid(gpu)).bytes))}"


@cache
def load(variant: Variant, ordinal: int) -> Any:
    """Function handle of a variant on a GPU, with its shared-memory limit raised."""
    driver = bindings()
    kernel: CompiledKernel = compile_kernel(variant, _arch_of(ordinal))
    limit = ARCHITECTURES[kernel.arch].shared_bytes_per_block
    check(
        variant.shared_bytes <= limit, "shared memory", variant.shared_bytes, f"at most {limit} bytes on {kernel.arch}"
    )
    with on_gpu(ordinal):
        module = succeed(driver.cuModuleLoadData(kernel.cubin))
        function = succeed(driver.cuModuleGetFunction(module, kernel.entry.encode()))
        attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        succeed(driver.cuFuncSetAttribute(function, attribute, limit))
    return function


def pointer(array: Any) -> int:
    """Device address of an array with ``__cuda_array_interface__``; 0 for an empty one."""
    return int(array.__cuda_array_interface__["data"][0] or 0)


def current_stream(array: Any) -> int:
    """Stream that the array's library is working on, or the array's own, as a handle; 0 is the default stream."""
    library = type(array).__module__.partition(".")[0]
    if library == "torch":
        import torch

        return int(torch.cuda.current_stream(array.device).cuda_stream)
    if library == "cupy":
        import cupy

        return int(cupy.cuda.get_current_stream().ptr)
    return int(array.__cuda_array_interface__.get("stream") or 0)


def run(launch: Launch, stream: int = 0) -> None:
    """Put one launch on a stream of the GPU that this thread works on; returns at once."""
    driver = bindings()
    types = tuple(_PARAMETER_TYPES[str(t)] for t in launch.variant.signature.args)
    values = tuple(argument if isinstance(argument, int) else pointer(argument) for argument in launch.arguments)
    function, threads = load(launch.variant, current_ordinal()), launch.variant.threads
    parameters = (values, types)
    succeed(driver.cuLaunchKernel(function, *launch.grid, threads, 1, 1, launch.shared_bytes, stream, parameters, 0))


def upload(weights: EncodedWeight) -> tuple[EncodedWeight, dict[str, Any]]:
    """Weights as the kernels want them and their buffers on the present GPU, kept there while ``weights`` lives."""
    from numba import cuda

    driver = bindings()
    on_gpus = _uploaded.setdefault(weights, {})
    ordinal = current_ordinal()
    if ordinal not in on_gpus:
        aligned = with_aligned_rows(weights)
        buffers = {name: cuda.to_device(buffer) for name, buffer in aligned.buffers.items()}
        succeed(driver.cuCtxSynchronize())  # streams that do not wait for the default one may read them next
        # None stands for the weights themselves: a value that held its own key would never be freed.
        on_gpus[ordinal] = None if aligned is weights else aligned, buffers
    kept, buffers = on_gpus[ordinal]
    return weights if kept is None else kept, buffers


def empty_like(x: Any, shape: tuple[int, ...], element: Element) -> Any:
    """Uninitialised array of the same library as ``x``, on the same GPU, which is the present one.

    It is of float32 or of x's own dtype, so that bfloat16 stays what the caller has for it.
    """
    single = element is Element.FLOAT32
    library = type(x).__module__.partition(".")[0]
    if library == "torch":
        import torch

        return torch.empty(shape, dtype=torch.float32 if single else x.dtype, device=x.device)
    if library == "cupy":
        import cupy

        with x.device:
            return cupy.empty(shape, np.float32 if single else x.dtype)
    from numba import cuda

    return cuda.device_array(shape, element.storage)


def copy_block(source: Any, target: Any, stream: int) -> None:
    """Copy what two row-major matrices on one GPU have in common, their upper left parts, on a stream."""
    from cuda.bindings import driver

    itemsize = np.dtype(source.__cuda_array_interface__["typestr"]).itemsize
    rows, columns = (min(sizes) for sizes in zip(source.shape, target.shape, strict=True))
    block = driver.CUDA_MEMCPY2D()
    block.srcMemoryType = block.dstMemoryType = driver.CUmemorytype.CU_MEMORYTYPE_DEVICE
    block.srcDevice, block.dstDevice = pointer(source), pointer(target)
    block.srcPitch, block.dstPitch = itemsize * source.shape[1], itemsize * target.shape[1]
    block.WidthInBytes, block.Height = itemsize * columns, rows
    succeed(driver.cuMemcpy2DAsync(block, stream))


def padded(x: Any, shape: tuple[int, int], stream: int) -> Any:
    """Return ``x`` (k, n) of 16 bits itself if it has ``shape``, else a copy with zeros at its end."""
    driver = bindings()
    if tuple(x.shape) == shape:
        return x
    out = empty_like(x, shape, Element.FLOAT16)
    succeed(driver.cuMemsetD16Async(pointer(out), 0, shape[0] * shape[1], stream))
    copy_block(x, out, stream)
    return out


def zeroed_flags(x: Any, count: int, stream: int) -> Any:
    """At least ``count`` flags on the present GPU, zero for the next launch on this stream, which leaves them so.

    Each thread keeps its own for each stream, since the default stream of every thread may have the same handle. A
    graph under capture gets flags that it zeroes itself: it may be replayed beside launches on the stream.
    """
    from numba import cuda

    driver = bindings()
    if int(succeed(driver.cuStreamIsCapturing(stream))):
        flags = empty_like(x, (count,), Element.FLOAT32)
        succeed(driver.cuMemsetD32Async(pointer(flags), 0, count, stream))
        return flags
    kept, key = _of_thread.__dict__.setdefault("flags", {}), (current_ordinal(), stream)
    if key not in kept or kept[key].size < count:
        flags = cuda.to_device(np.zeros(max(count, LEAST_FLAGS), np.uint32))
        succeed(driver.cuCtxSynchronize())  # the stream may not wait for the default one, on which the zeros travel
        kept[key] = flags
    return kept[key]


def multiply(weights: EncodedWeight, x: Any, split_k: int | None, element: Element) -> Any:
    """Product (m, n) on the GPU that holds ``x``, on the stream that x's library works on; row-major.

    ``x`` (k, n) is of the weights' type, row-major and 16-byte aligned; `spmm.check_operands` has seen to it.
    ``element`` is that type or float32.
    """
    with on_gpu(ordinal_of(x)):
        weights, buffers = upload(weights)
        n, stream = x.shape[1], current_stream(x)
        plan = make_plan(weights, n, split_k=split_k, arch=current_arch(), sm_count=sm_count())
        x = padded(x, (plan.k, plan.n_padded), stream)
        out = empty_like(x, (plan.m, plan.n_padded), element)
        workspace = empty_like(x, plan.workspace_shape, Element.FLOAT32) if plan.workspace_shape else None
        flags = zeroed_flags(x, plan.flags, stream) if plan.flags else None
        for launch in launches(plan, buffers, x, out, workspace, flags, as_fp32=element is Element.FLOAT32):
            run(launch, stream)
        if plan.n_padded == n:
            return out
        narrow = empty_like(x, (plan.m, n), element)
        copy_block(out, narrow, stream)
        return narrow
