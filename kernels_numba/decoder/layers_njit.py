"""Compiled loops of a layer: normalisation, and attention of the one new token that a decoding step adds.

In NumPy each is ten or twenty calls of a microsecond or more, of which a step of a small model has hundreds. Inner
loops run along contiguous memory without a sum across it, so that the compiler vectorises them as they stand.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import prange

from kernels_numba.jit import parallel, serial


@serial
def normalise(x: Any, weight: Any, bias: Any, centred: bool, epsilon: float, out: Any) -> None:
    """RMSNorm over the features of x (features, n), LayerNorm where ``centred``; sums are float64.

    weight, bias : (features,) float32.
    """
    features, n = x.shape
    mean, square = np.zeros(n), np.zeros(n)
    if centred:
        for i in range(features):
            for j in range(n):
                mean[j] += x[i, j]
        mean /= features
    for i in range(features):
        for j in range(n):
            square[j] += (x[i, j] - mean[j]) ** 2
    scale = 1 / np.sqrt(square / features + epsilon)
    for i in range(features):
        for j in range(n):
            out[i, j] = (x[i, j] - mean[j]) * scale[j] * weight[i] + bias[i]


@parallel
def attend_one(stacked: Any, cos: Any, sin: Any, keys: Any, values: Any, length: int, out: Any) -> None:
    """Attention of one new token of each sequence, whose key and value are stored behind the ``length`` before it.

    stacked : ((heads + 2 kv_heads) * head_dim, B) queries, keys and values of the new tokens, not rotated.
    cos, sin : (head_dim / 2,) of its position.
    keys, values : (B, kv_heads, head_dim, capacity) and (B, kv_heads, capacity, head_dim) of a layer.
    out : (heads * head_dim, B) softmax-weighted values.
    """
    batch, kv_heads, head_dim, _ = keys.shape
    heads = out.shape[0] // head_dim
    group, half, count = heads // kv_heads, head_dim // 2, length + 1
    for task in prange(batch * kv_heads):
        b, shared = task // kv_heads, task % kv_heads
        key, value = keys[b, shared], values[b, shared]
        first, behind = (heads + shared) * head_dim, (heads + kv_heads + shared) * head_dim
        for i in range(half):
            one, other = stacked[first + i, b], stacked[first + half + i, b]
            key[i, length] = one * cos[i] - other * sin[i]
            key[half + i, length] = other * cos[i] + one * sin[i]
        for i in range(head_dim):
            value[length, i] = stacked[behind + i, b]
        scale = np.float32(1 / math.sqrt(head_dim))
        scores, mixed = np.empty(count, np.float32), np.empty(head_dim, np.float32)
        for head in range(shared * group, (shared + 1) * group):
            row = head * head_dim
            scores[:] = np.float32(0)
            for i in range(half):
                one, other = stacked[row + i, b] * scale, stacked[row + half + i, b] * scale
                low, high = one * cos[i] - other * sin[i], other * cos[i] + one * sin[i]
                for s in range(count):
                    scores[s] += low * key[i, s] + high * key[half + i, s]
            largest = scores.max()
            total = np.float32(0)
            mixed[:] = np.float32(0)
            for s in range(count):
                share = math.exp(scores[s] - largest)
                total += share
                for i in range(head_dim):
                    mixed[i] += share * value[s, i]
            for i in range(head_dim):
                out[row + i, b] = mixed[i] / total
