"""Clock, power and reasons for low clocks of a GPU, sampled by NVIDIA's management library while something runs.

A time without the clock it ran at says little; ``nvidia-smi`` takes longer to answer than a product takes to time.
Where the library is not there, nothing is sampled.
"""

from __future__ import annotations

import ctypes
import statistics
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

LIBRARY = "libnvidia-ml.so.1"
PERIOD_S = 0.01
SM_CLOCK = 1  # NVML_CLOCK_SM
REASONS = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")  # new name, old name


@dataclass
class State:
    """Medians over a stretch of time; None if nothing was sampled.

    clock_mhz : of the SMs; power_w : of the board; throttle : all bits of the reasons for low clocks that were seen, 1
    idle, 4 power cap, 8 and 0x40 and 0x80 hardware, 0x20 heat.
    """

    clock_mhz: int | None = None
    power_w: int | None = None
    throttle: int | None = None


class Sampler:
    """Samples one GPU, known by the driver's ``GPU-...`` name, in a thread of its own."""

    def __init__(self, uuid: str, library: Any = None):
        self._handle = ctypes.c_void_p()
        try:
            self._nvml = library or ctypes.CDLL(LIBRARY)
            self._reasons = next(found for name in REASONS if (found := getattr(self._nvml, name, None)))
            failed = self._nvml.nvmlInit_v2() or self._nvml.nvmlDeviceGetHandleByUUID(
                uuid.encode(), ctypes.byref(self._handle)
            )
        except (OSError, AttributeError, StopIteration):
            failed = True
        self.works = not failed

    @contextmanager
    def watch(self) -> Iterator[State]:
        """The state of the GPU within the context; filled in at its end."""
        state, samples, ended = State(), list[tuple[int, int, int]](), threading.Event()
        thread = threading.Thread(target=self._collect, args=(samples, ended), daemon=True)
        if self.works:
            thread.start()
        try:
            yield state
        finally:
            ended.set()
            if self.works:
                thread.join()
            if samples:
                clocks, milliwatts, reasons = zip(*samples, strict=True)
                state.clock_mhz = round(statistics.median(clocks))
                state.power_w = round(statistics.median(milliwatts) / 1000)
                state.throttle = 0
                for bits in reasons:
                    state.throttle |= bits

    def _collect(self, samples: list[tuple[int, int, int]], ended: threading.Event) -> None:
        while not ended.wait(PERIOD_S):
            clock, power, reasons = ctypes.c_uint(), ctypes.c_uint(), ctypes.c_ulonglong()
            nvml = self._nvml
            if nvml.nvmlDeviceGetClockInfo(self._handle, SM_CLOCK, ctypes.byref(clock)):
                continue
            nvml.nvmlDeviceGetPowerUsage(self._handle, ctypes.byref(power))
            self._reasons(self._handle, ctypes.byref(reasons))
            samples.append((clock.value, power.value, reasons.value))
