"""The comparison of the CPU kernels with their peers."""

import numpy as np
import pytest

from kernels_numba.bench import cpu as bench_cpu
from tests.kernels_numba.problems import random_matrix


def test_bench_table_and_summary(monkeypatch, capsys):
    """Fixed times: ours 2 ms, the better peer 3 ms or 1 ms."""

    def compare(m, k, sparsity, *, rounds):
        peer_s = 1e-3 if sparsity == 0.9 else 3e-3
        times_s = {"cpu-bitmap": [2e-3, 2e-3, 9e-3], "cpu-bitmap-bf16": [4e-3] * 3, "cpu-dense16": [1e-3] * 3}
        times_s |= {"numpy-fp32": [9e-3] * 3, "scipy-csr": [peer_s] * 3}
        timings = {name: bench_cpu.Timing(np.array(samples)) for name, samples in times_s.items()}
        yield bench_cpu.Compared(8, timings, dict.fromkeys(timings, 4_000_000))

    monkeypatch.setattr(bench_cpu, "SPARSITIES", (0.7, 0.8, 0.9))
    monkeypatch.setattr(bench_cpu, "compare", compare)
    monkeypatch.setattr(bench_cpu, "_torch", lambda: None)
    times = bench_cpu.Timing(np.array([0.5, 0.5])), bench_cpu.Timing(np.array([0.25, 0.25]))
    monkeypatch.setattr(bench_cpu, "time_encoder", lambda sparsity, rounds: times)
    assert bench_cpu.main(["--quick"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("PyTorch not installed")
    assert "scipy-csr ms" in lines[1]
    assert [line.split()[-3:] for line in lines[2:5]] == [
        [ratio, "2.0", "cpu-bitmap"] for ratio in ("1.50", "1.50", "0.50")
    ]
    assert lines[5] == "3 cases: geometric mean 1.04x the best peer, worst 0.50x"
    # 4,194,304 weights in half a second are 8.4 million a second, 0.42 of the goal.
    assert lines[7].split() == ["50%", "8.4", "±", "0%", "16.8", "±", "0%", "0.42", "0.84"]
    assert len(lines) == 7 + len(bench_cpu.ENCODED_SPARSITIES)


def test_bench_compares_on_checked_products(monkeypatch):
    monkeypatch.setattr(bench_cpu, "TOKENS", (8,))
    monkeypatch.setattr(bench_cpu, "PAUSE_S", 0.0)
    (found,) = bench_cpu.compare(256, 384, 0.8, rounds=3)
    assert found.n == 8
    assert {*bench_cpu.OURS, "cpu-dense16", "numpy-fp32", "scipy-csr"} <= set(found.timings)
    assert all(timing.samples.shape == (3,) and timing.median_s > 0 for timing in found.timings.values())
    assert found.nbytes["cpu-bitmap"] < found.nbytes["cpu-dense16"] == 2 * 256 * 384
    (one,) = bench_cpu.compare(256, 384, 0.8, rounds=1, kernels=("scipy-csr",))
    assert set(one.timings) == {"scipy-csr"}


def test_encoder_is_timed():
    clock, processor = bench_cpu.time_encoder(0.8, rounds=2, shape=(256, 256))
    assert clock.samples.shape == processor.samples.shape == (2,)
    assert clock.median_s > 0
    assert processor.median_s > 0


def test_bench_refuses_a_wrong_contestant():
    a, x = random_matrix(70, 64, 0.5), np.ones((64, 8), np.float32)
    runs = {name: one.ready(x) for name, one in bench_cpu.contestants(a).items()}
    bench_cpu.check(runs, a, x)
    runs["wrong"] = lambda: a.astype(np.float32) @ x + 1
    with pytest.raises(ValueError, match="wrong: error 1"):
        bench_cpu.check(runs, a, x)
