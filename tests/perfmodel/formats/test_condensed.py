"""Closed forms of condensed strips against the encoder, and the table they interpolate."""

from __future__ import annotations

import numpy as np
import pytest

from kernels_numba.formats import encode_condensed, encode_quantised_condensed
from perfmodel.formats import FORMATS
from perfmodel.formats.condensed import registers_in_use, tails_per_strip
from tests.kernels_numba.problems import random_matrix

NAMES = {1: "lscd-condensed", 2: "lscd-condensed-pairs"}


@pytest.mark.parametrize("width", NAMES)
@pytest.mark.parametrize("density", [0.0, 0.03, 0.1, 0.22, 0.3, 0.33, 0.42, 0.7, 1.0])
def test_bytes_are_those_of_the_encoder(width: int, density: float) -> None:
    """Within 1 % on 512 strips, between the table's sparsities and where tails begin as well."""
    a = random_matrix(1024, 1024, density, seed=5)
    found = float(FORMATS[NAMES[width]].bytes(*a.shape, 1 - density))
    assert encode_condensed(a, width).nbytes == pytest.approx(found, rel=0.01)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("density", [0.03, 0.22, 0.33, 0.7, 0.85])
def test_bytes_of_codes_are_those_of_the_encoder(bits: int, density: float) -> None:
    """Weights of magnitude 1, none of which gets code 0."""
    a = np.sign(random_matrix(1024, 1024, density, seed=5))
    found = float(FORMATS[f"lscd-condensed-pairs-{bits}"].bytes(*a.shape, 1 - density))
    assert encode_quantised_condensed(a, bits).nbytes == pytest.approx(found, rel=0.01)


@pytest.mark.parametrize("width", NAMES)
def test_ragged_edges_are_close(width: int) -> None:
    """Strips of zeros fill the last tile of 128 rows; an edge holds its part of a full strip."""
    a = random_matrix(1000, 1000, 0.2, seed=6)
    found = float(FORMATS[NAMES[width]].bytes(*a.shape, 0.8))
    assert encode_condensed(a, width).nbytes == pytest.approx(found, rel=0.01)


def test_bytes_by_hand_where_all_fits() -> None:
    """80 % zeros: 448 + 2 x 409.6 bytes and 7 of padding a strip, and 4 an offset."""
    strips = 4 * 4
    expected = strips * (448 + 2 * 0.2 * 2048 + 7 + 4) + 8
    assert float(FORMATS["lscd-condensed"].bytes(128, 256, 0.8)) == pytest.approx(expected, rel=1e-4)


def test_tails_end_and_registers_empty_as_sparsity_grows() -> None:
    sparsity = np.linspace(0, 1, 101)
    tails, registers = tails_per_strip(sparsity), registers_in_use(sparsity)
    assert (np.diff(tails) <= 0).all()
    assert tails[0] == 2
    assert (tails[75:] == 0).all()
    assert (registers[75:] < 1 - sparsity[75:] ** 4 + 1e-9).all(), (
        "the search never fills more than columns as they stand"
    )
    assert registers[-1] == 0
