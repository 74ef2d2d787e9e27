"""A program is refused that waits for nothing there is."""

from __future__ import annotations

import pytest

from perfmodel.pipeline import Program, Stage, Tile, Work


def test_a_stage_must_wait_for_one_that_exists():
    lonely = Stage("use", "scatter", {}, Work(1.0), after=(("nothing", 0),))
    with pytest.raises(ValueError, match="waits for 'nothing'"):
        Program("toy", Tile(128, 8, 64), 1, 1024, 32, 128, (lonely,), source="this test")
