"""Frozen records of what a prediction is about: GPUs, language models, matrix products.

Every group of numbers that comes from outside carries its ``source``. Units are SI and stand in the field's
name; ``None`` means unknown, never zero. Field names equal the keys of the files in ``data/``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

LARGEST_SIZE = 2**40  # of a matrix, a batch, a model: far beyond any, and products of three stay finite
# The upper limit is beyond any quantity here; it keeps out the `inf` that TOML allows.
Positive = Annotated[float, msgspec.Meta(gt=0, lt=1e30)]
PositiveInt = Annotated[int, msgspec.Meta(gt=0, le=LARGEST_SIZE)]
Natural = Annotated[int, msgspec.Meta(ge=0, le=LARGEST_SIZE)]
Text = Annotated[str, msgspec.Meta(min_length=1)]


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all records: immutable and strict about its keys.

    ``kw_only`` is not inherited, so each record repeats it.
    """


def _check_order(key: str, value: float, limit: float) -> None:
    if value > limit:
        raise ValueError(f"{key} is {value:g}, allowed is at most {limit:g}")


class Architecture(StrEnum):
    """GPU generations in the catalogue, NVIDIA's oldest first, then AMD's."""

    VOLTA = "volta"
    TURING = "turing"
    AMPERE = "ampere"
    ADA = "ada"
    HOPPER = "hopper"
    BLACKWELL = "blackwell"
    CDNA3 = "cdna3"
    CDNA4 = "cdna4"

    @property
    def amd(self) -> bool:
        """Whether AMD makes it."""
        return self.value.startswith("cdna")


class Precision(StrEnum):
    """What the Tensor Cores multiply."""

    FP16 = "fp16"
    FP8 = "fp8"
    FP4 = "fp4"
    INT8 = "int8"


class Bound(StrEnum):
    """The resource with the longest time alone, if everything else took none."""

    MEMORY = "memory"
    L2 = "l2"
    SHARED_MEMORY = "shared-memory"
    COMPUTE = "compute"
    LATENCY = "latency"


FlopsPerS = Annotated[float, msgspec.Meta(ge=1e9, le=1e18)]
MOST_SPARSE_GAIN = 2.05  # datasheets round
MOST_OVERCLOCK = 1.5


class Clock(Record, frozen=True, kw_only=True):
    """Number of streaming multiprocessors and their clock.

    ``tensor_hz`` is given where the datasheet's Tensor-Core peak assumes a lower clock than ``boost_hz`` (Hopper),
    ``reached_hz`` where boards at work run faster than ``boost_hz`` prints (GeForce).

    Raises
    ------
    ValueError
        If ``reached_hz`` is below ``boost_hz``, or above 1.5 times it.
    """

    sm_count: PositiveInt
    boost_hz: Positive
    tensor_hz: Positive | None = None
    reached_hz: Positive | None = None
    source: Text

    def __post_init__(self) -> None:
        """Refuse a reached clock that no board has."""
        if self.reached_hz is not None and not 1 <= self.reached_hz / self.boost_hz <= MOST_OVERCLOCK:
            most = f"{MOST_OVERCLOCK:g} times it"
            raise ValueError(f"reached_hz is {self.reached_hz:g}: from boost_hz ({self.boost_hz:g}) to {most}")

    @property
    def hz(self) -> float:
        """Cycles per second of an SM at work."""
        return self.reached_hz or self.boost_hz

    @property
    def gain(self) -> float:
        """How many times what the datasheet prints the SMs, and so their peaks, reach."""
        return self.hz / self.boost_hz


class Peak(Record, frozen=True, kw_only=True):
    """Peak rates in FLOP/s (multiply-add = 2), dense unless the name says ``sparse``.

    ``fp16_tensor`` and ``fp8_tensor`` accumulate in FP32, ``int8_tensor`` in INT32; ``fp4_tensor`` has a scale for each
    block. ``*_sparse`` is the rate with 2:4 weights, zeros counted as multiplied. SIMT rates are those of the CUDA
    cores. A rate that is missing is a precision the card lacks.

    Raises
    ------
    ValueError
        If a precision is there with 2:4 weights alone, or those make it slower, or clearly more than twice as fast.
    """

    fp16_tensor: FlopsPerS
    fp16_simt: FlopsPerS | None = None
    fp32_simt: FlopsPerS
    bf16_tensor: FlopsPerS | None = None
    tf32_tensor: FlopsPerS | None = None
    fp8_tensor: FlopsPerS | None = None
    int8_tensor: FlopsPerS | None = None
    fp4_tensor: FlopsPerS | None = None
    fp16_sparse: FlopsPerS | None = None
    fp8_sparse: FlopsPerS | None = None
    int8_sparse: FlopsPerS | None = None
    fp4_sparse: FlopsPerS | None = None
    source: Text

    def __post_init__(self) -> None:
        """Refuse rates with 2:4 weights that do not go with the dense ones."""
        for precision in Precision:
            dense, sparse = (self.tensor(precision, sparse=with_pattern) for with_pattern in (False, True))
            if sparse is None:
                continue
            if dense is None:
                raise ValueError(f"{precision}_sparse is {sparse:g}, but there is no {precision}_tensor")
            if not dense <= sparse <= MOST_SPARSE_GAIN * dense:
                most = MOST_SPARSE_GAIN * dense
                raise ValueError(
                    f"{precision}_sparse is {sparse:g}, allowed is {precision}_tensor ({dense:g}) to {most:g}"
                )

    def tensor(self, precision: Precision, *, sparse: bool = False) -> float | None:
        """Rate of the Tensor Cores at ``precision``, with 2:4 weights if ``sparse``; None if the card lacks it."""
        rates = {
            Precision.FP16: (self.fp16_tensor, self.fp16_sparse),
            Precision.FP8: (self.fp8_tensor, self.fp8_sparse),
            Precision.FP4: (self.fp4_tensor, self.fp4_sparse),
            Precision.INT8: (self.int8_tensor, self.int8_sparse),
        }
        return rates[precision][sparse]


class Dram(Record, frozen=True, kw_only=True):
    """Device memory: datasheet bandwidth (decimal bytes/s) and usable size.

    ``ecc`` tells inline ECC, whose check bits take 1/16 of size and bandwidth of a GDDR card; HBM has its own bits.
    """

    bandwidth_bytes_per_s: Positive
    size_bytes: Positive
    kind: Annotated[str, msgspec.Meta(pattern=r"^(?i:HBM[2-9]e?|GDDR\d[XW]?|LPDDR\d[XT]?)$")]
    ecc: bool = False
    source: Text


class L2(Record, frozen=True, kw_only=True):
    """Second-level cache; ``bandwidth_bytes_per_s`` is a measured read rate."""

    size_bytes: Positive
    bandwidth_bytes_per_s: Positive
    source: Text


class Multiprocessor(Record, frozen=True, kw_only=True):
    """Limits of one streaming multiprocessor (SM) and of one thread block on it."""

    shared_memory_bytes: PositiveInt
    shared_memory_per_block_bytes: PositiveInt
    shared_bytes_per_clock: PositiveInt
    registers: PositiveInt
    max_warps: PositiveInt
    max_blocks: PositiveInt
    schedulers: PositiveInt
    source: Text

    def __post_init__(self) -> None:
        """Refuse a thread block that may own more shared memory than its SM has."""
        _check_order("shared_memory_per_block_bytes", self.shared_memory_per_block_bytes, self.shared_memory_bytes)


class Latency(Record, frozen=True, kw_only=True):
    """Load-to-use latencies in SM clock cycles, measured by pointer chasing."""

    l1_cycles: Positive
    l2_cycles: Positive
    dram_cycles: Positive
    source: Text

    def __post_init__(self) -> None:
        """Refuse a cache that answers later than the level behind it."""
        _check_order("l1_cycles", self.l1_cycles, self.l2_cycles)
        _check_order("l2_cycles", self.l2_cycles, self.dram_cycles)


class Link(Record, frozen=True, kw_only=True):
    """Connections to other GPUs and to the host, bytes/s summed over both directions."""

    nvlink_bytes_per_s: Positive | None = None
    pcie_bytes_per_s: Positive
    source: Text


class Price(Record, frozen=True, kw_only=True):
    """Range of cloud prices in US dollars per GPU-hour."""

    low_usd_per_hour: Positive
    high_usd_per_hour: Positive
    source: Text

    def __post_init__(self) -> None:
        """Refuse a range that ends below its start."""
        _check_order("low_usd_per_hour", self.low_usd_per_hour, self.high_usd_per_hour)


class Power(Record, frozen=True, kw_only=True):
    """Board power limit in watts."""

    tdp_w: Positive
    source: Text


class Gpu(Record, frozen=True, kw_only=True):
    """One GPU of ``data/hardware``; ``key`` is the file name users type."""

    key: Text
    name: Text
    architecture: Architecture
    compute_capability: Annotated[str, msgspec.Meta(pattern=r"^[1-9]\d?\.\d$")]
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


class Layers(Record, frozen=True, kw_only=True):
    """Shape of a decoder-only transformer, H = ``hidden_size``.

    ``attention_bias`` (Q, K, V), ``output_bias`` (projection after attention) and ``mlp_bias`` say whether these add
    a bias (Qwen2 has the first alone); ``learned_positions`` counts rows of a position table (0 for rotary
    embeddings); ``embedding_size`` differs from H only where the model projects its embeddings (OPT-350M).
    ``norms_per_layer`` counts normalisations inside a layer, ``final_norm`` the one after; ``qk_norm`` says whether
    queries and keys are normalised too, head by head (Qwen3, Gemma 3).
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
    output_bias: bool
    mlp_bias: bool
    norm: Norm
    norms_per_layer: PositiveInt
    final_norm: bool
    qk_norm: bool = False
    max_positions: PositiveInt
    source: Text

    def __post_init__(self) -> None:
        """Refuse head and expert counts that no kernel could split."""
        _check_order("experts_per_token", self.experts_per_token, self.experts)
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads is {self.kv_heads}, allowed are divisors of heads = {self.heads}")

    @property
    def attention_parameters(self) -> int:
        """Weights and biases of one layer's attention: Q, K, V and the output projection."""
        query, key_value = self.heads * self.head_dim, 2 * self.kv_heads * self.head_dim
        weights = self.hidden_size * (query + key_value) + query * self.hidden_size
        return weights + self.attention_bias * (query + key_value) + self.output_bias * self.hidden_size

    @property
    def mlp_parameters(self) -> int:
        """Weights and biases of one layer's MLP, all experts and the router (one linear map to ``experts``)."""
        n_in = 2 if self.gated_mlp else 1
        weights = (n_in + 1) * self.hidden_size * self.ffn_size
        biases = n_in * self.ffn_size + self.hidden_size
        router = self.hidden_size * self.experts if self.experts > 1 else 0
        return self.experts * (weights + self.mlp_bias * biases) + router

    @property
    def norm_parameters(self) -> int:
        """Parameters of one normalisation: a scale, and for LayerNorm a shift."""
        return self.hidden_size * (2 if self.norm is Norm.LAYERNORM else 1)

    @property
    def embedding_parameters(self) -> int:
        """Token and position tables, the output head if it is its own, and OPT-350M's two projections."""
        tables = self.vocab_size * self.embedding_size * (1 if self.tied_embeddings else 2)
        projections = 2 * self.embedding_size * self.hidden_size if self.embedding_size != self.hidden_size else 0
        return tables + projections + self.learned_positions * self.hidden_size


class Published(Record, frozen=True, kw_only=True):
    """What the authors or the checkpoint say, to check our own totals against."""

    parameters: Positive
    source: Text


class LanguageModel(Record, frozen=True, kw_only=True):
    """One language model of ``data/models`` or of a Hugging Face ``config.json``."""

    key: Text
    name: Text
    family: Text
    shape: Layers
    published: Published | None = None

    @property
    def parameters(self) -> int:
        """Parameters counted from the shape: every weight, bias, norm and table of the checkpoint.

        Tied tables count once. Buffers (rotary frequencies, causal masks) are no parameters.
        """
        shape = self.shape
        norms = shape.layers * shape.norms_per_layer + shape.final_norm
        head_norms = 2 * shape.head_dim * shape.qk_norm  # one scale for all query heads, one for all key heads
        layers = shape.layers * (shape.attention_parameters + shape.mlp_parameters + head_norms)
        return shape.embedding_parameters + layers + norms * shape.norm_parameters


class Launch(StrEnum):
    """How a benchmark started its kernels: one by one in a stream, or by replaying a CUDA graph."""

    STREAM = "stream"
    GRAPH = "graph"


class Cache(StrEnum):
    """What a call finds in the L2: nothing of its own, or whatever its last call left there."""

    COLD = "cold"
    WARM = "warm"


class Activations(StrEnum):
    """How the inputs reach a kernel that multiplies in less than 16 bits: it quantises them first, or they come so."""

    FP16 = "fp16"
    QUANTISED = "quantised"


class Source(Record, frozen=True, kw_only=True):
    """Provenance of one evidence file: where from, which licence, how sure.

    ``dirty_flush`` marks a harness that flushed the L2 with a memset before each launch, whose lines the timed kernel
    then had to write back.
    """

    title: Text
    url: Text
    revision: Text
    licence: Text
    method: Text
    error: Text
    date: Text
    dirty_flush: bool = False


class FittedKernel(Record, frozen=True, omit_defaults=True):
    """Calibrated parameters of one kernel model and the evidence they came from.

    ``mean_absolute_error`` is the relative error on the fitted rows; ``evidence_range`` gives the smallest and largest
    m, k, n and sparsity among them, beyond which a prediction is an extrapolation. ``spread`` holds 90 % half-widths of
    the log error: ``inside`` the evidence, outside its ``range``, and on another ``gpu``; ``at_home`` is the first for
    each fitted GPU that has enough rows to know. ``own`` names the source and GPU of a user's measurements that took
    part.
    """

    parameters: dict[str, float]
    fitted_on: Text
    gpus: list[Text]
    rows: PositiveInt
    mean_absolute_error: float
    evidence_range: dict[str, tuple[float, float]]
    spread: dict[str, float] = {}
    at_home: dict[str, float] = {}
    own: list[tuple[Text, Text]] = []
