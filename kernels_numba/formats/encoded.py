"""What all weight formats share: element types, the base record, and the checks that refuse corrupt buffers.

Every check raises ValueError with the name of the value, what was given and what is allowed.
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from enum import StrEnum
from operator import index
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

INT32_MAX = 2**31 - 1
GIGA = 1e9
LARGEST_SIZE = 2**40  # rows or columns


class Element(StrEnum):
    """Number formats of weights."""

    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"

    @property
    def storage(self) -> np.dtype[Any]:
        """NumPy dtype that stores one weight."""
        return np.dtype({"float16": np.float16, "bfloat16": np.uint16, "float32": np.float32}[self])

    @property
    def bits(self) -> np.dtype[Any]:
        """Unsigned integer of the same width."""
        return np.dtype(np.uint32 if self is Element.FLOAT32 else np.uint16)

    @property
    def magnitude(self) -> Any:
        """Mask of all bits but the sign."""
        return self.bits.type(0x7FFFFFFF if self is Element.FLOAT32 else 0x7FFF)


HALF_ELEMENTS = (Element.FLOAT16, Element.BFLOAT16)  # what the 16-bit formats and the GPU kernels take


class EncodedWeight(ABC):
    """A weight matrix in some format; the formats are frozen dataclasses derived from this.

    Fields that are arrays, or encodings themselves, are its buffers: what a kernel loads and memory has to hold.

    shape : (m, k) of the matrix.
    element : number format of the values.
    """

    shape: tuple[int, int]
    element: Element

    @property
    @abstractmethod
    def nnz(self) -> int:
        """Stored non-zeros; padding not counted."""

    @property
    def buffers(self) -> dict[str, NDArray[Any]]:
        """Arrays by name; those of a nested encoding carry its name as prefix."""
        found: dict[str, NDArray[Any]] = {}
        for field, value in vars(self).items():
            if isinstance(value, np.ndarray):
                found[field] = value
            elif isinstance(value, EncodedWeight):
                found |= {f"{field}_{name}": buffer for name, buffer in value.buffers.items()}
        return found

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        return sum(buffer.nbytes for buffer in self.buffers.values())

    @abstractmethod
    def decode(self) -> NDArray[Any]:
        """Dense matrix (m, k) in the element's storage dtype, row-major."""

    @abstractmethod
    def validate(self) -> Self:
        """Return self, or raise ValueError naming what is corrupt and where."""

    @classmethod
    def from_buffers(cls, **buffers: Any) -> Self:
        """Build from raw fields and validate; raises ValueError for anything a decoder could trip over.

        Arrays that may be written are copied. One that may not, such as a mapped file's, is held as it is: whoever
        hands it over promises that it stays.
        """
        if "element" in buffers:
            check(buffers["element"] in tuple(Element), "element", buffers["element"], ", ".join(Element))
            buffers["element"] = Element(buffers["element"])
        kept = {name: owned(plain(b, name)) if isinstance(b, np.ndarray) else b for name, b in buffers.items()}
        try:
            return cls(**kept).validate()
        except (AttributeError, TypeError) as error:  # of other types than the fields', or not these fields
            raise ValueError(f"buffers of {cls.__name__}: {error}; allowed: the fields it documents") from error


def check(condition: Any, name: str, given: object, allowed: str) -> None:
    """Raise ValueError with ``name``, ``given`` and ``allowed`` unless ``condition`` holds."""
    if not condition:
        raise ValueError(f"{name}: {given}; allowed: {allowed}")


def whole_number(value: Any, name: str, most: int, least: int = 1) -> int:
    """``value`` as an int, refused unless it is an integer of any library from ``least`` to ``most``."""
    number = _integer(value)
    check(number is not None and least <= number <= most, name, repr(value), f"an integer from {least} to {most}")
    assert number is not None
    return number


def one_of(value: Any, name: str, *allowed: int) -> int:
    """``value`` as an int, refused unless it is one of a few."""
    number = _integer(value)
    check(number in allowed, name, repr(value), " or ".join(map(str, allowed)))
    assert number is not None
    return number


def _integer(value: Any) -> int | None:
    """``value`` as an int; None if it is no integer, or a bool."""
    try:
        return None if isinstance(value, bool | np.bool_) else index(value)
    except TypeError:
        return None


def memory_bytes() -> float:
    """Memory of the machine; infinite where the system does not say, as on Windows."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return math.inf


def check_memory(n_bytes: float, what: str) -> None:
    """Refuse to allocate more than this machine has; the message names both in GB. Where it does not say, allow."""
    there = memory_bytes()
    given, allowed = f"{n_bytes / GIGA:,.1f} GB", f"the {there / GIGA:,.1f} GB of memory that this machine has"
    check(n_bytes <= there, what, given, f"at most {allowed}")


def zeros(shape: tuple[int, int], dtype: Any) -> NDArray[Any]:
    """Matrix for a decoder to fill, refused if there is no memory for it."""
    check_memory(float(shape[0]) * shape[1] * np.dtype(dtype).itemsize, f"decoded matrix {shape}")
    return np.zeros(shape, dtype)


def element_of(a: NDArray[Any], element: Element | None) -> Element:
    """Element type asked for, or the one the dtype implies; ``ml_dtypes.bfloat16`` implies bfloat16."""
    if element is not None:
        check(isinstance(element, str) and element in tuple(Element), "element", repr(element), ", ".join(Element))
        return Element(element)
    name = str(a.dtype.name if isinstance(a, np.ndarray) else type(a).__name__)
    check(name in tuple(Element), "dtype", name, "float16, float32, or uint16 with element='bfloat16'")
    return Element(name)


def output_element(asked: Any, own: Element) -> Element:
    """Element type of a product whose activations are ``own``: the one asked for, by default the 16-bit one.

    ``asked`` may be a dtype of NumPy, ml_dtypes or PyTorch, a name or an `Element`; ValueError for other types.
    """
    if asked is np.float32:
        return Element.FLOAT32
    half = own if own in HALF_ELEMENTS else Element.FLOAT16
    name = half if asked is None else dtype_name(asked)
    check(name in (half, Element.FLOAT32), "out_dtype", name, f"{half} or float32")
    return Element(name)


def dtype_name(dtype: Any) -> str:
    """Name of a dtype of NumPy, ml_dtypes or PyTorch, or of an `Element`; of anything else what it calls itself."""
    if isinstance(dtype, str):  # NumPy reads more into text than a name, and warns of some
        dtype = np.sctypeDict.get(dtype.lstrip("<="), dtype)
    try:
        return str(np.dtype(dtype).name) if isinstance(dtype, type | np.dtype) else str(dtype).rpartition(".")[2]
    except TypeError:  # NumPy does not know bfloat16
        return str(dtype).rpartition(".")[2]


def half_element_of(a: NDArray[Any], element: Element | None) -> Element:
    """As `element_of`, for formats that hold 16-bit values only."""
    found = element_of(a, element)
    check(found in HALF_ELEMENTS, "dtype", found, "float16 or bfloat16")
    return found


def as_matrix(a: NDArray[Any], element: Element) -> NDArray[Any]:
    """Return ``a`` as a row-major, aligned matrix in the element's storage, copied only if it is not that already."""
    a = plain(a, "matrix")
    check(a.dtype == element.storage, "dtype", a.dtype, f"{element}, as {element.storage} in native byte order")
    check(a.ndim == 2 and a.size > 0, "shape", a.shape, "(m, k) with m, k >= 1")
    return row_major(a, "matrix")


def plain(a: Any, name: str) -> NDArray[Any]:
    """View of an array of NumPy, or of a derived class, as it is stored; a mask would be lost, so it is refused."""
    check(isinstance(a, np.ndarray), name, type(a).__name__, "an array of NumPy")
    check(not isinstance(a, np.ma.MaskedArray), name, "a masked array", "an array without a mask: call its filled(0)")
    return np.asarray(as_stored(a))


def row_major(a: NDArray[Any], name: str) -> NDArray[Any]:
    """``a`` itself if it is row-major and aligned, as compiled loops read it; else a copy that is."""
    if a.flags.c_contiguous and a.flags.aligned:
        return a
    check_memory(a.nbytes, f"{name} {a.shape} made row-major")
    return a.copy(order="C")


def as_activations(x: Any) -> NDArray[Any]:
    """``x`` as compiled loops read it: copied, being small, if it may not be written or is not aligned.

    Loops are compiled for the memory that they meet, in seconds, and read-only memory counts as another kind.
    """
    x = plain(x, "x")
    if x.flags.writeable and x.flags.aligned:
        return x
    check_memory(x.nbytes, f"copy of x {x.shape}")
    return x.copy(order="K")


def owned(a: NDArray[Any]) -> NDArray[Any]:
    """``a`` in memory that nobody else writes: a copy, or itself if nobody may write it and compiled loops read it."""
    return a.copy(order="K") if a.flags.writeable or not a.flags.aligned else a


def as_stored(a: Any) -> Any:
    """View of an ``ml_dtypes.bfloat16`` array as its bit patterns; anything else as it is."""
    foreign = isinstance(a, np.ndarray) and a.dtype.isbuiltin != 1  # names of NumPy's own types take long to tell
    return a.view(np.uint16) if foreign and a.dtype.name == Element.BFLOAT16 else a


def widened(values: NDArray[Any], element: Element) -> NDArray[np.float32]:
    """Stored values of any element type as float32, exactly."""
    if element is Element.BFLOAT16:
        return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        return values.astype(np.float32, copy=False)


def narrowed(values: NDArray[Any], element: Element) -> NDArray[Any]:
    """Floating-point values in the storage of an element type, rounded to nearest even; overflow becomes infinity."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        if element is not Element.BFLOAT16:
            return values.astype(element.storage, copy=False)
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + (bits >> np.uint64(16) & np.uint64(1))) >> np.uint64(16)
    return np.where(np.isnan(values), np.uint16(0x7FFF), rounded.astype(np.uint16))


def bits_of(values: NDArray[Any]) -> NDArray[Any]:
    """View ``values`` as unsigned integers of the same width; no copy."""
    return values.view(np.uint32 if values.itemsize == 4 else np.uint16)


def pointers_of(counts: NDArray[np.int64], what: str) -> NDArray[np.int32]:
    """Exclusive running sum, checked to fit 32 bits."""
    total = np.concatenate(([0], np.cumsum(counts)))
    check(total[-1] <= INT32_MAX, what, int(total[-1]), f"at most {INT32_MAX}")
    return total.astype(np.int32)


def check_shape(shape: Any) -> tuple[int, int]:
    """Return ``shape``, refusing anything but two positive integers."""
    sizes = tuple(map(_integer, shape)) if isinstance(shape, tuple) else ()
    ok = len(sizes) == 2 and all(size is not None and 0 < size <= LARGEST_SIZE for size in sizes)
    check(ok, "shape", shape, "(m, k), two integers >= 1, at most 2**40")
    m, k = sizes
    assert m is not None and k is not None  # noqa: PT018
    return m, k


def check_vector(array: Any, name: str, *dtypes: Any, size: int | None = None) -> None:
    """Refuse anything but a contiguous 1-D array of one of ``dtypes`` with ``size`` entries."""
    kind = f"{getattr(array, 'dtype', type(array))} of shape {getattr(array, 'shape', None)}"
    ok = isinstance(array, np.ndarray) and array.ndim == 1 and array.flags.c_contiguous
    ok = ok and array.dtype in dtypes and (size is None or array.size == size)
    wanted = " or ".join(str(np.dtype(dtype)) for dtype in dtypes)
    check(ok, name, kind, f"contiguous {wanted}, 1-D" + ("" if size is None else f", {size} entries"))


def check_pointers(pointers: NDArray[Any], name: str, end: float) -> None:
    """Refuse pointers that do not run from 0 to ``end`` without falling."""
    check(pointers[0] == 0, f"{name}[0]", int(pointers[0]), "0")
    check(pointers[-1] == end, f"{name}[-1]", int(pointers[-1]), f"{end:g}, the size of what it points into")
    falls = np.flatnonzero(pointers[1:] < pointers[:-1])
    check(falls.size == 0, name, f"falls after entry {falls[:1]}", "never falling")
