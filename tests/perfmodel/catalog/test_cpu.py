"""CPUs of the catalogue: found by name and threads, refused in a sentence where something is wrong."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from perfmodel.catalog import cpu_names, data_directory, gpu_names, load_device, load_gpu
from perfmodel.catalog.cpu import Cpu, Reads, memory_bytes
from tests.perfmodel.machines import KIB, MIB, round_cpu

NAME = "xeon-emerald-rapids-2c"
FILE = data_directory() / "hardware" / f"{NAME}.toml"


def test_a_cpu_is_no_gpu() -> None:
    assert NAME in cpu_names()
    assert not set(cpu_names()) & set(gpu_names())
    assert load_device("h100") == load_gpu("h100")
    with pytest.raises(ValueError, match=f"{NAME} is a CPU, and this is asked of GPUs only"):
        load_gpu(NAME)


def test_threads_stand_behind_the_name() -> None:
    one, two = (load_device(f"{NAME}@{count}") for count in (1, 2))
    assert isinstance(one, Cpu)
    assert (one.key, one.in_use) == (f"{NAME}@1", 1)
    assert load_device(NAME) == load_device(FILE) == two
    assert load_device(f"{FILE}@1") == one
    assert memory_bytes(one) == one.memory.size_bytes


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (f"{NAME}@3", "was not measured with 3 threads, only with 1, 2"),
        ("h100@2", "'h100@2': @ counts threads of a CPU, and h100 is none"),
        ("nowhere.toml@1", "nowhere.toml: no such file"),
        ("xeon", f"unknown GPU 'xeon': did you mean {NAME}"),
        (f"{NAME}@two", f"unknown GPU '{NAME}@two'"),
    ],
)
def test_unknown_devices(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_device(name)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("threads = [1, 2]", "threads = [2, 1]", r"threads are \[2, 1\], allowed are ascending counts up to cores"),
        ("threads = [1, 2]", "threads = [1]", r"has 2 entries, threads has 1"),
        ("cores = 2", "cores = 1", r"threads are \[1, 2\], allowed .* cores \(1\)"),
        ("sizes_bytes = [32768, ", "sizes_bytes = [", "has a row of another length than the"),
        ("clock_hz", "clock_ghz", "missing key 'clock_hz'|unknown key 'clock_ghz'"),
        ('architecture = "cpu"', 'architecture = "tpu"', "architecture"),
    ],
)
def test_files_that_break_the_schema(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = FILE.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ValueError, match=message) as refused:
        load_device(path)
    assert "mine.toml" in str(refused.value)


def test_a_curve_ascends() -> None:
    with pytest.raises(ValueError, match="sizes_bytes are 4 sizes, allowed are at least 4, ascending"):
        Reads(sizes_bytes=[1, 2, 2, 4], bytes_per_s=[[1] * 4], spread=[[0] * 4])


def test_read_rates_lie_between_those_measured() -> None:
    cpu = round_cpu().on(1)
    assert cpu.read_rate(KIB) == cpu.read_rate(500 * KIB) == pytest.approx(100e9)
    assert cpu.read_rate(8 * MIB) == pytest.approx(10e9**0.5 * 100e9**0.5)  # half way from 1 to 64 MiB
    assert cpu.read_rate(2**40) == cpu.dram_bytes_per_s == 10e9
    assert round_cpu().on(2).dram_bytes_per_s == 20e9
    assert msgspec.structs.replace(cpu, key="round").in_use == 2
