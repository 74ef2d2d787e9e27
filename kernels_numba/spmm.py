"""One obvious call: ``spmm(weights, x)``, on whatever there is to run it.

Which of the ways to multiply should a user get without asking? A GPU if there is one and weights and activations are of
one 16-bit type, fp16 or bfloat16, else the CPU kernels. The emulator runs the GPU kernels' PTX on the CPU: exact, and
thousands of times slower.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels_numba.formats import (
    Bitmap,
    Condensed,
    Csr,
    Dense,
    Element,
    EncodedWeight,
    QuantisedBitmap,
    QuantisedCondensed,
    TiledCsl,
    TwoFour,
)
from kernels_numba.formats.encoded import (
    HALF_ELEMENTS,
    as_activations,
    as_stored,
    check,
    dtype_name,
    narrowed,
    output_element,
    plain,
    whole_number,
)
from kernels_numba.gpu.emulate import emulate
from kernels_numba.gpu.launch import MAX_GRID_Y, activations_for

logger = logging.getLogger(__name__)

BACKENDS = ("cuda", "cpu", "emulator", "reference")
DLPACK_CPU = 1
# How a GPU array says what it holds. NumPy's protocol has no bfloat16: PyTorch and JAX call it 2 opaque bytes, and its
# bits may come as integers.
TYPESTRS = {Element.FLOAT16: ("<f2",), Element.BFLOAT16: ("<V2", "|V2", "<u2", "<i2")}


def spmm(
    weights: EncodedWeight | NDArray[Any],
    x: Any,
    *,
    split_k: int | None = None,
    backend: str = "auto",
    out_dtype: Any = None,
) -> Any:
    """Product of an encoded weight matrix with activations, ``C = A @ X``.

    Parameters
    ----------
    weights : EncodedWeight or array
        A, shape (m, k); a plain fp16 or bfloat16 array means the dense kernel.
    x : array
        X, shape (k, n), row-major: NumPy, or anything with DLPack on the CPU or ``__cuda_array_interface__`` on the
        GPU (PyTorch, CuPy, Numba, JAX), used in place. Only where n is no multiple of 8 does a GPU or emulated kernel
        work on a padded copy. For weights of bfloat16 it may be of that type too, and must be on the GPU and the
        emulator: uint16 bit patterns, ``ml_dtypes.bfloat16``, or a PyTorch tensor of ``torch.bfloat16``.
    split_k : int, optional
        Most blocks that may share K, from 1; by default `launch.choose_split_k` decides. Only GPU kernels split.
    backend : {"auto", "cuda", "cpu", "emulator", "reference"}
        Where to run; "auto" takes `choose_backend` and logs it.
    out_dtype : float32 or the 16-bit type of x, optional
        By default x's own; float16 for float32 x. Accumulation is in float32 in any case (float64 in the reference).

    Returns
    -------
    array (m, n)
        NumPy for CPU arrays, otherwise of x's library, on x's device and stream; row-major, so it may be the next x.
        bfloat16 comes as x came, from the CPU as uint16 bit patterns unless x is a NumPy array of ``ml_dtypes``.

    Raises
    ------
    ValueError
        If shapes, dtypes, layout or backend do not fit; names what was given and what is allowed.
    """
    if not isinstance(weights, EncodedWeight):
        weights = Dense.of_same_memory(
            host_array(weights, "weights"), Element.BFLOAT16 if is_bfloat16(weights) else None
        )
    given = x
    if not is_on_gpu(x):
        x = as_activations(host_array(x, "x"))
    check_operands(weights, x)
    split_k = None if split_k is None else whole_number(split_k, "split_k", MAX_GRID_Y)
    element = output_element(out_dtype, element_of_activations(weights, x))
    if backend == "auto":
        backend = choose_backend(weights, x)
        logger.info("spmm: backend %s for %s %s", backend, type(weights).__name__, weights.shape)
    check(backend in BACKENDS, "backend", repr(backend), ", ".join(("auto", *BACKENDS)))
    check(backend == "cuda" or not is_on_gpu(x), "backend", backend, "cuda or auto, for x on the GPU")
    out = _RUN[backend](weights, x, split_k, element)
    same = element is Element.BFLOAT16 and isinstance(given, np.ndarray)
    return out.view(given.dtype) if same else out


def choose_backend(weights: EncodedWeight, x: Any) -> str:
    """Backend that ``spmm(..., backend="auto")`` takes.

    "cuda" if x lies on the GPU, or if there is a GPU and a GPU kernel takes this format and x; else "cpu".
    """
    if is_on_gpu(x):
        return "cuda"
    from kernels_numba.gpu import device

    formats = TiledCsl | Bitmap | QuantisedBitmap | Condensed | QuantisedCondensed | Csr | TwoFour | Dense
    fits = isinstance(weights, formats) and weights.element in HALF_ELEMENTS
    return "cuda" if fits and as_stored(x).dtype == weights.element.storage and device.is_supported() else "cpu"


def is_on_gpu(x: Any) -> bool:
    """Whether an array lies in GPU memory."""
    return not isinstance(x, np.ndarray) and hasattr(x, "__cuda_array_interface__")


def host_array(value: Any, name: str) -> NDArray[Any]:
    """NumPy view of an array in CPU memory, without copying; bfloat16 as bit patterns."""
    if isinstance(value, np.ndarray):
        return plain(value, name)
    on_cpu = hasattr(value, "__dlpack_device__") and int(value.__dlpack_device__()[0]) == DLPACK_CPU
    check(on_cpu, name, type(value).__name__, "an array: NumPy, or with DLPack on the CPU")
    if is_bfloat16(value) and type(value).__module__ == "torch":
        import torch

        value = value.view(torch.uint16)  # NumPy takes no bfloat16 by DLPack
    try:
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError) as error:  # of a type that NumPy does not have, or a wrong promise
        raise ValueError(f"{name}: {type(value).__name__}, which NumPy cannot read: {error}") from error


def is_bfloat16(array: Any) -> bool:
    """Whether an array of any library says that it holds bfloat16; bit patterns do not."""
    return hasattr(array, "dtype") and dtype_name(array.dtype) == Element.BFLOAT16


def element_of_activations(weights: EncodedWeight, x: Any) -> Element:
    """Element type of x that fits these weights."""
    if is_on_gpu(x) or x.dtype == np.uint16:
        return weights.element
    return Element.FLOAT32 if x.dtype == np.float32 else Element(str(x.dtype))


def check_operands(weights: EncodedWeight, x: Any) -> None:
    """Refuse activations that do not fit the weights."""
    m, k = weights.shape
    shape = tuple(x.shape)
    if _is_plain(x) and len(shape) == 2 and shape[0] == k and shape[1] >= 1:
        return
    check(len(shape) == 2 and shape[0] == k and shape[1] >= 1, "shape of x", shape, f"({k}, n) for weights ({m}, {k})")
    if is_on_gpu(x):
        interface, element = x.__cuda_array_interface__, weights.element
        fits = interface["typestr"] in TYPESTRS.get(element, TYPESTRS[Element.FLOAT16])
        check(fits, "dtype of x", interface["typestr"], f"{_half(weights)} on the GPU for {element} weights")
        row_major = interface.get("strides") in (None, (2 * shape[1], 2))
        check(row_major, "strides of x", interface.get("strides"), "row-major (k, n); call x.contiguous()")
        address = interface["data"][0]
        check(address % 16 == 0, "address of x", hex(address), "a multiple of 16 (not a slice that starts in between)")
    else:
        dtypes = [np.dtype(np.float16), np.dtype(np.float32), _half(weights).storage]
        names = "bfloat16 (uint16), or float16" if _half(weights) is Element.BFLOAT16 else "float16"
        allowed = f"{names}, or float32 on the CPU, in native byte order, for {weights.element} weights"
        check(x.dtype in dtypes, "dtype of x", x.dtype.str, allowed)
        check(x.flags.c_contiguous, "strides of x", x.strides, "row-major (k, n); call numpy.ascontiguousarray(x)")


def _is_plain(x: Any) -> bool:
    """Whether x is a row-major float32 array of NumPy: what decoders multiply, thousands of times a second."""
    return isinstance(x, np.ndarray) and x.dtype == np.float32 and x.flags.c_contiguous


def _half(weights: EncodedWeight) -> Element:
    """16-bit type that activations may have for these weights."""
    return weights.element if weights.element in HALF_ELEMENTS else Element.FLOAT16


def _run_reference(weights: EncodedWeight, x: Any, split_k: int | None, element: Element) -> NDArray[Any]:
    from kernels_numba import reference

    return narrowed(reference.spmm(weights, x), element)


def _run_cpu(weights: EncodedWeight, x: Any, split_k: int | None, element: Element) -> NDArray[Any]:
    from kernels_numba.cpu import kernels as cpu

    out = cpu.spmm(weights, x, element=Element.BFLOAT16 if x.dtype == np.uint16 else None)
    return np.ascontiguousarray(narrowed(out, element))


def _run_emulator(weights: EncodedWeight, x: Any, split_k: int | None, element: Element) -> NDArray[Any]:
    return emulate(weights, x, split_k=split_k, out_dtype=element)[0]


def _run_cuda(weights: EncodedWeight, x: Any, split_k: int | None, element: Element) -> Any:
    from numba import cuda

    from kernels_numba.gpu import device

    check(device.is_available(), "backend", "cuda", f"{', '.join(BACKENDS[1:])} (no NVIDIA GPU or driver found)")
    if is_on_gpu(x):
        return device.multiply(weights, x, split_k, element)
    return device.multiply(weights, cuda.to_device(activations_for(weights, x)), split_k, element).copy_to_host()


_RUN: dict[str, Callable[[EncodedWeight, Any, int | None, Element], Any]] = {
    "cuda": _run_cuda,
    "cpu": _run_cpu,
    "emulator": _run_emulator,
    "reference": _run_reference,
}
