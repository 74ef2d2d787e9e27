"""PyTorch and CuPy as the bench uses them, with stand-ins that record captures and keep a clock on NumPy arrays."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kernels_numba.bench import library as gpu_library
from kernels_numba.bench import timing as gpu_timing
from kernels_numba.bench.library import Cupy, Torch, open_library
from kernels_numba.bench.timing import Timing, summarise, time_stretches
from kernels_numba.formats import encode_csr
from kernels_numba.gpu import device

RNG = np.random.default_rng(2)
A = RNG.standard_normal((40, 64)).astype(np.float16)
X = RNG.standard_normal((64, 8)).astype(np.float16)
PRODUCT_US = 5000.0  # far longer than the stand-ins take


class Array(np.ndarray):
    """NumPy array with the methods of a tensor that the bench calls."""

    def cuda(self) -> Array:
        return self.copy().view(Array)

    def clone(self) -> Array:
        return self.copy().view(Array)

    def cpu(self) -> Array:
        return self

    def numpy(self) -> np.ndarray:
        return np.asarray(self)


class Machine:
    """A GPU with a clock: products launched advance it; products captured do so when their graph is replayed."""

    def __init__(self, refuses: bool = False, product_us: float = PRODUCT_US) -> None:
        self.product_us, self.refuses, self.clock_us, self.captured = product_us, refuses, 0.0, None
        self.launches = self.captures_ended = 0

    def launch(self, work: Callable[[], object]) -> None:
        if self.captured is not None:
            if self.refuses:
                raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")
            self.captured.append(work)
            return
        work()
        self.launches += 1
        self.clock_us += self.product_us

    def begin(self) -> None:
        assert self.captured is None
        self.captured = []

    def end(self) -> list[Callable[[], object]]:
        graph, self.captured = self.captured, None
        self.captures_ended += 1
        return graph


class Event:
    def __init__(self, machine: Machine) -> None:
        self.machine, self.at_us = machine, 0.0

    def record(self, stream: Any = None) -> None:
        self.at_us = self.machine.clock_us

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, other: Event) -> float:
        return (other.at_us - self.at_us) / 1e3


def fake_torch(machine: Machine) -> Any:
    streams = ["default"]

    @contextmanager
    def stream(chosen: Any) -> Iterator[None]:
        streams.append(chosen)
        yield
        streams.pop()

    @contextmanager
    def graph(holder: Any, stream: Any, capture_error_mode: str) -> Iterator[None]:
        assert stream is streams[-1]
        machine.begin()
        try:
            yield
        finally:
            holder.nodes = machine.end()

    class CUDAGraph:
        def replay(self) -> None:
            for node in self.nodes:
                machine.launch(node)

    def addmm(c: Array, a: Any, x: Array, *, beta: float, alpha: float, out: Array) -> None:
        assert (out is c, beta, alpha) == (True, 0, 1)
        machine.launch(lambda: np.copyto(out, a @ x))

    torch: Any = ModuleType("torch")
    torch.float16, torch.float32 = np.float16, np.float32
    torch.from_numpy = lambda array: array.view(Array)
    torch.full = lambda shape, value, dtype, device: np.full(shape, value, dtype).view(Array)
    torch.mm = lambda a, x, out: machine.launch(lambda: np.matmul(a, x, out=out))
    torch.addmm = addmm
    torch.sparse_csr_tensor = lambda rows, columns, values, size: _csr(rows, columns, values, size)
    torch.backends = SimpleNamespace(cuda=SimpleNamespace(matmul=SimpleNamespace()))
    torch.cuda = SimpleNamespace(
        Stream=object, stream=stream, graph=graph, CUDAGraph=CUDAGraph, synchronize=lambda: None,
        Event=lambda enable_timing: Event(machine), set_stream=lambda chosen: streams.__setitem__(-1, chosen),
        current_stream=lambda: SimpleNamespace(cuda_stream=5 if len(streams) > 1 else 0),
    )  # fmt: skip
    return torch


def _csr(row_ptr: Any, col_idx: Any, values: Any, shape: Any) -> np.ndarray:
    dense = np.zeros(shape, np.float16)
    dense[np.repeat(np.arange(shape[0]), np.diff(row_ptr)), col_idx] = values
    return dense


def fake_cupy(machine: Machine) -> Any:
    class Stream:
        def __init__(self, non_blocking: bool) -> None:
            assert non_blocking  # others cannot be captured

        def __enter__(self) -> None:
            cupy.current = SimpleNamespace(ptr=5)

        def __exit__(self, *error: object) -> None:
            cupy.current = SimpleNamespace(ptr=0)

        def begin_capture(self) -> None:
            machine.begin()

        def end_capture(self) -> Any:
            nodes = machine.end()
            return SimpleNamespace(launch=lambda stream: [machine.launch(node) for node in nodes])

    cupy: Any = ModuleType("cupy")
    cupy.current = SimpleNamespace(ptr=0)
    cupy.asarray, cupy.asnumpy = np.array, np.asarray
    cupy.full = lambda shape, value, dtype: np.full(shape, value, dtype)
    cupy.matmul = lambda a, x, out: machine.launch(lambda: np.matmul(a, x, out=out))
    cupy.cuda = SimpleNamespace(
        Stream=Stream, Event=lambda: Event(machine), get_elapsed_time=lambda start, end: start.elapsed_time(end),
        Device=lambda: SimpleNamespace(synchronize=lambda: None), get_current_stream=lambda: cupy.current,
    )  # fmt: skip
    return cupy


@pytest.fixture(params=[Torch, Cupy])
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[Machine], Any]:
    def made(machine: Machine) -> Any:
        monkeypatch.setitem(sys.modules, "torch", fake_torch(machine))
        monkeypatch.setitem(sys.modules, "cupy", fake_cupy(machine))
        return request.param()

    return made


def test_arrays_travel_bit_by_bit(make: Callable[[Machine], Any]) -> None:
    library = make(Machine())
    for dtype in (np.uint64, np.uint32, np.uint16, np.uint8, np.int32, np.float16):
        values = np.arange(250, 256).astype(dtype)
        on_gpu = library.asarray(values)
        assert library.to_host(on_gpu).tobytes() == values.tobytes()
        again = library.copy(on_gpu)
        again[...] = 0
        assert library.to_host(on_gpu).tobytes() == values.tobytes()
    out = library.full((2, 3), np.float16, np.nan)
    assert np.isnan(library.to_host(out)).all()


def test_products_of_the_vendor(make: Callable[[Machine], Any]) -> None:
    library = make(Machine())
    a, x = library.asarray(A), library.asarray(X)
    exact = A.astype(np.float64) @ X
    out = library.full((40, 8), np.float16, 0.0)
    runs = [library.dense(a, x, out), library.sparse(encode_csr(A), x, out)]
    for run in runs[: 1 if runs[1] is None else 2]:
        out[...] = 0
        run()
        np.testing.assert_allclose(library.to_host(out), exact, atol=0.1)


@pytest.mark.parametrize("refuses", [False, True])
def test_what_cannot_be_captured_is_launched_one_by_one(make: Callable[[Machine], Any], refuses: bool) -> None:
    machine = Machine(refuses)
    library = make(machine)
    outs = [library.full((40, 8), np.float16, np.nan) for _ in range(3)]
    runs = [library.dense(library.asarray(A), library.asarray(X), out) for out in outs]
    timing = library.time(runs)
    assert timing == Timing(pytest.approx(PRODUCT_US), pytest.approx(0, abs=1e-9), replayed=not refuses)
    assert machine.captured is None
    assert machine.captures_ended == 1
    assert not np.isnan(np.stack(outs)).any()
    # The stream is usable afterwards, and nothing is captured that should not be.
    assert library.time(runs[:1], replay=False).replayed is False
    assert machine.captures_ended == 1


@pytest.mark.parametrize("refuses", [False, True])
def test_a_product_shorter_than_its_launch_is_an_upper_bound(
    make: Callable[[Machine], Any], monkeypatch: pytest.MonkeyPatch, refuses: bool
) -> None:
    """The stand-in's product takes a hundred nanoseconds by its own clock, its launch more by ours."""
    monkeypatch.setattr(gpu_timing, "WARM_UP_MS", 0.1)
    monkeypatch.setattr(gpu_timing, "STRETCH_MS", 0.1)
    library = make(Machine(refuses, product_us=0.1))
    out = library.full((40, 8), np.float16, np.nan)
    timing = library.time([library.dense(library.asarray(A), library.asarray(X), out)] * 4)
    assert (timing.replayed, timing.host_bound) == (not refuses, refuses)


def test_our_launches_go_to_the_stream_that_is_captured(
    make: Callable[[Machine], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    streams: list[int] = []
    monkeypatch.setattr(device, "run", lambda launch, stream: streams.append(stream))
    library = make(Machine())
    library.run("launch")
    with library.on_own_stream():
        library.run("launch")
    library.run("launch")
    assert streams == [0, 5, 0]


def test_times_are_medians_over_long_stretches_after_a_warm_up() -> None:
    """A run of 4 products takes 2 ms, 4 at first: 15 of those warm up, 4 make a stretch of 8 ms; 0.5 ms a product."""
    counts: list[int] = []

    def elapsed_ms(count: int) -> float:
        counts.append(count)
        return (4.0 if len(counts) == 1 else 2.0) * count

    assert time_stretches(elapsed_ms, products=4) == Timing(500.0, 0.0)
    assert counts == [1, 15] + [4] * gpu_timing.REPEATS
    assert summarise([1, 2, 3, 4, 100]).time_us == 3


def test_the_library_that_sees_the_gpu_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = sys.modules
    monkeypatch.setattr(gpu_library, "gpu_count", lambda: 1)
    monkeypatch.setitem(modules, "torch", None)
    monkeypatch.setitem(modules, "cupy", fake_cupy(Machine()))
    assert open_library().name == "cupy"
    monkeypatch.setitem(modules, "torch", fake_torch(Machine()))
    assert open_library().name == "torch"
    for name in ("torch", "cupy"):
        monkeypatch.setitem(modules, name, None)
    monkeypatch.setattr("kernels_numba.bench.library.DriverLibrary", lambda: "the driver alone")
    assert open_library() == "the driver alone"
    monkeypatch.setattr(gpu_library, "gpu_count", lambda: 0)
    with pytest.raises(RuntimeError, match="no NVIDIA GPU or driver found"):
        open_library()
