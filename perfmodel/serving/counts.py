"""How many FLOP and bytes does an operator of a model ask one GPU for? What time, energy and tables count by."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog.decoder import LatentAttention, Mixer, Recurrent, SelfAttention
from perfmodel.serving import attention, experts
from perfmodel.serving.group import Group
from perfmodel.serving.transformer import Matrix, local_kv_heads, state_bytes
from perfmodel.serving.work import UNCOUNTED, Work
from perfmodel.units import FP16_BYTES

Array = NDArray[np.float64]
Attention = SelfAttention | LatentAttention


def product_work(group: Group, matrix: Matrix, n: Array) -> Work:
    """Products of ``n`` tokens with a matrix, in all layers that have it.

    Of experts the weights of those with a token are read, for as many tokens as a GPU has on average; weights that lie
    outside the device memory are read once they have come.
    """
    active, each = np.ones_like(n), n
    if matrix.grouped:
        load = expert_load(group, matrix.experts_in_all, matrix.experts_per_token, n)
        active, each = load.active, load.each
    layers, visits = matrix.layers, n * matrix.experts_per_token
    read = layers * (group.what_if.columns_read(each) if matrix.prunable else 1.0)
    return Work(
        np.asarray(2.0 * visits * read * matrix.m * matrix.k),
        weight_bytes=np.asarray(read * active * group.bytes_of(matrix)),
        activation_bytes=np.asarray(FP16_BYTES * layers * visits * (matrix.m + matrix.k)),
    )


def expert_load(group: Group, count: int, per_token: int, n: Array) -> experts.Load:
    """Tokens of the experts on the busiest GPU while each GPU that spreads them has ``n`` tokens."""
    return experts.active_experts(n * group.expert_parallel, count, per_token, gpus=group.expert_parallel)


def decode_work(group: Group, part: Mixer, batch: Array, context: Array) -> Work:
    """What a layer's mixer of tokens does in a step that looks back at ``context`` tokens."""
    if isinstance(part, Recurrent):
        return Work(UNCOUNTED, cache_bytes=np.asarray(2 * batch * state_bytes(part, group.p)))
    heads = decoding_heads(group, part)
    if isinstance(part, LatentAttention):
        return attention.latent_decode_work(batch, context, heads, part.cached_values, part.rank, group.cache_bytes)
    kv_heads = local_kv_heads(part, group.p)
    return attention.decode_work(batch, context, heads, kv_heads, part.head_dim, group.cache_bytes)


def decoding_heads(group: Group, part: Attention) -> Array:
    """Query heads on a GPU, times the tokens of a draft: all proposals read the cache together."""
    return np.asarray(part.heads / group.p * (1 + group.what_if.draft_tokens))


def prompt_work(group: Group, part: Mixer, batch: Array, tokens: Array) -> Work:
    """What a layer's mixer of tokens does with prompts; a recurrent one's state is written and read once."""
    if isinstance(part, Recurrent):
        rows = sum(product.m for product in part.projections) / group.p
        state = 2 * batch * state_bytes(part, group.p)
        return Work(UNCOUNTED, cache_bytes=state, activation_bytes=2 * FP16_BYTES * batch * rows * tokens)
    heads = part.heads / group.p
    if isinstance(part, LatentAttention):
        return attention.prompt_work(batch, tokens, heads, heads, part.query_dim + part.value_dim)
    return attention.prompt_work(
        batch, tokens, heads, local_kv_heads(part, group.p), 2 * part.head_dim, window=part.window
    )
