"""Rebuilding encodings from buffers of any origin."""

from __future__ import annotations

import numpy as np
import pytest

from kernels_numba.formats import Element, TwoFour, encode_csr, encode_two_four
from tests.kernels_numba.problems import random_matrix


def test_buffers_of_wrong_types_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match=r"buffers of TwoFour: .*residual.*; allowed: the fields"):
        TwoFour.from_buffers(shape=(4, 4))
    weights = encode_two_four(random_matrix(130, 70, 0.3))
    fields = {name: getattr(weights, name) for name in weights.__dataclass_fields__}
    with pytest.raises(ValueError, match="buffers of TwoFour: "):
        TwoFour.from_buffers(**(fields | {"residual": None}))


def test_element_given_as_text_is_understood() -> None:
    bits = encode_csr(np.full((2, 2), 0x3F80, np.uint16), element=Element.BFLOAT16)
    fields = {name: getattr(bits, name) for name in bits.__dataclass_fields__}
    again = type(bits).from_buffers(**(fields | {"element": "bfloat16"}))
    assert again.element is Element.BFLOAT16
    with pytest.raises(ValueError, match="element: float17"):
        type(bits).from_buffers(**(fields | {"element": "float17"}))
