"""Tokens per GPU-second of a whole model: time, memory, cost of generating ``output_len`` tokens from a prompt.

A run reads the prompt of a batch at once (prefill, which also yields the first token), then decodes one token a step
for every sequence; `phases` says what the operators of both take. Parts add up: none overlaps another, as in the three
systems modelled. The growing KV cache enters in closed form, so a run costs the same few array operations however long
it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.catalog import load_calibration
from perfmodel.catalog.language_model import LanguageModel
from perfmodel.catalog.sparsities import Sparsities
from perfmodel.catalog.specs import Gpu
from perfmodel.kernels.fits import unmeasured_kernels
from perfmodel.serving import phases
from perfmodel.serving.activity import busy
from perfmodel.serving.collectives import CALIBRATION_FILE
from perfmodel.serving.energy import board_power_w
from perfmodel.serving.group import Group, make_group, whole
from perfmodel.serving.memory import Memory, memory
from perfmodel.serving.systems import CALIBRATION_NAME, HostParameters, System, SystemParameters
from perfmodel.serving.transformer import Part, mean_sparsity
from perfmodel.serving.uncertainty import HalfWidths, half_widths
from perfmodel.serving.what_if import NOTHING, WhatIf
from perfmodel.serving.work import by_part

Array = NDArray[np.float64]
Parts = dict[Part, Array]
Rate = TypeVar("Rate", float, Array)

SECONDS_PER_HOUR = 3600.0
MILLION = 1e6


@dataclass(frozen=True)
class Serving:
    """Predicted runs; arrays of the broadcast shape of the inputs.

    Attributes
    ----------
    ttft_s : ndarray
        Seconds to the first token: the prefill of the whole batch.
    tpot_s : ndarray
        Mean seconds between tokens after the first; NaN for a single output token.
    total_s : ndarray
        Seconds of the run; the sum of ``parts``.
    parts : dict
        Seconds by `Part`. All GPUs are busy or wait together, so GPU-seconds are these times ``gpus``.
    tokens : ndarray
        Output tokens of the run.
    gpus : ndarray
        GPUs in all.
    memory : Memory
        Bytes per GPU; ``memory.fits`` says whether the run is possible. Times are given all the same.
    usd_per_gpu_hour : tuple of float or None
        Low and high price of the GPU, if known.
    gpu : Gpu
        What it ran on.
    extrapolated : ndarray of bool
        True outside the evidence of the fit, and for kernels that nobody measured.
    half_widths : callable
        Makes the half-widths of the 90 % intervals, with other spreads where some are given; called when one is asked
        for, because most sweeps ask for none.
    busy : callable
        Makes the shares of the time in which memory and Tensor Cores are busy, of which the power follows.
    """

    ttft_s: Array
    tpot_s: Array
    total_s: Array
    parts: Parts
    tokens: Array
    gpus: Array
    memory: Memory
    usd_per_gpu_hour: tuple[float, float] | None
    gpu: Gpu
    extrapolated: NDArray[np.bool_]
    half_widths: Callable[..., HalfWidths] = field(repr=False, compare=False)
    busy: Callable[[], tuple[Array, Array]] = field(repr=False, compare=False)

    @cached_property
    def _widths(self) -> HalfWidths:
        return self.half_widths()

    @property
    def tokens_per_gpu_s_interval(self) -> tuple[Array, Array]:
        """Low and high end of the 90 % interval of `tokens_per_gpu_s`."""
        faster, slower = self._widths.run
        return self.tokens_per_gpu_s * np.exp(-slower), self.tokens_per_gpu_s * np.exp(faster)

    @property
    def ttft_s_interval(self) -> tuple[Array, Array]:
        """Low and high end of the 90 % interval of ``ttft_s``."""
        faster, slower = self._widths.prefill
        return self.ttft_s * np.exp(-faster), self.ttft_s * np.exp(slower)

    @property
    def tpot_s_interval(self) -> tuple[Array, Array]:
        """Low and high end of the 90 % interval of ``tpot_s``; NaN for a single output token."""
        faster, slower = self._widths.step
        return self.tpot_s * np.exp(-faster), self.tpot_s * np.exp(slower)

    @property
    def tokens_per_s(self) -> Array:
        """Output tokens per second of the whole run, prefill included."""
        return self.tokens / self.total_s

    @property
    def tokens_per_gpu_s(self) -> Array:
        """Output tokens per GPU-second: the paper's metric."""
        return self.tokens_per_s / self.gpus

    @property
    def gpu_seconds(self) -> Parts:
        """GPU-seconds of the run by `Part`, all GPUs."""
        return {part: seconds * self.gpus for part, seconds in self.parts.items()}

    @property
    def usd_per_million_tokens(self) -> tuple[Array, Array] | None:
        """Dollars per million output tokens at the low and high price; None without a known price."""
        if self.usd_per_gpu_hour is None:
            return None
        return usd_per_million(self.usd_per_gpu_hour, self.tokens_per_gpu_s)

    @property
    def joules_per_token(self) -> tuple[Array, Array, Array] | None:
        """The GPUs' energy per output token: low end of the 90 % interval, mean, high end; None without a limit."""
        if self.gpu.power is None:
            return None
        low, mean, high = (watts / self.tokens_per_gpu_s for watts in board_power_w(self.gpu, *self.busy()))
        return low, mean, high


def usd_per_million(usd_per_gpu_hour: tuple[float, float], tokens_per_gpu_s: Rate) -> tuple[Rate, Rate]:
    """Dollars per million tokens at the low and high price of a GPU-hour."""
    hours = MILLION / tokens_per_gpu_s / SECONDS_PER_HOUR
    return usd_per_gpu_hour[0] * hours, usd_per_gpu_hour[1] * hours


def evaluate(
    model: str | LanguageModel,
    gpu: str | Gpu,
    system: str | System,
    *,
    batch: ArrayLike,
    input_len: ArrayLike = 64,
    output_len: ArrayLike = 512,
    sparsity: ArrayLike | Sparsities = 0.0,
    gpus: ArrayLike = 1,
    pipeline_parallel: ArrayLike = 1,
    expert_parallel: ArrayLike = 1,
    cache_bits: float | None = None,
    launch: str | None = None,
    what_if: WhatIf = NOTHING,
    parameters: SystemParameters | None = None,
    host: HostParameters | None = None,
) -> Serving:
    """Predict runs of one model on one kind of GPU with one system.

    Parameters
    ----------
    model, gpu, system
        Catalogue names, paths, or records; systems are those of `systems.load_system`.
    batch : array_like
        Sequences decoded together, at least 1.
    input_len, output_len : array_like
        Tokens of each prompt and tokens generated for it, at least 1.
    sparsity : array_like or Sparsities
        Fraction of zeros in the pruned matrices (QKV, output projection, MLP), 0 to 1; or that of each matrix.
    gpus : array_like
        GPUs in all: tensor-parallel degree times ``pipeline_parallel`` times ``expert_parallel``.
    pipeline_parallel : array_like
        Pipeline stages. The batch is cut into as many micro-batches, so that in steady state no stage idles.
    expert_parallel : array_like
        GPUs that spread the experts whole; each has sequences of its own and a copy of all other weights.
    cache_bits : float, optional
        Bits of a cached key or value, 2 to 16; those of the checkpoint by default.
    launch : str, optional
        ``stream`` or ``graph``: how the products' kernels are started, if not as the system does it.
    what_if : WhatIf
        Changes beside the weights: pruned caches, speculation, sparse activations, offloading, hidden communication.
    parameters, host
        Fitted numbers of all systems and of the engine's host; the stored ones by default.

    Raises
    ------
    ValueError
        Unknown names, values out of range, a number of GPUs that cannot share the model, more tokens than positions, a
        kernel the GPU cannot run, a sparsity that is not its pattern's.

    Examples
    --------
    >>> run = evaluate("opt-66b", "a100-80gb", "flash-llm", batch=64, sparsity=0.8, gpus=2)
    >>> bool(run.memory.fits), 480 < float(run.tokens_per_gpu_s) < 560
    (True, True)
    """
    how: dict[str, Any] = {
        "sparsity": sparsity, "gpus": gpus, "pipeline_parallel": pipeline_parallel, "expert_parallel": expert_parallel,
        "cache_bits": cache_bits, "launch": launch, "what_if": what_if, "parameters": parameters, "host": host,
    }  # fmt: skip
    group, total_gpus = make_group(model, gpu, system, input_len=input_len, output_len=output_len, **how)
    counts = {"batch": batch, "input_len": input_len, "output_len": output_len, "pipeline_parallel": pipeline_parallel}
    b, prompt, new, stages = (whole(name, value) for name, value in counts.items())
    spread, gpu = group.expert_parallel, group.gpu
    local = np.ceil(b / spread)
    load = (local, prompt, new, stages)
    prefill, decode = by_part(phases.prefill(group, load)), by_part(phases.decode(group, load))
    parts = {part: prefill[part] + (new - 1) * decode[part] for part in Part}
    pruned = () if isinstance(sparsity, Sparsities) else np.shape(sparsity)
    full = np.broadcast_shapes(*(value.shape for value in parts.values()), total_gpus.shape, pruned)
    parts = {part: np.broadcast_to(value, full) for part, value in parts.items()}
    # Not of `full`: memory keeps the smaller shape of its own inputs, which broadcast all the same.
    needed = memory(group, batch=b, input_len=prompt, output_len=new, stages=stages)
    price = gpu.price
    asked = {**counts, "gpus": total_gpus, "sparsity": _mean_sparsity(group)}
    return Serving(
        ttft_s=np.broadcast_to(_sum(prefill), full),
        tpot_s=np.broadcast_to(np.where(new > 1, _sum(decode), np.nan), full),
        total_s=_sum(parts),
        parts=parts,
        tokens=np.broadcast_to(b * new, full),
        gpus=np.broadcast_to(total_gpus, full),
        memory=needed,
        usd_per_gpu_hour=None if price is None else (price.low_usd_per_hour, price.high_usd_per_hour),
        gpu=gpu,
        extrapolated=np.broadcast_to(_extrapolated(group, asked), full),
        half_widths=partial(half_widths, group, load, _sum(prefill), _sum(decode)),
        busy=partial(busy, group, load, _sum(parts)),
    )


def _mean_sparsity(group: Group) -> Array:
    """Of all prunable weights."""
    pruned = group.sparsity
    return np.asarray(mean_sparsity(group.model.shape, pruned)) if isinstance(pruned, Sparsities) else pruned


def _sum(parts: Mapping[Part, Array]) -> Array:
    return np.asarray(sum(parts.values()))


def _extrapolated(group: Group, values: Mapping[str, Any]) -> NDArray[np.bool_]:
    """True outside the ranges and GPUs of the fit (sparsity 0, dense, is inside), or if nobody measured the kernel."""
    system = group.system
    fitted = load_calibration(CALIBRATION_FILE).get(system.host or CALIBRATION_NAME)
    if fitted is None:  # of an engine that is being fitted for the first time
        return np.ones((), dtype=np.bool_)
    outside = np.asarray(group.gpu.key not in fitted.gpus or system.kernel in unmeasured_kernels())
    for name, (low, high) in fitted.evidence_range.items():
        value = np.asarray(values[name], dtype=np.float64)
        outside = outside | (value < low) | (value > high)
    return outside
