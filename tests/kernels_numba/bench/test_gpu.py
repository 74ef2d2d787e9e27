"""The bench for real GPUs, with the emulator in the GPU's place: everything but the clock, in processes and without."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kernels_numba.bench import families, order, profiles
from kernels_numba.bench import gpu as bench_gpu
from kernels_numba.bench import parent as parents
from kernels_numba.bench.order import Program
from kernels_numba.bench.product import Gpu
from kernels_numba.gpu.driver import gpu_count
from kernels_numba.gpu.launch import Launch
from tests.kernels_numba.bench.emulated import Emulated, errors

COLUMNS = ["gpu", "kernel", "m", "k", "n", "sparsity", "time_us", "time_err_us", "status", "cache", "source", "note"]
COLUMNS += ["launch", "split_k", "activations", "blocks_per_sm", "clock_mhz", "power_w", "throttle"]
OURS = tuple(families.encoders())


def table(directory: Path, gpu: str = "h200") -> tuple[list[dict[str, str]], dict[str, Any]]:
    with (directory / gpu / "kernels_lscd.csv").open() as file:
        rows = list(csv.DictReader(file))
    return rows, json.loads((directory / gpu / "kernels_lscd.json").read_text())


def test_a_run_from_end_to_end(one_gpu: Emulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_gpu.main(["--bench", "--output", str(tmp_path)]) == 0
    rows, story = table(tmp_path)
    assert list(rows[0]) == COLUMNS
    # Two shapes, cold and warm; cuSPARSE warm only.
    counts = {name: [row["kernel"] for row in rows].count(name) for name in {row["kernel"] for row in rows}}
    assert counts == dict.fromkeys(("cublas", *OURS), 4) | {"cusparse": 2}
    first = rows[0]
    assert (first["time_us"], first["time_err_us"], first["status"]) == ("10.0", "0.5", "value")
    # 16,384 + 1,024 + 2,048 bytes in 10 us are 1.95 GB/s, of a ceiling of 4,000.
    assert first["note"].startswith("2 GB/s, 0.00 of a copy, error ")
    wrong = errors([row["note"] for row in rows])
    assert 0 < min(wrong) <= max(wrong) < 2.0**-11
    assert {row["launch"] for row in rows if row["kernel"] != "cusparse"} == {"graph"}
    assert {row["launch"] for row in rows if row["kernel"] == "cusparse"} == {"stream"}
    assert {row["sparsity"] for row in rows if row["kernel"] in ("cublas", "lscd-dense")} == {"0.0"}
    assert all(int(row["split_k"]) >= 1 and int(row["blocks_per_sm"]) >= 1 for row in rows if row["kernel"] in OURS)
    assert (story["left_out"], story["failures"], story["seed"]) == ([], [], 0)
    assert set(story["absent"]) == {"two-four", "fp8", "int4"}
    assert "cold" in story["method"]
    assert story["profiled"].startswith("not profiled")
    assert story["falsification"].count("not tested") == 2
    assert f"wrote {len(rows)} rows" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "h200").iterdir()) == ["kernels_lscd.csv", "kernels_lscd.json"]


def test_some_families_and_then_the_others(one_gpu: Emulated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every = ("cublas", "cusparse", "lscd-dense", "lscd-csr")
    monkeypatch.setattr(families, "names", lambda: every)
    only = ["--bench", "--output", str(tmp_path), "--only", "cublas", "--only", "lscd-csr"]
    assert bench_gpu.main(only) == 0
    rows, _ = table(tmp_path)
    assert {row["kernel"] for row in rows} == {"cublas", "lscd-csr"}
    resume = ["--bench", "--resume", "--output", str(tmp_path)]
    assert bench_gpu.main(resume) == 0
    more, story = table(tmp_path)
    assert more[: len(rows)] == rows
    assert {row["kernel"] for row in more} == set(every)
    assert len(more) == len({(row["kernel"], row["m"], row["sparsity"], row["cache"]) for row in more})
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
    # The 2:4 kernel, too, needs the CSR kernel for what does not fit its pattern.
    lost = {"lscd-bitmap", "lscd-bitmap-pairs", "lscd-csr", "lscd-two-four"}
    kept = {"cublas", "cusparse", "lscd-dense", "lscd-tiled-csl"}
    only = [word for name in families.names() if name in lost | kept for word in ("--only", name)]
    assert bench_gpu.main(["--bench", "--output", str(tmp_path), *only]) == 1
    rows, story = table(tmp_path)
    assert {row["kernel"] for row in rows} == kept
    assert any("lscd-csr (128, 64, 0.8), N = 8" in text and "wrong" in text for text in story["failures"])
    assert any(text.endswith("RuntimeError: CUDA driver: out of resources") for text in story["failures"])
    assert "FAILED lscd-bitmap" in capsys.readouterr().out


def test_profiles_come_after_the_first_shape_and_are_written(
    one_gpu: Emulated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [profiles.Profile("h200", "cublas", 1, 1, 16, 0.0, "gemm", "dram__bytes_read.sum", "byte", 7.0)]
    shapes: list[set[int]] = []

    def profile(parent: parents.Parent, end: float) -> tuple[list[profiles.Profile], str]:
        shapes.append({row.m for row in parent.rows})
        return found, "profiled 1 of 6 products"

    monkeypatch.setattr(profiles, "profile", profile)
    assert bench_gpu.main(["--bench", "--output", str(tmp_path), "--only", "cublas"]) == 0
    assert shapes == [{128}]
    assert (
        (tmp_path / "h200" / "profiles.csv")
        .read_text()
        .endswith("cublas,1,1,16,0.0,gemm,dram__bytes_read.sum,byte,7.0\n")
    )
    assert table(tmp_path)[1]["profiled"] == "profiled 1 of 6 products"


def test_checks_show_in_the_exit_code(
    one_gpu: Emulated, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for outcomes, code, line in ((["", ""], 0, "2 of 2"), (["", "Dense: wrong"], 1, "1 of 2"), ([], 1, "0 of 1")):
        monkeypatch.setattr(
            "kernels_numba.bench.child.check_kernels", lambda *given, outcomes=outcomes, **more: iter(outcomes)
        )
        assert bench_gpu.main(["--check", "--output", str(tmp_path), "--only", "lscd-dense"]) == code
        assert f"{line} products are right" in capsys.readouterr().out


@pytest.mark.skipif(gpu_count() > 0, reason="has a GPU")
def test_without_a_gpu_one_sentence_and_exit_code_2() -> None:
    command = [sys.executable, "-m", "kernels_numba.bench.gpu", "--check"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stdout == ""
    assert run.stderr.startswith("bench.gpu: no NVIDIA GPU")
    assert run.stderr.count("\n") == 1


def test_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    options = bench_gpu.parse_arguments(["--bench", "--minutes", "2", "--seed", "5", "--only", "cublas"])
    assert (options.check, options.bench, options.minutes, options.seed) == (False, True, 2.0, 5)
    assert (options.only, options.output) == (["cublas"], bench_gpu.MEASURED)
    for wrong, message in (
        ([], "give --check, --bench, or both"),
        (["--bench", "--minutes", "nan"], "--minutes: nan; allowed: a positive number"),
        (["--bench", "--minutes", "0"], "--minutes: 0; allowed"),
        (["--check", "--seed", "-1"], "--seed"),
        (["--check", "--jobs", "0"], "--jobs: 0; allowed: a whole number from 1"),
        (["--check", "--only", "csr"], "invalid choice: 'csr'"),
        (["--bench", "--dry-run"], "--output: None; allowed with --dry-run: a directory outside"),
        (["--bench", "--dry-run", "--output", str(bench_gpu.MEASURED / "h100")], "allowed with --dry-run"),
    ):
        with pytest.raises(SystemExit, match="2"):
            bench_gpu.parse_arguments(wrong)
        assert message in capsys.readouterr().err


def test_a_dry_run_goes_the_whole_way_and_is_no_evidence(tmp_path: Path) -> None:
    """Real processes, one a family, of each kind one: check, bench, profile, verdict."""
    chosen = ("cublas", "lscd-dense", "lscd-condensed-pairs", "lscd-bitmap-bulk", "cusparse")
    only = [word for name in chosen for word in ("--only", name)]
    command = [sys.executable, "-m", "kernels_numba.bench.gpu", "--check", "--bench", "--dry-run", *only]
    run = subprocess.run(
        [*command, "--output", str(tmp_path), "--seed", "1"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["emulator"]
    rows, story = table(tmp_path, "emulator")
    assert {row["status"] for row in rows} == {"dry-run"}
    assert {row["gpu"] for row in rows} == {"emulator"}
    assert {row["kernel"] for row in rows} == set(chosen)
    assert {round(float(row["sparsity"]), 1) for row in rows} == {*order.FIRST, *order.REST}
    assert story["checked"]["right"] == story["checked"]["of"] >= 3 * 2 * 3  # kernels, element types, ways to split K
    assert (story["failures"], story["left_out"]) == ([], [])


FAULTY = """
import os, pathlib, signal
from kernels_numba.bench import child
from kernels_numba.bench.session import Session

measure = Session.measure

def fatal(self, alternatives):
    trial = alternatives[0]
    if trial.kernel == "lscd-tiled-csl" and trial.size[2] == 8 and pathlib.Path({marker!r}).exists():
        os.kill(os.getpid(), signal.SIGSEGV)
    return measure(self, alternatives)

Session.measure = fatal
raise SystemExit(child.main())
"""


def test_a_killed_child_costs_its_product_and_resuming_finishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real processes: the family dies in the middle, the others' rows and its own next ones stay."""
    marker, script = tmp_path / "die", tmp_path / "faulty.py"
    marker.touch()
    script.write_text(FAULTY.format(marker=str(marker)))
    monkeypatch.setattr(parents, "CHILD", (sys.executable, str(script)))
    monkeypatch.setattr(order, "FIRST", (0.0, 0.8))
    monkeypatch.setattr(order, "REST", (0.0, 0.8))
    monkeypatch.setattr(bench_gpu, "DRY_RUN", Program(((128, 128),), (8, 16), 128))
    chosen = [word for name in ("cublas", "lscd-tiled-csl", "lscd-bitmap") for word in ("--only", name)]
    command = ["--bench", "--dry-run", "--output", str(tmp_path / "out"), *chosen]
    assert bench_gpu.main(command) == 1
    rows, story = table(tmp_path / "out", "emulator")
    found = [(row["kernel"], row["n"]) for row in rows]
    assert ("lscd-tiled-csl", "8") not in found
    assert found[-3:] == [("lscd-tiled-csl", "16"), ("lscd-bitmap", "8"), ("lscd-bitmap", "16")]
    assert len(story["failures"]) == 1
    assert story["failures"][0].startswith("lscd-tiled-csl (128, 128, 0.8), N = 8: its process died: exit code -11")
    assert story["left_out"] == [[128, 128, 0.8]]
    marker.unlink()
    assert bench_gpu.main([*command, "--resume"]) == 0
    more, story = table(tmp_path / "out", "emulator")
    assert more[: len(rows)] == rows
    assert [(row["kernel"], row["n"]) for row in more[len(rows) :]] == [("lscd-tiled-csl", "8")]
    assert (story["failures"], story["left_out"]) == ([], [])


def test_machine_code_is_compiled_before_the_first_product(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    parent = parents.Parent(["cublas", "lscd-two-four"], Program(), 0, lines.append)
    parent.gpu = Gpu("h200", "sm_90", 132, 1)
    asked: list[tuple[list[str], list[str], int, int]] = []

    def build(names: list[str], archs: list[str], jobs: int, elements: tuple[str, ...]) -> Any:
        asked.append((names, archs, jobs, len(elements)))
        return iter([("reduce", "ValueError: no")])

    monkeypatch.setattr("kernels_numba.gpu.build.build", build)
    monkeypatch.setenv("LSCD_CUBINS", str(tmp_path))
    bench_gpu.compile_all(parent, 3, check=True)
    (names, archs, jobs, elements), *_ = asked
    assert {name.rpartition("_n")[0] or name for name in names} == {"two_four", "csr", "reduce"}
    assert (archs, jobs, elements) == (["sm_90"], 3, 2)  # fp16 and bfloat16, which a bench alone does not time
    assert lines[0] == "not compiled: reduce: ValueError: no"
    (tmp_path / "manifest.json").write_text("{}")
    bench_gpu.compile_all(parent, 3, check=False)
    assert lines[-1] == f"machine code from {tmp_path}"
    assert len(asked) == 1
    assert os.environ["LSCD_CUBINS"] == str(tmp_path)
