"""The process that measures a GPU without touching it: it feeds one child a family, and outlives them.

A child that dies, hangs or loses the GPU is started again and goes on after the product that it died of; after some
deaths its family is given up. What was measured before stays, and is told to `keep` after each product.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from kernels_numba.bench import families
from kernels_numba.bench.order import Program, Step
from kernels_numba.bench.product import Gpu
from kernels_numba.bench.provenance import Row

CHILD = (sys.executable, "-m", "kernels_numba.bench.child")
SILENCE_S = 180.0  # without an answer, a child is taken for hung: importing and compiling take a fraction of it
SAME_SPARSITY = 0.03  # random weights miss the one asked for, in a small matrix most
DEATHS = 3  # after so many, a family is given up
Answer = dict[str, Any]


class ChildDiedError(RuntimeError):
    """A child ended, or was ended, before it had done its job."""


class Worker:
    """One child process and its answers."""

    def __init__(self, family: str, *, dry_run: bool = False):
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - `close` closes it
        command = [*CHILD, "--family", family, *(["--dry-run"] if dry_run else [])]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._log}
        self._process = subprocess.Popen(command, text=True, encoding="utf-8", env=environment(), **pipes)
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            self._lines.put(line)
        self._lines.put(None)

    def ask(self, job: dict[str, Any]) -> Iterator[Answer]:
        """Answers to a job, as they come; raises `ChildDiedError` if the child does."""
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise ChildDiedError(self._reason()) from None
        while True:
            try:
                line = self._lines.get(timeout=SILENCE_S)
            except queue.Empty:
                self._process.kill()
                raise ChildDiedError(f"no answer for {SILENCE_S:.0f} s") from None
            if line is None:
                raise ChildDiedError(self._reason())
            answer: Answer = json.loads(line)
            if answer["answer"] == "done":
                return
            yield answer

    def _reason(self) -> str:
        """Exit code or signal of the child, and the last line that it wrote."""
        code = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().strip().splitlines()
        return f"exit code {code}{': ' + lines[-1] if lines else ''}"

    def close(self) -> None:
        """End the child."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                with suppress(BrokenPipeError):  # what a dead child had still to read
                    stream.close()


def environment() -> dict[str, str]:
    """Environment in which a child finds this package, installed or not."""
    root = str(Path(__file__).resolve().parents[2])
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}


class Parent:
    """Runs families, keeps rows, and what failed, was absent or had no time.

    gpu, told : the GPU at hand and the provenance of its rows, as a first child describes them.
    """

    def __init__(
        self, chosen: Sequence[str], program: Program, seed: int, report: Callable[[str], object], **kind: Any
    ):
        self.chosen, self.program, self.seed, self.report, self.kind = list(chosen), program, seed, report, kind
        self.rows: list[Row] = []
        self.failures: list[str] = []
        self.absent: dict[str, str] = {}
        self.refused: dict[tuple[str, Step], str] = {}
        self.deaths: Counter[str] = Counter()
        self._workers: dict[str, Any] = {}
        self._tried: set[tuple[str, Step, int]] = set()  # products that failed are not tried again before `--resume`
        self._pace: dict[str, float] = {}  # seconds per weight and product
        self.gpu, self.told = Gpu("", "", 0, 0), dict[str, Any]()

    def describe(self, method: str) -> None:
        """Ask a child what the GPU is; raises RuntimeError in its words if there is none."""
        try:
            for answer in self.worker("gpu").ask({"job": "describe", "method": method}):
                self.gpu, self.told = Gpu(**answer["gpu"]), answer["provenance"] | {"seed": self.seed}
        except ChildDiedError as error:
            raise RuntimeError(str(error).partition(": ")[2] or str(error)) from None
        finally:
            self.close("gpu")

    def worker(self, family: str) -> Any:
        """The family's child, started if it is not there."""
        if family not in self._workers:
            self._workers[family] = Worker(family, **self.kind)
        return self._workers[family]

    def start(self) -> None:
        """Start all children at once: importing PyTorch takes each of them seconds."""
        for family in self.chosen:
            self.worker(family)

    def close(self, *chosen: str) -> None:
        """End some children, or all."""
        for family in chosen or tuple(self._workers):
            if family in self._workers:
                self._workers.pop(family).close()

    def check(self, seed: int, chosen: dict[str, Any]) -> tuple[int, int]:
        """Check every kernel of ours; returns how many products were right, of how many."""
        right = total = 0
        job = {"job": "check", "gpu": vars(self.gpu), "seed": seed, "chosen": chosen}
        for family in (family for family in self.chosen if family in families.encoders()):
            before = total
            try:
                for answer in self.worker(family).ask(job):
                    total, right = total + 1, right + (not answer["outcome"])
                    if answer["outcome"]:
                        self.report(f"WRONG {family}: {answer['outcome']}")
            except ChildDiedError as error:
                self._died(family, f"check after {total - before} products", error)
                total += 1
            if total == before:
                self._fail(f"{family}: no product was checked")
                total += 1
        return right, total

    def bench(self, steps: Sequence[Step], end: float, keep: Callable[[], object]) -> None:
        """Measure families on matrices, in order, what is not measured yet and, at its pace, ends before ``end``."""
        for m, k, sparsity in steps:
            for family in self.living():
                step = (m, k, sparsity)
                todo = [n for n in self.missing(family, step) if (family, step, n) not in self._tried]
                start = time.monotonic()
                if todo and start + self._pace.get(family, 0.0) * m * k * len(todo) < end:
                    self._tried |= {(family, step, n) for n in todo}
                    self._bench_one(family, step, todo, keep)
                    self._pace[family] = (time.monotonic() - start) / (m * k * len(todo))

    def living(self) -> list[str]:
        """Families that are neither absent nor given up."""
        return [name for name in self.chosen if name not in self.absent and self.deaths[name] < DEATHS]

    def missing(self, family: str, step: Step) -> list[int]:
        """Columns of a family's products with a matrix that have no row; none if it is not measured on such."""
        m, k, sparsity = step
        if not families.wants(family, sparsity) or (family, step) in self.refused:
            return []
        nominal = families.ROW_SPARSITY.get(family, sparsity)
        rows = [row for row in self.rows if (row.kernel, row.m, row.k) == (family, m, k)]
        done = {row.n for row in rows if abs(row.sparsity - nominal) < SAME_SPARSITY}
        return [n for n in self.program.columns if n not in done]

    def left_out(self) -> list[Step]:
        """Matrices of which a product of a living family has no row."""
        return [step for step in self.program.steps() if any(self.missing(f, step) for f in self.living())]

    def job(self, kind: str, step: Step, columns: Sequence[int]) -> dict[str, Any]:
        """What a child has to know of a matrix."""
        m, k, sparsity = step
        size = {"m": m, "k": k, "sparsity": sparsity, "n_max": max(self.program.columns), "columns": list(columns)}
        where = {"gpu": vars(self.gpu), "uuid": self.told.get("uuid", "")}
        return {"job": kind, **size, **where, "seed": self.seed, "slab_rows": self.program.slab_rows}

    def _bench_one(self, family: str, step: Step, todo: list[int], keep: Callable[[], object]) -> None:
        """One family and matrix; after a death, what comes after the product at hand."""
        while todo and self.deaths[family] < DEATHS:
            at: int | None = None
            try:
                for answer in self.worker(family).ask(self.job("bench", step, todo)):
                    at = answer.get("n", at)
                    self._take(family, step, at, answer)
                    keep()
                return
            except ChildDiedError as error:
                self._died(family, f"{step}, N = {at}", error)
                keep()
            todo = todo[todo.index(at) + 1 :] if at is not None else []

    def _take(self, family: str, step: Step, n: int | None, answer: Answer) -> None:
        """Keep one answer."""
        if answer["answer"] == "rows":
            for row in (Row(**fields) for fields in answer["rows"]):
                self.rows.append(row)
                size = f"({row.m}, {row.k}, {row.n}) {row.sparsity:.2f}"
                self.report(f"{row.kernel:18} {size:25} {row.cache} {row.time_us:9.2f} us  {row.note}")
        elif answer["answer"] == "failure":
            self._fail(f"{family} {step}, {'weights' if n is None else f'N = {n}'}: {answer['error']}")
        elif answer["answer"] == "refused":
            self.refused[family, step] = answer["reason"]
            self.report(f"{family} does not hold {step}: {answer['reason']}")
        elif answer["answer"] == "absent":
            self.absent[family] = answer["reason"]
            self.report(f"{family} is not here: {answer['reason']}")

    def _died(self, family: str, where: str, error: ChildDiedError) -> None:
        self.deaths[family] += 1
        given_up = ", given up" if self.deaths[family] == DEATHS else ""
        self._fail(f"{family} {where}: its process died{given_up}: {error}")
        self.close(family)

    def _fail(self, what: str) -> None:
        self.failures.append(what)
        self.report(f"FAILED {what}")
