"""Running the compiled kernels on an NVIDIA GPU through the driver.

Why not Numba's own launch? The machine code that `compile` inspected and the emulator executed (as PTX) is what runs
here, byte for byte; more than 48 KB of shared memory can be asked for; and a launch costs a few microseconds.
Arrays stay where they are: anything with ``__cuda_array_interface__`` (PyTorch, CuPy, Numba, JAX) is used in place.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from kernels_numba.compile import ARCHITECTURES, CompiledKernel, Variant, compile_kernel
from kernels_numba.encoded import EncodedWeight, check
from kernels_numba.launch import Launch, launches, make_plan, with_aligned_rows

_PARAMETER_TYPES = {"int64": ctypes.c_void_p, "int32": ctypes.c_int32}
_uploaded: WeakKeyDictionary[EncodedWeight, tuple[EncodedWeight | None, dict[str, Any]]] = WeakKeyDictionary()


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


@cache
def current_arch() -> str:
    """Architecture to compile for: the GPU's own, or the newest known one of its generation below it.

    Raises
    ------
    ValueError
        If the GPU is older than every known architecture.
    """
    from numba import cuda

    major, minor = cuda.get_current_device().compute_capability
    known = [int(arch.removeprefix("sm_")) for arch in ARCHITECTURES]
    fitting = [number for number in known if number // 10 == major and number <= 10 * major + minor]
    check(fitting, "compute capability", f"{major}.{minor}", f"one of {', '.join(ARCHITECTURES)} or a successor")
    return f"sm_{max(fitting)}"


@cache
def sm_count() -> int:
    """Streaming multiprocessors of the present GPU."""
    from numba import cuda

    return int(cuda.get_current_device().MULTIPROCESSOR_COUNT)


def _succeed(result: tuple[Any, ...]) -> Any:
    """Value of a driver call, or RuntimeError with the driver's words."""
    from cuda.bindings import driver

    error, *values = result
    if error != driver.CUresult.CUDA_SUCCESS:
        raise RuntimeError(f"CUDA driver: {driver.cuGetErrorString(error)[1].decode()} ({error.name})")
    return values[0] if values else None


@cache
def load(variant: Variant) -> Any:
    """Function handle of a variant on the present GPU, with its shared-memory limit raised."""
    from cuda.bindings import driver
    from numba import cuda

    cuda.current_context()  # makes the primary context current, which PyTorch and CuPy share
    kernel: CompiledKernel = compile_kernel(variant, current_arch())
    limit = ARCHITECTURES[kernel.arch].shared_bytes_per_block
    check(
        variant.shared_bytes <= limit, "shared memory", variant.shared_bytes, f"at most {limit} bytes on {kernel.arch}"
    )
    module = _succeed(driver.cuModuleLoadData(kernel.cubin))
    function = _succeed(driver.cuModuleGetFunction(module, kernel.entry.encode()))
    attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    _succeed(driver.cuFuncSetAttribute(function, attribute, variant.shared_bytes))
    return function


def pointer(array: Any) -> int:
    """Device address of an array with ``__cuda_array_interface__``; 0 for an empty one."""
    return int(array.__cuda_array_interface__["data"][0] or 0)


def current_stream(array: Any) -> int:
    """Stream that the array's library is working on, as a handle; 0 is the default stream."""
    library = type(array).__module__.partition(".")[0]
    if library == "torch":
        import torch

        return int(torch.cuda.current_stream(array.device).cuda_stream)
    if library == "cupy":
        import cupy

        return int(cupy.cuda.get_current_stream().ptr)
    return 0


def run(launch: Launch, stream: int = 0) -> None:
    """Put one launch on a stream; returns at once."""
    from cuda.bindings import driver

    types = tuple(_PARAMETER_TYPES[str(t)] for t in launch.variant.signature.args)
    values = tuple(argument if isinstance(argument, int) else pointer(argument) for argument in launch.arguments)
    threads, shared_bytes = launch.variant.threads, launch.variant.shared_bytes
    function = load(launch.variant)
    _succeed(driver.cuLaunchKernel(function, *launch.grid, threads, 1, 1, shared_bytes, stream, (values, types), 0))


def upload(weights: EncodedWeight) -> tuple[EncodedWeight, dict[str, Any]]:
    """Weights as the kernels want them and their buffers on the GPU, copied once and kept while ``weights`` lives."""
    from numba import cuda

    if weights not in _uploaded:
        aligned = with_aligned_rows(weights)
        buffers = {name: cuda.to_device(buffer) for name, buffer in aligned.buffers.items()}
        # None stands for the weights themselves: a value that held its own key would never be freed.
        _uploaded[weights] = None if aligned is weights else aligned, buffers
    kept, buffers = _uploaded[weights]
    return weights if kept is None else kept, buffers


def empty_like(x: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """Uninitialised array of the same library and device as ``x``."""
    library = type(x).__module__.partition(".")[0]
    if library == "torch":
        import torch

        return torch.empty(shape, dtype=getattr(torch, dtype.name), device=x.device)
    if library == "cupy":
        import cupy

        return cupy.empty(shape, dtype)
    from numba import cuda

    return cuda.device_array(shape, dtype)


def padded(x: Any, shape: tuple[int, int]) -> Any:
    """Return ``x`` (k, n) itself if it has ``shape``, else a copy with zeros at its end."""
    if tuple(x.shape) == shape:
        return x
    if type(x).__module__.partition(".")[0] in ("torch", "cupy"):
        out = empty_like(x, shape, np.dtype(np.float16))
        out[:] = 0
        out[: x.shape[0], : x.shape[1]] = x
        return out
    from numba import cuda

    on_host = cuda.as_cuda_array(x).copy_to_host()
    return cuda.to_device(np.pad(on_host, ((0, shape[0] - x.shape[0]), (0, shape[1] - x.shape[1]))))


def multiply(weights: EncodedWeight, x: Any, split_k: int | None, dtype: np.dtype[Any]) -> Any:
    """Product on the GPU, shape (m, n padded to a multiple of 8), on the stream that x's library works on.

    ``x`` (k, n) float16 lies on the GPU, row-major and 16-byte aligned; `spmm.check_operands` has seen to it.
    """
    weights, buffers = upload(weights)
    plan = make_plan(weights, x.shape[1], split_k=split_k, arch=current_arch(), sm_count=sm_count())
    x = padded(x, (plan.k, plan.n_padded))
    out = empty_like(x, (plan.m, plan.n_padded), dtype)
    workspace = empty_like(x, plan.workspace_shape, np.dtype(np.float32)) if plan.partials > 1 else None
    stream = current_stream(x)
    for launch in launches(plan, buffers, x, out, workspace, as_fp32=dtype == np.float32):
        run(launch, stream)
    return out
