"""Inference systems: which kernel multiplies the pruned matrices, and the few numbers all systems share.

The numbers are global: one set for every model, GPU and number of GPUs. They describe what a kernel model, calibrated
on back-to-back launches, cannot see: launches between the products, waiting for other GPUs, waiting inside attention. A
product costs what its kernel model says and nothing beyond, sparse or dense: sources disagree on more, and together
they ask for none.

The paper's three (`SYSTEMS`) start kernels in a stream, and read the cache head by head. The engines of later years
(`ENGINES`) replay graphs, have FlashAttention and all-reduce kernels of their own, page the cache and read prompts in
chunks; all this is shared physics. What tells them apart is their host, which plans each step and samples its tokens
before the next begins: three fitted numbers each (`HostParameters`). Hosts were rewritten: ``vllm-v0`` and ``vllm-v1``
are vLLM before and after, ``vllm`` is fitted to both, for whoever does not know; ``vllm-eager`` replays no graphs.
``ENGINE+NAME`` is an engine with the products of another kernel or weight format.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.catalog import load_calibration
from perfmodel.catalog.arguments import text
from perfmodel.catalog.names import unknown_name
from perfmodel.catalog.specs import Bound, Gpu, Launch, Precision
from perfmodel.formats import FORMATS, PATTERNS, WeightFormat, break_even_sparsity
from perfmodel.kernels import BASELINE, BOUNDED, KERNELS, Call, Machine, Shape
from perfmodel.kernels.base import PATTERN_TOLERANCE, check_pattern, free, missing_cores, overlap
from perfmodel.kernels.decode import Int4, Int8, expanding
from perfmodel.kernels.dense import OVERLAP_SHARPNESS
from perfmodel.kernels.fits import calibrated
from perfmodel.kernels.low_precision import SixEight
from perfmodel.serving.collectives import CALIBRATION_FILE, OWN_KERNELS, OwnKernels
from perfmodel.units import FP16_BYTES

Array = NDArray[np.float64]

CALIBRATION_NAME = "serving"
FLASH_LLM_DENSE_BELOW = 0.5  # the released system keeps matrices of less sparsity dense
HOST = "fastertransformer"
# Kernel that expands weights of less than so many bits, on a GPU without the Tensor Cores of their format.
EXPANDED = {5: Int4.name, 9: Int8.name}
EXPANDED_SIZE = (4096, 4096)  # of a matrix, for bits a weight with scales
VLLM = "vllm"  # its name, and that of the fit of its host
PROMPT_TOKENS = 8192  # of a chunk: what vLLM, SGLang and TensorRT-LLM read at once on a data-centre GPU


@dataclass(frozen=True)
class SystemParameters:
    """Free parameters of whole-model runs, the same for all models and GPUs."""

    attention_cycles: float = free(60.0, 0.0, 300.0, "SM cycles that a layer's attention waits per token of context")
    launch_s: float = free(5e-6, 5e-7, 2e-5, "seconds of a small kernel between the products: norm, activation, ...")
    row_s: float = free(1e-6, 0.0, 5e-6, "seconds that a layer's small kernels take for each sequence")
    all_reduce_wait_cycles: float = free(
        4e4, 0.0, 1.5e5, "SM cycles an all-reduce amid other kernels takes beyond its own"
    )
    deepspeed_layer_s: float = free(5e-5, 0.0, 3e-4, "seconds a layer takes longer in DeepSpeed")


@dataclass(frozen=True)
class HostParameters:
    """Free parameters of an engine whose host works between the steps, the same for all models and GPUs."""

    step_s: float = free(2e-3, 0.0, 2e-2, "seconds of a decoding step in which the GPU waits for the host")
    sequence_s: float = free(2e-5, 0.0, 3e-4, "the same for each sequence of the step")
    prefill_s: float = free(1e-2, 0.0, 2e-1, "seconds that the host needs to launch and end a prefill, at least")


NO_HOST = HostParameters(0.0, 0.0, 0.0)


def calibrated_host(name: str | None) -> HostParameters:
    """The stored fit of an engine's host; nothing for systems that need none."""
    return NO_HOST if name is None else HostParameters(**load_calibration(CALIBRATION_FILE)[name].parameters)


def calibrated_systems() -> SystemParameters:
    """The stored fit."""
    return SystemParameters(**load_calibration(CALIBRATION_FILE)[CALIBRATION_NAME].parameters)


@dataclass(frozen=True)
class Engine:
    """How a system does all that is no matrix product; FasterTransformer's way by default.

    Attributes
    ----------
    flash : bool
        Whether attention is FlashAttention's and FlashDecoding's (`attention`): query heads share keys and values, and
        many blocks share one sequence. Else each head reads for itself, one block through all of its context.
    all_reduce : OwnKernels or None
        Kernels of its own that sum over the GPUs; NCCL where it has none.
    launch : Launch
        How it starts the kernels of its products: in a stream, or replayed from a CUDA graph.
    host : str or None
        Name of the fit of its host, for engines whose host is waited for.
    memory_share : float
        Share of the device memory that it uses.
    page : int
        Tokens by which it grows the cache of a sequence.
    prompt_tokens : float
        Tokens of prompts that it works on at once, at most.
    rows_wait : bool
        Whether small kernels take their time for each sequence, and each all-reduce waits for the last GPU, as in
        FasterTransformer; else the host's fit holds both.
    layer_wait : bool
        Whether DeepSpeed's extra time per layer applies.
    split_tokens : bool
        Whether GPUs share the token table, as vLLM's and SGLang's do; else each has all of it.
    """

    flash: bool = False
    all_reduce: OwnKernels | None = None
    launch: Launch = Launch.STREAM
    host: str | None = None
    memory_share: float = 1.0
    page: int = 1
    prompt_tokens: float = np.inf
    rows_wait: bool = True
    layer_wait: bool = False
    split_tokens: bool = False

    def paged(self, tokens: Array) -> Array:
        """Tokens that a sequence of ``tokens`` occupies: whole pages."""
        return np.asarray(self.page * np.ceil(tokens / self.page))

    def tokens_at_once(self, tokens: Array) -> Array:
        """Tokens of prompts that are worked on at once, of ``tokens`` in all."""
        return np.minimum(tokens, self.prompt_tokens)


def _today(kernels: str, **how: Any) -> Engine:
    """Graphs, an all-reduce of its own, a paged cache, prompts in chunks: what the engines of 2024-26 share."""
    common = {"flash": True, "all_reduce": OWN_KERNELS.get(kernels), "launch": Launch.GRAPH, "host": kernels}
    cache = {"memory_share": 0.9, "page": 16, "prompt_tokens": PROMPT_TOKENS, "rows_wait": False}
    return Engine(**common | cache | {"split_tokens": kernels in {VLLM, "sglang"}} | how)


@dataclass(frozen=True)
class System:
    """One inference system.

    Attributes
    ----------
    name, title : str
        What users type, what figures show.
    format : WeightFormat
        How pruned matrices are stored.
    kernel : str or None
        Kernel model of their products; None: a kernel that reads the format as well as cuBLAS reads dense weights.
    dense_below : float
        Matrices of less sparsity are stored and multiplied dense; 0 where the format asks for no sparsity.
    engine : Engine
        All that is no matrix product.
    pattern : float or None
        Sparsity of the pattern that the format was asked for by; None where the kernel has patterns, or none is.
    expanded : bool
        Whether ``kernel`` expands weights of ``format``, which is not its own (`on`).
    """

    name: str
    title: str
    format: WeightFormat
    kernel: str | None
    dense_below: float = 0.0
    engine: Engine = Engine()
    pattern: float | None = None
    expanded: bool = False

    @property
    def host(self) -> str | None:
        """Name of the fit of its engine's host."""
        return self.engine.host

    @property
    def keeps_dense(self) -> bool:
        """Whether it stores all weights in 16 bits, as they are."""
        return self.kernel == BASELINE

    def reading(self, part: str) -> System:
        """The same engine with the products of another kernel or weight format."""
        return self if self.keeps_dense and part in (BASELINE, _DENSE.name) else _hosted(self, part)

    def refusal(self, gpu: Gpu) -> str | None:
        """Why it does not run on ``gpu``, in a sentence; None where it does.

        Of a format without a kernel model it asks for the Tensor Cores that its products take.
        """
        if self.kernel is not None:
            return KERNELS[self.kernel].refusal(gpu)
        if self.format.activations not in list(Precision):
            return None
        missing = missing_cores(gpu, Precision(self.format.activations), sparse=self.pattern is not None)
        return missing and f"{missing}, which format {self.format.name!r} needs"

    def on(self, gpu: Gpu) -> System:
        """Itself where the GPU runs it; without the Tensor Cores of its format, with weights expanded on the way.

        That is what engines do with a checkpoint of FP8 on an A100, or of MXFP4 on an H100 (Marlin).

        Raises
        ------
        ValueError
            If the GPU runs neither.
        """
        if (refusal := self.refusal(gpu)) is None:
            return self
        bits = float(self.format.bits_per_weight(*EXPANDED_SIZE, 0.0))
        other = replace(
            self, kernel=next((name for most, name in EXPANDED.items() if bits < most), None), expanded=True
        )
        if other.kernel is None or self.format.prunes or other.refusal(gpu) is not None:
            raise ValueError(f"system {self.name!r}: {refusal}")
        return other

    @property
    def is_bound(self) -> bool:
        """Whether its format has no kernel of its own: runs are as fast as its bytes allow, and real ones slower."""
        return self.kernel is None

    def own_sparsity(self, sparsity: ArrayLike) -> Array:
        """Sparsity at which it runs a model pruned to ``sparsity``: that of its pattern, if it has one."""
        if self.pattern is not None:
            return np.full(np.shape(sparsity), self.pattern)
        return np.asarray(sparsity) if self.kernel is None else KERNELS[self.kernel].own_sparsity(sparsity)

    @property
    def patterns(self) -> tuple[float, ...]:
        """Sparsities of its patterns; none where any sparsity will do."""
        if self.pattern is not None:
            return (self.pattern,)
        return () if self.kernel is None else KERNELS[self.kernel].patterns

    def takes_sparsity(self, sparsity: ArrayLike) -> NDArray[np.bool_]:
        """True where it is the sparsity of its pattern; everywhere without one."""
        asked = np.asarray(sparsity, dtype=np.float64)
        return np.abs(self.own_sparsity(asked) - asked) < PATTERN_TOLERANCE

    def check_sparsity(self, sparsity: Array) -> None:
        """Refuse sparsities that are not those of its pattern.

        Raises
        ------
        ValueError
            Names the system or its kernel, the value, and what is allowed.
        """
        if self.pattern is None:
            if self.kernel is not None:
                check_pattern(KERNELS[self.kernel], sparsity)
            return
        wrong = ~self.takes_sparsity(sparsity)
        if wrong.any():
            bad = np.ravel(sparsity)[np.argmax(wrong)]
            raise ValueError(f"{self.name} takes the sparsity of its pattern, {self.pattern:.3g}, got {bad:g}")

    @property
    def call(self) -> Call:
        """How it calls a product: each weight was last read a whole forward pass ago, so none is in the caches."""
        return Call(graph=self.engine.launch is Launch.GRAPH)

    def stores_sparse(self, sparsity: Array) -> NDArray[np.bool_]:
        """True where prunable matrices are stored in the system's own format."""
        return np.asarray(sparsity >= self.dense_below)

    def prunable_bytes(self, m: Array, k: Array, sparsity: Array) -> Array:
        """Bytes of a prunable matrix as this system stores it."""
        dense = FORMATS["dense"].bytes_of(m, k, sparsity)
        return np.where(self.stores_sparse(sparsity), self.format.bytes_of(m, k, sparsity), dense)

    def prunable_time(self, machine: Machine, shape: Shape) -> Array:
        """Seconds of one product with a prunable matrix."""
        if self.kernel == BASELINE:
            return dense_time(machine, shape, self.call)
        sparse = self.stores_sparse(shape.sparsity)
        own = self._own_time(machine, shape)
        return own if sparse.all() else np.where(sparse, own, dense_time(machine, shape, self.call))

    def _own_time(self, machine: Machine, shape: Shape) -> Array:
        """Seconds of one product in its own format."""
        if self.kernel is None:
            return format_time(self.format, machine, shape, self.call)
        model = expanding(self.kernel, self.format.name) if self.expanded else KERNELS[self.kernel]
        padded = replace(shape, n=model.padded_n(shape.n))
        return model.time(machine, padded, calibrated(self.kernel), self.call).time_s


def dense_time(machine: Machine, shape: Shape, call: Call) -> Array:
    """Seconds of cuBLAS."""
    return KERNELS[BASELINE].time(machine, shape, calibrated(BASELINE), call).time_s


def format_time(fmt: WeightFormat, machine: Machine, shape: Shape, call: Call) -> Array:
    """Seconds of an ideal kernel of ``fmt``: its bytes and its multiplications at cuBLAS's efficiency, decoding hidden.

    A lower bound for formats without a kernel model of their own: they multiply in the precision of their activations
    where the card does, and patterns on the Sparse Tensor Cores.
    """
    dense = KERNELS[BASELINE].time(machine, shape, calibrated(BASELINE), call)
    moved = fmt.bytes_of(shape.m, shape.k, shape.sparsity) + FP16_BYTES * shape.n * (shape.m + shape.k)
    memory_s = dense.terms[Bound.MEMORY] * moved / dense.dram_bytes
    busy_s = overlap(memory_s, dense.terms[Bound.COMPUTE] * _multiplying(fmt, machine, shape), OVERLAP_SHARPNESS)
    return np.asarray(dense.terms[Bound.LATENCY] + busy_s)


def _multiplying(fmt: WeightFormat, machine: Machine, shape: Shape) -> Array:
    """Seconds on the Tensor Cores of ``fmt`` over those of cuBLAS in FP16; 1 where the card lacks them."""
    if fmt.activations not in list(Precision):  # INT4, which no card here multiplies
        return np.ones(())
    precision, sparse = Precision(fmt.activations), bool(PATTERNS.keys() & set(fmt.name.split("-")))
    counted = 2 * (1 - shape.sparsity) if sparse else 1.0  # a pattern milder than 2:4 is widened until it is one
    ratio = machine.tensor_s(counted, 1.0, precision, sparse=sparse) / machine.tensor_s(1.0, 1.0)
    return np.asarray(np.where(np.isnan(ratio), 1.0, ratio))


_DENSE = FORMATS["dense"]


def _dense_system(name: str, title: str, engine: Engine) -> System:
    return System(name, title, _DENSE, BASELINE, engine=engine)


# The paper's three.
SYSTEMS: dict[str, System] = {
    entry.name: entry
    for entry in (
        System("flash-llm", "Flash-LLM", FORMATS["tiled-csl"], "flash-llm", dense_below=FLASH_LLM_DENSE_BELOW),
        _dense_system(HOST, "FasterTransformer", Engine()),
        _dense_system("deepspeed", "DeepSpeed", Engine(layer_wait=True)),
    )
}


def _versions(name: str, title: str, first: str, second: str, **how: Any) -> tuple[System, ...]:
    """An engine whose host was rewritten: of any version, and of those before and after."""
    kinds = {name: title, f"{name}-v0": f"{title} {first}", f"{name}-v1": f"{title} {second}"}
    return tuple(_dense_system(key, shown, _today(name, host=key, **how)) for key, shown in kinds.items())


# Engines of later years, whose runs are at hand.
ENGINES: dict[str, System] = {
    entry.name: entry
    for entry in (
        *_versions(VLLM, "vLLM", "up to 0.5 (2023-24)", "from 0.8 (2025-26)"),
        *_versions("tensorrt-llm", "TensorRT-LLM", "0.x (2023-24)", "from 1.0 (2025-26)", page=64),
        _dense_system("vllm-eager", "vLLM, eager", _today(VLLM, host="vllm-eager", launch=Launch.STREAM)),
        _dense_system("sglang", "SGLang", _today("sglang")),
        _dense_system("lmdeploy", "LMDeploy", _today("tensorrt-llm", host="tensorrt-llm-v0", page=64)),
        _dense_system("deepspeed-mii", "DeepSpeed-MII", _today("deepspeed-mii", page=64)),
        _dense_system(
            "gpt-fast",
            "gpt-fast",
            _today("vllm", host="gpt-fast", memory_share=1.0, page=1, prompt_tokens=np.inf, split_tokens=False),
        ),
    )
}


def load_system(name: str) -> System:
    """System that users call ``name``.

    Raises
    ------
    ValueError
        If there is none (suggests the nearest and lists all), or its kernel's time is known as a bound only.
    """
    if found := SYSTEMS.get(text("system", name)) or ENGINES.get(name):
        return found
    host, plus, part = name.partition("+")
    base = SYSTEMS.get(host) or ENGINES.get(host)
    if base is not None and base.keeps_dense and plus:
        return base.reading(part)
    raise ValueError(unknown_name("system", name, [*SYSTEMS, *ENGINES, f"{HOST}+NAME", f"{VLLM}+NAME"]))


@cache
def _hosted(base: System, part: str) -> System:
    if part not in KERNELS and part not in FORMATS:
        raise ValueError(f"system '{base.name}+{part}': {unknown_name('kernel or format', part, [*KERNELS, *FORMATS])}")
    # A variant that borrows its parameters is chosen by its own name only.
    by_format: dict[str, Any] = {model.format_name: key for key, model in KERNELS.items() if model.borrows is None}
    by_format |= {pattern: SixEight.name for pattern, share in PATTERNS.items() if share in SixEight.patterns}
    kernel = part if part in KERNELS else by_format.get(part)
    named = () if part in KERNELS else (share for name, share in PATTERNS.items() if name in part.split("-"))
    pattern = next(iter(named), None)
    if kernel in BOUNDED:
        raise ValueError(
            f"system '{base.name}+{part}': of {kernel} only a lower bound of the time is known, so no run is predicted"
        )
    if kernel is not None and KERNELS[kernel].one_token:
        raise ValueError(
            f"system '{base.name}+{part}': {kernel} takes N of {KERNELS[kernel].supported_n}, so it reads no prompt; "
            "see it for single products (lscd predict) and a decoding step (lscd worth)"
        )
    fmt = KERNELS[part].format if part in KERNELS else FORMATS[part]
    even = break_even_sparsity(fmt, _DENSE) if fmt.depends_on_sparsity else 0.0
    dense_below = np.inf if even is None else even
    title = f"{base.title} with {KERNELS[kernel].title if kernel else fmt.title}"
    return replace(
        base, name=f"{base.name}+{part}", title=title, format=fmt, kernel=kernel, dense_below=dense_below,
        pattern=pattern,
    )  # fmt: skip
