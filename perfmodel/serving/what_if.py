"""What would change beside the weights? Each of these is nothing by default, and has a published number beside it.

=====================  ==============================================================================================
keys and values        pruned, as a format on the cache: tiles of 64 values with a bitmap, decoded on the way
speculation            a draft proposes ``G`` tokens, one pass checks them: N grows to ``G + 1`` a sequence
sparse activations     a column of weights is read if any of N tokens needs it: a share ``1 - s^N``
weights elsewhere      a share of them crosses PCIe, or comes from flash in chunks, in every pass
hidden communication   a share of the all-reduces runs beside other work
=====================  ==============================================================================================

References
----------
Joo et al., "Mustafar", arXiv 2505.22913; Leviathan et al., "Fast inference from transformers via speculative decoding",
ICML 2023 (tokens a step); Li et al., "EAGLE", ICML 2024 (a draft of one layer); Liu et al., "TEAL", ICLR 2025; Alizadeh
et al., "LLM in a flash", ACL 2024; Zhang et al., "Ladder-residual", ICML 2025; Zhu et al., "NanoFlow", OSDI 2025.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.catalog.arrays import number
from perfmodel.formats import expected_stored
from perfmodel.units import BITS_PER_BYTE

Array = NDArray[np.float64]

CACHE_TILE = 64  # values with a bitmap of 64 bits and an offset of 32
CACHE_UNIT = 8  # stored values of a tile are padded to a multiple
FLASH_LATENCY_S = 1e-4  # of a random read; below about 32 KiB a read it decides


@dataclass(frozen=True)
class WhatIf:
    """Changes beside the weights; none by default.

    Attributes
    ----------
    cache_sparsity : float
        Fraction of cached keys and values that are pruned.
    draft_tokens : int
        Tokens that a draft proposes before each pass, ``G``.
    acceptance : float
        Probability that a proposed token is kept, once those before it are.
    draft_layers : float
        Layers of this model that one proposal costs: EAGLE's draft has one.
    activation_sparsity : float
        Fraction of a token's inputs that are zero, or taken for it.
    offloaded : float
        Share of the weights that lie outside the device memory.
    offload_bytes_per_s : float or None
        Rate at which those arrive; that of PCIe by default.
    offload_chunk_bytes : float
        Bytes that lie together there, for flash; infinite for host memory.
    hidden_communication : float
        Share of the communication that runs beside other work.
    """

    cache_sparsity: float = 0.0
    draft_tokens: int = 0
    acceptance: float = 0.8
    draft_layers: float = 1.0
    activation_sparsity: float = 0.0
    offloaded: float = 0.0
    offload_bytes_per_s: float | None = None
    offload_chunk_bytes: float = math.inf
    hidden_communication: float = 0.0

    def __post_init__(self) -> None:
        """Refuse shares outside [0, 1], and negative sizes."""
        shares = ("cache_sparsity", "acceptance", "activation_sparsity", "offloaded", "hidden_communication")
        for name in shares:
            number(name, getattr(self, name), 0, 1)
        if not 0 <= number("draft_tokens", self.draft_tokens) <= LONGEST_DRAFT or self.draft_tokens % 1:
            raise ValueError(f"draft_tokens must be a whole number from 0 to {LONGEST_DRAFT}, got {self.draft_tokens}")
        if not 0 <= number("draft_layers", self.draft_layers) < math.inf:
            raise ValueError(f"draft_layers must be at least 0, got {self.draft_layers:g}")
        for name in ("offload_bytes_per_s", "offload_chunk_bytes"):
            value = getattr(self, name)
            if value is not None and not number(name, value) > 0:
                raise ValueError(f"{name} must be above 0, got {value:g}")

    @property
    def asked(self) -> bool:
        """Whether anything changes; what only says how (acceptance, rates) does not alone."""
        return any((self.cache_sparsity, self.draft_tokens, self.activation_sparsity, self.offloaded,
                    self.hidden_communication))  # fmt: skip

    @property
    def tokens_per_pass(self) -> float:
        """Tokens that a pass yields for a sequence: one of its own and the accepted proposals before the first miss."""
        if self.acceptance == 1:
            return self.draft_tokens + 1.0
        return (1 - self.acceptance ** (self.draft_tokens + 1)) / (1 - self.acceptance)

    def cache_bytes(self, bits: float) -> float:
        """Bytes of a cached value of ``bits``, bitmap and padding included where values are pruned."""
        if self.cache_sparsity == 0:
            return bits / BITS_PER_BYTE
        stored = expected_stored(np.asarray(float(CACHE_TILE)), np.asarray(self.cache_sparsity), CACHE_UNIT)
        return float(CACHE_TILE / BITS_PER_BYTE + 4 + stored * bits / BITS_PER_BYTE) / CACHE_TILE

    def columns_read(self, tokens: ArrayLike) -> Array:
        """Share of a matrix's columns that any of ``tokens`` needs."""
        return np.asarray(1 - self.activation_sparsity ** np.asarray(tokens, dtype=np.float64))

    def arrival_s(self, weight_bytes: ArrayLike, pcie_bytes_per_s: float) -> Array:
        """Seconds in which the weights that lie elsewhere arrive, of ``weight_bytes`` in all."""
        rate = self.offload_bytes_per_s or pcie_bytes_per_s
        # Reads of a chunk wait for the device before bytes flow; whole layers from host memory do not.
        slowed = 1.0 if math.isinf(self.offload_chunk_bytes) else 1 + FLASH_LATENCY_S * rate / self.offload_chunk_bytes
        return np.asarray(self.offloaded * np.asarray(weight_bytes) / rate * slowed)


LONGEST_DRAFT = 64
NOTHING = WhatIf()
