"""`lscd measure`: a file that the other commands take, or a sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kernels_numba.bench import cpu_times, library, machine, provenance
from kernels_numba.bench.product import Gpu
from lscd.measure import as_toml
from perfmodel.catalog import load_device, load_gpu
from perfmodel.prediction import predict
from tests.kernels_numba.bench.emulated import Emulated
from tests.lscd.commands import run
from tests.perfmodel.machines import round_cpu

FIELDS = {key: value for key, value in msgspec.to_builtins(round_cpu()).items() if key != "key"}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What was asked of the machine, whose numbers are round."""
    asked: list[tuple[Any, ...]] = []

    def fake(threads: list[int], seconds: float, progress: Any) -> dict[str, Any]:
        asked.append((threads, seconds))
        progress(1, 1)
        return FIELDS

    monkeypatch.setattr(machine, "measure_machine", fake)
    monkeypatch.setattr(machine, "usable_cores", lambda: 2)
    return asked


def test_what_it_writes_loads_and_predicts(
    measured: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "this.toml"
    code, out, _ = run(monkeypatch, capsys, "measure", "--out", str(file), "--seconds", "2")
    assert code == 0
    assert measured == [([1, 2], 2.0)]
    assert out.splitlines()[0] == "round CPU, 2.00 GHz, 16.0 GB"
    assert out.splitlines()[2].split()[:3] == ["1", "100.0", "±0%"]
    assert load_device(f"{file}@1") == msgspec.structs.replace(round_cpu(), key="this@1")
    product = ("--m", "4096", "--k", "4096", "--n", "1", "--sparsity", "0.7")
    code, out, _ = run(monkeypatch, capsys, "predict", "--gpu", f"{file}@1", *product, "--json")
    found = json.loads(out)
    assert (code, found["gpu"], found["refused"]) == (0, "this@1", {})
    assert {row["kernel"]: row["speedup_vs_dense"] for row in found["kernels"]}["torch-bf16"] == 1
    code, out, _ = run(monkeypatch, capsys, "choose", "--model", "smollm2-135m", "--gpu", str(file), "--batch", "1",
                       "--sparsity", "0.7", "--unmeasured")  # fmt: skip
    assert code == 0
    assert out.startswith("cpu-bitmap")


def test_json_is_the_file(
    measured: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(monkeypatch, capsys, "measure", "--json", "--threads", "2,1,2")
    assert code == 0
    assert measured[0][0] == [1, 2]
    assert json.loads(out) == FIELDS


@pytest.fixture
def quick_kernels(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Two products, the second of which is predicted twice too slow."""
    chosen = [
        {"kernel": kernel, "m": 4096, "k": 4096, "n": 4, "sparsity": zeros}
        for kernel, zeros in (("cpu-bitmap", 0.6), ("numpy-fp32", 0.0))
    ]

    def fake(threads: int, grid: cpu_times.Grid) -> Iterator[dict[str, Any]]:
        for product, factor in zip(chosen, (1.0, 0.5), strict=True):
            seconds = float(predict(gpu=round_cpu().on(threads), cache="warm", **product).time_s)
            yield product | {"time_us": seconds * 1e6 * factor, "time_err_us": 0.1}

    monkeypatch.setattr(cpu_times, "products", lambda grid: iter(chosen))
    monkeypatch.setattr(cpu_times, "measured", fake)
    return chosen


def test_kernels_are_predicted_then_timed_then_compared(
    measured: list[Any], quick_kernels: list[Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    machine, rows = tmp_path / "this.toml", tmp_path / "rows.csv"
    code, out, _ = run(monkeypatch, capsys, "measure", "--kernels", "--out", str(machine), "--rows", str(rows))
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    (bitmap,) = (line for line in lines if line[:1] == ["cpu-bitmap"])
    (numpy,) = (line for line in lines if line[:1] == ["numpy-fp32"])
    assert (bitmap[1:6], bitmap[-1], numpy[-1]) == (["4096", "x", "4096", "4", "60%"], "+0%", "+100%")
    assert float(numpy[-4]) == pytest.approx(2 * float(numpy[-3]), rel=0.01)
    assert "Mean error 50.0% on 4 products that no fit of ours saw" in out
    assert "numpy-fp32, 2 thread(s): 100.0%, bias +100.0%." in out
    code, out, _ = run(monkeypatch, capsys, "validate", "--with", str(rows), "--by", "kernel,gpu")
    assert code == 0
    assert any(line.split()[0] == "numpy-fp32" and "+100.0%" in line for line in out.splitlines() if line)
    fit = tmp_path / "fit.json"
    code, out, _ = run(monkeypatch, capsys, "calibrate", "--with", str(rows), "--out", str(fit))
    assert (code, fit.is_file()) == (0, True)


def test_kernels_in_json(
    measured: list[Any], quick_kernels: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(monkeypatch, capsys, "measure", "--kernels", "--json", "--threads", "2")
    rows = json.loads(out)["kernels"]
    assert code == 0
    assert [(row["kernel"], row["threads"]) for row in rows][:2] == [("cpu-bitmap", 1), ("numpy-fp32", 1)]
    assert rows[1]["error"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seconds", "0"], "--seconds is 0, allowed is at least 0.1"),
        (["--threads", "3"], "--threads is '3', allowed are whole numbers from 1 to 2"),
        (["--threads", "1,x"], "--threads is '1,x', allowed are whole numbers"),
        (["--out", "this.json"], "--out is this.json, allowed are file names that end in .toml"),
        (["--out", "a@2.toml"], "without @"),
        (["--out", "nowhere/this.toml"], "no such directory"),
        (["--rows", "x.csv", "--out", "x.toml"], "--rows is x.csv, which needs --kernels and --out"),
        (["--rows", "x.csv", "--kernels"], "--rows is x.csv, which needs --kernels and --out"),
        (["--rows", "x.toml", "--kernels", "--out", "x.toml"], "--rows: x.toml is what --out writes already"),
        (["--gpu", "--kernels"], "--kernels times those of CPUs"),
    ],
)
def test_bad_input_is_one_sentence(
    measured: list[Any], options: list[str], message: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    code, out, err = run(monkeypatch, capsys, "measure", *options)
    assert (code, out, measured) == (2, "", [])
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [
        ["e2e", "--model", "opt-13b", "--batch", "1"],
        ["serve", "--model", "opt-13b", "--requests-per-s", "1"],
        ["worth", "--model", "opt-13b", "--batch", "1", "--sparsity", "0.6"],
        ["plan", "--model", "opt-13b"],
        ["simulate", "flash-llm", "--m", "4096", "--k", "4096", "--n", "8"],
        ["formats"],
    ],
)
def test_what_only_gpus_can_says_so(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(monkeypatch, capsys, *command, "--gpu", "xeon-emerald-rapids-2c@1")
    assert code == 2
    assert "is a CPU, and this is asked of GPUs only" in err, err


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> Emulated:
    """A library whose every product takes 10 microseconds, on an H200 that copies 3 TB/s."""
    found = Emulated()
    monkeypatch.setattr(library, "open_library", lambda: found)
    monkeypatch.setattr(machine, "GPU_GEMM_SIZE", 64)
    gpu = Gpu("h200", "sm_90", 132, 50 * 2**20, 3e12)
    told = {"gpu": "NVIDIA H200", "date": "2026-01-01", "library": "emulator"}
    monkeypatch.setattr(provenance, "describe_gpu", lambda library, method: (gpu, told))
    return found


def test_a_gpu_of_the_catalogue_gets_the_rate_of_its_memory(
    fake_gpu: Emulated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from perfmodel.kernels import Machine

    file = tmp_path / "here.toml"
    code, out, _ = run(monkeypatch, capsys, "measure", "--gpu", "--out", str(file))
    assert code == 0
    assert "copy 3000 GB/s" in out
    here, there = load_gpu(file), load_gpu("h200")
    assert float(Machine.of(here).streamed_bytes_per_s) == pytest.approx(3e12, rel=1e-3)
    assert here.peak == there.peak
    assert "lscd measure" in here.dram.source


def test_an_unknown_gpu_is_told_and_not_written(
    fake_gpu: Emulated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu = Gpu("gtx-1", "sm_90", 1, 2**20, 1e11)
    monkeypatch.setattr(provenance, "describe_gpu", lambda library, method: (gpu, {"gpu": "NVIDIA GTX 1"}))
    code, out, _ = run(monkeypatch, capsys, "measure", "--gpu")
    assert (code, out.startswith("NVIDIA GTX 1: copy 100 GB/s")) == (0, True)
    code, _, err = run(monkeypatch, capsys, "measure", "--gpu", "--out", str(tmp_path / "x.toml"))
    assert code == 2
    assert "NVIDIA GTX 1 is no GPU of the catalogue" in err
    assert not (tmp_path / "x.toml").exists()


def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(library, "gpu_count", lambda: 0)
    code, _, err = run(monkeypatch, capsys, "measure", "--gpu")
    assert code == 2
    assert "no NVIDIA GPU or driver found" in err


def test_toml_is_what_was_given() -> None:
    import tomllib

    fields = {"name": 'a "b" µ', "n": 3, "rates": [[1.5, 2e9]], "none": None, "group": {"x": True, "y": [1]}}
    assert tomllib.loads(as_toml(fields)) == {key: value for key, value in fields.items() if value is not None}
