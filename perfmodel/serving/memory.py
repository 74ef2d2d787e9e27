"""Does a model fit into the memory of its GPUs, and with how many sequences?

Counted per GPU: weights (exact bytes of the format, matrix by matrix), the KV cache at its full length, activations of
the prompt, workspaces, and what the framework keeps. Everything but the reserve follows from shapes; the published
pattern of runs that fit and runs that do not would also hold with a reserve anywhere from 0.5 to 4 GB. Engines with a
paged cache round each sequence up to whole pages and leave a share of the memory alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.catalog.decoder import Block, Decoder, Experts, Mlp, Recurrent, SelfAttention, Split
from perfmodel.serving.group import Group
from perfmodel.serving.transformer import cache_bytes, head_matrices, local_cached_values
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
        Bytes of the GPU, less what the engine leaves alone.
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


def weight_bytes(group: Group, stages: ArrayLike = 1) -> Array:
    """Bytes of all weights on one GPU of ``group``: layers split over ``stages``, matrices over its GPUs.

    The LM head is split, the token table if the engine does so; where both lie alike, tied tables count once. Biases
    and norms are not split.
    """
    shape, p = group.model.shape, group.p
    split = p if group.system.engine.split_tokens else np.ones(())
    stages = np.asarray(stages, dtype=np.float64)
    layers: Array = np.zeros(())
    for matrix in group.matrices:
        layers = layers + np.ceil(matrix.layers / stages) * matrix.experts * group.bytes_of(matrix)
    head, *projections = head_matrices(shape, p)
    shared = (p == split) & (stages == 1) & shape.tied_embeddings
    tokens = shape.vocab_size * shape.embedding_size / split + shape.learned_positions * shape.hidden_size
    tables = tokens + sum(matrix.weights for matrix in projections)
    own_head = np.where(shared, 0.0, group.bytes_of(head))
    vectors = (shape.vectors + shape.head_bias * shape.vocab_size) / stages
    return np.asarray(layers + own_head + FP16_BYTES * (tables + vectors))


def memory(
    group: Group, *, batch: ArrayLike, input_len: ArrayLike, output_len: ArrayLike, stages: ArrayLike = 1
) -> Memory:
    """Bytes each GPU needs at the end of the run, when the KV cache is longest."""
    shape, engine, p = group.model.shape, group.system.engine, group.p
    b, prompt, new, pp = (np.asarray(v, dtype=np.float64) for v in (batch, input_len, output_len, stages))
    b = np.ceil(b / group.expert_parallel)
    weights = weight_bytes(group, pp) * (1 - group.what_if.offloaded)
    length = engine.paged(prompt + new)
    kv = b * cache_bytes(shape, length, p, group.cache_bytes) * np.ceil(shape.layers / pp) / shape.layers
    in_flight = np.ceil(b / pp)
    at_once = engine.tokens_at_once(in_flight * prompt)
    activations = at_once * _prompt_token_bytes(shape, p) + in_flight * FP32_BYTES * shape.vocab_size
    full = np.broadcast_shapes(weights.shape, kv.shape, activations.shape)
    return Memory(
        weights=np.broadcast_to(weights, full),
        kv_cache=np.broadcast_to(kv, full),
        activations=np.broadcast_to(activations, full),
        workspace=np.full(full, WORKSPACE_BYTES),
        reserve=np.full(full, FRAMEWORK_RESERVE_BYTES),
        capacity=engine.memory_share * group.gpu.dram.size_bytes,
    )


def _prompt_token_bytes(shape: Decoder, p: Array) -> Array:
    """Bytes of activations that one token of a prompt needs while one of ``p`` GPUs works on its largest layer."""
    return FP16_BYTES * np.max([_prompt_token_values(shape, block, p) for block in shape.blocks], axis=0)


def _prompt_token_values(shape: Decoder, block: Block, p: Array) -> Array:
    values = np.full_like(p, float(HIDDEN_BUFFERS * shape.hidden_size))
    for part in block.parts:
        if isinstance(part, Mlp):
            values = values + (1 + part.gated) * part.size / p
        elif isinstance(part, Experts):
            values = values + (1 + part.gated) * (part.size * part.per_token + part.shared_size) / p
        elif isinstance(part, SelfAttention):
            kept = (1 + part.gated) * part.inner / p + local_cached_values(part, p)
            values = values + QKV_BUFFERS * kept + CONTEXT_BUFFERS * part.inner / p
        elif isinstance(part, Recurrent):
            values = values + sum(w.m for w in part.projections if w.split is Split.ROWS) / p
        else:
            kept = part.heads / p * (2 * part.query_dim + part.value_dim)
            values = values + QKV_BUFFERS * kept + CONTEXT_BUFFERS * part.heads * part.value_dim / p
    return values


def largest_batch(group: Group, *, input_len: int, output_len: int, stages: int = 1) -> int:
    """Most sequences that fit at once; 0 if not even one does."""
    lengths = {"input_len": input_len, "output_len": output_len}
    # Bytes grow by whole micro-batches; a multiple of what shares them makes them nearly a straight line.
    unit = int(stages * group.expert_parallel)
    one = memory(group, batch=unit, **lengths, stages=stages)
    if float(one.headroom) < 0 and unit == 1:
        return 0
    low, high = 0, unit
    while bool(memory(group, batch=high, **lengths, stages=stages).fits):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        fits = bool(memory(group, batch=middle, **lengths, stages=stages).fits)
        low, high = (middle, high) if fits else (low, middle)
    return low
