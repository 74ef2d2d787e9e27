"""The check before every bench: right kernels pass; unwritten outputs, races and failures show."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels_numba.bench.check_gpu import check_kernels, check_twice
from kernels_numba.bench.families import encoders, is_streamed
from kernels_numba.bench.product import Product
from kernels_numba.formats import EncodedWeight, encode_tiled_csl
from kernels_numba.gpu.launch import Launch
from tests.kernels_numba.bench.emulated import GPU, Emulated

OURS = [encode for name, encode in encoders().items() if not is_streamed(name)]


def test_checks_pass_on_right_kernels() -> None:
    outcomes = list(check_kernels(Emulated(), GPU, 1, OURS, problems=[(9, 70, 7)], densities=(0.0, 0.3)))
    # Two densities and element types; three ways to split K each, one for CSR.
    assert len(outcomes) == 2 * 2 * (3 * (len(OURS) - 1) + 1)
    assert set(outcomes) == {""}


def test_checks_catch_unwritten_outputs_races_and_failures() -> None:
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

    small: Any = {"problems": [(9, 64, 8)], "densities": (0.3,)}
    assert "elements are wrong" in next(check_kernels(Lazy(), GPU, 1, OURS, **small))
    weights, x = encode_tiled_csl(np.ones((8, 64), np.float16)), np.ones((64, 8), np.float16)
    assert "two runs differ" in check_twice(Product(Racy(), weights, x, GPU, split_k=1), weights, x, "sum")
    failed = list(check_kernels(Faulty(), GPU, 1, OURS, **small))
    assert len(failed) == 2 * (3 * (len(OURS) - 1) + 1)
    assert all("RuntimeError: CUDA driver: an illegal" in outcome for outcome in failed)


def test_what_a_format_refuses_is_left_out() -> None:
    def refuses(a: object, element: object) -> EncodedWeight:
        raise ValueError("sparsity: 0.1; allowed: at least 0.7")

    assert list(check_kernels(Emulated(), GPU, 1, [refuses], problems=[(9, 64, 8)], densities=(0.3,))) == []
