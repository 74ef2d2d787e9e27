"""Keys and values of the tokens seen so far, so that a decoding step computes those of its own token only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels_numba.decoder.config import DecoderConfig
from kernels_numba.decoder.layers_njit import LANES
from kernels_numba.formats.encoded import check


class KvCache:
    """Room for ``capacity`` tokens of each of ``batch`` sequences, taken at once.

    keys : (layers, batch, kv_heads, head_dim, capacity) float32: a query meets many tokens at once, feature by feature.
    values : (layers, batch, kv_heads, capacity, head_dim) float32. The last axis of both is padded to a multiple of 16.
    length : tokens stored so far, the same for all sequences.
    """

    def __init__(self, config: DecoderConfig, batch: int, capacity: int) -> None:
        check(batch >= 1, "batch", batch, "at least 1")
        check(1 <= capacity <= config.positions, "tokens of the cache", capacity, f"1 to {config.positions}")
        heads = (config.layers, batch, config.kv_heads)
        tokens, features = (-(-size // LANES) * LANES for size in (capacity, config.head_dim))
        self.keys = np.zeros((*heads, config.head_dim, tokens), np.float32)
        self.values = np.zeros((*heads, capacity, features), np.float32)
        self.length = 0

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values."""
        return self.keys.nbytes + self.values.nbytes

    def room(self, layer: int, batch: int, tokens: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Keys and values of a layer, to be written behind those of the tokens before.

        The tokens count as stored once every layer has them and `advance` is called.

        Raises
        ------
        ValueError
            If there is no room for ``tokens`` more of ``batch`` sequences.
        """
        _, held, _, capacity, _ = self.values.shape
        check(batch == held, "sequences", batch, f"{held}, as the cache holds")
        end = self.length + tokens
        check(end <= capacity, "tokens in the cache", end, f"at most {capacity}")
        return self.keys[layer], self.values[layer]

    def extend(
        self, layer: int, keys: NDArray[np.float32], values: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Keys and values (batch, kv_heads, S, head_dim) of a layer, these of T new tokens stored at the end.

        Errors as `room`.
        """
        batch, _, new, _ = keys.shape
        all_keys, all_values = self.room(layer, batch, new)
        end = self.length + new
        all_keys[..., self.length : end] = keys.swapaxes(-1, -2)
        all_values[:, :, self.length : end, : values.shape[-1]] = values
        return all_keys[..., :end].swapaxes(-1, -2), all_values[:, :, :end, : values.shape[-1]]

    def advance(self, tokens: int) -> None:
        """Count ``tokens`` more as stored."""
        self.length += tokens
