"""Measurements that a user might bring."""

from __future__ import annotations

import pandas as pd
import pytest

from perfmodel.catalog import load_gpu
from perfmodel.catalog.checks import OPTIONAL_COLUMNS
from perfmodel.evidence.rows import with_residency
from perfmodel.kernels import KERNELS, Machine, Shape
from tests.perfmodel.cases import OURS
from tests.perfmodel.evidence.own_rows import SIZES, TRUTH


@pytest.fixture(scope="module")
def own() -> pd.DataFrame:
    """Times of a made-up H100 whose parameters are `TRUTH`, in the schema of the evidence."""
    model, machine = KERNELS[OURS], Machine.of(load_gpu("h100"))
    rows = pd.DataFrame(
        [(m, k, n, s) for m, k in SIZES for n in (8, 16, 32) for s in (0.5, 0.7, 0.9)],
        columns=["m", "k", "n", "sparsity"],
    )
    shape = Shape.of(*(rows[column].to_numpy() for column in rows))
    time_us = model.time(machine, shape, model.Parameters(**TRUTH)).time_s * 1e6
    rows = rows.assign(gpu="h100", kernel=OURS, time_us=time_us, status="value", source="made-up", **OPTIONAL_COLUMNS)
    return with_residency(rows)
