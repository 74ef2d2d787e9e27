"""Does a model fit into the memory of its GPUs, and with how many sequences?

Counted per GPU: weights (exact bytes of the format, matrix by matrix), the KV cache at its full length, activations of
the prompt, workspaces, and what the framework keeps. Everything but the reserve follows from shapes; the published
pattern of runs that fit and runs that do not would also hold with a reserve anywhere from 0.5 to 4 GB.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.catalog.specs import Gpu, LanguageModel, Layers
from perfmodel.formats import check_sparsity
from perfmodel.serving.systems import System
from perfmodel.serving.transformer import head_matrices, kv_bytes_per_token, layer_matrices, vector_parameters
from perfmodel.units import FP16_BYTES, FP32_BYTES, MEGA

Array = NDArray[np.float64]

WORKSPACE_BYTES = 134 * MEGA  # split-K partial sums and cuBLAS scratch; the released Flash-LLM allocates this much
FRAMEWORK_RESERVE_BYTES = 1500 * MEGA  # CUDA context and loaded kernels, NCCL buffers, allocator slack
# Buffers that FasterTransformer's decoder, context decoder and attention layer hold at once for a prompt (sources under
# models/multi_gpu_gpt and layers/attention_layers). Attention scores are left out: fused attention never stores them.
HIDDEN_BUFFERS = 6  # whole hidden states: prompt, its output, and of a layer normalised, attention's, residual, output
QKV_BUFFERS = 2  # this GPU's queries, keys and values: as the product writes them, and sorted by head
CONTEXT_BUFFERS = 2  # this GPU's attention output: sorted by head, and by token


@dataclass(frozen=True)
class Memory:
    """Bytes on each GPU, by purpose; arrays of the broadcast shape of the inputs.

    Attributes
    ----------
    weights, kv_cache, activations, workspace, reserve : ndarray
        Bytes.
    capacity : float
        Bytes of the GPU.
    """

    weights: Array
    kv_cache: Array
    activations: Array
    workspace: Array
    reserve: Array
    capacity: float

    @property
    def total(self) -> Array:
        """Bytes needed."""
        return self.weights + self.kv_cache + self.activations + self.workspace + self.reserve

    @property
    def headroom(self) -> Array:
        """Bytes left; negative by how much it does not fit."""
        return self.capacity - self.total

    @property
    def fits(self) -> NDArray[np.bool_]:
        """Whether the run fits."""
        return np.asarray(self.headroom >= 0)


def weight_bytes(
    model: LanguageModel, system: System, sparsity: ArrayLike, tensor_parallel: ArrayLike = 1, stages: ArrayLike = 1
) -> Array:
    """Bytes of all weights on one GPU: layers split over ``stages``, matrices over ``tensor_parallel`` GPUs.

    The token table is replicated, the LM head split; at one GPU tied tables count once. Biases and norms are not split.
    """
    shape = model.shape
    s, p, stages = (np.asarray(v, dtype=np.float64) for v in (sparsity, tensor_parallel, stages))
    layer: Array = np.zeros(())
    for matrix in layer_matrices(shape, p):
        dense = FP16_BYTES * matrix.m * matrix.k
        each = system.prunable_bytes(matrix.m, matrix.k, s) if matrix.prunable else dense
        layer = layer + matrix.experts * each
    head, *projections = head_matrices(shape, p)
    shared = (p * stages == 1) & shape.tied_embeddings
    tables = shape.vocab_size * shape.embedding_size + np.where(shared, 0.0, head.weights)
    tables = tables + shape.learned_positions * shape.hidden_size + sum(matrix.weights for matrix in projections)
    vectors = vector_parameters(model) / stages
    return np.asarray(layer * np.ceil(shape.layers / stages) + FP16_BYTES * (tables + vectors))


def memory(
    model: LanguageModel,
    gpu: Gpu,
    system: System,
    *,
    batch: ArrayLike,
    input_len: ArrayLike,
    output_len: ArrayLike,
    sparsity: ArrayLike = 0.0,
    tensor_parallel: ArrayLike = 1,
    stages: ArrayLike = 1,
) -> Memory:
    """Bytes each GPU needs at the end of the run, when the KV cache is longest."""
    shape = model.shape
    sparsity = check_sparsity(sparsity)
    b, prompt, new, p, pp = (
        np.asarray(v, dtype=np.float64) for v in (batch, input_len, output_len, tensor_parallel, stages)
    )
    weights = weight_bytes(model, system, sparsity, p, pp)
    kv = b * (prompt + new) * kv_bytes_per_token(shape, p) * np.ceil(shape.layers / pp) / shape.layers
    in_flight = np.ceil(b / pp)
    activations = in_flight * (prompt * _prompt_token_bytes(shape, p) + FP32_BYTES * shape.vocab_size)
    full = np.broadcast_shapes(weights.shape, kv.shape, activations.shape)
    return Memory(
        weights=np.broadcast_to(weights, full),
        kv_cache=np.broadcast_to(kv, full),
        activations=np.broadcast_to(activations, full),
        workspace=np.full(full, WORKSPACE_BYTES),
        reserve=np.full(full, FRAMEWORK_RESERVE_BYTES),
        capacity=gpu.dram.size_bytes,
    )


def _prompt_token_bytes(shape: Layers, p: Array) -> Array:
    """Bytes of activations that one token of a prompt needs while one of ``p`` GPUs works on a layer."""
    qkv, output, mlp_in, *_ = layer_matrices(shape, p)
    attention = QKV_BUFFERS * qkv.m + CONTEXT_BUFFERS * output.k
    return FP16_BYTES * (HIDDEN_BUFFERS * shape.hidden_size + attention + mlp_in.m * shape.experts_per_token)


def largest_batch(
    model: LanguageModel,
    gpu: Gpu,
    system: System,
    *,
    input_len: int,
    output_len: int,
    sparsity: float = 0.0,
    tensor_parallel: int = 1,
    stages: int = 1,
) -> int:
    """Most sequences that fit at once; 0 if not even one does."""
    lengths = {"input_len": input_len, "output_len": output_len, "sparsity": sparsity}
    split = {"tensor_parallel": tensor_parallel, "stages": stages}
    # Bytes grow by whole micro-batches; a multiple of the stages makes them a straight line through two points.
    one = memory(model, gpu, system, batch=stages, **lengths, **split)
    two = memory(model, gpu, system, batch=2 * stages, **lengths, **split)
    per_stages = float(two.total - one.total)
    guess = int(stages * (1 + np.floor(float(one.headroom) / per_stages)))
    candidates = np.arange(max(0, guess - stages), guess + stages + 1)
    fits = memory(model, gpu, system, batch=np.maximum(candidates, 1), **lengths, **split).fits & (candidates > 0)
    return int(candidates[fits].max(initial=0))
