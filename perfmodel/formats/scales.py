"""How many bytes do the scales of rounded weights take? A block of weights shares one, ragged blocks have one too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perfmodel.formats.base import Array
from perfmodel.units import BITS_PER_BYTE

QUANT_GROUP = 128  # weights that share one FP16 scale
FP32_BITS, FP16_BITS, FP8_BITS = 32, 16, 8
E8M0_BITS = 8  # a power of two

Block = tuple[float, float]
TENSOR: Block = (np.inf, np.inf)
ROW: Block = (1, np.inf)


def group(columns: int) -> Block:
    """Consecutive weights of a row."""
    return 1, columns


@dataclass(frozen=True)
class Scales:
    """Scales of a matrix.

    block : rows and columns of the weights that share a scale.
    bits : of a scale, and of the zero point that goes with it.
    tensor_bits : of what the whole matrix shares on top.
    """

    block: Block
    bits: int
    tensor_bits: int = 0

    def bytes(self, m: Array, k: Array) -> Array:
        """Bytes of all scales of an ``m`` x ``k`` matrix."""
        # Nothing is left of a size divided by infinity, but there is one block.
        rows, columns = (np.maximum(np.ceil(size / side), 1) for size, side in zip((m, k), self.block, strict=True))
        return (rows * columns * self.bits + self.tensor_bits) / BITS_PER_BYTE


PER_TENSOR = Scales(TENSOR, FP32_BITS)
PER_ROW = Scales(ROW, FP32_BITS)
PER_GROUP = Scales(group(QUANT_GROUP), FP16_BITS)
NVFP4 = Scales(group(16), FP8_BITS, tensor_bits=FP32_BITS)
MX = Scales(group(32), E8M0_BITS)
