"""A small BERT in a folder, as a checkpoint has it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.kernels_numba.checkpoints.files import save
from tests.lscd.study.small_bert import HIDDEN, LAYERS, PIECES, SIZE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with random weights, and its vocabulary."""
    rng = np.random.default_rng(2)
    shapes = {
        "embeddings.word_embeddings.weight": (len(PIECES), SIZE),
        "embeddings.position_embeddings.weight": (300, SIZE),
        "embeddings.token_type_embeddings.weight": (2, SIZE),
        "embeddings.LayerNorm.weight": (SIZE,),
        "embeddings.LayerNorm.bias": (SIZE,),
        "pooler.dense.weight": (SIZE, SIZE),
    }
    for layer in range(LAYERS):
        linear = {"attention.self.query": (SIZE, SIZE), "attention.self.key": (SIZE, SIZE)}
        linear |= {"attention.self.value": (SIZE, SIZE), "attention.output.dense": (SIZE, SIZE)}
        linear |= {"intermediate.dense": (HIDDEN, SIZE), "output.dense": (SIZE, HIDDEN)}
        for name, shape in linear.items():
            shapes[f"encoder.layer.{layer}.{name}.weight"] = shape
            shapes[f"encoder.layer.{layer}.{name}.bias"] = shape[:1]
        for name in ("attention.output", "output"):
            shapes[f"encoder.layer.{layer}.{name}.LayerNorm.weight"] = (SIZE,)
            shapes[f"encoder.layer.{layer}.{name}.LayerNorm.bias"] = (SIZE,)
    tensors = {name: rng.standard_normal(shape).astype(np.float32) * 0.5 for name, shape in shapes.items()}
    where = tmp_path_factory.mktemp("minilm")
    save(where / "model.safetensors", tensors, dict.fromkeys(tensors, "F32"))
    (where / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    return where
