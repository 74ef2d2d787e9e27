"""How busy are the memory and the Tensor Cores during a run? What a board's power follows (`energy`)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog.decoder import LatentAttention, Recurrent, SelfAttention
from perfmodel.serving.energy import sustained_bytes_per_s, sustained_flops_share
from perfmodel.serving.group import Group
from perfmodel.serving.passes import expert_load
from perfmodel.serving.transformer import (
    Matrix,
    all_matrices,
    attention_flops,
    head_matrices,
    local_cached_values,
    mean_seen,
    mixers,
    state_bytes,
)

Array = NDArray[np.float64]


def busy(group: Group, load: tuple[Array, Array, Array, Array], total_s: Array) -> tuple[Array, Array]:
    """Shares of a run of ``total_s`` in which long reads at full rate, and products at full rate, would be done.

    Parameters
    ----------
    load
        Sequences on a group, tokens of each prompt, tokens generated for it, pipeline stages.
    """
    batch, prompt, new, stages = load
    micro, steps = np.ceil(batch / stages), (new - 1) / group.what_if.tokens_per_pass
    n = micro * (1 + group.what_if.draft_tokens)
    read = _weight_bytes(group, micro * prompt) + steps * (
        _weight_bytes(group, n) + _cache_bytes(group, micro, prompt, new)
    )
    flops = _product_flops(group, micro * prompt) + steps * _product_flops(group, n)
    flops = flops + micro * sum(
        count * attention_flops(part, prompt, group.p) / 2 for count, part in _attentions(group)
    )
    rate = sustained_flops_share(group.gpu) * group.gpu.peak.fp16_tensor
    return read / sustained_bytes_per_s(group.gpu) / total_s, flops / rate / total_s


def _matrices(group: Group) -> list[Matrix]:
    shape = group.model.shape
    return [*all_matrices(shape, group.p, group.expert_parallel), *head_matrices(shape, group.p)]


def _active(group: Group, matrix: Matrix, n: Array) -> Array:
    if not matrix.grouped:
        return np.ones_like(n)
    return expert_load(group, matrix.experts_in_all, matrix.experts_per_token, n).active


def _weight_bytes(group: Group, n: Array) -> Array:
    """Bytes of the weights that ``n`` tokens need; those that lie elsewhere are read once they have come."""
    return np.asarray(sum(m.layers * _active(group, m, n) * group.bytes_of(m) for m in _matrices(group)))


def _product_flops(group: Group, n: Array) -> Array:
    weights = sum(m.layers * m.m * m.k * (m.experts_per_token if m.grouped else 1) for m in _matrices(group))
    return np.asarray(2.0 * n * weights)


def _cache_bytes(group: Group, batch: Array, prompt: Array, new: Array) -> Array:
    total: Array = np.zeros(())
    for count, part in mixers(group.model.shape):
        if isinstance(part, Recurrent):
            total = total + count * 2 * batch * state_bytes(part, group.p)
        else:
            values = local_cached_values(part, group.p) * mean_seen(part, prompt, new)
            total = total + count * batch * values * group.cache_bytes
    return np.asarray(total)


def _attentions(group: Group) -> list[tuple[int, SelfAttention | LatentAttention]]:
    return [(count, part) for count, part in mixers(group.model.shape) if not isinstance(part, Recurrent)]
