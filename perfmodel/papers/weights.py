"""Answers that are counted, not predicted: bytes of weights and of caches."""

from __future__ import annotations

from perfmodel.formats import FORMATS
from perfmodel.papers.asked import Answer, Asked, UnansweredError
from perfmodel.serving.group import make_group
from perfmodel.serving.memory import weight_bytes
from perfmodel.serving.systems import HOST
from perfmodel.serving.what_if import WhatIf
from perfmodel.units import FP16_BYTES, GIGA

ANY_GPU = "h100"  # bytes of weights are the same on all that have the Tensor Cores for them
FP16_BITS = 16.0


def size_ratio(asked: Asked) -> Answer:
    """Bytes of the weights over those in FP16."""
    name = asked.text("kernel")
    if name not in FORMATS:
        raise UnansweredError(f"we have no format {name}")
    m, k, _, sparsity = asked.grid(by_tokens=False)
    ratio = FORMATS[name].bytes_of(m, k, sparsity) / (FP16_BYTES * m * k)
    return asked.answer(ratio, ratio, ratio)


def model_gb(asked: Asked) -> Answer:
    """GB of all weights of a model: of the format behind ``+``, of ``kernel``, or dense."""
    part = asked.cells["kernel"]
    system = asked.cells["system"] or (f"{HOST}+{part}" if part and part != "dense" else HOST)
    (sparsity,) = asked.numbers("sparsity", 0.0)
    gpu = asked.cells["gpu"] or ANY_GPU
    group, _ = make_group(asked.text("model"), gpu, system, input_len=1, output_len=1, sparsity=float(sparsity))
    size = weight_bytes(group) / GIGA
    return asked.answer(size, size, size)


def cache_ratio(asked: Asked) -> Answer:
    """Bytes of pruned keys and values over those in FP16."""
    (sparsity,) = asked.numbers("sparsity")
    ratio = WhatIf(cache_sparsity=float(sparsity)).cache_bytes(FP16_BITS) / FP16_BYTES
    return Answer(ratio, ratio, ratio)
