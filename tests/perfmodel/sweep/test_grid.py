"""Blocks of a grid hold every point once, in order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.sweep import Plan, grid
from perfmodel.sweep.grid import Dimension, Grid
from perfmodel.sweep.table import chunk_table
from tests.perfmodel.sweep.cases import AXES, plan


@given(st.lists(st.integers(1, 7), min_size=1, max_size=4), st.integers(1, 40), st.integers(1, 100))
@settings(max_examples=60, deadline=None)
def test_blocks_hold_every_point_once_and_in_order(sizes: list[int], block: int, chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grid, "BLOCK_POINTS", block)
        patch.setattr(grid, "CHUNK_POINTS", chunk)
        made = Grid.of([Dimension({f"x{i}": np.arange(float(size))}) for i, size in enumerate(sizes)])
        blocks = [b for index in range(made.chunks) for b in made.chunk(index)]
        assert all(b.points <= max(block, 1) or b.shape.count(1) >= len(sizes) - 1 for b in blocks)
        rows = np.concatenate(
            [np.stack([np.broadcast_to(v, b.shape).ravel() for v in b.numbers.values()], axis=1) for b in blocks]
        )
    assert np.array_equal(
        rows, np.stack(np.meshgrid(*map(np.arange, sizes), indexing="ij"), -1).reshape(-1, len(sizes))
    )


def test_names_come_first_and_zipped_axes_move_together() -> None:
    parsed = {
        "sweep": {"target": "predict"},
        "axes": {"sparsity": [0.5, 0.6], "n": [8], "gpu": "h100", "kernel": ["cublas", "sputnik"]},
        "zipped": [{"m": [1024, 2048], "k": [4096, 8192]}],
    }
    rows = chunk_table(Plan.of(parsed), 0).to_pandas()
    assert list(rows.columns[:6]) == ["gpu", "kernel", "sparsity", "n", "m", "k"]
    assert len(rows) == 8
    assert set(zip(rows["m"], rows["k"], strict=True)) == {(1024, 4096), (2048, 8192)}


def test_ranges_include_their_end_and_hit_decimals() -> None:
    axes = AXES | {
        "sparsity": {"start": 0.1, "stop": 0.9, "step": 0.1},
        "n": {"log_start": 1, "log_stop": 4, "count": 9},
    }
    spec = plan(axes=axes).spec
    assert list(spec.grid.column("sparsity")) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert list(spec.grid.column("n")) == [1, 2, 3, 4]


def test_a_group_of_names_and_numbers_alone_is_a_row_a_value() -> None:
    group = {
        "gpu": ["h100", "v100"],
        "kernel": ["cublas"] * 2,
        "m": [1, 2],
        "k": [3, 4],
        "n": [5, 6],
        "sparsity": [0] * 2,
    }
    made = Plan.of({"sweep": {"target": "predict", "columns": ["time_us"]}, "zipped": [group]})
    rows = chunk_table(made, 0).to_pandas()
    assert rows.drop(columns="time_us").astype(object).to_dict("list") == group
    assert made.spec.grid.chunks == 1
