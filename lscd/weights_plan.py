"""What are the zeros of a checkpoint worth? Exact bytes of each matrix joined with predicted times, and a plan.

Bytes come from the census of the real non-zeros. Times come from the calibrated kernel models at each matrix's own
sparsity; these models assume zeros that fall evenly, so the plan shows how far the real ones are from that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from kernels_numba.checkpoints.census import Census
from lscd.printing import digits
from lscd.weights_quantised import QuantisedMatrix, quantised_answer, quantised_json, total_sparsity
from lscd.weights_times import DENSE_FORMAT, KernelTimes, dense_kernel, predicted_times

if TYPE_CHECKING:
    from perfmodel.formats import WeightFormat

WHOLE = "whole"  # the layout of a matrix that is one tensor
DTYPE_BITS = {"F16": 16, "BF16": 16, "F32": 32}
HARDLY_PRUNED = 0.01  # zeros a matrix has without anyone's doing


@dataclass(frozen=True)
class MatrixPlan:
    """One matrix: what it holds, what it costs in every format, and what to store it in.

    format_bytes : exact bytes; the quantised formats' by formula, of the matrix rounded to them.
    times : by kernel; empty if no GPU was named.
    best_format, best_kernel : of the FP16-exact ones the fastest measured, or the smallest if no GPU was named.
    """

    name: str
    dtype: str
    census: Census
    format_bytes: dict[str, int]
    times: dict[str, KernelTimes]
    best_format: str
    best_kernel: str | None

    @property
    def dense_kernel(self) -> str | None:
        """The dense kernel of the device that was named: None if none was."""
        return dense_kernel(self.times)

    @property
    def surely_faster(self) -> bool:
        """Whether even the slow end of the chosen kernel's 90 % interval beats dense."""
        dense_us = self.time_us(self.dense_kernel)
        return self.best_kernel is not None and self.times[self.best_kernel].hi_us < dense_us

    def time_us(self, kernel: str | None) -> float:
        """Predicted microseconds on ``kernel``; 0 if no GPU was named."""
        return self.times[kernel].time_us if kernel else 0.0

    def as_json(self) -> dict[str, Any]:
        """Everything about the matrix, for scripts."""
        census = self.census
        return {
            "name": self.name,
            "m": census.shape[0],
            "k": census.shape[1],
            "dtype": self.dtype,
            "sparsity": census.sparsity,
            "nnz": census.nnz,
            "tiles": asdict(census.tile_spread),
            "float16_rounding": asdict(census.rounding),
            "bytes": self.format_bytes,
            "kernels": {kernel: asdict(times) for kernel, times in self.times.items()},
            "best_format": self.best_format,
            "best_kernel": self.best_kernel,
            "layout": WHOLE,
            "tensors": [self.name],
            "bits_per_weight": DTYPE_BITS[self.dtype],
            "not_decoded": None,
        }


@dataclass(frozen=True)
class CheckpointPlan:
    """Plan of all matrices of a checkpoint.

    gpu, tokens : None if no GPU was named.
    matrices : those stored whole; totals, plan and answer are of them.
    quantised : those stored in pieces.
    other_bytes : bytes of the tensors that are not planned, as stored.
    """

    path: str
    gpu: str | None
    tokens: int | None
    matrices: list[MatrixPlan]
    other_bytes: int
    quantised: list[QuantisedMatrix] = field(default_factory=list)

    @property
    def sparsity(self) -> float:
        """Fraction of zeros over all matrices stored whole."""
        sizes = [plan.census.shape[0] * plan.census.shape[1] for plan in self.matrices]
        zeros = sum(size * plan.census.sparsity for size, plan in zip(sizes, self.matrices, strict=True))
        return float(zeros / sum(sizes))

    @property
    def kernels(self) -> list[str]:
        """Kernels that can run every matrix."""
        common = self.matrices[0].times if self.matrices else ()
        return [kernel for kernel in common if all(kernel in plan.times for plan in self.matrices)]

    @property
    def sparse_matrices(self) -> list[MatrixPlan]:
        """Matrices whose best choice is not dense."""
        return [plan for plan in self.matrices if plan.best_format != DENSE_FORMAT]

    def total_bytes(self, format_name: str | None = None) -> int | None:
        """Bytes of all matrices in one format, None if one does not fit it; in the chosen ones by default."""
        sizes = [plan.format_bytes.get(format_name or plan.best_format) for plan in self.matrices]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    def total_us(self, kernel: str | None = None) -> float:
        """Predicted microseconds of all matrices, one after the other, on one kernel; on the chosen ones by default."""
        return sum(plan.time_us(kernel or plan.best_kernel) for plan in self.matrices)

    def as_json(self) -> dict[str, Any]:
        """The whole plan, for scripts."""
        kernels = self.kernels
        formats = {name: self.total_bytes(name) for name in (self.matrices[0].format_bytes if self.matrices else ())}
        return {
            "path": self.path,
            "gpu": self.gpu,
            "n": self.tokens,
            "answer": " ".join(self._answers()),
            "sparsity": self._sparsity_of_all,
            "total": {
                "matrices": len(self.matrices),
                "sparse_matrices": len(self.sparse_matrices),
                "plan_bytes": self.total_bytes(),
                "other_bytes": self.other_bytes,
                "bytes_by_format": {name: size for name, size in formats.items() if size is not None},
                "plan_us": self.total_us() if kernels else None,
                "us_by_kernel": {kernel: self.total_us(kernel) for kernel in kernels},
            },
            "quantised": quantised_json(self.quantised),
            "matrices": [plan.as_json() for plan in self.matrices]
            + [plan.as_json() for plan in self.quantised if plan.zeros is not None],
            "undecoded": [plan.as_json() for plan in self.quantised if plan.zeros is None],
        }

    def _answers(self) -> Iterator[str]:
        """What is to be said of matrices in pieces, and of those stored whole."""
        if self.quantised:
            yield quantised_answer(self.quantised)
        if self.matrices:
            yield answer(self)

    @property
    def _sparsity_of_all(self) -> float | None:
        """Fraction of zeros of all matrices where it is known."""
        size = sum(plan.census.shape[0] * plan.census.shape[1] for plan in self.matrices)
        known = sum(matrix.size for matrix in self.quantised if matrix.zeros is not None)
        packed = total_sparsity(self.quantised)
        if not size or packed is None:
            return self.sparsity if size else packed
        return (self.sparsity * size + packed * known) / (size + known)


def plan_matrices(found: Sequence[tuple[str, str, Census]], gpu: str | None, tokens: int) -> list[MatrixPlan]:
    """Plan of each matrix (name, dtype, census); times only if ``gpu`` is named.

    Raises
    ------
    ValueError
        If the GPU is unknown or ``tokens`` is below 1.
    """
    from perfmodel.catalog import load_device
    from perfmodel.catalog.cpu import Cpu
    from perfmodel.kernels import KERNELS

    on_cpu = gpu is not None and isinstance(load_device(gpu), Cpu)
    sizes = [_all_bytes(census) | (_cpu_bytes(census) if on_cpu else {}) for _, _, census in found]
    shaped = [(census.shape, census.sparsity) for _, _, census in found]
    times = predicted_times(shaped, gpu, tokens) if gpu and found else [{} for _ in found]
    plans = []
    for (name, dtype, census), format_bytes, by_kernel in zip(found, sizes, times, strict=True):
        # A kernel whose format cannot hold the matrix cannot run it.
        by_kernel = {k: t for k, t in by_kernel.items() if KERNELS[k].format_name in format_bytes}
        exact = [kernel for kernel in by_kernel if KERNELS[kernel].format.lossless]
        if any(by_kernel[kernel].measured for kernel in exact):
            exact = [kernel for kernel in exact if by_kernel[kernel].measured]
        best_kernel = min(exact, key=lambda kernel: by_kernel[kernel].time_us) if exact else None
        smallest = min(census.format_bytes, key=lambda format_name: format_bytes[format_name])
        best_format = KERNELS[best_kernel].format_name if best_kernel else smallest
        plans.append(MatrixPlan(name, dtype, census, format_bytes, by_kernel, best_format, best_kernel))
    return plans


def _all_bytes(census: Census) -> dict[str, int]:
    """Counted bytes of the sparse formats, and the closed form of those that do not depend on the zeros."""
    from perfmodel.formats import FORMATS

    held = [fmt for fmt in FORMATS.values() if fmt.change == "rounded" or _keeps_pattern(fmt, census)]
    sizes = {fmt.name: round(float(fmt.bytes(*census.shape))) for fmt in held}
    return census.format_bytes | census.rounded_bytes | sizes


def _cpu_bytes(census: Census) -> dict[str, int]:
    """Bytes of the formats of CPUs, which are exact: they depend on how many zeros there are, not on where."""
    from perfmodel.formats.cpu import ON_CPU

    return {fmt.name: round(float(fmt.bytes(*census.shape, min(max(census.sparsity, 0), 1)))) for fmt in ON_CPU}


def _keeps_pattern(fmt: WeightFormat, census: Census) -> bool:
    """Whether it rounds weights of a pattern that these already have; in any other it would drop more of them."""
    from perfmodel.formats import PATTERNS

    patterns = [part for part in fmt.name.split("-") if part in PATTERNS]
    return fmt.change == "pruned and rounded" and any(pattern in census.format_bytes for pattern in patterns)


def answer(plan: CheckpointPlan) -> str:
    """One sentence: do the zeros pay, by how much, and how sure is it?"""
    count, zeros = len(plan.matrices), f"{plan.sparsity:.1%} of the weights are zero"
    if plan.sparsity < HARDLY_PRUNED:
        return f"Not pruned: {zeros}, so no sparse format can gain anything; `lscd weights prune` makes zeros."
    dense_bytes, plan_bytes = plan.total_bytes(DENSE_FORMAT) or 0, plan.total_bytes() or 0
    sizes = f"{digits(plan_bytes / 1e6, 4)} MB instead of {digits(dense_bytes / 1e6, 4)} MB dense FP16"
    if plan.gpu is None:
        if not plan.sparse_matrices:
            return f"Pruned, yet no gain: {zeros}, too few for any sparse format to be smaller than dense FP16."
        return f"The zeros save memory: {zeros}; each matrix in its smallest exact format takes {sizes}."
    where = f"on {plan.gpu} at N = {plan.tokens}"
    if not plan.sparse_matrices:
        return f"Pruned, yet no gain: {zeros}, but dense stays the fastest for all {count} matrices {where}."
    dense_us, plan_us = plan.total_us(plan.matrices[0].dense_kernel), plan.total_us()
    sure = sum(matrix.surely_faster for matrix in plan.sparse_matrices)
    pay = "pay" if sure else "may pay, within the models' error,"
    return (
        f"The zeros {pay} for {len(plan.sparse_matrices)} of {count} matrices {where}: {digits(plan_us, 4)} us "
        f"instead of {digits(dense_us, 4)} us dense ({dense_us / plan_us:.2f}x), {sizes}; {zeros}."
    )


def remarks(plan: CheckpointPlan) -> list[str]:
    """Sentences on how far to trust the answer, and on what else there is."""
    from perfmodel.catalog.specs import Bound
    from perfmodel.kernels import KERNELS

    notes = []
    fullest = sum(matrix.census.tile_spread.over_half for matrix in plan.sparse_matrices)
    if fullest:
        notes.append(
            f"{fullest} tiles of 128 x 64 are more than half full: the released Flash-LLM kernel loses weights there."
        )
    if plan.gpu is None:
        return [*notes, "Name a GPU (--gpu h100 --batch 8) for predicted times: the smallest is often not the fastest."]
    chosen = [matrix.times[matrix.best_kernel] for matrix in plan.sparse_matrices if matrix.best_kernel]
    sure = sum(matrix.surely_faster for matrix in plan.sparse_matrices)
    if chosen:
        notes.append(f"For {sure} of these {len(chosen)} the slow end of the 90 % interval still beats dense.")
    far = sum(times.extrapolated for times in chosen)
    if far:
        notes.append(f"{far} of these predictions lie outside the evidence the kernel models were fitted on.")
    dense = [matrix.times[kernel] for matrix in plan.matrices if (kernel := matrix.dense_kernel)]
    waiting = sum(times.bound == Bound.LATENCY for times in dense)
    if waiting:
        notes.append(
            f"{waiting} of {len(dense)} matrices are so small that launch latency sets even the dense time; there the "
            "format hardly matters."
        )
    measured = {kernel for kernel, times in plan.matrices[0].times.items() if times.measured}
    rounded = [k for k in plan.kernels if not KERNELS[k].format.lossless and k in measured]
    rivals = {
        "For comparison, quantised": [min(rounded, key=plan.total_us)] if rounded else [],
        "Predicted, but never measured": [kernel for kernel in plan.kernels if kernel not in measured],
    }
    return [*notes, *(f"{words}: {_costs(plan, kernels)}." for words, kernels in rivals.items() if kernels)]


def _costs(plan: CheckpointPlan, kernels: Sequence[str]) -> str:
    """Time and bytes of all matrices on each kernel, in words."""
    from perfmodel.kernels import KERNELS

    sizes = {kernel: plan.total_bytes(KERNELS[kernel].format_name) or 0 for kernel in kernels}
    return ", ".join(
        f"{name} takes {digits(plan.total_us(name), 4)} us and {digits(size / 1e6, 4)} MB"
        for name, size in sizes.items()
    )
