"""Attention against its definition, token by token, and the property that rotation is for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from kernels_numba.decoder.attention import attend, rotate, rotation
from kernels_numba.decoder.config import DecoderConfig
from kernels_numba.decoder.layers_njit import attend_one, attend_one_alone, normalise, round_to_bfloat16
from kernels_numba.formats.encoded import Element, narrowed
from tests.comparison import assert_close
from tests.kernels_numba.decoder.models import LLAMA, OPT


@pytest.mark.parametrize(("new", "total"), [(1, 1), (1, 5), (3, 5), (5, 5)])
def test_each_token_mixes_the_values_up_to_its_own(new: int, total: int) -> None:
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((2, 6, new, 4), np.float32)
    keys, values = (rng.standard_normal((2, 3, total, 4), np.float32) for _ in range(2))
    wanted = np.zeros(queries.shape)
    for batch, head, token in np.ndindex(2, 6, new):
        seen = slice(0, total - new + token + 1)
        scores = np.exp(keys[batch, head // 2, seen] @ queries[batch, head, token].astype(np.float64) / 2)
        wanted[batch, head, token] = scores / scores.sum() @ values[batch, head // 2, seen]
    assert_close(attend(queries, keys, values), wanted, relative=1e-5, absolute=1e-6)


def test_a_rotated_product_depends_on_the_distance_alone() -> None:
    cos, sin = rotation(DecoderConfig.from_dict(LLAMA))
    query, key = np.random.default_rng(0).standard_normal((2, 1, 1, 1, 8), np.float32)

    def product(at: int, other: int) -> float:
        turned = (rotate(x, cos[i : i + 1], sin[i : i + 1]) for x, i in ((query, at), (key, other)))
        return float(np.sum(np.multiply(*turned)))

    assert product(9, 4) == pytest.approx(product(60, 55), abs=1e-5)
    assert abs(product(9, 4) - product(9, 5)) > 0.01
    assert product(0, 0) == pytest.approx(float((query * key).sum()), abs=1e-6)


def test_what_is_not_rotated_stays() -> None:
    x = np.random.default_rng(0).standard_normal((1, 1, 3, 8), np.float32)
    cos, sin = rotation(DecoderConfig.from_dict(OPT))
    np.testing.assert_array_equal(rotate(x, cos[5:8], sin[5:8]), x)


@pytest.mark.parametrize("attend_now", [attend_one, attend_one_alone])
@pytest.mark.parametrize(("length", "batch"), [(0, 1), (6, 1), (5, 3)])
def test_a_single_token_attends_as_the_last_of_all(length: int, batch: int, attend_now: Callable[..., None]) -> None:
    """Six heads of 8 that share three keys, of which ``length`` are there before."""
    rng = np.random.default_rng(0)
    cos, sin = rotation(DecoderConfig.from_dict(LLAMA))
    turn = cos[length : length + 1], sin[length : length + 1]
    stacked = rng.standard_normal((12 * 8, batch), np.float32)
    queries, keys, values = np.split(stacked.reshape(12, 8, batch).transpose(2, 0, 1)[:, :, None], (6, 9), axis=1)
    before = rng.standard_normal((2, batch, 3, length, 8), np.float32)
    all_keys = np.concatenate((before[0], rotate(keys, *turn)), axis=2)
    all_values = np.concatenate((before[1], values), axis=2)
    wanted = attend(rotate(queries, *turn), all_keys, all_values)

    room = np.full((batch, 3, 8, 16), 7, np.float32), np.full((batch, 3, 9, 16), 7, np.float32)
    room[0][..., :length], room[1][:, :, :length, :8] = before[0].swapaxes(-1, -2), before[1]
    out = np.empty((6 * 8, batch), np.float32)
    attend_now(stacked, cos[length], sin[length], *room, length, out)
    assert_close(out.reshape(6, 8, batch).transpose(2, 0, 1), wanted[:, :, 0], relative=1e-5, absolute=1e-6)
    assert_close(room[0][..., : length + 1].swapaxes(-1, -2), all_keys, relative=1e-6, absolute=1e-6)
    np.testing.assert_array_equal(room[1][:, :, : length + 1, :8], all_values)
    assert (room[0][..., length + 1 :] == 7).all(), "what comes later is not written"


@pytest.mark.parametrize("centred", [False, True])
def test_norms_are_their_formulas(centred: bool) -> None:
    rng = np.random.default_rng(0)
    x, weight, bias = (rng.standard_normal(shape, np.float32) for shape in ((40, 3), (40,), (40,)))
    moved = x - x.mean(0, dtype=np.float64) if centred else x.astype(np.float64)
    wanted = moved / np.sqrt((moved**2).mean(0) + 0.1) * weight[:, None] + bias[:, None]
    out = np.empty_like(x)
    normalise(x, weight, bias, centred, 0.1, out)
    assert_close(out, wanted, relative=1e-6, absolute=1e-6)


def test_rounding_to_bfloat16_is_that_of_the_formats() -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, 4096, dtype=np.uint32)
    bits[:6] = 0, 0x7F7FFFFF, 0x7F800000, 0xFF800001, 0x3F808000, 0x3F818000  # overflow, infinity, NaN, both ties
    out = np.empty(bits.size, np.uint16)
    round_to_bfloat16(bits, out)
    np.testing.assert_array_equal(out, narrowed(bits.view(np.float32), Element.BFLOAT16))
