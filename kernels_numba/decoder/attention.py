"""Attention over grouped heads, and the rotation that tells it positions; float32, batch and heads at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels_numba.decoder.config import DecoderConfig, Family

Float = NDArray[np.float32]


def attend(queries: Float, keys: Float, values: Float) -> Float:
    """Softmax-weighted values (B, heads, T, head_dim) of the last T of S tokens; none sees a later one.

    Parameters
    ----------
    queries : (B, heads, T, head_dim).
    keys, values : (B, kv_heads, S, head_dim), S >= T; ``heads / kv_heads`` neighbouring query heads share one.
    """
    batch, heads, new, head_dim = queries.shape
    _, kv_heads, total, _ = keys.shape
    group = heads // kv_heads
    scores = queries.reshape(batch, kv_heads, group * new, head_dim) @ keys.swapaxes(-1, -2)
    scores *= np.float32(head_dim**-0.5)
    if new > 1:
        later = np.arange(total) > np.arange(total - new, total)[:, None]  # (T, S)
        scores.reshape(batch, kv_heads, group, new, total)[..., later] = -np.inf
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return np.matmul(scores, values, dtype=np.float32).reshape(batch, heads, new, head_dim)


def rotation(config: DecoderConfig) -> tuple[Float, Float]:
    """Cosines and sines (positions, head_dim / 2) of the angle by which each pair of features turns; OPT's do not.

    References
    ----------
    Su et al., "RoFormer", 2021, section 3.2.2; Meta, Llama 3.1, for the scaling.
    """
    slowness = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    frequency = (1 / np.float32(config.rope_theta) ** slowness).astype(np.float32)
    scaling = config.rope_scaling
    if scaling:
        turns = scaling.old_positions * frequency / (2 * np.pi)  # during the first training's context
        kept = np.clip((turns - scaling.low) / (scaling.high - scaling.low), 0, 1)
        frequency = (frequency * (kept + (1 - kept) / scaling.factor)).astype(np.float32)
    if config.family is Family.OPT:
        frequency = np.zeros_like(frequency)
    angle = np.arange(config.positions, dtype=np.float32)[:, None] * frequency
    return np.cos(angle), np.sin(angle)


def rotate(x: Float, cos: Float, sin: Float) -> Float:
    """Vectors (B, heads, T, head_dim) turned by their positions; feature i is paired with i + head_dim / 2."""
    one, other = np.split(x, 2, axis=-1)
    return np.concatenate((one * cos - other * sin, other * cos + one * sin), axis=-1)
