"""Counters of ncu, read as it writes them; the verdict on the model; a machine without the tool."""

from __future__ import annotations

import csv
import json
import math
import sys
from pathlib import Path

import pytest

from kernels_numba.bench import parent as parents
from kernels_numba.bench import profiles
from kernels_numba.bench.order import Program
from kernels_numba.bench.parent import Parent
from kernels_numba.bench.profiles import DRAM, DURATION, ISSUE, Profile, parse, verdict
from kernels_numba.bench.provenance import Row

HEAD = '"ID","Process ID","Kernel Name","Grid Size",'
TEXT = (
    "==PROF== Connected to process 7\n"
    f'{HEAD}"{ISSUE}","{DURATION}","{DRAM}"\n'
    '"","","","","%","nsecond","%"\n'
    '"0","7","bitmap_n16","(1, 288, 3)","61.5","1,234","70"\n'
    '"1","7","reduce","(72, 1, 1)","9","12","n/a"\n'
)
SHAPE = (36864, 9216)


def test_counters_are_read_with_their_units() -> None:
    assert parse(TEXT) == [
        ("bitmap_n16", ISSUE, "%", 61.5),
        ("bitmap_n16", DURATION, "nsecond", 1234.0),
        ("bitmap_n16", DRAM, "%", 70.0),
        ("reduce", ISSUE, "%", 9.0),
        ("reduce", DURATION, "nsecond", 12.0),
    ]
    assert parse("==ERROR== ERR_NVGPUCTRPERM\n") == []


def profile(kernel: str, issue: float, dram: float) -> list[Profile]:
    values = {DURATION: 100.0, ISSUE: issue, DRAM: dram}
    long = [Profile("h100", kernel, *SHAPE, 16, 0.9, "main", metric, "", value) for metric, value in values.items()]
    return [*long, *(Profile("h100", kernel, *SHAPE, 16, 0.9, "reduce", metric, "", 1.0) for metric in values)]


def rows(condensed: float, pairs: float) -> list[Row]:
    times = {"lscd-condensed-pairs": condensed, "lscd-bitmap-pairs": pairs}
    end = (0.1, "value", "cold", "s", "n")
    return [Row("h100", kernel, *SHAPE, 16, 0.9001, time_us, *end) for kernel, time_us in times.items()]


@pytest.mark.parametrize(
    ("times", "counters", "refuted"),
    [((40, 50), (90, 50), 0), ((40, 50), (50, 85), 0), ((50, 40), (90, 50), 1), ((40, 50), (60, 70), 1),
     ((50, 40), (60, 70), 2)],
)  # fmt: skip
def test_the_model_is_refuted_by_time_or_by_an_idle_machine(
    times: tuple[float, float], counters: tuple[float, float], refuted: int
) -> None:
    line = verdict(rows(*times), profile("lscd-condensed-pairs", *counters), SHAPE)
    assert line.count("the model is wrong here") == refuted
    assert "not tested" not in line


def test_what_was_not_measured_refutes_nothing() -> None:
    assert verdict([], [], SHAPE).count("not tested") == 2
    assert verdict(rows(40, 50)[:1], profile("lscd-bitmap-pairs", 1, 1), SHAPE).count("not tested") == 2


def parent() -> Parent:
    return Parent(
        ["cublas", "lscd-bitmap", "lscd-bitmap-pairs", "lscd-condensed-pairs"], Program(), 0, lambda line: None
    )


def test_without_the_tool_one_line_is_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert profiles.profile(parent(), math.inf) == ([], "not profiled: ncu is not installed")


def test_the_tool_profiles_a_job_of_each_product(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A stand-in for ncu that knows no metric by name, so that it is asked for sections, and fails for cuBLAS."""
    (tmp_path / "answer.csv").write_text(TEXT)
    tool = tmp_path / "ncu"
    tool.write_text(
        f"#!{sys.executable}\n"
        "import pathlib, sys\n"
        f"here = pathlib.Path({str(tmp_path)!r})\n"
        "arguments, job = sys.argv[1:], sys.stdin.read()\n"
        "if '--metrics' in arguments or 'cublas' in arguments: sys.exit(1)\n"
        "(here / 'job.json').write_text(job)\n"
        "log = pathlib.Path(arguments[arguments.index('--log-file') + 1])\n"
        "log.write_text((here / 'answer.csv').read_text())\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(parents, "CHILD", ("child",))
    found, line = profiles.profile(parent(), math.inf)
    assert line == "profiled 4 of 6 products; without counters: cublas at 0.0"
    products = {(row.kernel, row.sparsity) for row in found}
    condensed = {("lscd-condensed-pairs", 0.8), ("lscd-condensed-pairs", 0.9)}
    assert products == condensed | {("lscd-bitmap", 0.8), ("lscd-bitmap-pairs", 0.9)}
    job = json.loads((tmp_path / "job.json").read_text())
    assert (job["job"], job["m"], job["k"], job["columns"], job["sparsity"]) == ("profile", *SHAPE, [16], 0.9)
    assert profiles.profile(parent(), 0.0)[1].startswith("profiled 0 of 6")
    (tmp_path / "answer.csv").write_text("==ERROR== ERR_NVGPUCTRPERM\n")
    refused = "profiled 0 of 6 products; without counters: cublas at 0.0, lscd-bitmap at 0.8"
    assert profiles.profile(parent(), math.inf) == ([], refused)
    with profiles.write(found, tmp_path).open() as file:
        assert len(list(csv.DictReader(file))) == len(found) == 4 * 5
