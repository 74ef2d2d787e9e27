"""Keys and values of the tokens seen so far, so that a decoding step computes those of its own token only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels_numba.decoder.config import DecoderConfig
from kernels_numba.formats.encoded import check


class KvCache:
    """Room for ``capacity`` tokens of each of ``batch`` sequences, taken at once.

    keys, values : (layers, batch, kv_heads, capacity, head_dim) float32.
    length : tokens stored so far, the same for all sequences.
    """

    def __init__(self, config: DecoderConfig, batch: int, capacity: int) -> None:
        check(batch >= 1, "batch", batch, "at least 1")
        check(1 <= capacity <= config.positions, "tokens of the cache", capacity, f"1 to {config.positions}")
        shape = (config.layers, batch, config.kv_heads, capacity, config.head_dim)
        self.keys, self.values = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self.length = 0

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values."""
        return self.keys.nbytes + self.values.nbytes

    def extend(
        self, layer: int, keys: NDArray[np.float32], values: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """All keys and values of a layer, these of new tokens (batch, kv_heads, T, head_dim) stored at the end.

        The tokens count as stored once every layer has them and `advance` is called.

        Raises
        ------
        ValueError
            If there is no room for them, or there are other sequences than the cache is for.
        """
        _, batch, _, capacity, _ = self.keys.shape
        end = self.length + keys.shape[2]
        check(keys.shape[0] == batch, "sequences", keys.shape[0], f"{batch}, as the cache holds")
        check(end <= capacity, "tokens in the cache", end, f"at most {capacity}")
        self.keys[layer, :, :, self.length : end] = keys
        self.values[layer, :, :, self.length : end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def advance(self, tokens: int) -> None:
        """Count ``tokens`` more as stored."""
        self.length += tokens
