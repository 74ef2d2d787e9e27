"""Attention against its definition, token by token, and the property that rotation is for."""

from __future__ import annotations

import numpy as np
import pytest

from kernels_numba.decoder.attention import attend, rotate, rotation
from kernels_numba.decoder.config import DecoderConfig
from tests.comparison import assert_close
from tests.kernels_numba.decoder.models import LLAMA


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
