"""Chapter on our own kernels."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from lscd.report import own_kernels

GPUS = ("a100-80gb", "h100", "h200", "rtx-4090")


def test_table_of_the_design_note() -> None:
    """docs/bitmap.md shows what the model says now, to 5 %, and nothing in it is called measured."""
    text = (Path(__file__).parents[3] / "docs" / "bitmap.md").read_text()
    table = own_kernels.speedups(GPUS, (0.4, 0.5, 0.6, 0.7, 0.8, 0.9))
    assert table["extrapolated"].all()
    for gpu, rows in table.groupby("gpu"):
        line = next(line for line in text.splitlines() if line.startswith(f"| {gpu} |"))
        cells = line.split("|")[2:-1]
        shown = np.array([[float(number) for number in re.findall(r"\d+\.\d+", cell)] for cell in cells])
        np.testing.assert_allclose(
            shown, rows[["speedup", "low", "high", "pairs", "condensed", "flash_llm"]], rtol=0.05, err_msg=str(gpu)
        )
