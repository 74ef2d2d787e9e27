"""One obvious call: ``spmm(weights, x)``, on whatever there is to run it.

Which of the ways to multiply should a user get without asking? A GPU if there is one and the weights are fp16, else the
CPU kernels. The emulator runs the GPU kernels' PTX on the CPU: exact, and thousands of times slower.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels_numba.formats import Bitmap, Condensed, Csr, Dense, Element, EncodedWeight, TiledCsl, TwoFour
from kernels_numba.formats.encoded import check
from kernels_numba.gpu.emulate import emulate
from kernels_numba.gpu.launch import MAX_GRID_Y, whole_number

logger = logging.getLogger(__name__)

BACKENDS = ("cuda", "cpu", "emulator", "reference")
DLPACK_CPU = 1
X_DTYPES = OUT_DTYPES = (np.dtype(np.float16), np.dtype(np.float32))


def spmm(
    weights: EncodedWeight | NDArray[Any],
    x: Any,
    *,
    split_k: int | None = None,
    backend: str = "auto",
    out_dtype: Any = np.float16,
) -> Any:
    """Product of an encoded weight matrix with activations, ``C = A @ X``.

    Parameters
    ----------
    weights : EncodedWeight or array
        A, shape (m, k); a plain fp16 array means the dense kernel.
    x : array
        X, shape (k, n), row-major: NumPy, or anything with DLPack on the CPU or ``__cuda_array_interface__`` on the
        GPU (PyTorch, CuPy, Numba, JAX), used in place. Only where n is no multiple of 8 does a GPU or emulated kernel
        work on a padded copy.
    split_k : int, optional
        Most blocks that may share K, from 1; by default `launch.choose_split_k` decides. Only GPU kernels split.
    backend : {"auto", "cuda", "cpu", "emulator", "reference"}
        Where to run; "auto" takes `choose_backend` and logs it.
    out_dtype : float16 or float32
        Accumulation is in float32 in any case (float64 in the reference).

    Returns
    -------
    array (m, n)
        NumPy for CPU arrays, otherwise of x's library, on x's device and stream; row-major, so it may be the next x.

    Raises
    ------
    ValueError
        If shapes, dtypes, layout or backend do not fit; names what was given and what is allowed.
    """
    weights = weights if isinstance(weights, EncodedWeight) else Dense(host_array(weights, "weights"))
    if not is_on_gpu(x):
        x = host_array(x, "x")
    check_operands(weights, x)
    split_k = None if split_k is None else whole_number(split_k, "split_k", MAX_GRID_Y)
    dtype = np.dtype(out_dtype)
    check(dtype in OUT_DTYPES, "out_dtype", dtype, "float16 or float32")
    if backend == "auto":
        backend = choose_backend(weights, x)
        logger.info("spmm: backend %s for %s %s", backend, type(weights).__name__, weights.shape)
    check(backend in BACKENDS, "backend", repr(backend), ", ".join(("auto", *BACKENDS)))
    check(backend == "cuda" or not is_on_gpu(x), "backend", backend, "cuda or auto, for x on the GPU")
    return _RUN[backend](weights, x, split_k, dtype)


def choose_backend(weights: EncodedWeight, x: Any) -> str:
    """Backend that ``spmm(..., backend="auto")`` takes.

    "cuda" if x lies on the GPU, or if there is a GPU and a GPU kernel takes this format with fp16 weights; else "cpu".
    """
    if is_on_gpu(x):
        return "cuda"
    from kernels_numba.gpu import device

    formats = TiledCsl | Bitmap | Condensed | Csr | TwoFour | Dense
    fits = isinstance(weights, formats) and weights.element == Element.FLOAT16
    return "cuda" if fits and x.dtype == np.float16 and device.is_supported() else "cpu"


def is_on_gpu(x: Any) -> bool:
    """Whether an array lies in GPU memory."""
    return not isinstance(x, np.ndarray) and hasattr(x, "__cuda_array_interface__")


def host_array(value: Any, name: str) -> NDArray[Any]:
    """NumPy view of an array in CPU memory, without copying."""
    if isinstance(value, np.ndarray):
        return value
    on_cpu = hasattr(value, "__dlpack_device__") and int(value.__dlpack_device__()[0]) == DLPACK_CPU
    check(on_cpu, name, type(value).__name__, "an array: NumPy, or with DLPack on the CPU")
    return np.from_dlpack(value)


def check_operands(weights: EncodedWeight, x: Any) -> None:
    """Refuse activations that do not fit the weights."""
    m, k = weights.shape
    shape = tuple(x.shape)
    check(len(shape) == 2 and shape[0] == k and shape[1] >= 1, "shape of x", shape, f"({k}, n) for weights ({m}, {k})")
    if is_on_gpu(x):
        interface = x.__cuda_array_interface__
        check(interface["typestr"] == "<f2", "dtype of x", interface["typestr"], "float16 on the GPU")
        row_major = interface.get("strides") in (None, (2 * shape[1], 2))
        check(row_major, "strides of x", interface.get("strides"), "row-major (k, n); call x.contiguous()")
        address = interface["data"][0]
        check(address % 16 == 0, "address of x", hex(address), "a multiple of 16 (not a slice that starts in between)")
    else:
        check(x.dtype in X_DTYPES, "dtype of x", x.dtype.str, "float16, or float32 on the CPU, in native byte order")
        check(x.flags.c_contiguous, "strides of x", x.strides, "row-major (k, n); call numpy.ascontiguousarray(x)")


def _run_reference(weights: EncodedWeight, x: Any, split_k: int | None, dtype: np.dtype[Any]) -> NDArray[Any]:
    from kernels_numba import reference

    return reference.spmm(weights, x).astype(dtype)


def _run_cpu(weights: EncodedWeight, x: Any, split_k: int | None, dtype: np.dtype[Any]) -> NDArray[Any]:
    from kernels_numba.cpu import kernels as cpu

    return np.ascontiguousarray(cpu.spmm(weights, x), dtype)


def _run_emulator(weights: EncodedWeight, x: Any, split_k: int | None, dtype: np.dtype[Any]) -> NDArray[Any]:
    return emulate(weights, x, split_k=split_k, out_dtype=dtype)[0]


def _run_cuda(weights: EncodedWeight, x: Any, split_k: int | None, dtype: np.dtype[Any]) -> Any:
    from numba import cuda

    from kernels_numba.gpu import device

    check(device.is_available(), "backend", "cuda", f"{', '.join(BACKENDS[1:])} (no NVIDIA GPU or driver found)")
    if is_on_gpu(x):
        return device.multiply(weights, x, split_k, dtype)
    check(x.dtype == np.float16, "dtype of x", x.dtype, "float16 for GPU kernels")
    return device.multiply(weights, cuda.to_device(x), split_k, dtype).copy_to_host()


_RUN: dict[str, Callable[[EncodedWeight, Any, int | None, np.dtype[Any]], Any]] = {
    "cuda": _run_cuda,
    "cpu": _run_cpu,
    "emulator": _run_emulator,
    "reference": _run_reference,
}
