"""What-ifs move times the right way, or are refused."""

from __future__ import annotations

import math

import pytest

from perfmodel.pipeline import WhatIf, simulate
from tests.perfmodel.pipeline.cases import SHAPE, time_of


def test_what_ifs_move_the_right_way():
    base = time_of()
    assert time_of(what_if=WhatIf(reorder=False)) > base
    assert time_of(what_if=WhatIf(double_buffer=False)) > 1.05 * base
    # Without the ring more blocks fit, and they cover each other's waits: hardly slower, but more are needed.
    ring, single = (simulate("cublas", "a100-80gb", *SHAPE, 8, what_if=WhatIf(double_buffer=d)) for d in (True, False))
    assert single.grid.resident > ring.grid.resident
    assert single.time_s > 0.99 * ring.time_s
    decoded = simulate("flash-llm", "a100-80gb", *SHAPE, 8, 0.8, what_if=WhatIf(register_decode=True))
    assert {stage.row for stage in decoded.program.stages}.isdisjoint({"clear", "scatter"})
    # 100 KB hold one block of Flash-LLM, twice as much two.
    small, large = (simulate("flash-llm", "rtx-3090", *SHAPE, 8, 0.9, what_if=WhatIf(shared_scale=s)) for s in (1, 2))
    assert (small.grid.resident, large.grid.resident) == (1, 2)
    assert large.time_s < small.time_s


@pytest.mark.parametrize(
    ("kernel", "change", "message"),
    [
        (
            "cublas",
            {"register_decode": True},
            "register_decode cannot be changed in cublas; only double_buffer and tile",
        ),
        ("cublas", {"reorder": False}, "reorder cannot be changed in cublas"),
        ("bitmap", {"register_decode": True, "reorder": False}, "reorder and register_decode cannot be changed in bit"),
        (
            "flash-llm",
            {"register_decode": True, "reorder": False},
            "reorder cannot be changed in flash-llm that decodes",
        ),
        (
            "numba-tiled-csl",
            {"double_buffer": False},
            "double_buffer cannot be changed in numba-tiled-csl; only reorder",
        ),
        ("numba-dense", {"tile_k": 32}, "tile_k cannot be changed in numba-dense; nothing can"),
    ],
)
def test_what_ifs_that_would_do_nothing_are_refused(kernel, change, message):
    with pytest.raises(ValueError, match=message):
        time_of(kernel, what_if=WhatIf(**change))


@pytest.mark.parametrize("change", [{"bandwidth_scale": 0}, {"shared_scale": math.inf}, {"tile_k": 24}])
def test_bad_what_ifs_are_named(change):
    with pytest.raises(ValueError, match=f"{next(iter(change))} is .*, allowed"):
        WhatIf(**change)
