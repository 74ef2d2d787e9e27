"""Answers about one operator of a decoder layer as roofline tools count it: FLOP, bytes, FLOP per byte, and the roof.

Every operand crosses the memory once, in 16 bits. Attention's scores are written and read again, as without fusion.
"""

from __future__ import annotations

from dataclasses import dataclass

from perfmodel.catalog.decoder import Mlp, SelfAttention
from perfmodel.catalog.language_model import LanguageModel
from perfmodel.catalog.load import load_gpu
from perfmodel.catalog.models import load_model
from perfmodel.papers.asked import Answer, Asked, UnansweredError
from perfmodel.units import FP16_BYTES, GIGA, TERA

DECODE = "decode"
PRODUCTS = ("q", "k", "v", "o", "gate", "up", "down")
ATTENTION = ("qk", "pv")


@dataclass(frozen=True)
class Operator:
    """Floating-point operations and bytes of one operator."""

    flop: float
    moved_bytes: float


def operator(model: LanguageModel, name: str, batch: float, context: float, *, decodes: bool) -> Operator:
    """One operator on ``batch`` sequences of ``context`` tokens: all of them at once, or the last one.

    Raises
    ------
    UnansweredError
        If the model has no such operator; names those there are.
    """
    block = model.shape.blocks[0]
    part = next((part for part in block.parts if isinstance(part, SelfAttention)), None)
    inner = next((part for part in block.parts if isinstance(part, Mlp)), None)
    rows = 1.0 if decodes else context
    if part is not None and name in ATTENTION:
        queries, scores = batch * rows * part.inner, batch * part.heads * rows * context
        cached = batch * context * part.kv_heads * part.head_dim
        return Operator(2 * scores * part.head_dim, FP16_BYTES * (queries + scores + cached))
    hidden = model.shape.hidden_size
    sizes: dict[str, tuple[int, int]] = {}
    if part is not None:
        kv = part.kv_heads * part.head_dim
        sizes |= {"q": (part.inner, hidden), "k": (kv, hidden), "v": (kv, hidden), "o": (hidden, part.inner)}
    if inner is not None:
        sizes |= {"gate": (inner.size, hidden), "up": (inner.size, hidden), "down": (hidden, inner.size)}
    if name not in sizes:
        raise UnansweredError(f"{model.key} has no operator {name}, but {', '.join((*sizes, *ATTENTION))}")
    m, k = sizes[name]
    tokens = batch * rows
    return Operator(2.0 * m * k * tokens, FP16_BYTES * (m * k + (m + k) * tokens))


def gflop(asked: Asked) -> Answer:
    """GFLOP of an operator; of a layer for ``all``."""
    return _counted(_of(asked).flop / GIGA)


def traffic_gb(asked: Asked) -> Answer:
    """GB that an operator moves."""
    return _counted(_of(asked).moved_bytes / GIGA)


def intensity(asked: Asked) -> Answer:
    """FLOP per byte."""
    found = _of(asked)
    return _counted(found.flop / found.moved_bytes)


def attainable_tflops(asked: Asked) -> Answer:
    """TFLOP/s at the roof of the datasheet: its Tensor Cores, or its bandwidth times the intensity."""
    found, gpu = _of(asked), load_gpu(asked.text("gpu"))
    roof = min(gpu.peak.fp16_tensor, found.flop / found.moved_bytes * gpu.dram.bandwidth_bytes_per_s)
    return _counted(roof / TERA)


def _of(asked: Asked) -> Operator:
    (batch,), (context,) = asked.numbers("batch", 1.0), asked.numbers("input_len")
    model, decodes = load_model(asked.text("model")), asked.text("system") == DECODE
    name = asked.text("kernel")
    names = (*PRODUCTS, *ATTENTION) if name == "all" else (name,)
    found = [operator(model, each, batch, context, decodes=decodes) for each in names]
    return Operator(sum(one.flop for one in found), sum(one.moved_bytes for one in found))


def _counted(value: float) -> Answer:
    return Answer(value, value, value)
