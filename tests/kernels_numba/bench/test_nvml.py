"""Clock and power under a timing: medians of what a stand-in for NVIDIA's library says."""

from __future__ import annotations

import ctypes
import itertools
import time
from typing import Any

import pytest

from kernels_numba.bench import nvml
from kernels_numba.bench.nvml import Sampler, State


class Library:
    """Knows one GPU, whose clock rises by 10 MHz each time it is asked."""

    def __init__(self) -> None:
        self.clocks = itertools.count(1000, 10)

    def nvmlInit_v2(self) -> int:
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, handle: Any) -> int:
        return 0 if uuid == b"GPU-7" else 6

    def nvmlDeviceGetClockInfo(self, handle: Any, kind: int, clock: Any) -> int:
        ctypes.cast(clock, ctypes.POINTER(ctypes.c_uint))[0] = next(self.clocks)
        return 0 if kind == nvml.SM_CLOCK else 2

    def nvmlDeviceGetPowerUsage(self, handle: Any, power: Any) -> int:
        ctypes.cast(power, ctypes.POINTER(ctypes.c_uint))[0] = 412_300
        return 0

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: Any, reasons: Any) -> int:
        ctypes.cast(reasons, ctypes.POINTER(ctypes.c_ulonglong))[0] = 4
        return 0


def test_a_stretch_has_medians_and_all_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "PERIOD_S", 0.001)
    library = Library()
    sampler = Sampler("GPU-7", library)
    with sampler.watch() as state:
        time.sleep(0.1)
    asked = (next(library.clocks) - 1000) // 10
    assert asked > 3
    assert state.clock_mhz == pytest.approx(1000 + 5 * (asked - 1), abs=1)
    assert (state.power_w, state.throttle) == (412, 4)


def test_without_library_or_gpu_nothing_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "LIBRARY", "no-such-library.so")
    for sampler in (Sampler("GPU-7"), Sampler("GPU-8", Library())):
        assert not sampler.works
        with sampler.watch() as state:
            pass
        assert state == State()
