"""Which format of `perfmodel.formats` stores codes of so many bits, with a scale for so many weights?

Names only: the catalogue knows nothing of the formats' bytes. What engines store beyond codes, scales and zero points
(the order of GPTQ's columns, scales of activations) is below a thousandth and not told apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

TENSOR, ROW, BLOCK = "tensor", "channel", "block"
BLOCK_SIZE = [128, 128]
_INT8_GROUP = 128
# (floating point, bits) -> columns or other weights that share a scale -> format.
_FORMATS: dict[tuple[bool, int], dict[str | int, str]] = {
    (True, 8): {TENSOR: "fp8", ROW: "fp8-row", BLOCK: "fp8-block", 32: "mxfp8"},
    (True, 4): {16: "nvfp4", 32: "mxfp4"},
    # Scales of groups of 128 are 1.5 % of the bytes, which "int8" leaves out.
    (False, 8): {TENSOR: "int8", ROW: "int8", _INT8_GROUP: "int8"},
    (False, 4): {128: "int4", 64: "int4-g64", 32: "int4-g32"},
    **{(False, bits): {128: f"tilus-int{bits}"} for bits in (7, 6, 5, 3, 2, 1)},
}
_ZERO_POINTS = {"int8": "int8", "int4": "int4-zp", "int4-g64": "int4-g64-zp", "int4-g32": "int4-g32-zp"}
_WITH_PATTERN = {
    "fp8": "2:4-fp8",
    "fp8-row": "2:4-fp8",
    "int8": "2:4-int8",
    "int8-w8a8": "2:4-int8",
    "int4": "int4-2:4",
}


@dataclass(frozen=True)
class Codes:
    """How a configuration says weights are stored.

    key : where it says so, as far as a message should name it, e.g. ``quantization_config``.
    bits_key, grain_key : names of the two entries there.
    grain : `TENSOR`, `ROW`, `BLOCK` (of 128 x 128), or the number of columns that share a scale.
    activation_bits : what they are multiplied with, 16 unless quantised too.
    pattern : whether two of four weights are zero and not stored.
    """

    key: str
    bits: int
    grain: str | int
    floating: bool = False
    zero_points: bool = False
    activation_bits: int = 16
    pattern: bool = False
    bits_key: str = "bits"
    grain_key: str = "group_size"

    @property
    def format(self) -> str:
        """Name of the format.

        Raises
        ------
        ValueError
            If there is none; the message names the key, its value and what is allowed.
        """
        kind = "floating-point" if self.floating else "integer"
        by_grain = _FORMATS.get((self.floating, self.bits))
        if by_grain is None:
            allowed = sorted(bits for floating, bits in _FORMATS if floating == self.floating)
            raise self._refused(self.bits_key, self.bits, f"{kind} weights of {_listed(allowed)} bits")
        found = by_grain.get(self.grain)
        if found is None:
            grains = [f"groups of {grain}" if isinstance(grain, int) else f"one scale a {grain}" for grain in by_grain]
            value = -1 if self.grain_key == "group_size" and self.grain == ROW else self.grain
            raise self._refused(self.grain_key, value, f"{_listed(grains)} for {self.bits}-bit {kind} weights")
        if self.zero_points:
            found = self._known(_ZERO_POINTS, found, "zero points", "integer weights of 4 and 8 bits")
        if not self.floating and self.activation_bits < 16:
            if (self.bits, self.activation_bits) != (8, 8):
                given = f"{self.bits} and {self.activation_bits}"
                raise self._refused("bits of weights and activations", given, "8 and 8, or 16 for activations")
            found = "int8-w8a8"
        if self.pattern:
            found = self._known(_WITH_PATTERN, found, "2:4 sparsity", "FP8, INT8, and INT4 in groups of 128")
        return found

    def _known(self, table: dict[str, str], found: str, what: str, allowed: str) -> str:
        if found not in table:
            raise ValueError(f"{self.key} has {what} with {found}, allowed is {allowed}")
        return table[found]

    def _refused(self, key: str, value: object, allowed: str) -> ValueError:
        return ValueError(f"{self.key}.{key} is {value!r}, allowed is {allowed}")


def _listed(values: Iterable[object]) -> str:
    words = [str(value) for value in values]
    return ", ".join(words[:-1]) + " or " + words[-1] if len(words) > 1 else words[0]
