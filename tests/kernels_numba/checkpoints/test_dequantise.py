"""Quantised checkpoints written as whole matrices: every value, every other tensor, a config that says so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kernels_numba.checkpoints.checkpoint import weight_matrices
from kernels_numba.checkpoints.dequantise import dequantise
from kernels_numba.checkpoints.safetensors_reader import open_checkpoint
from tests.kernels_numba.checkpoints.files import save
from tests.kernels_numba.checkpoints.layouts.files import DECODED, NAMED

PLAIN = {
    "model.norm.weight": ("BF16", np.arange(9, dtype=np.uint16)),
    "up.weight": ("F32", np.ones((4, 4), np.float32)),
}
CASES = ("GPTQ 4", "AWQ", "pack-quantized 3, filled up", "FP8 by row", "MXFP4 of gpt-oss", "sparse-bitmask", "Marlin")


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("case", CASES)
def test_values_and_all_other_tensors(tmp_path: Path, case: str, dtype: str) -> None:
    layout = DECODED[case]()
    source = open_checkpoint(layout.write(tmp_path, PLAIN))
    before = source.path.read_bytes()
    found = dequantise(source, tmp_path / "out", dtype)
    assert [matrix.what for matrix in found] == [layout.what]
    whole = open_checkpoint(tmp_path / "out")
    assert set(whole.tensors) == {layout.name, *PLAIN}
    assert layout.values is not None
    np.testing.assert_array_equal(whole.read(layout.name), layout.values.astype(dtype))
    for name in PLAIN:
        assert whole.read(name).tobytes() == source.read(name).tobytes()
    assert layout.name in weight_matrices(whole)
    assert source.path.read_bytes() == before
    if layout.config:
        assert json.loads((tmp_path / "out" / "config.json").read_text()) == {"dtype": dtype}


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    source = open_checkpoint(NAMED["HQQ"]().write(tmp_path))
    with pytest.raises(ValueError, match="HQQ, which is not decoded"):
        dequantise(source, tmp_path / "out")
    plain = open_checkpoint(save(tmp_path / "p.safetensors", {"w": np.ones((4, 4), np.float32)}, {"w": "F32"}))
    with pytest.raises(ValueError, match="holds no matrix in pieces"):
        dequantise(plain, tmp_path / "out")
    layout = DECODED["MXFP8"]()
    layout.tensors[".weight_scale"] = ("U8", np.full_like(layout.tensors[".weight_scale"][1], 150))
    source = open_checkpoint(layout.write(tmp_path))
    with pytest.raises(ValueError, match=r"values overflow float16; allowed: --dtype float32"):
        dequantise(source, tmp_path / "out")
    layout.tensors[".weight_scale"] = ("U8", np.full_like(layout.tensors[".weight_scale"][1], 255))
    source = open_checkpoint(layout.write(tmp_path))
    with pytest.raises(ValueError, match="codes and scales give inf or NaN; allowed: finite weights"):
        dequantise(source, tmp_path / "out", "float32")
    layout = DECODED["sparse-bitmask"]()
    layout.tensors[".row_offsets"] = ("I64", layout.tensors[".row_offsets"][1][::-1].copy())
    source = open_checkpoint(layout.write(tmp_path))
    with pytest.raises(ValueError, match="row_offsets: others than the bits give"):
        dequantise(source, tmp_path / "out")
    with pytest.raises(ValueError, match="dtype: 'int8'"):
        dequantise(source, tmp_path / "out", "int8")
    assert not (tmp_path / "out").exists()
