"""What the bench needs of a GPU array library, and timing by events on a stream.

How long does a kernel take, without what the host adds? All launches of one measurement are captured in one CUDA graph
that touches different copies of the weights in turn; its replays are timed by events. What cannot be captured is
launched again and again instead, and where the host cannot keep ahead of the GPU so, the time is only an upper bound.
"""

from __future__ import annotations

import logging
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from kernels_numba.formats import Csr
from kernels_numba.gpu.launch import Launch

logger = logging.getLogger(__name__)

REPEATS = 9
STRETCH_MS = 8.0  # length of one timed stretch: long against the resolution of events, half a microsecond
WARM_UP_MS = 60.0  # a GPU that waited for the host has lowered its clocks
HOST_BOUND = 0.8  # share of a product's time in which the host launches it
Run = Callable[[], object]


class AbsentError(RuntimeError):
    """What this machine, or its software, does not have; no failure of a kernel."""


@dataclass(frozen=True)
class Timing:
    """Time of one product.

    time_us, error_us : median microseconds, and half the interquartile range over the repeats.
    replayed : whether graphs were replayed; else the host launched every product.
    host_bound : whether it took the host about as long to launch a product: the GPU may be faster.
    """

    time_us: float
    error_us: float
    replayed: bool = True
    host_bound: bool = False


class Library(ABC):
    """What the bench needs from a GPU array library; everything happens on its current GPU."""

    name: str

    @abstractmethod
    def asarray(self, array: NDArray[Any]) -> Any:
        """Copy to the GPU; unsigned integers may become signed ones of the same bits."""

    @abstractmethod
    def copy(self, array: Any) -> Any:
        """Copy of an array, on the GPU."""

    @abstractmethod
    def full(self, shape: tuple[int, ...], dtype: Any, value: float) -> Any:
        """New array on the GPU."""

    @abstractmethod
    def to_host(self, array: Any) -> NDArray[Any]:
        """Copy to the host, after all work is done."""

    @abstractmethod
    def run(self, launch: Launch) -> None:
        """Put one of our launches on the current stream."""

    @abstractmethod
    def dense(self, a: Any, x: Any, out: Any) -> Run:
        """``out = a @ x`` by cuBLAS."""

    @abstractmethod
    def sparse(self, weights: Csr, x: Any, out: Any) -> Run | None:
        """``out = weights @ x`` by cuSPARSE, or None if the library has no fp16 product. Must not be captured."""

    def release(self) -> None:  # noqa: B027 - nothing to do for a library that keeps no memory
        """Give memory that no array uses any more back to the GPU, for other processes."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until the GPU has done all its work."""

    @abstractmethod
    def on_own_stream(self) -> Any:
        """Context in which the current stream is one of the bench's own: the default one cannot be captured."""

    @abstractmethod
    def capture(self, products: Sequence[Run]) -> Run:
        """Capture the products, run before on this stream, in a graph; return what replays it.

        Raises
        ------
        RuntimeError
            If the library refuses; the stream is then as before.
        """

    @abstractmethod
    def elapsed_ms(self, run: Run, count: int) -> float:
        """Milliseconds between events before and after ``count`` runs."""

    def time(self, products: Sequence[Run], *, replay: bool = True) -> Timing:
        """Time of one of the products when all run one after the other, again and again.

        ``replay=False`` does not even try to capture a graph.
        """
        self.synchronize()
        with self.on_own_stream():
            run = launch_all(products)
            run()  # compiles, loads code and makes handles, none of which may happen in a capture
            self.synchronize()
            if replay:
                try:
                    run = self.capture(products)
                except RuntimeError as error:
                    logger.warning("not captured, launched one by one: %s", str(error).partition("\n")[0])
                    replay = False
            timing = time_stretches(lambda count: self.elapsed_ms(run, count), len(products))
            host_bound = not replay and self.launch_us(run) / len(products) > HOST_BOUND * timing.time_us
        return replace(timing, replayed=replay, host_bound=host_bound)

    def launch_us(self, run: Run) -> float:
        """Microseconds of the host until ``run`` is launched, not done; the least of a few."""
        samples = []
        for _ in range(REPEATS):
            self.synchronize()
            start = time.perf_counter()
            run()
            samples.append(time.perf_counter() - start)
        self.synchronize()
        return min(samples) * 1e6


def launch_all(products: Sequence[Run]) -> Run:
    """Function that runs all products."""

    def run() -> None:
        for product in products:
            product()

    return run


def summarise(samples_us: Sequence[float]) -> Timing:
    """Median and half the interquartile range."""
    low, _, high = statistics.quantiles(samples_us, n=4)
    return Timing(statistics.median(samples_us), (high - low) / 2)


def time_stretches(elapsed_ms: Callable[[int], float], products: int) -> Timing:
    """Time of one product from repeated stretches, each long enough for the events' resolution, after a warm-up.

    Parameters
    ----------
    elapsed_ms : milliseconds that a number of runs takes.
    products : products in one run.
    """
    warm_up = max(1, round(WARM_UP_MS / max(elapsed_ms(1), 1e-3)))
    count = max(1, round(STRETCH_MS / max(elapsed_ms(warm_up) / warm_up, 1e-3)))
    return summarise([elapsed_ms(count) * 1e3 / count / products for _ in range(REPEATS)])
