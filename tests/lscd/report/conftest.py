"""Evidence and calibration, read once for all chapters."""

from __future__ import annotations

import pytest

from lscd.report.exhibit import Context


@pytest.fixture(scope="session")
def context() -> Context:
    return Context()
