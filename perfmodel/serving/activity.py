"""How busy are the memory and the Tensor Cores during a run? What a board's power follows (`energy`)."""

from __future__ import annotations

from functools import reduce
from itertools import chain
from operator import add

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog.decoder import Recurrent
from perfmodel.serving.counts import decode_work, product_work, prompt_work
from perfmodel.serving.energy import sustained_bytes_per_s, sustained_flops_share
from perfmodel.serving.group import Group
from perfmodel.serving.transformer import all_matrices, head_matrices, mean_seen, mixers
from perfmodel.serving.work import Work

Array = NDArray[np.float64]


def busy(group: Group, load: tuple[Array, Array, Array, Array], total_s: Array) -> tuple[Array, Array]:
    """Shares of a run of ``total_s`` in which long reads at full rate, and products at full rate, would be done.

    Read are weights, and while decoding the cache; multiplied are weights, and the pairs of the prompt's tokens.

    Parameters
    ----------
    load
        Sequences on a group, tokens of each prompt, tokens generated for it, pipeline stages.
    """
    batch, prompt, new, stages = load
    micro, steps = np.ceil(batch / stages), (new - 1) / group.what_if.tokens_per_pass
    n = micro * (1 + group.what_if.draft_tokens)
    first, step = _products(group, micro * prompt, micro), _products(group, n, n)
    both = list(mixers(group.model.shape))
    cached = sum(
        count * decode_work(group, part, micro, mean_seen(part, prompt, new)).cache_bytes for count, part in both
    )
    pairs = sum(
        count * prompt_work(group, part, micro, prompt).flop for count, part in both if not isinstance(part, Recurrent)
    )
    read = first.weight_bytes + steps * (step.weight_bytes + cached)
    flops = first.flop + steps * step.flop + pairs
    rate = sustained_flops_share(group.gpu) * group.gpu.peak.fp16_tensor
    return read / sustained_bytes_per_s(group.gpu) / total_s, flops / rate / total_s


def _products(group: Group, n: Array, n_head: Array) -> Work:
    """All products of ``n`` tokens, of which ``n_head`` get their logits."""
    layers = (product_work(group, m, n) for m in all_matrices(group.model.shape, group.p, group.expert_parallel))
    heads = (product_work(group, matrix, n_head) for matrix in head_matrices(group.model.shape, group.p))
    return reduce(add, chain(layers, heads))
