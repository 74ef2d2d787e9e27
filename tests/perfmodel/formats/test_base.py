"""What a format does to a checkpoint, told from its fields; wrong sizes and sparsities are refused."""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel.formats import FORMATS, WeightFormat, check_sparsity

CHANGES = {
    "lossless": "dense df11",
    "pruned": "csr tiled-csl bitmap macko bsr lscd-bitmap lscd-condensed lscd-condensed-pairs 2:4 6:8",
    "rounded": "int8 int8-w8a8 fp8 fp6 int4-zp nvfp4 mxfp4 comet-w4a4 tilus-int1",
    "pruned and rounded": "gqsa-w4s50 int4-2:4 2:4-fp8 6:8-int8 lscd-bitmap-4 lscd-bitmap-fp8 lscd-bitmap-nvfp4",
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_becomes_of_a_checkpoint(change: str) -> None:
    assert {FORMATS[name].change for name in CHANGES[change].split()} == {change}


def test_what_depends_on_sparsity_prunes() -> None:
    mine = WeightFormat("mine", "mine", lambda m, k, s: m * k * (1 - s), True, True, "this test")
    assert mine.prunes
    assert mine.change == "pruned"


def test_precision_of_activations() -> None:
    by_precision: dict[str, set[str]] = {}
    for name, fmt in FORMATS.items():
        by_precision.setdefault(fmt.activations, set()).add(name)
    del by_precision["fp16"]
    assert by_precision == {
        "fp8": {"fp8", "fp8-row", "fp8-block", "mxfp8", "2:4-fp8", "6:8-fp8"},
        "int8": {"int8-w8a8", "mxint8", "2:4-int8", "6:8-int8"},
        "fp4": {"nvfp4", "mxfp4"},
        "int4": {"comet-w4a4"},
    }


@pytest.mark.parametrize("wrong", [-0.1, 1.5, float("nan"), 80])
def test_sparsity_outside_zero_to_one_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"sparsity must lie in \[0, 1\], got"):
        check_sparsity([0.5, wrong])


def test_percent_is_recognised() -> None:
    with pytest.raises(ValueError, match=r"did you mean 0\.8\?"):
        FORMATS["csr"].bytes(8, 8, 80)


@pytest.mark.parametrize(("m", "k", "letter"), [(0, 8, "m"), (8, -1, "k"), (float("nan"), 8, "m")])
def test_sizes_must_be_positive(m: float, k: float, letter: str) -> None:
    with pytest.raises(ValueError, match=f"{letter} must be positive"):
        FORMATS["dense"].bytes(m, k)


@pytest.mark.parametrize("name", FORMATS)
def test_bytes_broadcast(name: str) -> None:
    m, k, s = np.array([8, 33])[:, None, None], np.array([16, 130, 4096])[:, None], np.linspace(0, 1, 4)
    table = FORMATS[name].bytes(m, k, s)
    assert table.shape == (2, 3, 4)
    one = float(FORMATS[name].bytes(33, 130, s[1]))
    assert table[1, 1, 1] == pytest.approx(one, rel=1e-12)
