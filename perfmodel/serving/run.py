"""Tokens per GPU-second of a whole model: time, memory, cost of generating ``output_len`` tokens from a prompt.

A run reads the prompt of a batch at once (prefill, which also yields the first token), then decodes one token a step
for every sequence. Matrix products go through the kernel models; attention waits and reads the KV cache;
everything between costs launches, time per sequence and bytes; all-reduces go through `collectives`. Parts add up: none
overlaps another, as in the three systems modelled. The growing KV cache enters in closed form, so a run costs the same
few array operations however long it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.catalog import load_calibration, load_gpu, load_model
from perfmodel.catalog.specs import LARGEST_SIZE, Gpu, LanguageModel
from perfmodel.formats import check_sparsity
from perfmodel.kernels import BASELINE, Machine, Shape
from perfmodel.kernels.call import STREAM_LAUNCH_S
from perfmodel.kernels.fits import calibrated, unmeasured_kernels
from perfmodel.serving.collectives import CALIBRATION_FILE, all_reduce_time, point_to_point_time
from perfmodel.serving.memory import Memory, memory
from perfmodel.serving.systems import (
    CALIBRATION_NAME,
    System,
    SystemParameters,
    calibrated_systems,
    dense_time,
    load_system,
)
from perfmodel.serving.transformer import (
    ALL_REDUCES_PER_LAYER,
    ATTENTION_LAUNCHES,
    STEP_LAUNCHES,
    Matrix,
    Part,
    activation_bytes_per_layer,
    attention_flops_per_layer,
    check_split,
    head_matrices,
    kv_read_bytes_per_token,
    layer_matrices,
    other_launches_per_layer,
)
from perfmodel.units import FP16_BYTES

Array = NDArray[np.float64]
Parts = dict[Part, Array]

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
    tdp_w : float or None
        Board power limit, if known.
    extrapolated : ndarray of bool
        True outside the evidence of the fit, and for kernels that nobody measured.
    """

    ttft_s: Array
    tpot_s: Array
    total_s: Array
    parts: Parts
    tokens: Array
    gpus: Array
    memory: Memory
    usd_per_gpu_hour: tuple[float, float] | None
    tdp_w: float | None
    extrapolated: NDArray[np.bool_]

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
        hours = MILLION / self.tokens_per_gpu_s / SECONDS_PER_HOUR
        return self.usd_per_gpu_hour[0] * hours, self.usd_per_gpu_hour[1] * hours

    @property
    def joules_per_token(self) -> Array | None:
        """Upper bound of the GPUs' energy per output token: every board at its power limit all the time."""
        return None if self.tdp_w is None else self.tdp_w / self.tokens_per_gpu_s


@dataclass(frozen=True)
class _Group:
    """One model on one tensor-parallel group: everything a forward pass needs, checked."""

    model: LanguageModel
    gpu: Gpu
    system: System
    sparsity: Array
    p: Array
    parameters: SystemParameters

    @property
    def machine(self) -> Machine:
        return Machine.of(self.gpu)

    def matmul_s(self, n: Array, n_head: Array) -> Array:
        """All matrix products of a pass over ``n`` tokens, of which ``n_head`` need logits.

        Less a launch each, which the kernel models hold: a profiler sees gaps there, so they count as other, as does the
        launch of attention.
        """
        shape = self.model.shape
        layer = sum(self._product_s(matrix, n) for matrix in layer_matrices(shape, self.p))
        head = sum(self._product_s(matrix, n_head) for matrix in head_matrices(shape, self.p))
        return np.asarray(shape.layers * layer + head) - self._product_launches_s(n)

    def _product_launches_s(self, n: Array) -> Array:
        """Launches of all matrix products of a pass over ``n`` tokens, each as long as cuBLAS's."""
        shape = self.model.shape
        layer = sum(matrix.products(n)[0] for matrix in layer_matrices(shape))
        return (shape.layers * np.asarray(layer) + len(head_matrices(shape))) * STREAM_LAUNCH_S

    def _product_s(self, matrix: Matrix, n: Array) -> Array:
        count, tokens = matrix.products(n)
        if not matrix.prunable:
            return count * dense_time(self.machine, Shape(matrix.m, matrix.k, tokens, np.zeros(())))
        shape = Shape(matrix.m, matrix.k, tokens, self.sparsity)
        return count * self.system.prunable_time(self.machine, shape)

    def other_s(self, n: Array, sequences: Array) -> Array:
        """Launches, rows and bytes between the products of a pass over ``n`` tokens of ``sequences``."""
        shape, c = self.model.shape, self.parameters
        extra = c.deepspeed_layer_s if self.system.deepspeed else 0.0
        launches = shape.layers * (ATTENTION_LAUNCHES + other_launches_per_layer(shape)) + STEP_LAUNCHES
        moved = shape.layers * activation_bytes_per_layer(shape, self.p) * n
        moved_s = moved / self.machine.streamed_bytes_per_s
        rows_s = shape.layers * (c.row_s * sequences + extra)
        return self._product_launches_s(n) + launches * c.launch_s + rows_s + moved_s

    def communication_s(self, n: Array, n_head: Array) -> Array:
        """All-reduces of a pass, and the all-gather of the logits (half of an all-reduce's bytes)."""
        shape = self.model.shape
        count = shape.layers * ALL_REDUCES_PER_LAYER
        each = all_reduce_time(self.gpu, self.p, FP16_BYTES * n * shape.hidden_size)
        logits = all_reduce_time(self.gpu, self.p, FP16_BYTES * n_head * shape.vocab_size / 2)
        return count * each + logits + np.where(self.p > 1, (count + 1) * self.parameters.all_reduce_wait_s, 0.0)

    def decode_attention_s(self, batch: Array, context: Array) -> Array:
        """One step's attention over ``context`` tokens a sequence; affine in ``context``, so a mean context will do.

        The bytes are read at the rate of any long read. Where one block goes through all context of a sequence and a
        head, its chain of loads is as long as the context, and what it waits for is not hidden.
        """
        shape, attention = self.model.shape, self.system.attention
        read = batch * context * kv_read_bytes_per_token(shape, self.p, shared=attention.shares_heads)
        waited = 0.0 if attention.splits_context else shape.layers * context * self.parameters.attention_cycles
        return read / self.machine.streamed_bytes_per_s + waited / self.gpu.clock.boost_hz

    def prefill_attention_s(self, batch: Array, input_len: Array) -> Array:
        """Attention of the prompt: its FLOP at cuBLAS's Tensor-Core efficiency, its K and V once."""
        shape = self.model.shape
        flops = batch * shape.layers * attention_flops_per_layer(shape, input_len, self.p)
        compute_s = self.machine.tensor_s(flops, calibrated(BASELINE).tensor_efficiency)
        read = batch * input_len * kv_read_bytes_per_token(shape, self.p, shared=True)
        return compute_s + read / self.machine.streamed_bytes_per_s


def evaluate(
    model: str | LanguageModel,
    gpu: str | Gpu,
    system: str | System,
    *,
    batch: ArrayLike,
    input_len: ArrayLike = 64,
    output_len: ArrayLike = 512,
    sparsity: ArrayLike = 0.0,
    gpus: ArrayLike = 1,
    pipeline_parallel: ArrayLike = 1,
    parameters: SystemParameters | None = None,
) -> Serving:
    """Predict runs of one model on one kind of GPU with one system.

    Parameters
    ----------
    model, gpu, system
        Catalogue names, paths, or records; systems are `systems.SYSTEMS` or ``fastertransformer+FORMAT``.
    batch : array_like
        Sequences decoded together, at least 1.
    input_len, output_len : array_like
        Tokens of each prompt and tokens generated for it, at least 1.
    sparsity : array_like
        Fraction of zeros in the pruned matrices (QKV, output projection, MLP), 0 to 1.
    gpus : array_like
        GPUs in all: tensor-parallel degree times ``pipeline_parallel``.
    pipeline_parallel : array_like
        Pipeline stages. The batch is cut into as many micro-batches, so that in steady state no stage idles.
    parameters
        Fitted numbers; the stored ones by default.

    Raises
    ------
    ValueError
        Unknown names, values out of range, a number of GPUs that cannot share the model, more tokens than positions.

    Examples
    --------
    >>> run = evaluate("opt-66b", "a100-80gb", "flash-llm", batch=64, sparsity=0.8, gpus=2)
    >>> bool(run.memory.fits), 480 < float(run.tokens_per_gpu_s) < 560
    (True, True)
    """
    model, gpu, system = resolve(model, gpu, system)
    counts = {
        "batch": batch, "input_len": input_len, "output_len": output_len, "gpus": gpus,
        "pipeline_parallel": pipeline_parallel,
    }  # fmt: skip
    b, prompt, new, total_gpus, stages = (_whole(name, value) for name, value in counts.items())
    s = check_sparsity(sparsity)
    p = _tensor_parallel(model, total_gpus, stages)
    _check_positions(model, prompt, new)
    group = _Group(model, gpu, system, s, p, parameters or calibrated_systems())
    prefill, decode = _prefill(group, b, prompt, stages), _decode(group, b, prompt, new, stages)
    parts = {part: prefill[part] + (new - 1) * decode[part] for part in Part}
    full = np.broadcast_shapes(*(value.shape for value in parts.values()), total_gpus.shape, np.shape(sparsity))
    parts = {part: np.broadcast_to(value, full) for part, value in parts.items()}
    # Not of `full`: memory keeps the smaller shape of its own inputs, which broadcast all the same.
    split = {"tensor_parallel": p, "stages": stages}
    needed = memory(model, gpu, system, batch=b, input_len=prompt, output_len=new, sparsity=s, **split)
    price = gpu.price
    return Serving(
        ttft_s=np.broadcast_to(_sum(prefill), full),
        tpot_s=np.broadcast_to(np.where(new > 1, _sum(decode), np.nan), full),
        total_s=_sum(parts),
        parts=parts,
        tokens=np.broadcast_to(b * new, full),
        gpus=np.broadcast_to(total_gpus, full),
        memory=needed,
        usd_per_gpu_hour=None if price is None else (price.low_usd_per_hour, price.high_usd_per_hour),
        tdp_w=None if gpu.power is None else gpu.power.tdp_w,
        extrapolated=np.broadcast_to(_extrapolated(gpu, system, {**counts, "sparsity": sparsity}), full),
    )


def resolve(model: str | LanguageModel, gpu: str | Gpu, system: str | System) -> tuple[LanguageModel, Gpu, System]:
    """Records behind names; raises `ValueError` with the nearest name where there is none."""
    return (
        model if isinstance(model, LanguageModel) else load_model(model),
        gpu if isinstance(gpu, Gpu) else load_gpu(gpu),
        system if isinstance(system, System) else load_system(system),
    )


def _prefill(group: _Group, b: Array, prompt: Array, stages: Array) -> Parts:
    """Seconds by part until every sequence has its first token.

    ``stages`` micro-batches follow each other through the pipeline; the last leaves after ``2 - 1/stages`` passes.
    """
    micro = np.ceil(b / stages)
    n = micro * prompt
    parts = {
        Part.MATMUL: group.matmul_s(n, micro),
        Part.ATTENTION: group.prefill_attention_s(micro, prompt),
        Part.OTHER: group.other_s(n, micro),
        Part.COMMUNICATION: group.communication_s(n, micro) + _handover_s(group, n, stages),
    }
    return {part: seconds * (2 - 1 / stages) for part, seconds in parts.items()}


def _decode(group: _Group, b: Array, prompt: Array, new: Array, stages: Array) -> Parts:
    """Mean seconds by part of one decode step: context grows from ``prompt + 1`` to ``prompt + new - 1``."""
    micro = np.ceil(b / stages)
    context = prompt + new / 2
    return {
        Part.MATMUL: group.matmul_s(micro, micro),
        Part.ATTENTION: group.decode_attention_s(micro, context),
        Part.OTHER: group.other_s(micro, micro),
        Part.COMMUNICATION: group.communication_s(micro, micro) + _handover_s(group, micro, stages),
    }


def _handover_s(group: _Group, n: Array, stages: Array) -> Array:
    """Seconds to pass hidden states along the pipeline, and back to the first stage."""
    each = point_to_point_time(group.gpu, FP16_BYTES * n * group.model.shape.hidden_size)
    return np.where(stages > 1, stages * (each + group.parameters.all_reduce_wait_s), 0.0)


def _sum(parts: Mapping[Part, Array]) -> Array:
    return np.asarray(sum(parts.values()))


def _whole(name: str, value: ArrayLike) -> Array:
    array = np.asarray(value, dtype=np.float64)
    wrong = ~(array >= 1) | (np.floor(array) != array) | (array == np.inf)
    if np.any(wrong):
        raise ValueError(f"{name} must be a whole number of at least 1, got {float(array[wrong].flat[0]):g}")
    if np.any(array > LARGEST_SIZE):
        raise ValueError(f"{name} must be at most 2**40, got {float(np.max(array)):g}")
    return array


def _tensor_parallel(model: LanguageModel, gpus: Array, stages: Array) -> Array:
    if np.any(stages > model.shape.layers):
        raise ValueError(f"pipeline_parallel must be at most the {model.shape.layers} layers, got {stages.max():g}")
    if np.any(gpus % stages != 0):
        raise ValueError("gpus must be a multiple of pipeline_parallel")
    return check_split(model, gpus / stages)


def _check_positions(model: LanguageModel, prompt: Array, new: Array) -> None:
    longest, limit = float(np.max(prompt + new)), model.shape.max_positions
    if model.shape.learned_positions and longest > limit:
        raise ValueError(f"{model.key} knows {limit} positions, got {longest:g} tokens of input and output")


def _extrapolated(gpu: Gpu, system: System, values: Mapping[str, Any]) -> NDArray[np.bool_]:
    """True outside the ranges and GPUs of the fit (sparsity 0, dense, is inside), or if nobody measured the kernel."""
    fitted = load_calibration(CALIBRATION_FILE)[CALIBRATION_NAME]
    outside = np.asarray(gpu.key not in fitted.gpus or system.kernel in unmeasured_kernels())
    for name, (low, high) in fitted.evidence_range.items():
        value = np.asarray(values[name], dtype=np.float64)
        outside = outside | (value < low) | (value > high)
    return outside
