"""Compiled loops of a layer: normalisation, and attention of the one new token that a decoding step adds.

In NumPy each is ten or twenty calls of a microsecond or more, of which a step of a small model has hundreds.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import prange

from kernels_numba.cpu.simd import add, load, scaled_add, store, zeros
from kernels_numba.jit import inlined, parallel, serial

LANES = 16  # tokens whose keys a query meets at once, or features of a value


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


@serial
def round_to_bfloat16(bits: Any, out: Any) -> None:
    """Bit patterns of bfloat16 nearest to those of float32, ties to even; NaN stays NaN."""
    for i in range(bits.size):
        whole = bits[i]
        nan = whole & np.uint32(0x7FFFFFFF) > np.uint32(0x7F800000)
        rounded = (whole + np.uint32(0x7FFF) + (whole >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)
        out[i] = np.uint16(0x7FFF) if nan else np.uint16(rounded)


@parallel
def attend_one(stacked: Any, cos: Any, sin: Any, keys: Any, values: Any, length: int, out: Any) -> None:
    """Attention of one new token of each sequence, whose key and value are stored behind the ``length`` before it.

    stacked : ((heads + 2 kv_heads) * head_dim, B) queries, keys and values of the new tokens, not rotated.
    cos, sin : (head_dim / 2,) of its position.
    keys, values : (B, kv_heads, head_dim, capacity) and (B, kv_heads, capacity, head_dim) of a layer, the last axis
        padded to a multiple of 16 with finite numbers.
    out : (heads * head_dim, B) softmax-weighted values.
    """
    batch, kv_heads = keys.shape[:2]
    for task in prange(batch * kv_heads):  # neighbouring sequences write to the same lines: one thread has them all
        attend_group(task // batch, task % batch, stacked, cos, sin, keys, values, length, out)


@serial
def attend_one_alone(stacked: Any, cos: Any, sin: Any, keys: Any, values: Any, length: int, out: Any) -> None:
    """As `attend_one` on one thread: after a product of NumPy's BLAS, whose threads keep their cores busy waiting."""
    batch, kv_heads = keys.shape[:2]
    for task in range(batch * kv_heads):
        attend_group(task // batch, task % batch, stacked, cos, sin, keys, values, length, out)


@serial
def attend_group(
    shared: int, b: int, stacked: Any, cos: Any, sin: Any, keys: Any, values: Any, length: int, out: Any
) -> None:
    """The query heads of sequence ``b`` that share the key head ``shared``; else as `attend_one`."""
    _, kv_heads, head_dim, capacity = keys.shape
    heads, half, count = out.shape[0] // head_dim, head_dim // 2, length + 1
    group, scale = heads // kv_heads, np.float32(1 / math.sqrt(head_dim))
    all_keys, first_key = keys.reshape(-1), (b * kv_heads + shared) * head_dim * capacity
    _, _, room, width = values.shape
    all_values, first_value = values.reshape(-1), (b * kv_heads + shared) * room * width
    turned, scores = np.empty(head_dim, np.float32), np.empty(-(-count // LANES) * LANES, np.float32)
    mixed = np.empty(width, np.float32)
    turn(stacked, (heads + shared) * head_dim, b, cos, sin, turned)
    for i in range(head_dim):
        all_keys[first_key + i * capacity + length] = turned[i]
        all_values[first_value + length * width + i] = stacked[(heads + kv_heads + shared) * head_dim + i, b]
    for head in range(shared * group, (shared + 1) * group):
        turn(stacked, head * head_dim, b, cos, sin, turned)
        for s in range(0, count, LANES):
            low, high = zeros(LANES), zeros(LANES)
            for i in range(half):
                low = scaled_add(turned[i], load(all_keys, first_key + i * capacity + s, low), low)
                high = scaled_add(turned[half + i], load(all_keys, first_key + (half + i) * capacity + s, high), high)
            store(scores, s, add(low, high))
        largest, total = scores[:count].max(), np.float32(0)
        for s in range(count):
            scores[s] = math.exp((scores[s] - largest) * scale)
            total += scores[s]
        for i in range(0, width, LANES):
            low, high = zeros(LANES), zeros(LANES)
            for s in range(0, count - 1, 2):
                low = scaled_add(scores[s], load(all_values, first_value + s * width + i, low), low)
                high = scaled_add(scores[s + 1], load(all_values, first_value + (s + 1) * width + i, high), high)
            if count % 2:
                low = scaled_add(scores[length], load(all_values, first_value + length * width + i, low), low)
            store(mixed, i, add(low, high))
        for i in range(head_dim):
            out[head * head_dim + i, b] = mixed[i] / total


@inlined
def turn(stacked: Any, first: int, b: int, cos: Any, sin: Any, out: Any) -> None:
    """Write the vector of ``stacked`` from row ``first`` on to ``out``, rotated; feature i is paired with i + half."""
    half = cos.size
    for i in range(half):
        one, other = stacked[first + i, b], stacked[first + half + i, b]
        out[i], out[half + i] = one * cos[i] - other * sin[i], other * cos[i] + one * sin[i]
