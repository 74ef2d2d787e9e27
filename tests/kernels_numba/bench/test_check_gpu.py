"""The check before every bench: right kernels pass; unwritten outputs, races and failures show."""

from __future__ import annotations

import numpy as np
import pytest

from kernels_numba.bench import check_gpu
from kernels_numba.bench.check_gpu import check_kernels, check_twice
from kernels_numba.bench.product import Product
from kernels_numba.formats import encode_tiled_csl
from kernels_numba.gpu.launch import Launch
from tests.kernels_numba.bench.emulated import GPU, Emulated


def test_checks_pass_on_right_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_gpu, "DENSITIES", (0.0, 0.3))
    outcomes = list(check_kernels(Emulated(), GPU, seed=1, problems=[(9, 70, 7)]))
    assert len(outcomes) == 2 * 2 * (5 * 3 + 2)  # densities, element types, products
    assert set(outcomes) == {""}


def test_checks_catch_unwritten_outputs_races_and_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lazy(Emulated):
        def run(self, launch: Launch) -> None:
            """Launches nothing: the outputs keep their poison."""

    class Racy(Emulated):
        def run(self, launch: Launch) -> None:
            super().run(launch)
            self.runs = getattr(self, "runs", 0) + 1
            if self.runs > 1:
                launch.arguments[3][0, 0] += 1

    class Faulty(Emulated):
        def run(self, launch: Launch) -> None:
            raise RuntimeError("CUDA driver: an illegal memory access")

    monkeypatch.setattr(check_gpu, "DENSITIES", (0.3,))
    assert "elements are wrong" in next(check_kernels(Lazy(), GPU, seed=1, problems=[(9, 64, 8)]))
    weights, x = encode_tiled_csl(np.ones((8, 64), np.float16)), np.ones((64, 8), np.float16)
    assert "two runs differ" in check_twice(Product(Racy(), weights, x, GPU, split_k=1), weights, x, "sum")
    failed = list(check_kernels(Faulty(), GPU, seed=1, problems=[(9, 64, 8)]))
    assert len(failed) == 2 * 17
    assert all("RuntimeError: CUDA driver: an illegal" in outcome for outcome in failed)
