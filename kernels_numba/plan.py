"""Which format and split of K should this matrix get on this machine?

Candidates come with predicted times, as plain data: a performance model may order them, and where nobody predicts,
bytes do. Then the first few are measured, on the GPU if there is one and PyTorch or CuPy to time it, else on the CPU,
and the fastest is kept on disk (`tuning`). Measuring refines the order; it is never needed.

>>> import numpy as np
>>> half = np.tile(np.array([1, 0, 1, 0], np.float16), (256, 64))
>>> plan(half, 8, [Candidate("tiled-csl", 3e-6), Candidate("two-four", 2e-6)], measure=False).format
'two-four'
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from numpy.typing import NDArray

from kernels_numba.bench.measure import Measure, device_identity, timer
from kernels_numba.bench.tuning import Entry, TuningCache
from kernels_numba.cpu.bitmap import CpuBitmap, encode_cpu_bitmap
from kernels_numba.cpu.panel_csr import PanelCsr, encode_panel_csr
from kernels_numba.formats import (
    Bitmap,
    Condensed,
    Csr,
    Dense,
    Element,
    EncodedWeight,
    TiledCsl,
    TwoFour,
    encode_bitmap,
    encode_condensed,
    encode_csr,
    encode_tiled_csl,
    encode_two_four,
)
from kernels_numba.formats.encoded import (
    HALF_ELEMENTS,
    as_stored,
    check,
    check_memory,
    half_element_of,
    whole_number,
    widened,
)
from kernels_numba.gpu.launch import MAX_INT32, MAX_SPLIT_K, make_plan, with_aligned_rows

logger = logging.getLogger(__name__)

LIBRARY = "dense-fp32"  # what a CPU has without us


def dense_for_blas(a: NDArray[Any], element: Element | None = None) -> Dense:
    """``a`` in float32: twice the bytes of a 16-bit matrix, for the library that everybody has."""
    return Dense.of_same_memory(widened(as_stored(a), half_element_of(a, element)))


ENCODERS: dict[str, Callable[..., EncodedWeight]] = {
    "dense": Dense,
    LIBRARY: dense_for_blas,
    "tiled-csl": encode_tiled_csl,
    "bitmap": encode_bitmap,
    "bitmap-pairs": partial(encode_bitmap, width=2),
    "condensed": partial(encode_condensed, width=1),
    "condensed-pairs": partial(encode_condensed, width=2),
    "two-four": encode_two_four,
    "csr": encode_csr,
    "panel-csr": encode_panel_csr,
    "cpu-bitmap": encode_cpu_bitmap,
}
NAMES: dict[type[EncodedWeight], str] = {
    Dense: "dense", TiledCsl: "tiled-csl", Bitmap: "bitmap", Condensed: "condensed", TwoFour: "two-four", Csr: "csr",
    PanelCsr: "panel-csr", CpuBitmap: "cpu-bitmap",
}  # fmt: skip
FORMATS = {
    "cuda": ("dense", "tiled-csl", "bitmap", "bitmap-pairs", "condensed", "condensed-pairs", "two-four", "csr"),
    "cpu": ("dense", "tiled-csl", "two-four", "csr", "panel-csr", "cpu-bitmap", LIBRARY),
}
MEASURED = 4  # candidates that are tried, best predicted first, and the library's
MOST_CONDENSED = 0.32  # density up to which most random strips fit 2:4 (docs/condensed.md)
DENSITY_STEPS = 100  # densities that agree to a percent share a measurement


@dataclass(frozen=True)
class Candidate:
    """A format that may be chosen.

    format : key of `FORMATS`.
    time_s : predicted seconds, None if nobody predicted it.
    split_k : blocks that share K, None for the launcher's own choice.
    """

    format: str
    time_s: float | None = None
    split_k: int | None = None


@dataclass(frozen=True)
class Choice:
    """What to use, and how that is known.

    format, split_k : for `encode` and ``spmm(..., split_k=choice.split_k)``.
    backend : "cuda" or "cpu".
    source : "measured" now, "cache" (measured before), "model" (predicted times) or "bytes".
    time_us : measured or predicted microseconds; None if only bytes are known.
    tried : measured microseconds by format and split of K; empty unless ``source`` is "measured".
    element : number format of the weights.
    """

    format: str
    split_k: int | None
    backend: str
    source: str
    time_us: float | None
    tried: dict[tuple[str, int | None], float]
    element: Element = Element.FLOAT16

    def encode(self, a: NDArray[Any]) -> EncodedWeight:
        """``a`` in the chosen format."""
        return ENCODERS[self.format](a, element=self.element)


def plan(
    weights: NDArray[Any] | EncodedWeight,
    n: int,
    candidates: Iterable[Candidate] | None = None,
    *,
    backend: str = "auto",
    measure: bool | Measure = True,
    cache: TuningCache | None = None,
    element: Element | None = None,
) -> Choice:
    """Choose format and split of K for the product of ``weights`` (m, k) with n columns.

    Parameters
    ----------
    weights : array or EncodedWeight
        A float16 or bfloat16 matrix, free to take any format, or an encoded weight of that type, which keeps its own.
    n : int
        Columns of the activations.
    candidates : iterable of Candidate, optional
        What may be chosen, with predicted times; by default every format of the backend, on a CPU NumPy's dense product
        in float32 among them, which is measured in any case. Those that the backend has no
        kernel for, or an encoded weight does not have, are left out.
    backend : {"auto", "cuda", "cpu"}
        "auto" takes the GPU if there is one.
    measure : bool or function
        Whether to time the best candidates, or the function ``(weights, n, split_k) -> microseconds`` that does.
    cache : TuningCache, optional
        By default the user's, for this device.
    element : Element, optional
        bfloat16 for a matrix of uint16 bit patterns.

    Raises
    ------
    ValueError
        If the weights are no matrix of 16-bit floats, n is below 1, a name is unknown, or no candidate is left.
    """
    n = whole_number(n, "n", MAX_INT32)
    if not isinstance(weights, EncodedWeight):
        weights = Dense.of_same_memory(weights, half_element_of(weights, element))
        own = None
    else:
        own = format_name(weights)
        given = f"{type(weights).__name__} of {weights.element}"
        check(own and weights.element in HALF_ELEMENTS, "weights", given, "a float16 or bfloat16 weight")
    backend = _backend(backend)
    ordered, source = _ordered(weights, _allowed(candidates, backend, own))
    first, kind = ordered[0], weights.element
    unmeasured = Choice(first.format, first.split_k, backend, source, _microseconds(first.time_s), {}, kind)
    time_us = (measure if callable(measure) else timer(backend)) if measure else None
    if time_us is None:
        return unmeasured
    check_memory(4.0 * n * sum(weights.shape), f"activations and product to measure with n = {n}")
    store = cache or TuningCache(device_identity(backend))
    key = product_key(weights, n, ordered)
    known = store.get(key)
    if known is not None and known.format in {candidate.format for candidate in ordered}:
        return Choice(known.format, known.split_k, backend, "cache", known.time_us, {}, kind)
    tried = _measure(weights, n, _tried(ordered), backend, time_us)
    if not tried:
        return unmeasured
    name, split_k = min(tried, key=tried.__getitem__)
    store.put(key, Entry(name, split_k, tried[name, split_k]))
    return Choice(name, split_k, backend, "measured", tried[name, split_k], tried, kind)


def _tried(ordered: Sequence[Candidate]) -> list[Candidate]:
    """The first few, and the library's if it may be chosen: whatever is chosen has been compared with it."""
    return [candidate for i, candidate in enumerate(ordered) if i < MEASURED or candidate.format == LIBRARY]


def _backend(name: str) -> str:
    from kernels_numba.gpu import device

    check(name in ("auto", *FORMATS), "backend", repr(name), ", ".join(("auto", *FORMATS)))
    return ("cuda" if device.is_supported() else "cpu") if name == "auto" else name


def format_name(weights: EncodedWeight) -> str | None:
    """Key of `ENCODERS` for the format ``weights`` have; None if it is not among them."""
    name = NAMES.get(type(weights))
    if isinstance(weights, Dense) and weights.element is Element.FLOAT32:
        return LIBRARY
    return f"{name}-pairs" if isinstance(weights, Bitmap | Condensed) and weights.width == 2 else name


def _allowed(candidates: Iterable[Candidate] | None, backend: str, own: str | None) -> list[Candidate]:
    """Candidates the backend has kernels for; only those of format ``own`` if that is given."""
    given = [Candidate(name) for name in FORMATS[backend]] if candidates is None else [_checked(c) for c in candidates]
    allowed = [name for name in FORMATS[backend] if own in (None, name)]
    kept = [candidate for candidate in given if candidate.format in allowed]
    names = ", ".join(candidate.format for candidate in given) or "none"
    check(kept, "candidates", names, f"some of {', '.join(allowed) or 'another format than ' + str(own)} on {backend}")
    return kept


def _checked(candidate: Candidate) -> Candidate:
    """The candidate, its split an int, or ValueError."""
    check(candidate.format in ENCODERS, "format", repr(candidate.format), ", ".join(ENCODERS))
    split_k, time_s = candidate.split_k, candidate.time_s
    check(time_s is None or 0 < time_s < math.inf, "time_s", time_s, "a positive number of seconds, or None")
    return candidate if split_k is None else replace(candidate, split_k=whole_number(split_k, "split_k", MAX_SPLIT_K))


def _ordered(weights: EncodedWeight, candidates: Sequence[Candidate]) -> tuple[list[Candidate], str]:
    """Candidates by predicted time, unpredicted ones last by bytes; and what the first place rests on."""
    sizes = estimated_bytes(weights.shape, weights.nnz)
    ordered = sorted(candidates, key=lambda c: (c.time_s is None, c.time_s or 0.0, sizes[c.format]))
    return ordered, "bytes" if ordered[0].time_s is None else "model"


def estimated_bytes(shape: tuple[int, int], nnz: int) -> dict[str, float]:
    """Bytes of a matrix of 16-bit floats by format if its zeros fall at random; padding left out.

    Condensed strips above `MOST_CONDENSED` are taken to leave half their columns to two tails, and those below it
    nothing; of what registers hold then the line is a fit, good to 2 %, to data/measured/condensed_orders.csv.
    """
    size, rows = shape[0] * shape[1], shape[0]
    density = nnz / size
    tails, registers = 0, (0.68 + 1.25 * density) * (1 - (1 - density) ** 4)
    if density > MOST_CONDENSED:
        tails, registers = 160, density + 1 - (1 - density) ** 2
    spilled = (4 * density**3 * (1 - density) + 2 * density**4) / 4 * size
    return {
        "dense": 2.0 * size,
        LIBRARY: 4.0 * size,
        "tiled-csl": 4.0 * nnz,
        "bitmap": 2.0 * nnz + size / 8,
        "bitmap-pairs": 2.0 * size * (1 - (1 - density) ** 2) + size / 16,
        "condensed": 2.0 * nnz + size * (448 + tails) / 2048,
        "condensed-pairs": size * (registers + (384 + tails) / 2048),
        "two-four": 1.125 * size + 6 * spilled + 4 * (rows + 1),
        "csr": 6.0 * nnz + 4 * (rows + 1),
        "panel-csr": 3.0 * nnz,
        "cpu-bitmap": 2.0 * nnz + size / 8,
    }


def product_key(weights: EncodedWeight, n: int, candidates: Sequence[Candidate]) -> str:
    """What a measurement is kept under: sizes, density to a percent, element, and which candidates took part."""
    m, k = weights.shape
    density = round(weights.nnz / (m * k) * DENSITY_STEPS) / DENSITY_STEPS
    names = {f"{c.format}" + (f"/{c.split_k}" if c.split_k else "") for c in _tried(candidates)}
    element = "" if weights.element == Element.FLOAT16 else f" {weights.element}"
    return f"{m}x{k} n={n} density={density:.2f}{element} of {' '.join(sorted(names))}"


def _measure(
    weights: EncodedWeight, n: int, candidates: Sequence[Candidate], backend: str, time_us: Measure
) -> dict[tuple[str, int | None], float]:
    """Microseconds of every candidate and, on a GPU, of the splits of K around the launcher's own.

    A candidate that fails, for want of memory for example, is left out and logged.
    """
    a, tried = None, {}
    for candidate in candidates:
        if format_name(weights) == candidate.format:
            encoded = weights
        else:
            a = weights.decode() if a is None else a
            encoded = ENCODERS[candidate.format](a, element=weights.element)
        for split_k in _splits(encoded, n, candidate.split_k, backend):
            try:
                tried[candidate.format, split_k] = time_us(encoded, n, split_k)
            except (RuntimeError, MemoryError) as error:
                logger.warning("plan: %s split_k %s left out: %s", candidate.format, split_k, error)
    return tried


def _splits(encoded: EncodedWeight, n: int, asked: int | None, backend: str) -> list[int | None]:
    """Splits of K to try: the one asked for; else the launcher's own, half and twice as many blocks."""
    if asked is not None or backend == "cpu" or isinstance(encoded, Csr):
        return [asked if backend == "cuda" and not isinstance(encoded, Csr) else None]
    from kernels_numba.gpu import device

    ready = with_aligned_rows(encoded)
    place: dict[str, Any] = {"arch": device.current_arch(), "sm_count": device.sm_count()}
    chosen = make_plan(ready, n, **place).split_k
    wanted = (chosen, max(1, chosen // 2), min(2 * chosen, MAX_SPLIT_K))
    return list(dict.fromkeys(make_plan(ready, n, split_k=split, **place).split_k for split in wanted))


def _microseconds(time_s: float | None) -> float | None:
    return None if time_s is None else time_s * 1e6
