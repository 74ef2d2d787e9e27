"""The bench for real GPUs, with the emulator in the GPU's place: everything but the clock."""

from __future__ import annotations

import csv
import ctypes
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from kernels_numba import bench_gpu, device, gpu_library
from kernels_numba.bench_gpu import Bench, Gpu, Product, check_kernels, copies_beyond_l2, gpu_key
from kernels_numba.formats import Csr, Dense, encode_tiled_csl
from kernels_numba.gpu_library import Timing, summarise, time_replays
from kernels_numba.launch import Launch
from kernels_numba.spmm import run_on_emulator
from lscd.cli import app

GPU = Gpu("h200", "sm_80", 132, 50 * 2**20, 4e12)
COLUMNS = ["gpu", "kernel", "m", "k", "n", "sparsity", "time_us", "time_err_us", "status", "cache", "source", "note"]


class Emulated:
    """A library whose GPU is the emulator and whose clock always says 10 microseconds."""

    name = "emulator"

    def __init__(self) -> None:
        self.timed: list[int] = []

    def asarray(self, array: NDArray[Any]) -> Any:
        return array.copy()

    def full(self, shape: tuple[int, ...], dtype: Any, value: float) -> Any:
        return np.full(shape, value, dtype)

    def to_host(self, array: Any) -> NDArray[Any]:
        return array

    def run(self, launch: Launch) -> None:
        run_on_emulator(launch.variant, launch.grid, launch.arguments, "sm_80")

    def time(self, products: Sequence[Callable[[], None]]) -> Timing:
        self.timed.append(len(products))
        products[0]()
        return Timing(10.0, 0.5)

    def dense(self, a: Any, x: Any, out: Any) -> Callable[[], None]:
        return lambda: np.matmul(a, x, out=out)

    def sparse(self, weights: Csr, x: Any) -> Callable[[], None] | None:
        return None


def test_checks_pass_on_right_kernels() -> None:
    outcomes = list(check_kernels(Emulated(), GPU, seed=1, checks=[(9, 70, 7)]))
    assert len(outcomes) == 5 * (3 + 3 + 3 + 1 + 1)
    assert set(outcomes) == {""}


def test_checks_catch_unwritten_outputs_and_races() -> None:
    class Lazy(Emulated):
        def run(self, launch: Launch) -> None:
            """Launches nothing: the outputs keep their poison."""

    class Racy(Emulated):
        def run(self, launch: Launch) -> None:
            super().run(launch)
            self.runs = getattr(self, "runs", 0) + 1
            if self.runs > 1:
                launch.arguments[3][0, 0] += 1

    assert "elements are wrong" in next(check_kernels(Lazy(), GPU, seed=1, checks=[(9, 64, 8)]))
    weights, x = encode_tiled_csl(np.ones((8, 64), np.float16)), np.ones((64, 8), np.float16)
    product = Product(Racy(), weights, x, GPU, split_k=1)
    assert "two runs differ" in bench_gpu._check_product(product, x, "sum")


def test_bench_writes_the_columns_of_all_evidence(tmp_path: Path) -> None:
    lines: list[str] = []
    bench = Bench(Emulated(), GPU, lines.append)
    bench_shapes = [(128, 64)]
    a = np.ones((128, 64), np.float16)
    x = np.ones((64, 8), np.float16)
    bench.cublas(a, x)
    bench.ours("lscd-tiled-csl", encode_tiled_csl(a), x, 0.0)
    path = bench_gpu.write_table(bench.rows, {"gpu": "NVIDIA H200", "shapes": bench_shapes}, tmp_path / "h200")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == COLUMNS
    assert [(row["kernel"], row["cache"]) for row in rows] == [
        ("cublas", "cold"), ("cublas", "warm"), ("lscd-tiled-csl", "cold"), ("lscd-tiled-csl", "warm"),
    ]  # fmt: skip
    # 16,384 + 1,024 + 2,048 bytes in 10 us are 1.95 GB/s, of a ceiling of 4,000.
    assert rows[0]["note"] == "2 GB/s, 0.00 of a copy"
    assert (rows[0]["time_us"], rows[0]["time_err_us"], rows[0]["status"]) == ("10.0", "0.5", "value")
    assert json.loads(path.with_suffix(".json").read_text())["gpu"] == "NVIDIA H200"
    assert len(lines) == 4


def test_cold_rotates_through_copies_and_warm_does_not() -> None:
    library = Emulated()
    Bench(library, GPU, lambda line: None).ours(
        "lscd-dense", Dense(np.ones((8, 64), np.float16)), np.ones((64, 8), np.float16), 0.0
    )
    assert library.timed == [bench_gpu.MAX_COPIES, bench_gpu.WARM_PRODUCTS]
    assert copies_beyond_l2(nbytes=10**9, l2_bytes=50 * 2**20) == 2
    assert copies_beyond_l2(nbytes=20 * 2**20, l2_bytes=50 * 2**20) == 9


def test_bench_stops_when_time_is_up() -> None:
    bench = Bench(Emulated(), GPU, lambda line: None)
    assert bench_gpu.run_bench(bench, minutes=-1, seed=0) == list(bench_gpu.SHAPES)
    assert bench.rows == []


def test_random_weights_have_the_sparsity_asked_for() -> None:
    a = bench_gpu.random_weights(512, 512, 0.8, np.random.default_rng(0))
    assert abs(np.mean(a == 0) - 0.8) < 0.01
    assert len(np.unique(a)) > 200


def test_times_are_medians_over_long_stretches() -> None:
    """A replay of 4 products takes 2 ms: 8 replays make a stretch of about 15 ms, so 0.5 ms a product."""
    counts: list[int] = []

    def stretch_ms(count: int) -> float:
        counts.append(count)
        return 2.0 * count

    timing = time_replays(lambda: None, stretch_ms, products=4)
    assert timing == Timing(500.0, 0.0)
    assert counts == [1] + [8] * gpu_library.REPEATS
    assert summarise([1, 2, 3, 4, 100]).time_us == 3


def test_names_of_gpus() -> None:
    assert gpu_key("NVIDIA H200") == "h200"
    assert gpu_key("NVIDIA A100-SXM4-80GB") == "a100-80gb"
    assert gpu_key("NVIDIA GeForce GTX 9999 Ti") == "geforce-gtx-9999-ti"
    hardware = {path.stem for path in (Path(bench_gpu.__file__).parent.parent / "data" / "hardware").glob("*.toml")}
    assert set(bench_gpu.KEYS.values()) <= hardware


@pytest.mark.skipif(device.is_available(), reason="has a GPU")
def test_without_a_gpu_one_sentence_and_exit_code_2() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "kernels_numba.bench_gpu", "--check"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 2
    assert run.stdout == ""
    assert run.stderr.startswith("bench_gpu: no NVIDIA GPU")
    assert run.stderr.count("\n") == 1


def test_arguments() -> None:
    options = bench_gpu.parse_arguments(["--bench", "--minutes", "2", "--seed", "5"])
    assert (options.check, options.bench, options.minutes, options.seed) == (False, True, 2.0, 5)
    with pytest.raises(SystemExit):
        bench_gpu.parse_arguments([])


def test_launch_arguments_reach_the_driver_as_addresses_and_integers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `device.run` hands to the driver, with the driver replaced."""
    from cuda.bindings import driver

    from kernels_numba import variants

    class Array:
        def __init__(self) -> None:
            self.__cuda_array_interface__ = {"data": (0xABC0, False)}

    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(device, "load", lambda variant, ordinal: ("function", ordinal))
    monkeypatch.setattr(device, "current_ordinal", lambda: 1)
    monkeypatch.setattr(driver, "cuLaunchKernel", lambda *given: calls.append(given) or (driver.CUresult.CUDA_SUCCESS,))
    device.run(Launch(variants.reduce(), (3, 1, 1), (Array(), Array(), 1024, 2, 0)), stream=7)
    function, *geometry, parameters, _ = calls[0]
    assert function == ("function", 1)
    assert geometry == [3, 1, 1, 128, 1, 1, 0, 7]
    values, types = parameters
    assert values == (0xABC0, 0xABC0, 1024, 2, 0)
    # Pointers and the 64-bit number of outputs take 8 bytes, the other integers 4.
    assert [ctypes.sizeof(t) for t in types] == [8, 8, 8, 4, 4]


def _pretend_bench(minutes: float, seed: int) -> tuple[str, list[bench_gpu.Row], dict[str, object]]:
    """What a worker with a GPU would return."""
    row = bench_gpu.Row(**{name: 0 for name in bench_gpu.Row.__dataclass_fields__})
    return "h200", [row], {"seed": seed, "minutes": minutes}


def test_bench_runs_once_on_every_worker_of_a_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench_gpu, "measure_here", _pretend_bench)
    arguments = ["kernels", "bench", "--cluster", "local", "--out", str(tmp_path), "--seed", "3"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    # Two workers, one GPU model: one table.
    assert [path.name for path in sorted((tmp_path / "h200").iterdir())] == ["kernels_lscd.csv", "kernels_lscd.json"]
    assert json.loads((tmp_path / "h200" / "kernels_lscd.json").read_text())["seed"] == 3


def test_bench_without_a_gpu_is_one_sentence(tmp_path: Path) -> None:
    if device.is_available():
        pytest.skip("needs a machine without a GPU")
    result = CliRunner().invoke(app, ["kernels", "bench", "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert not list(tmp_path.iterdir())
