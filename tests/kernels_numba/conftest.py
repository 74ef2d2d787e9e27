"""Fixtures of the planner and the bench."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernels_numba.bench.tuning import TuningCache


@pytest.fixture
def cache(tmp_path: Path) -> TuningCache:
    """An empty cache of its own."""
    return TuningCache("a device", tmp_path)
