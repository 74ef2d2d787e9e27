"""The driver without ``cuda.bindings``: names, types and values as cuda.h has them, by a driver in C that uses it."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernels_numba.bench.driver_library import DriverLibrary
from kernels_numba.bench.timing import AbsentError
from kernels_numba.gpu import device, driver, variants
from kernels_numba.gpu.launch import Launch
from tests.conftest import NO_COMPILER

real = pytest.importorskip("cuda.bindings.driver", reason=NO_COMPILER, exc_type=ImportError)
SOURCE = Path(__file__).parent / "data" / "fake_driver.c"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    nvidia = pytest.importorskip("nvidia")
    headers = [path for place in nvidia.__path__ for path in Path(place).glob("*/include/cuda.h")]
    compiler = shutil.which("cc")
    if not headers or compiler is None:
        pytest.skip("needs cuda.h and a C compiler")
    target = tmp_path_factory.mktemp("driver") / "libcuda.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-I", headers[0].parent, SOURCE, "-o", target], check=True)
    return ctypes.CDLL(str(target))


@pytest.fixture
def alone(library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> Iterator[ctypes.CDLL]:
    """No ``cuda.bindings``, and a driver."""
    found = driver.stand_in(library)
    for module in (driver, device):
        monkeypatch.setattr(module, "bindings", lambda: found)
    monkeypatch.setattr("kernels_numba.bench.driver_library.bindings", lambda: found)
    caches = (device._primary_context, device._arch_of, device._sm_count_of, device.load)
    for cached in caches:
        cached.cache_clear()
    yield library
    for cached in caches:
        cached.cache_clear()


def test_the_numbers_of_enums_are_those_of_the_bindings(library: ctypes.CDLL) -> None:
    found = driver.stand_in(library)
    for name, values in driver._ENUMS.items():
        for member, value in values.items():
            assert int(getattr(getattr(real, name), member)) == value
    assert int(real.CUstream_flags.CU_STREAM_NON_BLOCKING) == driver.NON_BLOCKING
    assert all(callable(getattr(real, name)) for name in driver._CALLS)
    assert found.cuDriverGetVersion() == (0, 13000)


def test_a_gpu_is_found_and_described(alone: ctypes.CDLL) -> None:
    assert driver.gpu_count() == 1
    assert (device.current_arch(), device.sm_count()) == ("sm_90", 132)
    assert device.attribute("l2_bytes", 0) == 60 * 2**20
    assert device.name_and_uuid(0) == ("NVIDIA H200", "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f")


def test_failures_are_the_drivers_words(alone: ctypes.CDLL) -> None:
    with pytest.raises(RuntimeError, match=r"CUDA driver: invalid device context \(CUDA_ERROR_OTHER\)"):
        device.succeed(driver.bindings().cuDeviceGet(1))


def test_arrays_travel_bit_by_bit_and_are_filled(alone: ctypes.CDLL) -> None:
    library = DriverLibrary()
    host = np.arange(24, dtype=np.uint16).reshape(2, 12)
    array = library.asarray(host)
    np.testing.assert_array_equal(library.to_host(library.copy(array)), host)
    np.testing.assert_array_equal(library.to_host(array[1]), host[1])
    array[...] = library.asarray(host + 1)
    np.testing.assert_array_equal(library.to_host(array), host + 1)
    for dtype, value in ((np.float16, 1.5), (np.float16, np.nan), (np.float32, np.nan), (np.float32, 0.0)):
        found = library.to_host(library.full((3, 4), dtype, value))
        np.testing.assert_array_equal(found, np.full((3, 4), value, dtype))
    with pytest.raises(ValueError, match=r"value: 1\.5; allowed: 0 or NaN for float32"):
        library.full((2,), np.float32, 1.5)
    assert library.to_host(library.asarray(np.empty(0, np.int32))).size == 0


def test_our_launches_reach_it_and_are_captured_and_timed(alone: ctypes.CDLL) -> None:
    library = DriverLibrary()
    partials, out = library.full((2, 8, 8), np.float32, 0.0), library.full((8, 8), np.float16, 0.0)
    launch = Launch(variants.reduce(), (3, 1, 1), (partials, out, 64, 2, 0), 0)
    library.run(launch)
    assert [alone.told_geometry(i) for i in range(7)] == [3, 1, 1, 128, 1, 1, 0]
    alone.told_pointer.restype = ctypes.c_longlong
    assert [alone.told_pointer(i) for i in range(2)] == [partials.address, out.address]
    assert alone.told_number() == 2
    timing = library.time([lambda: library.run(launch)] * 4)
    # A replay takes half a millisecond, and has four products.
    assert (timing.replayed, timing.time_us) == (True, 125.0)


def test_what_the_driver_alone_cannot_do_is_absent(alone: ctypes.CDLL) -> None:
    library: Any = DriverLibrary()
    with pytest.raises(AbsentError, match="cublas needs PyTorch or CuPy"):
        library.dense(None, None, None)
    assert library.sparse(None, None, None) is None


def test_without_a_driver_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(driver.ctypes, "CDLL", missing)
    with pytest.raises(RuntimeError, match=r"no NVIDIA driver: none of libcuda.so.1, nvcuda.dll loads"):
        driver._open()
    monkeypatch.setattr(driver, "bindings", driver._open)
    assert driver.gpu_count() == 0
