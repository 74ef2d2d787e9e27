"""`lscd gpus`, `models`, `formats`, `kernels list`: the name first, one a line."""

from __future__ import annotations

import pytest

from lscd.cli import app
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
    assert "us at least, N = 8" in lines[0]
    dense = next(line.split() for line in lines if line.startswith("dense "))
    assert float(dense[3]) == pytest.approx(2 * (12288**2 + 2 * 8 * 12288) / 3.35e12 * 1e6, abs=0.06)
    assert "at least" not in RUNNER.invoke(app, ["formats"]).output
