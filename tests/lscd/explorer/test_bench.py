"""The explorer's bench times every change that it makes."""

from __future__ import annotations

import pytest


def test_bench_times_every_change_it_makes() -> None:
    """The goal itself is for `make bench`: a shared machine may be slow."""
    pytest.importorskip("marimo")
    from lscd.explorer import bench

    times_ms = bench.answer_times_ms(changes=3)
    assert times_ms.shape == (3, 2)
    assert (times_ms[:, 0] > 0).all()
    assert (times_ms[:, 0] <= times_ms[:, 1]).all()
