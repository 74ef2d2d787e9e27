"""bitsandbytes: 4-bit codes that a table of 16 numbers explains, times the largest magnitude of each block; and INT8.

References
----------
Dettmers et al., "QLoRA", NeurIPS 2023 (NF4, double quantisation) and "LLM.int8()", NeurIPS 2022, as bitsandbytes saves.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels_numba.checkpoints.layouts.pieces import ROW, Coding, Packed, Pieces, Rows
from kernels_numba.checkpoints.safetensors_reader import parse_json

MAX_STATE_BYTES = 1 << 16
MAX_SIZE = 1 << 40
LARGEST_INT8 = 127
STATE = "weight.quant_state"
MAPS = ("weight.absmax", "weight.quant_map", "weight.nested_absmax", "weight.nested_quant_map")


def bitsandbytes(p: Pieces) -> Packed | None:
    """4-bit NF4 or FP4, flat and two codes a byte, the high half first."""
    state_role = next((role for role in p.by_role if role.startswith(STATE)), None)
    codes = p.first("weight", "")
    if state_role is None or codes is None or not p.has("weight.absmax"):
        return None
    roles, layout = (codes, *MAPS, state_role), "bitsandbytes 4-bit"
    state = _state(p, state_role)
    shape, block = state.get("shape", []), state.get("blocksize", 0)
    if not (_naturals(shape) and len(shape) == 2 and _naturals([block])):
        return p.packed(layout, roles, obstacle="its quant_state says no shape and block size of a matrix")
    m, k = shape
    nested = p.has("weight.nested_absmax", "weight.nested_quant_map")
    fits = (
        p.dtype(codes) == "U8"
        and math.prod(p.shape(codes)) == -(-m * k // 2)
        and p.shape("weight.absmax") == (-(-m * k // block),)
        and p.shape("weight.quant_map") == (16,)
        and p.dtype("weight.absmax") == ("U8" if nested else "F32")
        and p.dtype("weight.quant_map") == "F32"
        and (not nested or _nested_fits(p, state))
    )
    if not fits:
        return p.packed(layout, roles, obstacle="its pieces have types or shapes that do not fit each other")
    kind = str(state.get("quant_type", "")).upper()
    name = kind if kind in ("NF4", "FP4") else "4-bit table"
    coding = Coding(4, True, block, name=name)
    return p.packed(layout, roles, shape=(m, k), coding=coding, decoder=lambda: _rows4(p, codes, state, k))


def _state(p: Pieces, role: str) -> dict[str, Any]:
    """What the piece of JSON says; nothing if it is none."""
    info = p.by_role[role]
    if info.dtype != "U8" or info.nbytes > MAX_STATE_BYTES:
        return {}
    try:
        return parse_json(p.read(role).tobytes(), info.name)
    except ValueError:
        return {}


def _nested_fits(p: Pieces, state: dict[str, Any]) -> bool:
    block, offset = state.get("nested_blocksize", 0), state.get("nested_offset")
    return (
        _naturals([block])
        and isinstance(offset, int | float)
        and p.shape("weight.nested_quant_map") == (256,)
        and p.shape("weight.nested_absmax") == (-(-p.shape("weight.absmax")[0] // block),)
        and p.dtype("weight.nested_absmax") == p.dtype("weight.nested_quant_map") == "F32"
    )


def _rows4(p: Pieces, codes: str, state: dict[str, Any], k: int) -> Rows:
    stored, table, block = p.read(codes).reshape(-1), p.read("weight.quant_map"), state["blocksize"]
    largest = p.read("weight.absmax")
    if p.has("weight.nested_absmax"):
        outer = p.read("weight.nested_absmax")[np.arange(len(largest)) // state["nested_blocksize"]]
        largest = p.read("weight.nested_quant_map")[largest] * outer + np.float32(state["nested_offset"])

    def rows(first: int, stop: int) -> NDArray[np.float32]:
        begin, end = first * k, stop * k
        bytes_ = stored[begin // 2 : -(-end // 2)]
        pair = np.stack([bytes_ >> 4, bytes_ & 0xF], axis=-1).reshape(-1)
        values = table[pair[begin % 2 :][: end - begin]] * largest[np.arange(begin, end) // block]
        return values.reshape(-1, k)

    return rows


def int8(p: Pieces) -> Packed | None:
    """INT8 with the largest magnitude of each row, SCB, for 127."""
    if not p.is_a("weight", ("I8",), 2) or not p.is_a("SCB", ("F32",), 1):
        return None
    roles, shape = ("weight", "SCB", "weight_format"), (p.shape("weight")[0], p.shape("weight")[1])
    layout = "bitsandbytes 8-bit"
    if p.shape("SCB") != shape[:1]:
        return p.packed(layout, roles, shape=shape, obstacle="SCB has not one number a row")
    if p.has("weight_format") and p.read("weight_format").any():
        return p.packed(layout, roles, shape=shape, obstacle="its weight_format is not by rows")

    def decoder() -> Rows:
        codes, scales = p.read("weight"), p.floats("SCB")[:, None] / np.float32(LARGEST_INT8)
        return lambda first, stop: codes[first:stop].astype(np.float32) * scales[first:stop]

    return p.packed(layout, roles, shape=shape, coding=Coding(8, False, ROW), decoder=decoder)


def _naturals(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 1 <= value < MAX_SIZE for value in values)
