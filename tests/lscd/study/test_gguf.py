"""Rewriting a GGUF file, with a stand-in for the package that reads it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from kernels_numba.checkpoints.safetensors_reader import open_checkpoint
from lscd.study import gguf as study


def test_matrices_are_dequantised_and_vectors_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Codes 0 to 3 in steps of a half: what a reader yields are codes, a shape of GGUF's order, and a type."""
    codes = np.arange(32, dtype=np.uint8).reshape(4, 8) % 4
    tensors = [
        SimpleNamespace(name="blk.0.up.weight", shape=np.array([8, 4]), data=codes, tensor_type="Q"),
        SimpleNamespace(name="blk.0.norm.weight", shape=np.array([8]), data=codes[0], tensor_type="Q"),
    ]
    reader = SimpleNamespace(
        GGUFReader=lambda path: SimpleNamespace(tensors=tensors),
        quants=SimpleNamespace(dequantize=lambda data, kind: data.astype(np.float32) / 2),
    )
    monkeypatch.setitem(sys.modules, "gguf", reader)
    assert study.rewrite(tmp_path / "in.gguf", tmp_path / "out.safetensors") == 1
    found = open_checkpoint(tmp_path / "out.safetensors")
    assert list(found.tensors) == ["blk.0.up.weight"]
    np.testing.assert_array_equal(found.read("blk.0.up.weight"), (codes / 2).astype(np.float16))
