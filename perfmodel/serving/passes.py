"""How long does one forward pass take on a tensor-parallel group, by part?

Matrix products go through the kernel models, those of experts as grouped ones; attention reads the KV cache in the
engine's way; recurrent parts read and write their state; everything between costs launches, time per sequence and
bytes; all-reduces go through `collectives`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog.decoder import Experts, LatentAttention, Recurrent, SelfAttention
from perfmodel.kernels import BASELINE, Shape
from perfmodel.kernels.decode import Bitmap
from perfmodel.kernels.fits import calibrated
from perfmodel.serving import attention, experts
from perfmodel.serving.collectives import Algorithm, all_reduce_time, all_to_all_time
from perfmodel.serving.group import Alike, Group
from perfmodel.serving.systems import System
from perfmodel.serving.transformer import (
    ATTENTION_LAUNCHES,
    STEP_LAUNCHES,
    Matrix,
    activation_bytes,
    attention_flops,
    head_matrices,
    local_cached_values,
    local_kv_heads,
    mean_seen,
    mixers,
    other_launches,
    seen,
    state_bytes,
)
from perfmodel.units import FP16_BYTES

Array = NDArray[np.float64]

STACKED = 2**12  # products that go through a kernel's model at once: beyond, arrays had better stay in the cache
PCIE_SHARE = 0.8  # of the datasheet's rate that long copies from pinned host memory reach


def matmul_s(group: Group, n: Array, n_head: Array) -> Array:
    """All matrix products of a pass over ``n`` tokens, of which ``n_head`` need logits.

    Less a launch each, which the kernel models hold: a profiler sees gaps there, so they count as other, as does the
    launch of attention.
    """
    experts = sum(matrix.layers * stored_s(group, matrix, n) for matrix in group.matrices if matrix.grouped)
    plain = sum(np.sum(part.each(part_s(group, part, n)), axis=0) for part in plain_products(group, n))
    return np.asarray(experts + plain + head_s(group, n_head)) - _product_launches_s(group)


def plain_products(group: Group, n: Array) -> Iterator[Alike]:
    """All products of the layers but those of experts, as many at once as are timed at once with ``n`` tokens."""
    most = max(STACKED // max(np.size(n), 1), 1)
    return (part for alike in group.alike for part in alike.few(most, np.ndim(n)))


def part_s(group: Group, part: Alike, n: Array) -> Array:
    """Seconds of one product with each of these matrices, along the first axis."""
    return _plain_s(group, part.system, part, part.sparsity)(part.m, n)


def head_s(group: Group, n: Array) -> Array:
    """The products outside the layers: ``n`` tokens get their logits."""
    return np.asarray(sum(stored_s(group, matrix, n) for matrix in head_matrices(group.model.shape, group.p)))


def arrival_s(group: Group, n: Array) -> Array:
    """Seconds in which the weights arrive that ``n`` tokens need and that lie outside the device memory."""
    if group.what_if.offloaded == 0:
        return np.zeros(())
    matrices = group.matrices
    needed = sum(m.layers * m.products(n)[0] * group.bytes_of(m) * group.what_if.columns_read(n) for m in matrices)
    return group.what_if.arrival_s(np.asarray(needed), PCIE_SHARE * group.gpu.link.pcie_bytes_per_s / 2)


def _product_launches_s(group: Group) -> Array:
    """Launches of all matrix products of a pass, each as long as cuBLAS's; none in a graph."""
    count = sum(matrix.layers for matrix in group.matrices) + len(head_matrices(group.model.shape))
    return count * group.system.call.launch_s()


def stored_s(group: Group, matrix: Matrix, n: Array) -> Array:
    """Seconds of one product of ``n`` tokens with a matrix as the group stores its copies, mean over them."""
    kinds = ((share, product_s(group, system, matrix, s, n)) for system, s, share in group.stored(matrix))
    return np.asarray(sum(share * seconds for share, seconds in kinds))


def product_s(group: Group, system: System, matrix: Matrix, sparsity: Array, n: Array) -> Array:
    """Seconds of one product of ``n`` tokens with a matrix as ``system`` stores it; of experts, with all of a layer."""
    if matrix.grouped:
        load = expert_load(group, matrix.experts_in_all, matrix.experts_per_token, n)
        return grouped_s(group, system, matrix, sparsity, load)
    return _plain_s(group, system, matrix, sparsity)(matrix.m, n)


def grouped_s(group: Group, system: System, matrix: Matrix, sparsity: Array, load: experts.Load) -> Array:
    """Seconds of the product of all experts of a layer that ``load`` says have tokens."""
    return experts.grouped_product_s(group.gpu, _plain_s(group, system, matrix, sparsity), matrix.m, load)


def _plain_s(group: Group, system: System, matrix: Matrix | Alike, sparsity: Array) -> experts.ProductTime:
    """Seconds of a product of so many rows with so many tokens, K and sparsity being the matrix's."""

    def seconds(m: Array, tokens: Array) -> Array:
        read = group.what_if.columns_read(tokens) if matrix.prunable else 1.0
        return system.prunable_time(group.machine, Shape(m, np.ceil(matrix.k * read), tokens, sparsity))

    return seconds


def expert_load(group: Group, count: int, per_token: int, n: Array) -> experts.Load:
    """Tokens of the experts on the busiest GPU while each GPU that spreads them has ``n`` tokens."""
    return experts.active_experts(n * group.expert_parallel, count, per_token, gpus=group.expert_parallel)


def other_s(group: Group, n: Array, sequences: Array) -> Array:
    """Launches, rows and bytes between the products of a pass over ``n`` tokens of ``sequences``."""
    shape, c = group.model.shape, group.parameters
    extra = c.deepspeed_layer_s if group.system.engine.layer_wait else 0.0
    apart = 0 if group.system.engine.flash else ATTENTION_LAUNCHES  # else attention's own time holds it
    launches = sum(block.count * (apart + other_launches(block)) for block in shape.blocks)
    moved = sum(block.count * activation_bytes(shape, block, group.p) for block in shape.blocks) * n
    moved_s = moved / group.machine.streamed_bytes_per_s
    moved_s = moved_s + _permutation_s(group, n)
    rows_s = shape.layers * (c.row_s * sequences * group.system.engine.rows_wait + extra)
    return np.asarray(_product_launches_s(group) + (launches + STEP_LAUNCHES) * c.launch_s + rows_s + moved_s)


def _permutation_s(group: Group, n: Array) -> Array:
    """Sorting tokens by expert, their activation and weighted sum, in all layers with experts."""
    total: Array = np.zeros(())
    for count, part in group.model.shape.parts:
        if isinstance(part, Experts):
            rows = expert_load(group, part.count, part.per_token, n).rows
            inner = part.size / group.p
            total = total + count * experts.permutation_s(group.gpu, rows, group.model.shape.hidden_size, inner)
    return np.asarray(total)


def communication_s(group: Group, n: Array, n_head: Array) -> Array:
    """All-reduces of a pass, the all-gather of the logits (half of an all-reduce's bytes), tokens sent to experts."""
    shape, own = group.model.shape, group.system.engine.all_reduce
    how: dict[str, Any] = {} if own is None else {"algorithm": Algorithm.CUSTOM, "kernels": own}
    count = sum(block.count * block.all_reduces for block in shape.blocks)
    each = all_reduce_time(group.gpu, group.p, FP16_BYTES * n * shape.hidden_size, **how)
    logits = all_reduce_time(group.gpu, group.p, FP16_BYTES * n_head * shape.vocab_size / 2, **how)
    summed = count * each + logits + np.where(group.p > 1, (count + 1) * wait_s(group), 0.0)
    return np.asarray((summed + _expert_traffic_s(group, n)) * (1 - group.what_if.hidden_communication))


def _expert_traffic_s(group: Group, n: Array) -> Array:
    """Two exchanges in each layer with experts that GPUs spread: tokens to their experts, results back."""
    total: Array = np.zeros(())
    for count, part in group.model.shape.parts:
        if isinstance(part, Experts) and np.any(group.expert_parallel > 1):
            sent = FP16_BYTES * n * part.per_token * group.model.shape.hidden_size
            each = all_to_all_time(group.gpu, group.expert_parallel, sent)
            waited = np.where(group.expert_parallel > 1, wait_s(group), 0.0)
            total = total + 2 * count * (each + waited)
    return total


def wait_s(group: Group) -> float:
    """Seconds a collective amid other kernels waits for the last GPU: threads that poll memory, so SM cycles."""
    return group.parameters.all_reduce_wait_cycles / group.gpu.clock.hz * group.system.engine.rows_wait


def decode_attention_s(group: Group, batch: Array, prompt: Array, new: Array) -> Array:
    """Mean of a step's attention while ``new`` tokens follow ``prompt``; recurrent parts read and write their state."""
    total: Array = np.zeros(())
    for count, part in mixers(group.model.shape):
        if isinstance(part, Recurrent):
            moved = 2 * batch * state_bytes(part, group.p)
            total = total + count * moved / group.machine.streamed_bytes_per_s
            continue
        context = mean_seen(part, prompt, new)
        one = _flash_decode_s if group.system.engine.flash else _streamed_decode_s
        total = total + count * np.maximum(one(group, part, batch, context), _unpacking_s(group, part, batch, context))
    return np.asarray(total)


def _unpacking_s(group: Group, part: SelfAttention | LatentAttention, batch: Array, context: Array) -> Array:
    """Seconds in which pruned keys and values are decoded, at the cost of a weight in SpInfer's bitmap."""
    if group.what_if.cache_sparsity == 0:
        return np.zeros(())
    values = batch * context * local_cached_values(part, group.p)
    cycles: float = calibrated(Bitmap.name).cycles_per_weight
    return np.asarray(cycles * values / group.machine.sm_cycles_per_s)


def _flash_decode_s(group: Group, part: SelfAttention | LatentAttention, batch: Array, context: Array) -> Array:
    heads = part.heads / group.p * (1 + group.what_if.draft_tokens)  # all proposals read the cache together
    if isinstance(part, LatentAttention):
        return attention.latent_decode_s(
            group.gpu, batch, context, heads, part.cached_values, part.rank, group.cache_bytes
        )
    kv_heads = local_kv_heads(part, group.p)
    return attention.decode_s(group.gpu, batch, context, heads, kv_heads, part.head_dim, group.cache_bytes)


def _streamed_decode_s(group: Group, part: SelfAttention | LatentAttention, batch: Array, context: Array) -> Array:
    """FasterTransformer's: each query head reads its own copy of keys and values, one block all of a sequence.

    The bytes are read at the rate of any long read. The chain of loads is as long as the context, and what it waits for
    is not hidden.
    """
    values = local_cached_values(part, group.p)
    copies = part.heads / group.p / local_kv_heads(part, group.p) if isinstance(part, SelfAttention) else 1.0
    read_s = batch * context * values * copies * group.cache_bytes / group.machine.streamed_bytes_per_s
    return np.asarray(read_s + context * group.parameters.attention_cycles / group.gpu.clock.hz)


def prefill_attention_s(group: Group, batch: Array, input_len: Array) -> Array:
    """Attention of the prompt, and what recurrent parts do with it."""
    total: Array = np.zeros(())
    for count, part in mixers(group.model.shape):
        if isinstance(part, Recurrent):
            total = total + count * _scan_s(group, part, batch, input_len)
        elif group.system.engine.flash:
            total = total + count * _flash_prompt_s(group, part, batch, input_len)
        else:
            total = total + count * _plain_prompt_s(group, part, batch, input_len)
    return np.asarray(total)


def _flash_prompt_s(group: Group, part: SelfAttention | LatentAttention, batch: Array, input_len: Array) -> Array:
    heads = part.heads / group.p
    if isinstance(part, LatentAttention):
        sizes = part.query_dim, part.value_dim
        return attention.prompt_s(group.gpu, batch, input_len, heads, heads, sizes[0], value_dim=sizes[1])
    kv_heads = local_kv_heads(part, group.p)
    return attention.prompt_s(group.gpu, batch, input_len, heads, kv_heads, part.head_dim, window=part.window)


def _plain_prompt_s(group: Group, part: SelfAttention | LatentAttention, batch: Array, input_len: Array) -> Array:
    """Its FLOP at cuBLAS's Tensor-Core efficiency, its K and V once."""
    flops = batch * attention_flops(part, input_len, group.p)
    compute_s = group.machine.tensor_s(flops, calibrated(BASELINE).tensor_efficiency)
    read = batch * seen(part, input_len) * local_cached_values(part, group.p) * FP16_BYTES
    return np.asarray(compute_s + read / group.machine.streamed_bytes_per_s)


def _scan_s(group: Group, part: Recurrent, batch: Array, input_len: Array) -> Array:
    """Chunks of the prompt go through a state that stays on chip: its inputs and outputs move, the state twice."""
    rows = sum(product.m for product in part.projections) / group.p
    moved = batch * (2 * FP16_BYTES * rows * input_len + 2 * state_bytes(part, group.p))
    return np.asarray(moved / group.machine.streamed_bytes_per_s)
