"""What does each operator of one forward pass cost on a tensor-parallel group?

Matrix products go through the kernel models, those of experts as grouped ones; attention reads the KV cache in the
engine's way; recurrent parts read and write their state; everything between costs launches, time per sequence and
bytes; all-reduces go through `collectives`. `counts` says what each of them does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog.decoder import Experts, LatentAttention, Mixer, Recurrent, SelfAttention
from perfmodel.catalog.specs import Bound
from perfmodel.kernels import BASELINE, Shape
from perfmodel.kernels.base import KernelTime
from perfmodel.kernels.decode import Bitmap
from perfmodel.kernels.fits import calibrated
from perfmodel.serving import attention, experts
from perfmodel.serving.collectives import Algorithm, all_reduce_time, all_to_all_time, point_to_point_time
from perfmodel.serving.counts import Attention, decode_work, decoding_heads, expert_load, product_work, prompt_work
from perfmodel.serving.group import Alike, Group
from perfmodel.serving.systems import System
from perfmodel.serving.transformer import (
    ATTENTION_LAUNCHES,
    STEP_LAUNCHES,
    Matrix,
    Part,
    activation_bytes,
    attention_flops,
    head_matrices,
    local_cached_values,
    local_kv_heads,
    mean_seen,
    mixers,
    other_launches,
    seen,
)
from perfmodel.serving.work import UNCOUNTED, Cost, Operator, Terms, Wait, Work, summed, total_s
from perfmodel.units import FP16_BYTES

Array = NDArray[np.float64]

ATTENTION, WINDOWED, RECURRENCE = "attention", "sliding-attention", "recurrence"
LAUNCHES, SMALL, STEP, PERMUTATION = "launches", "norms-activations", "embedding-sampling", "expert-permutation"
ALL_REDUCE, LOGITS, ALL_TO_ALL, HANDOVER = "all-reduce", "logits-all-gather", "all-to-all", "stage-handover"
STACKED = 2**12  # products that go through a kernel's model at once: beyond, arrays had better stay in the cache
PCIE_SHARE = 0.8  # of the datasheet's rate that long copies from pinned host memory reach


def products(group: Group, n: Array, n_head: Array) -> Iterator[Operator]:
    """All matrix products of a pass over ``n`` tokens, of which ``n_head`` need logits.

    Less a launch each, which the kernel models hold: a profiler sees gaps there, so they count as other, as does the
    launch of attention.
    """
    launch_s = group.system.call.launch_s()
    for operator in chain(layer_products(group, n), head_products(group, n_head)):
        yield replace(operator, time_s=operator.time_s - operator.count * launch_s)


def layer_products(group: Group, n: Array) -> Iterator[Operator]:
    """The products in layers of ``n`` tokens, launches included."""
    return (_product(group, matrix, n) for matrix in group.matrices)


def head_products(group: Group, n: Array) -> Iterator[Operator]:
    """The products outside the layers, launches included: ``n`` tokens get their logits."""
    return (_product(group, matrix, n) for matrix in head_matrices(group.model.shape, group.p))


def _product(group: Group, matrix: Matrix, n: Array) -> Operator:
    kinds, layers = _kinds(group, matrix, n), matrix.layers
    time_s = np.asarray(sum(layers * share * one.time_s for share, one in kinds))

    def terms() -> Terms:
        return summed((layers * share, one.terms) for share, one in kinds)

    return Operator(matrix.name, Part.MATMUL, layers, time_s, terms, partial(product_work, group, matrix, n))


def matmul_s(group: Group, n: Array, n_head: Array) -> Array:
    """Seconds of `products`, those of alike matrices by one call of their kernel's model: servers ask often."""
    grouped = [matrix for matrix in group.matrices if matrix.grouped]
    experts_s = sum(matrix.layers * stored_s(group, matrix, n) for matrix in grouped)
    plain_s = sum(np.sum(part.each(part_s(group, part, n)), axis=0) for part in plain_products(group, n))
    total = experts_s + plain_s + total_s(head_products(group, n_head))
    return np.asarray(total - _launches(group) * group.system.call.launch_s())


def plain_products(group: Group, n: Array) -> Iterator[Alike]:
    """All products of the layers but those of experts, as many at once as are timed at once with ``n`` tokens."""
    most = max(STACKED // max(np.size(n), 1), 1)
    return (part for alike in group.alike for part in alike.few(most, np.ndim(n)))


def part_s(group: Group, part: Alike, n: Array) -> Array:
    """Seconds of one product with each of these matrices, along the first axis."""
    return _plain(group, part.system, part, part.sparsity)(part.m, n).time_s


def _launches(group: Group) -> int:
    """Products of a pass, of experts one a layer."""
    return sum(matrix.layers for matrix in group.matrices) + len(head_matrices(group.model.shape))


def arrival_s(group: Group, n: Array) -> Array:
    """Seconds in which the weights arrive that ``n`` tokens need and that lie outside the device memory."""
    if group.what_if.offloaded == 0:
        return np.zeros(())
    matrices = group.matrices
    needed = sum(m.layers * m.products(n)[0] * group.bytes_of(m) * group.what_if.columns_read(n) for m in matrices)
    return group.what_if.arrival_s(np.asarray(needed), PCIE_SHARE * group.gpu.link.pcie_bytes_per_s / 2)


def stored_s(group: Group, matrix: Matrix, n: Array) -> Array:
    """Seconds of one product of ``n`` tokens with a matrix as the group stores its copies, mean over them."""
    return np.asarray(sum(share * one.time_s for share, one in _kinds(group, matrix, n)))


def _kinds(group: Group, matrix: Matrix, n: Array) -> list[tuple[float, KernelTime]]:
    """Share of the copies that are stored in a way, and their product."""
    return [(share, product(group, system, matrix, s, n)) for system, s, share in group.stored(matrix)]


def product(group: Group, system: System, matrix: Matrix, sparsity: Array, n: Array) -> KernelTime:
    """One product of ``n`` tokens with a matrix as ``system`` stores it; of experts, with all of a layer."""
    if matrix.grouped:
        load = expert_load(group, matrix.experts_in_all, matrix.experts_per_token, n)
        return grouped(group, system, matrix, sparsity, load)
    return _plain(group, system, matrix, sparsity)(matrix.m, n)


def grouped(group: Group, system: System, matrix: Matrix, sparsity: Array, load: experts.Load) -> KernelTime:
    """The product of all experts of a layer that ``load`` says have tokens."""
    return experts.grouped_product_s(group.gpu, _plain(group, system, matrix, sparsity), matrix.m, load)


def _plain(
    group: Group, system: System, matrix: Matrix | Alike, sparsity: Array
) -> Callable[[Array, Array], KernelTime]:
    """A product of so many rows with so many tokens, K and sparsity being the matrix's."""

    def one(m: Array, tokens: Array) -> KernelTime:
        read = group.what_if.columns_read(tokens) if matrix.prunable else 1.0
        return system.product(group.machine, Shape(m, np.ceil(matrix.k * read), tokens, sparsity))

    return one


def between(group: Group, n: Array, sequences: Array) -> Iterator[Operator]:
    """What lies between the products of a pass over ``n`` tokens of ``sequences``: their launches, small kernels."""
    count = _launches(group)
    # Each as long as cuBLAS's; none in a graph.
    yield Operator.waiting(LAUNCHES, Part.OTHER, count * group.system.call.launch_s(), Bound.LATENCY, count)
    yield from small_kernels(group, n, sequences)


def small_kernels(group: Group, n: Array, sequences: Array) -> Iterator[Operator]:
    """All in a layer that is neither product, attention nor sum: norms, activations; what begins and ends a pass."""
    shape, c = group.model.shape, group.parameters
    extra = c.deepspeed_layer_s if group.system.engine.layer_wait else 0.0
    apart = 0 if group.system.engine.flash else ATTENTION_LAUNCHES  # else attention's own time holds it
    launches = sum(block.count * (apart + other_launches(block)) for block in shape.blocks)
    moved = sum(block.count * activation_bytes(shape, block, group.p) for block in shape.blocks) * n
    moved_s = np.asarray(moved / group.machine.streamed_bytes_per_s)
    rows_s = shape.layers * (c.row_s * sequences * group.system.engine.rows_wait + extra)
    waited_s = np.asarray(launches * c.launch_s + rows_s)
    yield Operator(
        SMALL, Part.OTHER, launches, waited_s + moved_s, lambda: {Bound.LATENCY: waited_s, Bound.MEMORY: moved_s},
        lambda: Work(UNCOUNTED, activation_bytes=np.asarray(moved)),
    )  # fmt: skip
    yield Operator.waiting(STEP, Part.OTHER, np.asarray(STEP_LAUNCHES * c.launch_s), Bound.LATENCY, STEP_LAUNCHES)
    for count, part in shape.parts:
        if isinstance(part, Experts):
            rows = expert_load(group, part.count, part.per_token, n).rows
            cost = experts.permutation(group.gpu, rows, shape.hidden_size, part.size / group.p)
            yield Operator.of(PERMUTATION, Part.OTHER, count, cost)


def other_s(group: Group, n: Array, sequences: Array) -> Array:
    """Seconds of `between`."""
    return total_s(between(group, n, sequences))


def communication(group: Group, n: Array, n_head: Array) -> Iterator[Operator]:
    """All-reduces of a pass, the all-gather of the logits (half of an all-reduce's bytes), tokens sent to experts."""
    shape, own = group.model.shape, group.system.engine.all_reduce
    shown, states = 1 - group.what_if.hidden_communication, FP16_BYTES * n * shape.hidden_size
    if np.any(group.p > 1):
        how: dict[str, Any] = {} if own is None else {"algorithm": Algorithm.CUSTOM, "kernels": own}
        summing = partial(all_reduce_time, group.gpu, group.p, **how)
        count = sum(block.count * block.all_reduces for block in shape.blocks)
        yield _exchange(group, ALL_REDUCE, count, group.p, summing, states, shown)
        yield _exchange(group, LOGITS, 1, group.p, summing, FP16_BYTES * n_head * shape.vocab_size / 2, shown)
    if np.any(group.expert_parallel > 1):
        sending = partial(all_to_all_time, group.gpu, group.expert_parallel)
        for count, part in shape.parts:
            if isinstance(part, Experts):  # tokens to their experts, results back
                sent = part.per_token * states
                yield _exchange(group, ALL_TO_ALL, 2 * count, group.expert_parallel, sending, sent, shown)


def communication_s(group: Group, n: Array, n_head: Array) -> Array:
    """Seconds of `communication`."""
    return total_s(communication(group, n, n_head))


def handover(group: Group, n: Array, stages: Array) -> Iterator[Operator]:
    """Hidden states of ``n`` tokens passed along the pipeline, and back to the first stage."""
    if np.any(stages > 1):
        size, count = FP16_BYTES * n * group.model.shape.hidden_size, np.where(stages > 1, stages, 0.0)
        yield _exchange(group, HANDOVER, count, stages, partial(point_to_point_time, group.gpu), size)


def _exchange(
    group: Group, name: str, count: Array | float, gpus: Array, seconds: Callable[[Array], Array], size: Array,
    shown: float = 1.0,
) -> Operator:  # fmt: skip
    """So many messages of ``size`` bytes, read and written; what empty ones take is no question of the link."""
    waited = np.where(gpus > 1, wait_s(group), 0.0)
    time_s = count * shown * (seconds(size) + waited)

    def terms() -> Terms:
        empty_s = np.asarray(count * shown * (seconds(np.zeros_like(size)) + waited))
        return {Bound.LATENCY: empty_s, Wait.LINK: time_s - empty_s}

    work = partial(Work, UNCOUNTED, activation_bytes=2 * count * size)
    return Operator(name, Part.COMMUNICATION, float(np.max(count)), np.asarray(time_s), terms, work)


def wait_s(group: Group) -> float:
    """Seconds a collective amid other kernels waits for the last GPU: threads that poll memory, so SM cycles."""
    return group.parameters.all_reduce_wait_cycles / group.gpu.clock.hz * group.system.engine.rows_wait


def decode_attention(group: Group, batch: Array, prompt: Array, new: Array) -> Iterator[Operator]:
    """Mean of a step's attention while ``new`` tokens follow ``prompt``; recurrent parts read and write their state."""
    one = _flash_decode if group.system.engine.flash else _streamed_decode
    for count, part in mixers(group.model.shape):
        context = mean_seen(part, prompt, new)
        if isinstance(part, Recurrent):
            cost = _streamed(group, decode_work(group, part, batch, context))
        else:
            cost = _unpacked(group, part, one(group, part, batch, context), batch * context)
        yield Operator.of(_mixer_name(part), Part.ATTENTION, count, cost)


def decode_attention_s(group: Group, batch: Array, prompt: Array, new: Array) -> Array:
    """Seconds of `decode_attention`."""
    return total_s(decode_attention(group, batch, prompt, new))


def _mixer_name(part: Mixer) -> str:
    if isinstance(part, Recurrent):
        return RECURRENCE
    return WINDOWED if isinstance(part, SelfAttention) and part.window is not None else ATTENTION


def _streamed(group: Group, work: Work) -> Cost:
    """Bytes at the rate of any long read."""
    read_s = np.asarray(work.bytes / group.machine.streamed_bytes_per_s)
    return Cost(read_s, {Bound.MEMORY: read_s}, work)


def _unpacked(group: Group, part: Attention, cost: Cost, tokens: Array) -> Cost:
    """With pruned keys and values decoded on the way, at the cost of a weight in SpInfer's bitmap."""
    if group.what_if.cache_sparsity == 0:
        return cost
    cycles: float = calibrated(Bitmap.name).cycles_per_weight
    unpacking_s = cycles * tokens * local_cached_values(part, group.p) / group.machine.sm_cycles_per_s
    terms = {**cost.terms, Bound.COMPUTE: np.maximum(cost.terms.get(Bound.COMPUTE, 0.0), unpacking_s)}
    return Cost(np.maximum(cost.time_s, unpacking_s), terms, cost.work)


def _flash_decode(group: Group, part: Attention, batch: Array, context: Array) -> Cost:
    heads = decoding_heads(group, part)
    if isinstance(part, LatentAttention):
        return attention.latent_decode(
            group.gpu, batch, context, heads, part.cached_values, part.rank, group.cache_bytes
        )
    kv_heads = local_kv_heads(part, group.p)
    return attention.decode(group.gpu, batch, context, heads, kv_heads, part.head_dim, group.cache_bytes)


def _streamed_decode(group: Group, part: Attention, batch: Array, context: Array) -> Cost:
    """FasterTransformer's: each query head reads its own copy of keys and values, one block all of a sequence.

    The bytes are read at the rate of any long read. The chain of loads is as long as the context, and what it waits for
    is not hidden.
    """
    values = local_cached_values(part, group.p)
    copies = part.heads / group.p / local_kv_heads(part, group.p) if isinstance(part, SelfAttention) else 1.0
    read_s = batch * context * values * copies * group.cache_bytes / group.machine.streamed_bytes_per_s
    waited_s = context * group.parameters.attention_cycles / group.gpu.clock.hz
    terms = {Bound.MEMORY: read_s, Bound.LATENCY: waited_s}
    return Cost(np.asarray(read_s + waited_s), terms, decode_work(group, part, batch, context))


def prefill_attention(group: Group, batch: Array, input_len: Array) -> Iterator[Operator]:
    """Attention of the prompt, and what recurrent parts do with it.

    Chunks of the prompt go through a recurrent part's state, which stays on chip.
    """
    one = _flash_prompt if group.system.engine.flash else _plain_prompt
    for count, part in mixers(group.model.shape):
        if isinstance(part, Recurrent):
            cost = _streamed(group, prompt_work(group, part, batch, input_len))
        else:
            cost = one(group, part, batch, input_len)
        yield Operator.of(_mixer_name(part), Part.ATTENTION, count, cost)


def prefill_attention_s(group: Group, batch: Array, input_len: Array) -> Array:
    """Seconds of `prefill_attention`."""
    return total_s(prefill_attention(group, batch, input_len))


def _flash_prompt(group: Group, part: Attention, batch: Array, input_len: Array) -> Cost:
    heads = part.heads / group.p
    if isinstance(part, LatentAttention):
        sizes = part.query_dim, part.value_dim
        return attention.prompt(group.gpu, batch, input_len, heads, heads, sizes[0], value_dim=sizes[1])
    kv_heads = local_kv_heads(part, group.p)
    return attention.prompt(group.gpu, batch, input_len, heads, kv_heads, part.head_dim, window=part.window)


def _plain_prompt(group: Group, part: Attention, batch: Array, input_len: Array) -> Cost:
    """FLOP of all pairs at cuBLAS's Tensor-Core efficiency, its K and V once."""
    flops = batch * attention_flops(part, input_len, group.p)
    compute_s = np.asarray(group.machine.tensor_s(flops, calibrated(BASELINE).tensor_efficiency))
    read = batch * seen(part, input_len) * local_cached_values(part, group.p) * FP16_BYTES
    read_s = np.asarray(read / group.machine.streamed_bytes_per_s)
    terms = {Bound.COMPUTE: compute_s, Bound.MEMORY: read_s}
    return Cost(compute_s + read_s, terms, prompt_work(group, part, batch, input_len))
