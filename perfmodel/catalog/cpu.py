"""The record of a CPU: what `lscd measure` found on a machine. Nothing in it comes from a datasheet.

Of each kind of number there is one a count of threads, in the order of ``threads``; spreads are interquartile ranges as
a share of the median. A record is of some threads: ``key`` ends in ``@T``.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import msgspec

from perfmodel.catalog.records import Positive, PositiveInt, Record, Text
from perfmodel.catalog.specs import FlopsPerS, Gpu

THREADS_MARK = "@"
LEAST_SIZES = 4  # of a curve of read rates: a cache, its edge, and the memory twice

Spread = Annotated[float, msgspec.Meta(ge=0, lt=1e6)]
PerThreads = Annotated[list[Positive], msgspec.Meta(min_length=1)]


class CpuMemory(Record, frozen=True, kw_only=True):
    """Memory that the machine says it has."""

    size_bytes: Positive


class Reads(Record, frozen=True, kw_only=True):
    """Bytes/s at which all threads together read a working set over and over, each thread its own part.

    sizes_bytes : (sizes,), ascending, from the first-level cache to far beyond the last.
    bytes_per_s, spread : (thread counts, sizes).

    Raises
    ------
    ValueError
        If the sizes do not ascend, are too few, or a row has another length.
    """

    sizes_bytes: list[Positive]
    bytes_per_s: list[list[Positive]]
    spread: list[list[Spread]]

    def __post_init__(self) -> None:
        """Refuse what is no curve."""
        sizes = self.sizes_bytes
        if len(sizes) < LEAST_SIZES or sorted(set(sizes)) != sizes:
            raise ValueError(f"sizes_bytes are {len(sizes)} sizes, allowed are at least {LEAST_SIZES}, ascending")
        for name in ("bytes_per_s", "spread"):
            if any(len(row) != len(sizes) for row in getattr(self, name)):
                raise ValueError(f"{name} has a row of another length than the {len(sizes)} sizes_bytes")


class CpuPeak(Record, frozen=True, kw_only=True):
    """FLOP/s (multiply-add = 2) that all threads reached, one number a count of threads.

    ``fp32_fma`` from registers, compiled by Numba; ``fp32_gemm`` by NumPy; ``torch_fp32_gemm`` and ``bf16_gemm`` by
    PyTorch, missing where it was not installed.
    """

    fp32_fma: list[FlopsPerS]
    fp32_fma_spread: list[Spread]
    fp32_gemm: list[FlopsPerS]
    fp32_gemm_spread: list[Spread]
    torch_fp32_gemm: list[FlopsPerS] | None = None
    torch_fp32_gemm_spread: list[Spread] | None = None
    bf16_gemm: list[FlopsPerS] | None = None
    bf16_gemm_spread: list[Spread] | None = None


class ParallelCall(Record, frozen=True, kw_only=True):
    """Seconds of a parallel Numba call that does next to nothing, one number a count of threads."""

    seconds: PerThreads
    spread: list[Spread]


class Measured(Record, frozen=True, kw_only=True):
    """When and with which versions the machine was measured."""

    date: Text
    python: Text
    numpy: Text
    numba: Text
    torch: Text | None = None
    source: Text


class Cpu(Record, frozen=True, kw_only=True):
    """One CPU of ``data/hardware``, or measured by a user; ``key`` is the file's name, and ``@`` the threads in use.

    ``simd`` names what of vectors and matrices it has, as Linux does; ``clock_hz`` is measured by a chain of additions.

    Raises
    ------
    ValueError
        If the counts of threads do not ascend, exceed the cores, or a list has another length.
    """

    key: Text
    name: Text
    architecture: Literal["cpu"]
    cores: PositiveInt
    threads: Annotated[list[PositiveInt], msgspec.Meta(min_length=1)]
    simd: list[Text] = []  # noqa: RUF012 - msgspec copies defaults
    clock_hz: Positive
    memory: CpuMemory
    reads: Reads
    peak: CpuPeak
    call: ParallelCall
    measured: Measured

    def __post_init__(self) -> None:
        """Refuse lists that do not go with the counts of threads."""
        if sorted(set(self.threads)) != self.threads or self.threads[-1] > self.cores:
            raise ValueError(f"threads are {self.threads}, allowed are ascending counts up to cores ({self.cores})")
        groups = {"reads": self.reads, "peak": self.peak, "call": self.call}
        for name, group in groups.items():
            for field in set(group.__struct_fields__) - {"sizes_bytes"}:
                values = getattr(group, field)
                if values is not None and len(values) != len(self.threads):
                    raise ValueError(f"{name}.{field} has {len(values)} entries, threads has {len(self.threads)}")

    @property
    def in_use(self) -> int:
        """Threads that this record is about; all measured ones where the key does not say."""
        _, marked, count = self.key.rpartition(THREADS_MARK)
        return int(count) if marked else self.threads[-1]

    @property
    def place(self) -> int:
        """Place of the threads in use in all lists."""
        return self.threads.index(self.in_use)

    def on(self, threads: int | None = None) -> Cpu:
        """The same CPU with that many threads in use; all measured ones by default.

        Raises
        ------
        ValueError
            If it was not measured with so many; names those it was.
        """
        count = self.threads[-1] if threads is None else threads
        if count not in self.threads:
            known = ", ".join(map(str, self.threads))
            raise ValueError(f"{self.name} was not measured with {count} threads, only with {known}")
        return msgspec.structs.replace(self, key=f"{self.key.partition(THREADS_MARK)[0]}{THREADS_MARK}{count}")

    @property
    def dram_bytes_per_s(self) -> float:
        """Read rate of the largest working set, by the threads in use."""
        return self.reads.bytes_per_s[self.place][-1]

    def read_rate(self, working_set_bytes: float) -> float:
        """Read rate at a working set, by the threads in use: the curve between its sizes in logarithms."""
        sizes, rates = self.reads.sizes_bytes, self.reads.bytes_per_s[self.place]
        if working_set_bytes <= sizes[0] or working_set_bytes >= sizes[-1]:
            return rates[0] if working_set_bytes <= sizes[0] else rates[-1]
        above = next(i for i, size in enumerate(sizes) if size > working_set_bytes)
        low, high = sizes[above - 1], sizes[above]
        share = math.log(working_set_bytes / low) / math.log(high / low)
        return float(rates[above - 1] ** (1 - share) * rates[above] ** share)


Device = Gpu | Cpu


def memory_bytes(device: Device) -> float:
    """Memory in which the weights must fit."""
    return device.memory.size_bytes if isinstance(device, Cpu) else device.dram.size_bytes
