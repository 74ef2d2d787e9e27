"""The bench with children in this process, and the emulator in the place of an H200."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import pytest

from kernels_numba.bench import emulated, order
from kernels_numba.bench import gpu as bench_gpu
from kernels_numba.bench import parent as parents
from kernels_numba.bench.child import Child
from kernels_numba.bench.nvml import Sampler
from kernels_numba.bench.order import Program
from kernels_numba.bench.product import Gpu
from kernels_numba.bench.provenance import code_version
from kernels_numba.bench.session import Session
from kernels_numba.bench.slabs import Matrix, make_matrix
from kernels_numba.bench.timing import Library, Run, Timing

GPU = Gpu("h200", "sm_90", 132, 50 * 2**20, 4e12)


class Emulated(emulated.Emulated):
    """A library whose GPU is the emulator and whose clock always says 10 microseconds."""

    def __init__(self) -> None:
        self.timed: list[int] = []

    def time(self, products: Sequence[Run], *, replay: bool = True) -> Timing:
        self.timed.append(len(products))
        products[0]()
        return Timing(10.0, 0.5, replay)


def session(library: Library | None = None, gpu: Gpu = GPU) -> Session:
    return Session(library or Emulated(), gpu, Sampler(""))


def matrix(m: int = 128, k: int = 64, sparsity: float = 0.0) -> Matrix:
    return make_matrix(m, k, sparsity, 8, seed=4)


class LocalWorker:
    """A child that needs no process."""

    library: Library

    def __init__(self, family: str, **kind: Any) -> None:
        self.child = Child(family, self.library)

    def ask(self, job: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if job["job"] == "describe":
            told = {"gpu": "NVIDIA H200", "uuid": "GPU-0", "library": "emulator", **code_version()}
            yield {"answer": "gpu", "gpu": asdict(GPU), "provenance": told | {"method": job["method"]}}
            return
        for answer in self.child.answers(job):
            if answer["answer"] != "done":
                yield answer

    def close(self) -> None: ...


def small_bench(
    monkeypatch: pytest.MonkeyPatch, shapes: tuple[tuple[int, int], ...] = ((128, 64), (256, 128))
) -> Emulated:
    """Let the bench run in this process on the emulator, with small problems."""
    library = Emulated()
    monkeypatch.setattr(LocalWorker, "library", library, raising=False)
    monkeypatch.setattr(parents, "Worker", LocalWorker)
    monkeypatch.setattr(bench_gpu, "Program", lambda: Program(shapes, (8,), 128))
    monkeypatch.setattr(bench_gpu, "compile_all", lambda parent, jobs, check: None)
    for name in ("FIRST", "SECOND", "REST"):
        monkeypatch.setattr(order, name, (0.0, 0.8))
    return library


def errors(notes: Sequence[str]) -> list[float]:
    """Relative errors in the notes of rows."""
    return [float(note.split("error ")[1].split(",")[0]) for note in notes]
