"""`lscd kernels`: the bench on this machine and on a cluster, and its table handed to the models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from kernels_numba import check as kernel_check
from kernels_numba.bench import families
from kernels_numba.bench import gpu as bench_gpu
from kernels_numba.bench.provenance import Row
from kernels_numba.gpu.driver import gpu_count
from lscd.cli import app
from perfmodel.kernels import KERNELS
from tests.kernels_numba.bench.emulated import small_bench


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


def test_the_models_take_the_table_of_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`lscd validate --with`: every kernel has a model, or is told as measured only."""
    small_bench(monkeypatch, shapes=((128, 64),))
    bench_gpu.main(["--bench", "--output", str(tmp_path)])
    result = CliRunner().invoke(app, ["validate", "--with", str(tmp_path / "h200" / "kernels_lscd.csv")])
    assert result.exit_code == 0, result.output
    assert "lscd-bench-gpu" in result.output.replace("\n", "")
    without = set(families.names()) - set(KERNELS)
    assert without == {"lscd-dense", "lscd-tiled-csl", "lscd-two-four", "lscd-csr"}
    told = result.output.partition(" have no model")[0].splitlines()[-1]
    assert set(told.split(", ")) <= without


def _check(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["kernels", "check", "--seed", "4", "--jobs", "1", *arguments])


def test_check_takes_three_architectures_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest kernel of each type on each architecture, its largest sizes, and all inline assembly."""
    tasks = kernel_check.tasks
    monkeypatch.setattr(kernel_check, "tasks", lambda *given: [t for t in tasks(*given) if t.kernel == "reduce"])
    result = _check()
    assert result.exit_code == 0, result.output
    names = [line.split()[:2] for line in result.output.splitlines() if line.startswith("reduce")]
    assert names == [[name, arch] for name in ("reduce", "reduce_bf16") for arch in ("sm_80", "sm_90", "sm_120")]
    assert "8 of 8 checks passed (seed 4)" in result.output
    assert "4 of 4 checks passed" in _check("--arch", "sm_89").output


def test_check_that_fails_is_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_check, "tasks", lambda *given: [kernel_check.Task("reduce", 0, ("sm_80",), 0, 1)])
    monkeypatch.setitem(kernel_check.FAMILIES, "reduce", kernel_check.Family({}, ("HMMA",)))
    result = _check()
    assert result.exit_code == 1
    assert "no HMMA" in result.output


@pytest.mark.parametrize(("option", "value"), [("--jobs", "0"), ("--problems", "0"), ("--seed", "-1")])
def test_check_refuses_numbers_out_of_range(option: str, value: str) -> None:
    result = CliRunner().invoke(app, ["kernels", "check", option, value])
    assert result.exit_code == 2


def test_bench_without_a_gpu_is_one_sentence(tmp_path: Path) -> None:
    if gpu_count():
        pytest.skip("needs a machine without a GPU")
    result = CliRunner().invoke(app, ["kernels", "bench", "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert not list(tmp_path.iterdir())
