"""A worker of another version is refused."""

from __future__ import annotations

import pytest

from perfmodel.sweep import Plan
from perfmodel.sweep.runner import _checked_chunk
from tests.perfmodel.sweep.cases import plan


def test_a_worker_of_another_version_is_refused() -> None:
    made = plan()
    other = Plan(made.spec, made.parsed, made.versions | {"numpy": "0.1"}, made.catalogue)
    with pytest.raises(ValueError, match=r"this worker has numpy .* instead of 0.1"):
        _checked_chunk(other, 0)
