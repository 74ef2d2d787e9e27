"""Compiled loops run where nothing can be kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
from numba.core.caching import CacheImpl

from kernels_numba import jit


def _twice(number: int) -> int:
    return 2 * number


@pytest.mark.parametrize("compiled", [jit.serial, import_module("perfmodel.pipeline.engine")._compiled])
def test_a_place_to_keep_machine_code_is_not_needed(
    monkeypatch: pytest.MonkeyPatch, compiled: Callable[..., Any]
) -> None:
    monkeypatch.setattr(CacheImpl, "_locator_classes", [])
    assert compiled(_twice)(21) == 42
