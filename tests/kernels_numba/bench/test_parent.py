"""A child that dies costs its own product only; what is done is not done again, what is not is told."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kernels_numba.bench import families, order
from kernels_numba.bench import parent as parents
from kernels_numba.bench.order import FIRST, SHAPES, Program
from kernels_numba.bench.parent import DEATHS, ChildDiedError, Parent, Worker
from kernels_numba.bench.provenance import Row
from kernels_numba.formats import EncodedWeight, encode_bitmap
from kernels_numba.formats.encoded import check
from tests.kernels_numba.bench.emulated import GPU, LocalWorker, small_bench

PROGRAM = Program(((256, 128),), (8, 16), 128)
SCRIPT = """
import json, sys, time
for line in sys.stdin:
    job = json.loads(line)
    if job["do"] == "die":
        print("CUDA error: an illegal address", file=sys.stderr)
        sys.exit(3)
    if job["do"] == "hang":
        time.sleep(600)
    print(json.dumps({"answer": "begin", "n": job["n"]}), flush=True)
    print(json.dumps({"answer": "done"}), flush=True)
"""


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    path = tmp_path / "child.py"
    path.write_text(SCRIPT)
    monkeypatch.setattr(parents, "CHILD", (sys.executable, str(path)))
    worker = Worker("any")
    yield worker
    worker.close()


def test_a_worker_answers_jobs_one_after_the_other(child: Worker) -> None:
    for n in (1, 2):
        assert list(child.ask({"do": "answer", "n": n})) == [{"answer": "begin", "n": n}]


def test_a_dead_worker_says_what_it_died_of(child: Worker) -> None:
    with pytest.raises(ChildDiedError, match="exit code 3: CUDA error: an illegal address"):
        list(child.ask({"do": "die"}))
    with pytest.raises(ChildDiedError, match="exit code 3"):
        list(child.ask({"do": "answer", "n": 1}))


def test_a_hung_worker_is_ended(child: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parents, "SILENCE_S", 0.2)
    with pytest.raises(ChildDiedError, match="no answer for 0 s"):
        list(child.ask({"do": "hang"}))
    assert child._process.wait() < 0


class Mortal(LocalWorker):
    """Dies of bitmap products with 8 columns, as often as it meets them."""

    def ask(self, job: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for answer in super().ask(job):
            yield answer
            if answer.get("n") == 8 and self.child.family == "lscd-bitmap":
                raise ChildDiedError("exit code -11")


def parent(monkeypatch: pytest.MonkeyPatch, *chosen: str) -> Parent:
    small_bench(monkeypatch)
    monkeypatch.setattr(parents, "Worker", Mortal)
    made = Parent(chosen, PROGRAM, 0, lambda line: None)
    made.describe("method")
    return made


def test_what_comes_after_a_fatal_product_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    one = parent(monkeypatch, "lscd-tiled-csl", "lscd-bitmap")
    kept: list[int] = []
    one.bench([(256, 128, 0.8)], float("inf"), lambda: kept.append(len(one.rows)))
    assert one.gpu == GPU
    assert [(row.kernel, row.n) for row in one.rows if row.cache == "cold"] == [
        ("lscd-tiled-csl", 8), ("lscd-tiled-csl", 16), ("lscd-bitmap", 16),
    ]  # fmt: skip
    assert one.failures == ["lscd-bitmap (256, 128, 0.8), N = 8: its process died: exit code -11"]
    assert kept[-1] == len(one.rows)
    assert one.missing("lscd-bitmap", (256, 128, 0.8)) == [8]
    assert (256, 128, 0.8) in one.left_out()


def test_a_family_that_dies_again_and_again_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    one = parent(monkeypatch, "lscd-bitmap")
    one.bench([(256, 128, sparsity) for sparsity in (0.8, 0.5, 0.7, 0.9)], float("inf"), lambda: None)
    assert len(one.failures) == DEATHS
    assert "given up" in one.failures[-1]
    assert one.living() == []
    assert {row.sparsity for row in one.rows if row.n == 16} == {row.sparsity for row in one.rows}
    assert len({row.sparsity for row in one.rows}) == DEATHS - 1


def test_a_format_that_refuses_a_matrix_does_not_die_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(a: NDArray[np.float16]) -> EncodedWeight:
        check(np.mean(a == 0) > 0.6, "sparsity", "0.5", "0.7 or more")
        return encode_bitmap(a)

    monkeypatch.setattr(families, "encoders", lambda: {"lscd-tiled-csl": encode})
    one = parent(monkeypatch, "lscd-tiled-csl")
    one.bench([(256, 128, sparsity) for sparsity in (0.5, 0.4, 0.3, 0.2, 0.8)], float("inf"), lambda: None)
    assert (one.failures, one.living()) == ([], ["lscd-tiled-csl"])
    assert {round(row.sparsity, 1) for row in one.rows} == {0.8}
    assert one.refused["lscd-tiled-csl", (256, 128, 0.5)] == "sparsity: 0.5; allowed: 0.7 or more"
    assert one.missing("lscd-tiled-csl", (256, 128, 0.5)) == []


def test_weights_that_find_no_room_are_a_failure_of_theirs_only(monkeypatch: pytest.MonkeyPatch) -> None:
    one = parent(monkeypatch, "lscd-csr")
    full = iter((True, False))
    room = families.prepare

    def prepare(*given: Any) -> families.Products:
        if next(full):
            raise RuntimeError("CUDA out of memory")
        return room(*given)

    monkeypatch.setattr(families, "prepare", prepare)
    one.bench([(256, 128, 0.8), (256, 128, 0.5)], float("inf"), lambda: None)
    assert one.failures == ["lscd-csr (256, 128, 0.8), weights: RuntimeError: CUDA out of memory"]
    assert {round(row.sparsity, 1) for row in one.rows} == {0.5}


def test_no_product_is_begun_that_would_end_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    one = parent(monkeypatch, "lscd-tiled-csl")
    monkeypatch.setattr(order, "FIRST", (0.8, 0.5))
    clock = iter(range(0, 10**6, 20))  # every look at the clock finds 20 s gone
    monkeypatch.setattr(parents.time, "monotonic", lambda: float(next(clock)))
    one.bench([(256, 128, 0.8), (256, 128, 0.5)], 50.0, lambda: None)
    assert {round(row.sparsity, 1) for row in one.rows} == {0.8}
    assert (256, 128, 0.5) in one.left_out()


def test_rows_at_hand_are_not_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    one = parent(monkeypatch, "lscd-tiled-csl", "two-four")
    shape = (256, 128)
    one.rows = [
        Row("h200", "lscd-tiled-csl", *shape, 8, 0.7996, 1.0, 0.1, "value", "cold", "s", "n"),
        Row("h200", "two-four", *shape, 16, 0.5, 1.0, 0.1, "value", "cold", "s", "n"),
    ]
    assert one.missing("lscd-tiled-csl", (*shape, 0.8)) == [16]
    assert one.missing("lscd-tiled-csl", (*shape, 0.7)) == [8, 16]
    assert one.missing("lscd-tiled-csl", (*shape, 0.0)) == []
    assert one.missing("two-four", (*shape, 0.0)) == [8]


def test_what_tells_most_comes_first_and_nothing_is_missing() -> None:
    steps = Program().steps()
    assert steps[:6] == [(36864, 9216, sparsity) for sparsity in (0.0, 0.8, 0.5, 0.7, 0.9, 0.6)]
    others = [(m, k, s) for m, k in ((9216, 36864), (12288, 12288)) for s in (0.0, 0.8, 0.5, 0.9)]
    assert steps[6:14] == others
    assert Program().first_steps() == steps[: len(FIRST)]
    assert len(steps) == len(set(steps)) == 12 * 7
    assert {step[:2] for step in steps} == set(SHAPES)


def test_children_find_the_package() -> None:
    assert parents.environment()["PYTHONPATH"].split(os.pathsep)[0] == str(Path(parents.__file__).parents[2])
