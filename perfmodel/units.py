"""Named constants, so that no formula carries a bare power of ten."""

MEGA = 1e6
GIGA = 1e9
TERA = 1e12
MICRO = 1e-6
MILLI = 1e-3

FP16_BYTES = 2
FP32_BYTES = 4
BITS_PER_BYTE = 8

WARP_SIZE = 32
