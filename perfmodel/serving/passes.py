"""How long does one forward pass take on a tensor-parallel group, by part?

Matrix products go through the kernel models; attention waits and reads the KV cache; everything between costs
launches, time per sequence and bytes; all-reduces go through `collectives`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog.specs import Gpu, LanguageModel
from perfmodel.kernels import BASELINE, Machine, Shape
from perfmodel.kernels.fits import calibrated
from perfmodel.serving.collectives import all_reduce_time
from perfmodel.serving.systems import NO_HOST, HostParameters, System, SystemParameters, dense_time
from perfmodel.serving.transformer import (
    ALL_REDUCES_PER_LAYER,
    ATTENTION_LAUNCHES,
    STEP_LAUNCHES,
    Matrix,
    activation_bytes_per_layer,
    attention_flops_per_layer,
    head_matrices,
    kv_bytes_per_token,
    kv_read_bytes_per_token,
    layer_matrices,
    other_launches_per_layer,
)
from perfmodel.units import FP16_BYTES

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Group:
    """One model on one tensor-parallel group: everything a forward pass needs, checked."""

    model: LanguageModel
    gpu: Gpu
    system: System
    sparsity: Array
    p: Array
    parameters: SystemParameters
    host: HostParameters = NO_HOST

    @cached_property
    def machine(self) -> Machine:
        """The GPU as kernel models see it."""
        return Machine.of(self.gpu)

    def matmul_s(self, n: Array, n_head: Array) -> Array:
        """All matrix products of a pass over ``n`` tokens, of which ``n_head`` need logits.

        Less a launch each, which the kernel models hold: a profiler sees gaps there, so they count as other, as
        does the launch of attention.
        """
        shape = self.model.shape
        layer = sum(self._product_s(matrix, n) for matrix in layer_matrices(shape, self.p))
        head = sum(self._product_s(matrix, n_head) for matrix in head_matrices(shape, self.p))
        return np.asarray(shape.layers * layer + head) - self._product_launches_s(n)

    def _product_launches_s(self, n: Array) -> Array:
        """Launches of all matrix products of a pass over ``n`` tokens, each as long as cuBLAS's; none in a graph."""
        shape = self.model.shape
        layer = sum(matrix.products(n)[0] for matrix in layer_matrices(shape))
        return (shape.layers * np.asarray(layer) + len(head_matrices(shape))) * self.system.call.launch_s()

    def _product_s(self, matrix: Matrix, n: Array) -> Array:
        count, tokens = matrix.products(n)
        if not matrix.prunable:
            return count * dense_time(self.machine, Shape(matrix.m, matrix.k, tokens, np.zeros(())), self.system.call)
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
        return count * each + logits + np.where(self.p > 1, (count + 1) * self.wait_s, 0.0)

    @property
    def wait_s(self) -> float:
        """Seconds a collective amid other kernels waits for the last GPU: threads that poll memory, so SM cycles."""
        return self.parameters.all_reduce_wait_cycles / self.gpu.clock.hz

    def decode_attention_s(self, batch: Array, context: Array) -> Array:
        """One step's attention over ``context`` tokens a sequence; affine in ``context``, so a mean context will do.

        The bytes are read at the rate of any long read. Where one block goes through all context of a sequence and a
        head, its chain of loads is as long as the context, and what it waits for is not hidden.
        """
        shape, attention = self.model.shape, self.system.attention
        read = batch * context * kv_read_bytes_per_token(shape, self.p, shared=attention.shares_heads)
        waited = 0.0 if attention.splits_context else shape.layers * context * self.parameters.attention_cycles
        return read / self.machine.streamed_bytes_per_s + waited / self.gpu.clock.hz

    def prefill_attention_s(self, batch: Array, input_len: Array) -> Array:
        """Attention of the prompt: its FLOP at cuBLAS's Tensor-Core efficiency, its K and V once."""
        shape = self.model.shape
        flops = batch * shape.layers * attention_flops_per_layer(shape, input_len, self.p)
        compute_s = self.machine.tensor_s(flops, calibrated(BASELINE).tensor_efficiency)
        read = batch * input_len * kv_bytes_per_token(shape, self.p)
        return compute_s + read / self.machine.streamed_bytes_per_s
