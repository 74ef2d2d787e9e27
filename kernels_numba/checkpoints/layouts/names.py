"""What the name of a tensor says: which piece of which matrix it is, and whether it can be a weight matrix at all.

Scales, zero points, codebooks and their like have two dimensions and 16 bits as weights have, and are none.
"""

from __future__ import annotations

import re

from kernels_numba.checkpoints.safetensors_reader import TensorInfo

# Pieces by the end of their names; the longest that fits counts. Some need a dot before them, so that lora_B and
# embed_shape stay what they are; stacked experts have an underscore before the others.
_DOTTED = (
    r"B_24|B_meta|B|s|workspace|SCB|biases|shape|meta|compressed|bitmask|row_offsets|scale_packed|"
    r"weight\.(?:quant_state\.bitsandbytes__\w+|absmax|quant_map|nested_absmax|nested_quant_map)"
)
_ANY = (
    "weight_scale_inv|weight_scale_2|weight_global_scale|weight_scale|weight_zero_point|weight_g_idx|weight_shape|"
    "weight_packed|weight_format|weight_orig|weight_mask|weight|qweight|qzeros|scales|g_idx|blocks|scale_inv|"
    "scale_weight|scale"
)
_ROLE = re.compile(rf"(?P<stem>.*?)(?:(?:^|\.)(?P<dotted>{_DOTTED})|(?:^|[._])(?P<any>{_ANY}))$")
# Words of names that only parameters of a code have, whatever their type.
_TABLES = {"codebook", "codebooks", "centroids", "lut", "luts", "lookup"}
_PARAMETERS = _TABLES | {
    "scaling", "zp", "absmax", "amax", "quant", "scb", "dequant", "smooth", "invperm", "g_idx", "mask",
}  # fmt: skip
_SCALES = re.compile(r"[a-z]{0,2}(scale|zero)s?")  # wscales, qzeros, szero
_CODES = {"qweight", "packed"}  # whatever type they are seen as
# Integers that count, order or mask and never stand for weights.
_HARMLESS = {
    "ids", "id", "position", "positions", "relative", "token", "tokens", "mask", "masked", "causal", "bias", "num",
    "tracked", "count", "step", "steps", "version", "vocab", "tid2eid", "t2d", "d2t", "dtype",
}  # fmt: skip
_INTEGERS = ("I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64")
_SMALL_FLOATS = ("F4", "F6_E2M3", "F6_E3M2", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ")


def role_of(name: str) -> tuple[str, str]:
    """Stem and role of a tensor; the role is "" where the name ends like no piece."""
    found = _ROLE.match(name)
    if found is None:
        return name, ""
    return found["stem"], found["dotted"] or found["any"]


def module_of(name: str) -> str:
    """Module that owns a tensor: q of ``q.weight._data`` and ``q.centroids.weight``; without a dot it is alone."""
    if ".weight." in name:
        return name.partition(".weight.")[0]
    owner = name.rpartition(".")[0]
    if name.endswith(".weight") and is_parameter(name):
        owner = owner.rpartition(".")[0]
    return owner or name


def is_parameter(name: str) -> bool:
    """Whether a name is that of scales, zero points, codebooks and their like, which no weight matrix has."""
    *_, before, leaf = ("", *name.split("."))
    if leaf == "weight":
        return not _TABLES.isdisjoint(_words(before))
    return _of_codes(leaf) or not _CODES.isdisjoint(_words(leaf)) or (leaf == "s" and before != "")


def is_carrier(info: TensorInfo) -> bool:
    """Whether a tensor can only be codes of weights: integers or small floats, that do not count, order or mask."""
    words = _words(info.name.rpartition(".")[2])
    coded = info.dtype in _INTEGERS or (info.dtype in _SMALL_FLOATS and len(info.shape) > 1)
    many = info.nbytes > 8 and len(info.shape) > 0
    return coded and many and words.isdisjoint(_HARMLESS) and not _of_codes(info.name.rpartition(".")[2])


def _of_codes(leaf: str) -> bool:
    words = _words(leaf)
    return not _PARAMETERS.isdisjoint(words) or any(_SCALES.fullmatch(word) for word in words)


def _words(name: str) -> set[str]:
    """Words of a name, parted by underscores, dots and capitals."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z\d]+|\d+", name)} | {name}
