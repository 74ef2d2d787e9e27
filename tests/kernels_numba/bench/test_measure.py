"""Timing one product as the planner does."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from kernels_numba.bench import measure
from kernels_numba.bench.product import MAX_COPIES
from kernels_numba.formats import encode_tiled_csl
from kernels_numba.gpu import device
from tests.kernels_numba.bench.emulated import GPU, Emulated


def test_the_planner_times_products_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Emulated()
    monkeypatch.setattr("kernels_numba.bench.library.open_library", lambda: library)
    monkeypatch.setattr("numba.cuda.get_current_device", lambda: SimpleNamespace(L2_CACHE_SIZE=GPU.l2_bytes))
    monkeypatch.setattr(device, "current_arch", lambda: "sm_80")
    monkeypatch.setattr(device, "sm_count", lambda: 132)
    assert measure.time_on_gpu(encode_tiled_csl(np.ones((8, 64), np.float16)), 8, None) == 10.0
    assert library.timed == [MAX_COPIES]
