"""Frozen records of what a prediction is about: GPUs, how a product is called, evidence and fits.

Every group of numbers that comes from outside carries its ``source``. Units are SI and stand in the field's
name; ``None`` means unknown, never zero. Field names equal the keys of the files in ``data/``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from perfmodel.catalog.records import Positive, PositiveInt, Record, Text, check_order


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
        check_order("shared_memory_per_block_bytes", self.shared_memory_per_block_bytes, self.shared_memory_bytes)


class Latency(Record, frozen=True, kw_only=True):
    """Load-to-use latencies in SM clock cycles, measured by pointer chasing."""

    l1_cycles: Positive
    l2_cycles: Positive
    dram_cycles: Positive
    source: Text

    def __post_init__(self) -> None:
        """Refuse a cache that answers later than the level behind it."""
        check_order("l1_cycles", self.l1_cycles, self.l2_cycles)
        check_order("l2_cycles", self.l2_cycles, self.dram_cycles)


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
        check_order("low_usd_per_hour", self.low_usd_per_hour, self.high_usd_per_hour)


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
    part, ``held_out`` the tokens N of theirs that did not.
    """

    parameters: dict[str, float]
    fitted_on: Text
    gpus: list[Text]
    rows: PositiveInt
    mean_absolute_error: float
    evidence_range: dict[str, tuple[float, float]]
    spread: dict[str, float] = {}  # noqa: RUF012 - msgspec copies defaults
    at_home: dict[str, float] = {}  # noqa: RUF012
    own: list[tuple[Text, Text]] = []  # noqa: RUF012
    held_out: list[PositiveInt] = []  # noqa: RUF012
