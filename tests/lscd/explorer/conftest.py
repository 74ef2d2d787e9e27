"""The view that the explorer's tests look at."""

from __future__ import annotations

import pytest

from lscd.explorer.state import PRESETS
from lscd.explorer.view import View, view


@pytest.fixture(scope="module")
def shown() -> View:
    return view(PRESETS["opt-66b-two-gpus"].state)
