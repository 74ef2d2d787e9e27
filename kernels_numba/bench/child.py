"""One family of kernels in a process of its own: takes jobs as lines of JSON, answers with lines of JSON.

Why a process? A kernel that reads outside its buffers leaves the GPU's context of its process useless; so it costs its
own family only. `parent` starts these processes, feeds them one job at a time, and starts them again.

Jobs: ``describe`` the GPU, ``check`` the family on random problems, ``bench`` it on one matrix, ``profile`` one
product: run it once between the marks that a profiler waits for. Answers: ``gpu``, ``outcome`` of one check, ``begin``
of a product, its ``rows`` or ``failure``; ``absent`` if there is no such product here and ``refused`` if not of this
matrix, with the reason; and ``done``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from kernels_numba.bench import emulated, families
from kernels_numba.bench.check_gpu import check_kernels
from kernels_numba.bench.library import open_library
from kernels_numba.bench.nvml import Sampler
from kernels_numba.bench.product import Gpu
from kernels_numba.bench.provenance import code_version, describe_gpu
from kernels_numba.bench.session import Session
from kernels_numba.bench.slabs import Matrix, make_matrix
from kernels_numba.bench.timing import AbsentError, Library
from kernels_numba.formats import TILE_K, TILE_M
from kernels_numba.gpu.driver import bindings
from kernels_numba.gpu.launch import has_bulk_copies

Job = dict[str, Any]
Answer = dict[str, Any]
NO_GPU = 2
LOST = 3  # exit code of a process whose GPU context is gone


class GpuLostError(RuntimeError):
    """The GPU answers nothing any more in this process."""


class Child:
    """Does jobs of one family with one library."""

    def __init__(self, family: str, library: Library, dry_run: bool = False):
        self.family, self.library, self.dry_run = family, library, dry_run

    def warm_up(self) -> None:
        """Encode something: Numba compiles the encoders while the parent compiles the kernels."""
        encode = families.encoders().get(self.family)
        if encode is not None:
            encode(np.zeros((TILE_M, TILE_K), np.float16))

    def answers(self, job: Job) -> Iterator[Answer]:
        """Answers to one job, in order, the last one ``done``."""
        jobs = {"describe": self.describe, "check": self.check, "bench": self.bench, "profile": self.profile}
        yield from jobs[job["job"]](job)
        yield {"answer": "done"}

    def describe(self, job: Job) -> Iterator[Answer]:
        """The GPU at hand, and where rows measured on it come from."""
        if self.dry_run:
            told = {"gpu": emulated.GPU.key, "uuid": "", "library": self.library.name, **code_version()}
            gpu = emulated.GPU
        else:
            gpu, told = describe_gpu(self.library, job["method"])
        yield {"answer": "gpu", "gpu": asdict(gpu), "provenance": told | {"method": job["method"]}}

    def check(self, job: Job) -> Iterator[Answer]:
        """Outcomes of the checks of this family: empty for a right product."""
        encode, gpu, streamed = families.encoders()[self.family], Gpu(**job["gpu"]), families.is_streamed(self.family)
        if streamed and not has_bulk_copies(gpu.arch):
            return
        for outcome in check_kernels(self.library, gpu, job["seed"], [encode], streamed=streamed, **job["chosen"]):
            yield {"answer": "outcome", "outcome": outcome}
            if outcome:
                self._survive()

    def bench(self, job: Job) -> Iterator[Answer]:
        """Rows of each number of columns; whatever goes wrong with one is told, and costs the next ones nothing."""
        yield from self._products(job)
        self.library.release()

    def _products(self, job: Job) -> Iterator[Answer]:
        """Answers about each number of columns; nothing on the GPU outlives them."""
        gpu, matrix = Gpu(**job["gpu"]), _matrix(job)
        session = Session(self.library, gpu, Sampler(job["uuid"]))
        try:
            products = families.prepare(self.family, self.library, gpu, matrix)
            for n in job["columns"]:
                yield {"answer": "begin", "n": n}
                yield self._one(session, products, n)
        except AbsentError as error:
            yield {"answer": "absent", "reason": str(error)}
        except ValueError as error:  # a format that does not hold every matrix
            yield {"answer": "refused", "reason": str(error)}
        except GpuLostError:
            raise
        except Exception as error:  # of the weights: no memory, for example
            self._survive()
            yield {"answer": "failure", "error": _told(error)}

    def _one(self, session: Session, products: families.Products, n: int) -> Answer:
        """Rows of one product; what goes wrong with it is told, and costs the next ones nothing."""
        try:
            return {"answer": "rows", "rows": [asdict(row) for row in session.measure(products(n))]}
        except AbsentError:
            raise
        except Exception as error:
            self._survive()
            return {"answer": "failure", "error": _told(error)}

    def profile(self, job: Job) -> Iterator[Answer]:
        """Run one product once to load it, and once more between the marks of a profiler."""
        products = families.prepare(self.family, self.library, Gpu(**job["gpu"]), _matrix(job))
        trial = products(job["columns"][0])[0]
        trial.runners[0]()
        self.library.synchronize()
        driver = None if self.dry_run else bindings()
        if driver:
            driver.cuProfilerStart()
        trial.runners[-1]()
        self.library.synchronize()
        if driver:
            driver.cuProfilerStop()
        yield {"answer": "profiled", "n": trial.size[2]}

    def _survive(self) -> None:
        """Raise `GpuLostError` if the failure before this left no working GPU."""
        try:
            self.library.synchronize()
        except Exception as error:
            raise GpuLostError(_told(error)) from error


def _matrix(job: Job) -> Matrix:
    return make_matrix(job["m"], job["k"], job["sparsity"], job["n_max"], job["seed"], job["slab_rows"])


def _told(error: Exception) -> str:
    """Kind and first line of an error."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def main(arguments: list[str] | None = None) -> int:
    """Answer jobs from standard input until it ends; return the exit code: 0, 2 without a GPU, 3 if it was lost."""
    parser = argparse.ArgumentParser(
        prog="python -m kernels_numba.bench.child", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--family", required=True)
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args(arguments)
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not come between the answers
    try:
        library = emulated.Emulated() if options.dry_run else open_library()
        child = Child(options.family, library, options.dry_run)
        child.warm_up()
        for line in sys.stdin:
            for answer in child.answers(json.loads(line)):
                channel.write(json.dumps(answer) + "\n")
                channel.flush()
    except GpuLostError as error:
        sys.stderr.write(f"{error}\n")
        return LOST
    except RuntimeError as error:
        sys.stderr.write(f"{error}\n")
        return NO_GPU
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
