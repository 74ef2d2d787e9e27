"""Matrices that a checkpoint stores in pieces: what they take, how many of them are zero, and how fast they are so.

Bytes are those of the file. Times are of the kernels that read such a format, whatever order its codes lie in.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from lscd.printing import digits, headline, print_table, say
from lscd.weights_times import KernelTimes, dense_kernel, predicted_times

if TYPE_CHECKING:
    from kernels_numba.checkpoints.census import Census
    from kernels_numba.checkpoints.layouts.pieces import Coding, Packed

HEADER = (
    "matrices", "count", "m x k", "layout", "type", "zeros", "tile spread", "fullest tile", "dense MB", "stored MB",
    "bits a weight",
)  # fmt: skip
TIMED_HEADER = ("kernel", "us", "dense us")
WORDS = ("matrices", "m x k", "layout", "type", "kernel")
OWN_BITMAPS = {4: "lscd-bitmap-4", 8: "lscd-bitmap-8", 16: "lscd-bitmap"}  # by the bits of a value


@dataclass(frozen=True)
class QuantisedMatrix:
    """One matrix in pieces.

    census : None if it is not decoded.
    zeros : fraction of its weights, None if unknown.
    format_bytes : of the same weights in our formats, by name, exact; empty if it is not decoded.
    kernel, times : of the fastest kernel that reads the format, and of the dense one; None and empty without.
    """

    packed: Packed
    census: Census | None
    zeros: float | None
    format_bytes: dict[str, int]
    kernel: str | None
    times: dict[str, KernelTimes]

    def time_us(self, kernel: str | None) -> float:
        """Predicted microseconds on ``kernel``; 0 without."""
        return self.times[kernel].time_us if kernel else 0.0

    @property
    def size(self) -> int:
        """Number of weights, 0 if unknown."""
        return self.packed.shape[0] * self.packed.shape[1] if self.packed.shape else 0

    def as_json(self) -> dict[str, Any]:
        """Everything about the matrix, for scripts, in the keys of a matrix stored whole and a few more."""
        m, k = self.packed.shape or (None, None)
        census = self.census
        return {
            "name": self.packed.name,
            "m": m,
            "k": k,
            "dtype": None if self.packed.coding is None else str(self.packed.coding),
            "sparsity": self.zeros,
            "nnz": None if self.zeros is None else round(self.size * (1 - self.zeros)),
            "tiles": None if census is None else asdict(census.tile_spread),
            "float16_rounding": None if census is None else asdict(census.rounding),
            "bytes": self.format_bytes | {"stored": self.packed.nbytes},
            "kernels": {kernel: asdict(times) for kernel, times in self.times.items()},
            "best_format": "stored",
            "best_kernel": self.kernel,
            "layout": self.packed.layout,
            "tensors": list(self.packed.parts),
            "bits_per_weight": self.packed.bits_per_weight,
            "not_decoded": self.packed.obstacle or None,
        }


def count_packed(packed: Packed) -> tuple[Census | None, float | None]:
    """Census of a matrix in pieces, None if it is not decoded, and its fraction of zeros, None if unknown."""
    from kernels_numba.checkpoints.census import TILE_M, take_census

    if packed.decoder is not None and packed.shape is not None:
        census = take_census(packed.shape, "F32", packed.row_blocks(TILE_M))
        return census, census.sparsity
    zeros = packed.zeros() if packed.zeros is not None else None
    size = packed.shape[0] * packed.shape[1] if packed.shape else 0
    return None, None if zeros is None else zeros / size


def plan_quantised(
    found: Sequence[tuple[Packed, Census | None, float | None]], gpu: str | None, tokens: int
) -> list[QuantisedMatrix]:
    """What each matrix (pieces, census, fraction of zeros) takes and costs; times only if ``gpu`` is named."""
    shaped = [(packed.shape, zeros or 0.0) for packed, _, zeros in found if packed.shape]
    times = iter(predicted_times(shaped, gpu, tokens) if gpu and shaped else [{} for _ in shaped])
    plans = []
    for packed, census, zeros in found:
        by_kernel = next(times) if packed.shape else {}
        kernel = _kernel(packed.coding, by_kernel)
        kept = {name: by_kernel[name] for name in (kernel, dense_kernel(by_kernel)) if name}
        plans.append(QuantisedMatrix(packed, census, zeros, _bytes(census), kernel, kept if kernel else {}))
    return plans


def _bytes(census: Census | None) -> dict[str, int]:
    return {} if census is None else census.format_bytes | census.rounded_bytes


def _kernel(coding: Coding | None, times: dict[str, KernelTimes]) -> str | None:
    """The fastest kernel that reads such codes, a measured one if there is any; None if none is modelled.

    Where no kernel has zero points, one without them is taken: they are 3 % of the bytes. So is one with a scale a row
    where there is one a tensor.
    """
    from perfmodel.kernels import KERNELS

    for name in _formats(coding):
        reading = [kernel for kernel in times if KERNELS[kernel].format_name == name]
        measured = [kernel for kernel in reading if times[kernel].measured]
        if reading:
            return min(measured or reading, key=lambda kernel: times[kernel].time_us)
    return None


def _formats(coding: Coding | None) -> list[str]:
    """Names of the formats that hold such codes, the best first."""
    from perfmodel.catalog.hf.quantised_formats import BLOCK, ROW, TENSOR, Codes

    if coding is None:
        return []
    if coding.bits >= 16:
        return ["2:4"] if coding.pattern and coding.bits == 16 else []
    grains: dict[str | int, tuple[str | int, ...]] = {"row": (ROW,), "128x128": (BLOCK,), TENSOR: (TENSOR, ROW)}
    floating = coding.floating and coding.name not in ("NF4", "FP4")
    found = []
    for zero_points in dict.fromkeys((coding.zero_points, False)):
        for grain in grains.get(coding.grain, (coding.grain,)):
            codes = Codes("", coding.bits, grain, floating, zero_points, pattern=coding.pattern)
            try:
                found.append(codes.format)
            except ValueError:
                continue  # no format of ours
    return list(dict.fromkeys(found))


def total_sparsity(matrices: Sequence[QuantisedMatrix]) -> float | None:
    """Fraction of zeros over all matrices where it is known; None if it is nowhere."""
    known = [(matrix.size, matrix.zeros) for matrix in matrices if matrix.zeros is not None]
    return sum(size * zeros for size, zeros in known) / sum(size for size, _ in known) if known else None


def quantised_json(matrices: Sequence[QuantisedMatrix]) -> dict[str, Any]:
    """Totals, for scripts."""
    timed = bool(matrices) and all(matrix.kernel for matrix in matrices)
    return {
        "matrices": len(matrices),
        "decoded": sum(matrix.census is not None for matrix in matrices),
        "layouts": sorted({matrix.packed.what for matrix in matrices}),
        "stored_bytes": sum(matrix.packed.nbytes for matrix in matrices),
        "bits_per_weight": _bits(matrices),
        "sparsity": total_sparsity(matrices),
        "us": sum(matrix.time_us(matrix.kernel) for matrix in matrices) if timed else None,
    }


def print_quantised(matrices: Sequence[QuantisedMatrix], gpu: str | None, tokens: int | None, every: bool) -> None:
    """Print the answer, how far to trust it, and a row for each kind of matrix."""
    headline(quantised_answer(matrices))
    for remark in quantised_remarks(matrices, gpu, tokens):
        say(remark)
    groups: dict[tuple[Any, ...], list[QuantisedMatrix]] = {}
    for matrix in matrices:
        key = (label_of(matrix.packed.name, every), matrix.packed.shape, matrix.packed.what)
        groups.setdefault(key, []).append(matrix)
    timed = any(matrix.kernel for matrix in matrices)
    rows = [[str(key[0]), *_row(group, timed)] for key, group in groups.items()]
    print_table((*HEADER, *(TIMED_HEADER if timed else ())), rows, text=WORDS)


def quantised_answer(matrices: Sequence[QuantisedMatrix]) -> str:
    """One sentence: in which layouts, how many bits a weight, how many zeros?"""
    layouts = ", ".join(sorted({matrix.packed.what for matrix in matrices}))
    stored = sum(matrix.packed.nbytes for matrix in matrices)
    bits, zeros = _bits(matrices), total_sparsity(matrices)
    size = f"{digits(stored / 1e6, 4)} MB"
    if bits is not None:
        dense = sum(2 * matrix.size for matrix in matrices)
        size += f", {digits(bits)} bits a weight, instead of {digits(dense / 1e6, 4)} MB dense FP16"
    known = "how many weights are zero is unknown" if zeros is None else f"{zeros:.1%} of the weights are zero"
    if zeros is not None and any(matrix.zeros is None for matrix in matrices):
        known += ", where that is known"
    plural = "matrix takes" if len(matrices) == 1 else "matrices take"
    return f"Stored in pieces ({layouts}): {len(matrices)} {plural} {size}; {known}."


def quantised_remarks(matrices: Sequence[QuantisedMatrix], gpu: str | None, tokens: int | None) -> list[str]:
    """Sentences on what the zeros are worth there, on times, and on what is not decoded."""
    notes = [words for bits in OWN_BITMAPS if (words := _without_zeros(matrices, bits))]
    notes += _times_in_words(matrices, gpu, tokens) if gpu else []
    for obstacle, count in Counter(matrix.packed.obstacle for matrix in matrices if matrix.packed.obstacle).items():
        notes.append(f"Not decoded: {count} of {len(matrices)}, {obstacle}.")
    here = " (`lscd weights import`)" if all(matrix.packed.decoder for matrix in matrices) else ""
    refused = (
        "`lscd weights prune` and `convert` refuse these: start from the 16-bit checkpoint, or dequantise it first"
    )
    return [*notes, f"{refused}{here}."]


def _without_zeros(matrices: Sequence[QuantisedMatrix], bits: int) -> str:
    """What a bitmap of values of as many bits would take; nothing if no matrix has such values."""
    own = OWN_BITMAPS[bits]
    fitting = [
        matrix for matrix in matrices
        if own in matrix.format_bytes and matrix.packed.coding and _width(matrix.packed.coding) == bits
    ]  # fmt: skip
    if not fitting:
        return ""
    bitmap, stored = (
        sum(sizes) for sizes in zip(*((x.format_bytes[own], x.packed.nbytes) for x in fitting), strict=True)
    )
    verdict = "less than" if bitmap < stored else "no less than"
    return (
        f"Without their zeros, as a bitmap with values of {bits} bits ({own}), {len(fitting)} of {len(matrices)} would "
        f"take {digits(bitmap / 1e6, 4)} MB: {verdict} the {digits(stored / 1e6, 4)} MB that they take."
    )


def _width(coding: Coding) -> int:
    return next((bits for bits in OWN_BITMAPS if coding.bits <= bits), 0)


def _times_in_words(matrices: Sequence[QuantisedMatrix], gpu: str | None, tokens: int | None) -> list[str]:
    timed = [matrix for matrix in matrices if matrix.kernel]
    notes = []
    if timed:
        kernels = ", ".join(sorted({str(matrix.kernel) for matrix in timed}))
        stored, dense = (
            sum(matrix.time_us(kernel(matrix)) for matrix in timed)
            for kernel in (lambda matrix: matrix.kernel, lambda matrix: dense_kernel(matrix.times))
        )
        guess = "" if all(matrix.times[matrix.kernel or ""].measured for matrix in timed) else ", never measured"
        notes.append(
            f"Predicted on {gpu} at N = {tokens}: {digits(stored, 4)} us as stored ({kernels}{guess}), "
            f"{digits(dense, 4)} us dense ({dense / stored:.2f}x)."
        )
    if len(timed) < len(matrices):
        without = ", ".join(sorted({matrix.packed.what for matrix in matrices if not matrix.kernel}))
        notes.append(f"No times for {without}: no kernel that we model on {gpu} reads such a format.")
    return notes


def _row(group: list[QuantisedMatrix], timed: bool) -> list[str]:
    first, packed = group[0], group[0].packed
    zeros = [matrix.zeros for matrix in group if matrix.zeros is not None]
    spreads = [matrix.census.tile_spread for matrix in group if matrix.census is not None]
    ratios = [spread.ratio for spread in spreads if spread.ratio is not None]
    bits = _bits(group)
    cells = [
        f"{len(group)}",
        f"{packed.shape[0]} x {packed.shape[1]}" if packed.shape else "unknown",
        packed.layout,
        str(packed.coding or "unknown"),
        span(zeros, "{:.3f}") if zeros else "unknown",
        span(ratios, "{:.1f}") if ratios else "-",
        f"{max(spread.max_density for spread in spreads):.2f}" if spreads else "-",
        f"{sum(2 * matrix.size for matrix in group) / 1e6:.3f}" if packed.shape else "-",
        f"{sum(matrix.packed.nbytes for matrix in group) / 1e6:.3f}",
        "-" if bits is None else f"{bits:.2f}",
    ]
    if timed:
        dense = dense_kernel(first.times)
        cells.append(first.kernel or "-")
        for name in (first.kernel, dense):
            cells.append(f"{sum(matrix.time_us(name) for matrix in group):.1f}" if name else "-")
    return cells


def label_of(name: str, every: bool) -> str:
    """Name of a row: a matrix's own if ``every``, otherwise with its numbers blanked out."""
    return name if every else re.sub(r"(?<=\.)\d+(?=\.)", "*", name)


def span(values: list[float], form: str) -> str:
    """The least and the greatest of some numbers, or the one that both round to."""
    first, last = form.format(min(values)), form.format(max(values))
    return first if first == last else f"{first}-{last}"


def _bits(matrices: Sequence[QuantisedMatrix]) -> float | None:
    """Bits a weight over all matrices; None if the shape of one is unknown."""
    size = sum(matrix.size for matrix in matrices)
    known = all(matrix.packed.shape for matrix in matrices) and size
    return 8 * sum(matrix.packed.nbytes for matrix in matrices) / size if known else None
