"""`lscd gpus`, `models`, `formats`, `kernels list`: the name first, one a line."""

from __future__ import annotations

import json
import re

import pytest

from lscd.cli import app
from perfmodel.formats import FORMATS
from perfmodel.kernels import KERNELS
from perfmodel.kernels.fits import unmeasured_kernels
from tests.lscd.commands import RUNNER


@pytest.mark.parametrize(
    ("command", "names"),
    [
        (["gpus"], ["a100-80gb", "h200", "rtx-2080-super", "v100"]),
        (["models"], ["opt-175b", "llama-3.1-405b", "mixtral-8x7b"]),
        (["formats"], ["tiled-csl", "bitmap", "gqsa-w4s50"]),
        (["kernels", "list"], ["cublas", "flash-llm", "sparta", "sputnik", "cusparse"]),
    ],
)
def test_lists_put_the_name_first(command: list[str], names: list[str]) -> None:
    result = RUNNER.invoke(app, command)
    assert result.exit_code == 0
    first = [line.split()[0] for line in result.output.splitlines()]
    assert set(names) <= set(first)


def test_formats_give_the_time_that_dram_sets_at_least() -> None:
    """12288 x 12288 FP16 weights, 8 columns in and out, at the 3.35 TB/s of an H100."""
    lines = RUNNER.invoke(app, ["formats", "--gpu", "h100", "--n", "8"]).output.splitlines()
    assert "us at least," in lines[0]
    assert " N = 8 " in lines[1]
    dense = next(line.split() for line in lines if line.startswith("dense "))
    assert float(dense[3]) == pytest.approx(2 * (12288**2 + 2 * 8 * 12288) / 3.35e12 * 1e6, abs=0.06)
    assert "at least" not in RUNNER.invoke(app, ["formats"]).output


def test_formats_stand_in_groups_by_what_becomes_of_the_weights() -> None:
    """Every format once, below the heading that fits it; no line too long for 100 columns."""
    lines = RUNNER.invoke(app, ["formats"]).output.splitlines()
    assert max(map(len, lines)) <= 100
    groups: dict[str, list[str]] = {}
    for line in lines[2:-1]:
        if line.endswith(":"):
            heading = line.removesuffix(":")
        else:
            groups.setdefault(heading, []).append(line.split()[0])
    assert set(groups) == {"lossless", "pruned", "rounded", "pruned and rounded"}
    assert sorted(name for names in groups.values() for name in names) == sorted(FORMATS)
    assert all(FORMATS[name].change == change for change, names in groups.items() for name in names)
    assert "For bsr the sparsity is that of whole blocks." in lines[-1]


def test_kernels_say_what_they_multiply_and_who_has_measured_them() -> None:
    header, *lines = RUNNER.invoke(app, ["kernels", "list"]).output.splitlines()
    assert re.split(r" {2,}", header) == ["name", "format", "N", "weights", "multiplies", "measured", "kernel"]
    found = {cells[0]: cells for cells in (re.split(r" {2,}", line) for line in lines)}
    assert list(found) == list(KERNELS)
    for name, words in (
        ("nvfp4", ["nvfp4", "any N", "rounded", "FP4", "yes", "NVFP4"]),
        ("mxfp4", ["mxfp4", "any N", "rounded", "FP4", "no", "MXFP4, unmeasured"]),
        ("two-four-int8", ["2:4-int8", "any N", "pruned and rounded", "INT8 2:4", "yes", "2:4 INT8"]),
        ("lscd-bitmap-8", ["lscd-bitmap-8", "any N", "pruned and rounded", "FP16", "no"]),
        ("macko", ["macko", "1", "pruned", "FP16", "yes", "MACKO"]),
    ):
        assert found[name][1 : len(words) + 1] == words
    assert {name for name, cells in found.items() if cells[5] != "yes"} == set(unmeasured_kernels())


def test_kernels_are_listed_as_json_too() -> None:
    found = json.loads(RUNNER.invoke(app, ["kernels", "list", "--json"]).output)
    assert [each["name"] for each in found] == list(KERNELS)
    assert set(found[0]) == {"name", "format", "N", "weights", "multiplies", "measured", "kernel"}
    assert (found[0]["format"], found[0]["measured"]) == ("dense", "yes")
