"""`lscd choose`: what the models choose, handed over to be measured."""

from __future__ import annotations

import pytest

from kernels_numba.plan import FORMATS
from lscd.choose import OUR_FORMATS, measurable
from perfmodel.choice import choose


def test_the_model_hands_over_what_has_a_kernel_here() -> None:
    """Time of one product, in our own names; the quantised kernels, which have no code here, are left out."""
    matrix = choose("opt-13b", "h100", batch=16, sparsity=0.8, unmeasured=True).free[0]
    candidates = {candidate.format: candidate.time_s for candidate in measurable(matrix)}
    assert set(candidates) == set(OUR_FORMATS.values()) == set(FORMATS["cuda"])
    flash = matrix.of("flash-llm")
    assert flash is not None
    assert candidates["tiled-csl"] == pytest.approx(flash.span.time_s / 40)
