"""What the explorer's tests look at: a view, and a page in a browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lscd.explorer.state import PRESETS
from lscd.explorer.view import View, view
from tests.lscd.explorer import browser


@pytest.fixture(scope="module")
def shown() -> View:
    return view(PRESETS["opt-66b-two-gpus"].state)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Page]:
    if reason := browser.missing("marimo"):
        pytest.skip(reason)
    with browser.opened(tmp_path_factory.mktemp("profile")) as found:
        yield found
