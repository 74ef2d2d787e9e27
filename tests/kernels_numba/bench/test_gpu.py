"""The bench for real GPUs, with the emulator in the GPU's place: everything but the clock."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kernels_numba.bench import gpu as bench_gpu
from kernels_numba.bench.library import Timing
from kernels_numba.bench.product import MAX_COPIES, Gpu, copies_beyond_l2
from kernels_numba.formats import encode_tiled_csl
from kernels_numba.gpu import device
from kernels_numba.gpu.launch import Launch
from tests.kernels_numba.bench.emulated import Emulated, bench, problem

COLUMNS = ["gpu", "kernel", "m", "k", "n", "sparsity", "time_us", "time_err_us", "status", "cache", "source", "note"]
COLUMNS += ["launch"]
RNG = np.random.default_rng(4)


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
    assert {row["launch"] for row in rows if row["kernel"] != "cusparse"} == {"graph"}
    assert {row["launch"] for row in rows if row["kernel"] == "cusparse"} == {"stream"}
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
    published = Path(__file__).parents[3] / "data" / "published" / "kernel_a100.csv"
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


@pytest.mark.skipif(device.is_available(), reason="has a GPU")
def test_without_a_gpu_one_sentence_and_exit_code_2() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "kernels_numba.bench.gpu", "--check"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 2
    assert run.stdout == ""
    assert run.stderr.startswith("bench.gpu: no NVIDIA GPU")
    assert run.stderr.count("\n") == 1


def test_arguments() -> None:
    options = bench_gpu.parse_arguments(["--bench", "--minutes", "2", "--seed", "5"])
    assert (options.check, options.bench, options.minutes, options.seed) == (False, True, 2.0, 5)
    for wrong in ([], ["--bench", "--minutes", "nan"], ["--bench", "--minutes", "0"], ["--check", "--seed", "-1"]):
        with pytest.raises(SystemExit, match="2"):
            bench_gpu.parse_arguments(wrong)
