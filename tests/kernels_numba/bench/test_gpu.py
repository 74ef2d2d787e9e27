"""The bench for real GPUs, with the emulator in the GPU's place: everything but the clock."""

from __future__ import annotations

import csv
import ctypes
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from kernels_numba.bench import check_gpu, measure, provenance
from kernels_numba.bench import gpu as bench_gpu
from kernels_numba.bench.check_gpu import check_kernels, check_twice
from kernels_numba.bench.gpu import Bench, Problem
from kernels_numba.bench.library import Library, Run, Timing
from kernels_numba.bench.product import MAX_COPIES, Gpu, Product, accuracy, copies_beyond_l2, random_weights
from kernels_numba.bench.provenance import Row, code_version, gpu_key, gpu_state, read_table, write_table
from kernels_numba.formats import Csr, encode_tiled_csl
from kernels_numba.gpu import device
from kernels_numba.gpu.emulate import run_on_emulator
from kernels_numba.gpu.launch import Launch
from lscd.cli import app
from lscd.evidence import WITHOUT_MODEL
from perfmodel.kernels import KERNELS

GPU = Gpu("h200", "sm_80", 132, 50 * 2**20, 4e12)
COLUMNS = ["gpu", "kernel", "m", "k", "n", "sparsity", "time_us", "time_err_us", "status", "cache", "source", "note"]
RNG = np.random.default_rng(4)


class Emulated(Library):
    """A library whose GPU is the emulator and whose clock always says 10 microseconds."""

    name = "emulator"

    def __init__(self) -> None:
        self.timed: list[int] = []

    def asarray(self, array: NDArray[Any]) -> Any:
        return array.copy()

    def copy(self, array: Any) -> Any:
        return array.copy()

    def full(self, shape: tuple[int, ...], dtype: Any, value: float) -> Any:
        return np.full(shape, value, dtype)

    def to_host(self, array: Any) -> NDArray[Any]:
        return array

    def run(self, launch: Launch) -> None:
        run_on_emulator(launch.variant, launch.grid, launch.arguments, "sm_80")

    def time(self, products: Sequence[Run], *, replay: bool = True) -> Timing:
        self.timed.append(len(products))
        products[0]()
        return Timing(10.0, 0.5, replay)

    def dense(self, a: Any, x: Any, out: Any) -> Run:
        return lambda: np.matmul(a, x, out=out)

    def sparse(self, weights: Csr, x: Any, out: Any) -> Run | None:
        return lambda: np.matmul(weights.decode(), x, out=out)

    def exact(self, a: Any, x: Any) -> NDArray[np.float64]:
        return a.astype(np.float64) @ x.astype(np.float64)

    def synchronize(self) -> None: ...

    def on_own_stream(self) -> Any: ...

    def capture(self, products: Sequence[Run]) -> Run: ...

    def elapsed_ms(self, run: Run, count: int) -> float: ...


def problem(a: NDArray[np.float16], n: int = 8) -> Problem:
    x = RNG.standard_normal((a.shape[1], n)).astype(np.float16)
    return Problem(x, a.astype(np.float64) @ x, 1 - np.count_nonzero(a) / a.size)


def bench(library: Library | None = None) -> Bench:
    return Bench(library or Emulated(), GPU, lambda line: None)


# --- the check ---


def test_checks_pass_on_right_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_gpu, "DENSITIES", (0.0, 0.3))
    outcomes = list(check_kernels(Emulated(), GPU, seed=1, problems=[(9, 70, 7)]))
    assert len(outcomes) == 2 * (5 * 3 + 2)
    assert set(outcomes) == {""}


def test_checks_catch_unwritten_outputs_races_and_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lazy(Emulated):
        def run(self, launch: Launch) -> None:
            """Launches nothing: the outputs keep their poison."""

    class Racy(Emulated):
        def run(self, launch: Launch) -> None:
            super().run(launch)
            self.runs = getattr(self, "runs", 0) + 1
            if self.runs > 1:
                launch.arguments[3][0, 0] += 1

    class Faulty(Emulated):
        def run(self, launch: Launch) -> None:
            raise RuntimeError("CUDA driver: an illegal memory access")

    monkeypatch.setattr(check_gpu, "DENSITIES", (0.3,))
    assert "elements are wrong" in next(check_kernels(Lazy(), GPU, seed=1, problems=[(9, 64, 8)]))
    weights, x = encode_tiled_csl(np.ones((8, 64), np.float16)), np.ones((64, 8), np.float16)
    assert "two runs differ" in check_twice(Product(Racy(), weights, x, GPU, split_k=1), weights, x, "sum")
    failed = list(check_kernels(Faulty(), GPU, seed=1, problems=[(9, 64, 8)]))
    assert len(failed) == 17
    assert all("RuntimeError: CUDA driver: an illegal" in outcome for outcome in failed)


# --- products ---


def test_cold_rotates_through_copies_and_warm_does_not() -> None:
    library = Emulated()
    a = np.ones((8, 64), np.float16)
    bench(library).ours("lscd-tiled-csl", encode_tiled_csl, a, [problem(a)])
    assert library.timed == [MAX_COPIES, bench_gpu.WARM_PRODUCTS]
    assert copies_beyond_l2(nbytes=10**9, l2_bytes=50 * 2**20) == 2
    assert copies_beyond_l2(nbytes=20 * 2**20, l2_bytes=50 * 2**20) == 9


def test_weights_far_beyond_the_l2_cache_are_not_timed_warm() -> None:
    one = bench()
    one.gpu = Gpu("h200", "sm_80", 132, l2_bytes=100, copy_bytes_per_s=4e12)
    a = np.ones((8, 64), np.float16)
    one.cublas(a, a.nbytes, [problem(a)])
    assert [row.cache for row in one.rows] == ["cold"]


def test_a_time_that_launching_may_have_set_is_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    library, a = Emulated(), np.ones((8, 64), np.float16)
    one = bench(library)
    for host_bound in (False, True):
        one.keep("cublas", problem(a), "cold", Timing(10.0, 0.5, False, host_bound), nbytes=1000, error=2e-4)
    assert [row.status for row in one.rows] == ["value", "upper_bound"]


def test_random_weights_have_the_sparsity_asked_for() -> None:
    a = random_weights(512, 512, 0.8, np.random.default_rng(0))
    assert abs(np.mean(a == 0) - 0.8) < 0.01
    assert len(np.unique(a)) > 200
    magnitudes = np.abs(a[a != 0].astype(np.float32))
    assert magnitudes.min() >= 0.5
    assert magnitudes.max() < 2
    assert abs(np.mean(a.astype(np.float32))) < 0.01


def test_one_lost_weight_is_an_error_and_rounding_is_none() -> None:
    a = random_weights(64, 4096, 0.5, np.random.default_rng(0))
    given = problem(a, n=16)
    error = accuracy(given.expected.astype(np.float16), given.expected)
    assert 1e-4 < error < 2.0**-11
    row, column = np.argwhere(a)[0]
    a[row, column] = 0
    wrong = (a.astype(np.float64) @ given.x).astype(np.float16)
    with pytest.raises(ArithmeticError, match=rf"of 1024 elements are wrong; worst at \({row}, "):
        accuracy(wrong, given.expected)
    wrong[:] = np.nan
    with pytest.raises(ArithmeticError, match="1024 of 1024 elements are wrong"):
        accuracy(wrong, given.expected)


def test_the_planner_times_products_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Emulated()
    monkeypatch.setattr("kernels_numba.gpu_library.open_library", lambda: library)
    monkeypatch.setattr("numba.cuda.get_current_device", lambda: SimpleNamespace(L2_CACHE_SIZE=GPU.l2_bytes))
    monkeypatch.setattr(device, "current_arch", lambda: "sm_80")
    monkeypatch.setattr(device, "sm_count", lambda: 132)
    assert measure.time_on_gpu(encode_tiled_csl(np.ones((8, 64), np.float16)), 8, None) == 10.0
    assert library.timed == [MAX_COPIES]


# --- the bench ---


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> Emulated:
    """The bench's GPU is the emulator, its problems are small."""
    library = Emulated()
    monkeypatch.setattr(bench_gpu, "SHAPES", ((64, 64), (32, 128)))
    monkeypatch.setattr(bench_gpu, "SPARSITIES", (0.8,))
    monkeypatch.setattr(bench_gpu, "COLUMNS", (8,))
    monkeypatch.setattr(bench_gpu, "open_library", lambda: library)
    described = {"gpu": "NVIDIA H200", "uuid": "GPU-0", **code_version()}
    monkeypatch.setattr(bench_gpu, "describe_gpu", lambda library, method: (GPU, described | {"method": method}))

    def state(uuid: str, meanwhile: Run) -> dict[str, str]:
        meanwhile()
        return {"clocks.sm": "1980 MHz"}

    monkeypatch.setattr(bench_gpu, "gpu_state", state)
    return library


def table(directory: Path) -> tuple[list[dict[str, str]], dict[str, Any]]:
    with (directory / "h200" / "kernels_lscd.csv").open() as file:
        rows = list(csv.DictReader(file))
    return rows, json.loads((directory / "h200" / "kernels_lscd.json").read_text())


def test_a_run_from_end_to_end(one_gpu: Emulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_gpu.main(["--bench", "--output", str(tmp_path)]) == 0
    rows, story = table(tmp_path)
    assert list(rows[0]) == COLUMNS
    # Two shapes, cold and warm; cuSPARSE warm only.
    counts = {name: [row["kernel"] for row in rows].count(name) for name in {row["kernel"] for row in rows}}
    ours = ("lscd-dense", "lscd-tiled-csl", "lscd-bitmap", "lscd-bitmap-pairs", "lscd-two-four", "lscd-csr")
    assert counts == dict.fromkeys(("cublas", *ours), 4) | {"cusparse": 2}
    first = rows[0]
    assert (first["time_us"], first["time_err_us"], first["status"]) == ("10.0", "0.5", "value")
    # 8,192 + 1,024 + 1,024 bytes in 10 us are 1.02 GB/s, of a ceiling of 4,000.
    assert first["note"].startswith("1 GB/s, 0.00 of a copy, error ")
    errors = [float(row["note"].split("error ")[1].split(",")[0]) for row in rows]
    assert 0 < min(errors) <= max(errors) < 2.0**-11
    assert {row["note"].rpartition(", ")[2] for row in rows if row["kernel"] != "cusparse"} == {"graph"}
    assert {row["note"].rpartition(", ")[2] for row in rows if row["kernel"] == "cusparse"} == {"loop"}
    assert {row["sparsity"] for row in rows if row["kernel"] in ("cublas", "lscd-dense")} == {"0.0"}
    assert [(step["m"], step["k"], step["sparsity"]) for step in story["steps"]] == [
        (64, 64, 0.0), (64, 64, 0.8), (32, 128, 0.0), (32, 128, 0.8),
    ]  # fmt: skip
    assert story["steps"][0]["state_under_load"] == {"clocks.sm": "1980 MHz"}
    assert (story["left_out"], story["failures"], story["seed"]) == ([], [], 0)
    assert "cold" in story["method"]
    assert f"wrote {len(rows)} rows" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "h200").iterdir()) == ["kernels_lscd.csv", "kernels_lscd.json"]


def test_the_most_telling_matrices_come_first_and_none_is_missing() -> None:
    steps = list(bench_gpu.steps())
    assert steps[:3] == [(36864, 9216, 0.0), (36864, 9216, 0.8), (9216, 36864, 0.0)]
    assert len(steps) == len(set(steps)) == 12 * 7
    published = Path(bench_gpu.__file__).parent.parent / "data" / "published" / "kernel_a100.csv"
    with published.open() as file:
        assert {(int(row["m"]), int(row["k"])) for row in csv.DictReader(file)} == set(bench_gpu.SHAPES)


def test_what_there_was_no_time_for_is_said_and_resumed(
    one_gpu: Emulated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10**6, 20))  # every look at the clock finds 20 s gone: a matrix takes 20 s
    monkeypatch.setattr(bench_gpu.time, "monotonic", lambda: float(next(clock)))
    assert bench_gpu.main(["--bench", "--output", str(tmp_path), "--minutes", "1"]) == 0
    rows, story = table(tmp_path)
    assert story["left_out"] == [[64, 64, 0.8], [32, 128, 0.0], [32, 128, 0.8]]
    assert {row["kernel"] for row in rows} == {"cublas", "lscd-dense"}
    resume = ["--bench", "--resume", "--output", str(tmp_path), "--minutes", "1000"]
    assert bench_gpu.main(resume) == 0
    more, story = table(tmp_path)
    assert more[: len(rows)] == rows
    assert len(more) == 7 * 4 + 2
    assert story["left_out"] == []
    assert bench_gpu.main([*resume, "--seed", "1"]) == 2


def test_a_table_of_other_code_is_not_continued(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = Row("h200", "cublas", 1, 2, 8, 0.0, 1.5, 0.25, "value", "cold", "lscd-bench-gpu", "note, with comma")
    given = {"gpu": "NVIDIA H200", **code_version(), "steps": []}
    write_table([row], given, tmp_path)
    assert read_table(tmp_path, given) == ([row], given)
    assert read_table(tmp_path / "elsewhere", given) == ([], {})
    with pytest.raises(ValueError, match="cannot be continued: its sources_sha256 is another"):
        read_table(tmp_path, given | {"sources_sha256": "0"})


def test_one_kernel_that_is_wrong_or_fails_has_no_rows_and_costs_no_others(
    one_gpu: Emulated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(launch: Launch) -> None:
        if launch.variant.name.startswith("bitmap"):
            raise RuntimeError("CUDA driver: out of resources\nand more")
        if not launch.variant.name.startswith("csr"):
            Emulated.run(one_gpu, launch)

    monkeypatch.setattr(one_gpu, "run", run)
    assert bench_gpu.main(["--bench", "--output", str(tmp_path)]) == 1
    rows, story = table(tmp_path)
    # The 2:4 kernel, too, needs the CSR kernel for what does not fit its pattern.
    assert {row["kernel"] for row in rows} == {"cublas", "lscd-dense", "lscd-tiled-csl", "cusparse"}
    assert any("lscd-csr (64, 64, 8)" in text and "elements are wrong" in text for text in story["failures"])
    assert any(text.endswith("RuntimeError: CUDA driver: out of resources") for text in story["failures"])
    assert "FAILED lscd-bitmap" in capsys.readouterr().out


def test_a_product_that_is_right_only_once_is_found_out(one_gpu: Emulated, monkeypatch: pytest.MonkeyPatch) -> None:
    """The output is poisoned again before timing, so replays that write nothing are wrong."""
    monkeypatch.setattr(one_gpu, "time", lambda products, *, replay=True: Timing(10.0, 0.5))
    one, a = bench(one_gpu), np.ones((8, 64), np.float16)
    one.cublas(a, a.nbytes, [problem(a)])
    assert one.rows == []
    assert "64 of 64 elements are wrong" in one.failures[0]


def test_a_lost_gpu_ends_the_run(one_gpu: Emulated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(array: NDArray[Any]) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(one_gpu, "asarray", lost)
    assert bench_gpu.main(["--bench", "--output", str(tmp_path)]) == 1
    rows, story = table(tmp_path)
    assert rows == []
    assert len(story["failures"]) == bench_gpu.LOST
    assert len(story["left_out"]) == 4


def test_wrong_checks_show_in_the_exit_code(one_gpu: Emulated, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for outcomes, code in ((["", ""], 0), (["", "Dense: wrong"], 1)):
        monkeypatch.setattr(bench_gpu, "check_kernels", lambda library, gpu, seed, given=outcomes: iter(given))
        assert bench_gpu.main(["--check", "--output", str(tmp_path)]) == code


# --- provenance ---


def test_names_of_gpus() -> None:
    assert gpu_key("NVIDIA H200") == "h200"
    assert gpu_key("NVIDIA A100-SXM4-80GB") == "a100-80gb"
    assert gpu_key("NVIDIA GeForce GTX 9999 Ti") == "geforce-gtx-9999-ti"
    hardware = {path.stem for path in (Path(bench_gpu.__file__).parent.parent / "data" / "hardware").glob("*.toml")}
    assert set(provenance.KEYS.values()) <= hardware


def test_state_of_the_gpu_with_old_and_new_drivers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver refuses the whole question if it does not know one name in it."""
    known = {*provenance.STATE, "clocks_throttle_reasons.active"}

    def smi(*command: str, meanwhile: Run | None) -> str | None:
        assert command[:2] == ("nvidia-smi", "--id=GPU-7")
        names = command[2].removeprefix("--query-gpu=").split(",")
        return ", ".join(f"<{name}>" for name in names) if set(names) <= known else None

    monkeypatch.setattr(provenance, "_output", smi)
    state = gpu_state("GPU-7")
    assert state is not None
    assert state["clocks.sm"] == "<clocks.sm>"
    assert list(state) == [*provenance.STATE, "clocks_throttle_reasons.active"]
    known.remove("clocks_throttle_reasons.active")
    assert gpu_state("GPU-7") == {name: f"<{name}>" for name in provenance.STATE}
    monkeypatch.setattr(provenance, "_output", lambda *command, meanwhile: None)
    assert gpu_state("GPU-7") is None


def test_the_gpu_works_while_it_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks: list[int] = []
    script = "import time; time.sleep(0.1); print(' done ')"
    assert provenance._output(sys.executable, "-c", script, meanwhile=lambda: ticks.append(1)) == "done"
    assert ticks
    assert provenance._output("no-such-command", meanwhile=lambda: ticks.append(1)) is None
    assert provenance._output(sys.executable, "-c", "print(1); raise SystemExit(3)") is None
    monkeypatch.setattr(provenance, "COMMAND_S", 0.05)
    assert provenance._output(sys.executable, "-c", "import time; time.sleep(60)", meanwhile=lambda: None) is None


def test_the_gpu_and_the_code_are_described(monkeypatch: pytest.MonkeyPatch) -> None:
    class Small(Emulated):
        def time(self, products: Sequence[Run], *, replay: bool = True) -> Timing:
            products[0]()
            return Timing(1000.0, 1.0)

    monkeypatch.setattr(provenance, "COPY_BYTES", 2**20)
    monkeypatch.setattr(provenance, "gpu_state", lambda uuid: {"uuid": uuid})
    monkeypatch.setattr(device, "current_arch", lambda: "sm_90")
    monkeypatch.setattr(device, "sm_count", lambda: 132)
    present = SimpleNamespace(name="NVIDIA H200", uuid="GPU-7", L2_CACHE_SIZE=60 * 2**20)
    monkeypatch.setattr("numba.cuda.get_current_device", lambda: present)
    gpu, story = provenance.describe_gpu(Small(), "method")
    assert gpu == Gpu("h200", "sm_90", 132, 60 * 2**20, 2 * 2**20 / 1e-3)
    assert story["state_before"] == {"uuid": "GPU-7"}
    assert story["versions"]["numba-cuda"]
    assert len(story["sources_sha256"]) == 64


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
    for wrong in ([], ["--bench", "--minutes", "nan"], ["--bench", "--minutes", "0"], ["--check", "--seed", "-1"]):
        with pytest.raises(SystemExit, match="2"):
            bench_gpu.parse_arguments(wrong)


def test_launch_arguments_reach_the_driver_as_addresses_and_integers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `device.run` hands to the driver, with the driver replaced."""
    from cuda.bindings import driver

    from kernels_numba.gpu import variants

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


def _pretend_bench(minutes: float, seed: int) -> tuple[str, list[Row], dict[str, object]]:
    """What a worker with a GPU would return."""
    row = Row(**dict.fromkeys(Row.__dataclass_fields__, 0))
    return "h200", [row], {"seed": seed, "minutes": minutes}


def test_bench_runs_once_on_every_worker_of_a_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench_gpu, "measure_here", _pretend_bench)
    arguments = ["kernels", "bench", "--cluster", "local", "--out", str(tmp_path), "--seed", "3"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    # Two workers, one GPU model: one table.
    assert [path.name for path in sorted((tmp_path / "h200").iterdir())] == ["kernels_lscd.csv", "kernels_lscd.json"]
    assert json.loads((tmp_path / "h200" / "kernels_lscd.json").read_text())["seed"] == 3


def test_the_models_take_the_table_of_a_run(one_gpu: Emulated, tmp_path: Path) -> None:
    """`lscd validate --with`: every kernel has a model or is known to have none."""
    bench_gpu.main(["--bench", "--output", str(tmp_path)])
    result = CliRunner().invoke(app, ["validate", "--with", str(tmp_path / "h200" / "kernels_lscd.csv")])
    assert result.exit_code == 0, result.output
    assert "lscd-bench-gpu" in result.output.replace("\n", "")
    measured = {"cublas", "cusparse", "lscd-dense", *bench_gpu.ENCODERS}
    assert measured <= {*KERNELS, *WITHOUT_MODEL}


def test_bench_without_a_gpu_is_one_sentence(tmp_path: Path) -> None:
    if device.is_available():
        pytest.skip("needs a machine without a GPU")
    result = CliRunner().invoke(app, ["kernels", "bench", "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert not list(tmp_path.iterdir())
