"""What is measured of a machine: amounts by hand, and one short measurement in a process of its own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kernels_numba.bench import machine, machine_njit
from kernels_numba.bench.machine import Rate
from kernels_numba.bench.timing import AbsentError
from tests.kernels_numba.bench.emulated import Emulated


def test_a_rate_is_a_median_with_its_spread() -> None:
    assert Rate.of(10.0, [1.0, 2.0, 2.5, 5.0, 10.0]) == Rate(4.0, (5 - 2) / 4)


def test_every_value_is_read_in_every_round() -> None:
    values = np.empty(machine_njit.STEP * 6 + 5, np.float32)
    machine_njit.fill(values)
    for threads in (1, 2):
        sums = np.zeros((threads, machine_njit.LANES), np.float32)
        machine_njit.read(values, 3, np.zeros(8, np.int64), sums)
        assert sums.sum() == 3 * machine_njit.STEP * 6


def test_multiply_adds_are_those_that_are_counted() -> None:
    """Each of 12 sums starts at x and gains scale * x a step."""
    factors, sums = np.full(machine_njit.LANES, 0.5, np.float32), np.zeros((2, machine_njit.LANES), np.float32)
    machine_njit.multiply_add(4, factors, sums)
    assert (sums == machine_njit.SUMS * (0.5 + 4 * 0.25)).all()


def test_a_chain_waits_for_every_step() -> None:
    word = 1
    for _ in range(7):
        word = ((word ^ (word << 1)) + 1) % 2**64
    assert int(machine_njit.chain(7)) == word


def test_working_sets_reach_beyond_the_cache_and_spare_the_memory() -> None:
    assert machine.working_sets(2**40, 2**20) == [2**power for power in range(15, 23)]
    assert machine.working_sets(2**20, 2**30)[-1] == 2**18
    assert machine.thread_counts(1) == [1]
    assert machine.thread_counts(6) == [1, 2, 4, 6]


def test_the_last_cache_is_the_largest(tmp_path: Path) -> None:
    assert machine.cache_bytes(tmp_path) == machine.UNKNOWN_CACHE
    for index, size in enumerate(("48K", "2048K", "300M")):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(size + "\n")
    assert machine.cache_bytes(tmp_path) == 300 * 2**20


def test_a_measurement_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a fake machine whose steps take no time, everything that the process prints arrives."""
    told: list[tuple[int, int]] = []
    sizes = [2**15, 2**16, 2**17, 2**18]
    names = [
        *(f"read {size}" for size in sizes),
        "clock_hz",
        "call",
        "fp32_fma",
        "fp32_gemm",
        "torch_fp32_gemm",
        "bf16_gemm",
    ]

    def printed(module: str, threads: int, *arguments: str) -> list[tuple[str, dict[str, float] | None]]:
        assert (module, arguments) == ("kernels_numba.bench.machine", ("--seconds", "0.5"))
        rate = {"value": 1e10 * threads, "spread": 0.1}
        return [(name, None if name == "bf16_gemm" else rate) for name in names]

    monkeypatch.setattr(machine, "working_sets", lambda memory, cache: sizes)
    monkeypatch.setattr(machine, "lines_of", printed)
    found = machine.measure_machine([1, 2], 1.0, lambda done, total: told.append((done, total)))
    assert told == [(i + 1, 20) for i in range(20)]
    assert found["reads"]["bytes_per_s"] == [[1e10] * 4, [2e10] * 4]
    assert found["peak"]["fp32_fma"] == [1e10, 2e10]
    assert "bf16_gemm" not in found["peak"]
    assert found["measured"].keys() >= {"date", "python", "numpy", "numba", "source"}


def test_one_real_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One thread, two small working sets and short loops: rates that a processor may have."""
    monkeypatch.setattr(machine, "working_sets", lambda memory, cache: [2**15, 2**20])
    for name, value in (("FMA_STEPS", 20_000), ("CHAIN_STEPS", 300_000), ("ROUND_BYTES", 2**22), ("GEMM_SIZE", 128)):
        monkeypatch.setattr(machine, name, value)
    monkeypatch.setattr(machine, "torch_gemm_rate", lambda threads, kind, seconds: None)
    assert machine.main(["--threads", "1", "--seconds", "0.01"]) == 0
    lines = dict(json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert lines["torch_fp32_gemm"] is None
    assert 5e8 < lines["clock_hz"]["value"] < 1e10
    assert lines["fp32_fma"]["value"] < 70 * lines["clock_hz"]["value"]
    assert lines["read 32768"]["value"] < 200 * lines["clock_hz"]["value"]
    assert 1e-8 < lines["call"]["value"] < 1e-1


def test_a_process_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="measuring with 2 threads failed"):
        machine.measure_machine([2], 1.0)


@pytest.mark.parametrize("absent", [False, True])
def test_a_gpu_is_copies_a_product_and_a_launch(monkeypatch: pytest.MonkeyPatch, absent: bool) -> None:
    monkeypatch.setattr(machine, "GPU_GEMM_SIZE", 64)
    library = Emulated()
    if absent:

        def none(a: object, x: object, out: object) -> None:
            raise AbsentError("cublas needs PyTorch or CuPy")

        monkeypatch.setattr(library, "dense", none)
    found = machine.measure_gpu(library, 3e12)
    rate = None if absent else pytest.approx(2 * 64**3 / 10e-6)
    assert found == {"copy_bytes_per_s": 3e12, "fp16_gemm_flops_per_s": rate, "launch_s": pytest.approx(10e-6)}
