"""Frozen records of what a prediction is about: GPUs, language models, matrix products.

Every group of numbers that comes from outside carries its ``source``. Units are SI and stand in the field's
name; ``None`` means unknown, never zero. Field names equal the keys of the files in ``data/``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

Positive = Annotated[float, msgspec.Meta(gt=0)]
PositiveInt = Annotated[int, msgspec.Meta(gt=0)]
Natural = Annotated[int, msgspec.Meta(ge=0)]
Text = Annotated[str, msgspec.Meta(min_length=1)]


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all records: immutable, keyword-only, and strict about its keys."""


class Architecture(StrEnum):
    """NVIDIA GPU generations in the catalogue, oldest first."""

    VOLTA = "volta"
    TURING = "turing"
    AMPERE = "ampere"
    ADA = "ada"
    HOPPER = "hopper"
    BLACKWELL = "blackwell"


class Bound(StrEnum):
    """The resource whose time is the longest, and so sets the time of a kernel."""

    MEMORY = "memory"
    L2 = "l2"
    SHARED_MEMORY = "shared-memory"
    COMPUTE = "compute"
    LATENCY = "latency"


class Clock(Record, frozen=True):
    """Number of streaming multiprocessors and the clock they sustain."""

    sm_count: PositiveInt
    boost_hz: Positive
    source: Text


class Peak(Record, frozen=True):
    """Dense peak rates in FLOP/s (multiply-add = 2); never the 2:4-sparse figure.

    ``fp16_tensor`` accumulates in FP32. SIMT rates are those of the CUDA cores.
    """

    fp16_tensor: Positive
    fp16_simt: Positive | None = None
    fp32_simt: Positive
    bf16_tensor: Positive | None = None
    tf32_tensor: Positive | None = None
    fp8_tensor: Positive | None = None
    int8_tensor: Positive | None = None
    source: Text


class Dram(Record, frozen=True):
    """Device memory: datasheet bandwidth (decimal bytes/s) and usable size."""

    bandwidth_bytes_per_s: Positive
    size_bytes: Positive
    kind: Text
    source: Text


class L2(Record, frozen=True):
    """Second-level cache; ``bandwidth_bytes_per_s`` is a measured read rate."""

    size_bytes: Positive
    bandwidth_bytes_per_s: Positive
    source: Text


class Multiprocessor(Record, frozen=True):
    """Limits of one streaming multiprocessor (SM) and of one thread block on it."""

    shared_memory_bytes: PositiveInt
    shared_memory_per_block_bytes: PositiveInt
    shared_bytes_per_clock: PositiveInt
    registers: PositiveInt
    max_warps: PositiveInt
    max_blocks: PositiveInt
    schedulers: PositiveInt
    source: Text


class Latency(Record, frozen=True):
    """Load-to-use latencies in SM clock cycles, measured by pointer chasing."""

    l1_cycles: Positive
    l2_cycles: Positive
    dram_cycles: Positive
    source: Text


class Link(Record, frozen=True):
    """Connections to other GPUs and to the host, bytes/s summed over both directions."""

    nvlink_bytes_per_s: Positive | None = None
    pcie_bytes_per_s: Positive
    source: Text


class Price(Record, frozen=True):
    """Range of cloud prices in US dollars per GPU-hour."""

    low_usd_per_hour: Positive
    high_usd_per_hour: Positive
    source: Text


class Power(Record, frozen=True):
    """Board power limit in watts."""

    tdp_w: Positive
    source: Text


class Gpu(Record, frozen=True):
    """One GPU of ``data/hardware``; ``key`` is the file name users type."""

    key: Text
    name: Text
    architecture: Architecture
    compute_capability: Text
    clock: Clock
    peak: Peak
    dram: Dram
    l2: L2
    sm: Multiprocessor
    latency: Latency
    link: Link
    price: Price | None = None
    power: Power | None = None


class Norm(StrEnum):
    """Normalisation layers of the catalogue's models."""

    LAYERNORM = "layernorm"
    RMSNORM = "rmsnorm"


class Layers(Record, frozen=True):
    """Shape of a decoder-only transformer, H = ``hidden_size``.

    ``attention_bias`` and ``mlp_bias`` say whether the projections add a bias; ``learned_positions`` counts rows of
    a position table (0 for rotary embeddings); ``embedding_size`` differs from H only where the model projects its
    embeddings (OPT-350M). ``norms_per_layer`` counts normalisations inside a layer, ``final_norm`` the one after.
    """

    layers: PositiveInt
    hidden_size: PositiveInt
    heads: PositiveInt
    kv_heads: PositiveInt
    head_dim: PositiveInt
    ffn_size: PositiveInt
    gated_mlp: bool
    experts: PositiveInt
    experts_per_token: PositiveInt
    vocab_size: PositiveInt
    embedding_size: PositiveInt
    tied_embeddings: bool
    learned_positions: Natural
    attention_bias: bool
    mlp_bias: bool
    norm: Norm
    norms_per_layer: PositiveInt
    final_norm: bool
    max_positions: PositiveInt
    source: Text


class Published(Record, frozen=True):
    """What the authors or the checkpoint say, to check our own totals against."""

    parameters: Positive
    source: Text


class LanguageModel(Record, frozen=True):
    """One language model of ``data/models`` or of a Hugging Face ``config.json``."""

    key: Text
    name: Text
    family: Text
    shape: Layers
    published: Published | None = None


class Source(Record, frozen=True):
    """Provenance of one evidence file: where from, which licence, how sure."""

    title: Text
    url: Text
    revision: Text
    licence: Text
    method: Text
    error: Text
    date: Text
