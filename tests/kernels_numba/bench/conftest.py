"""Fixtures of the bench."""

from __future__ import annotations

import pytest

from tests.kernels_numba.bench.emulated import Emulated, small_bench


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> Emulated:
    """The bench's GPU is the emulator, its problems are small."""
    return small_bench(monkeypatch)
