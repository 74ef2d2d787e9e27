"""Every kernel has a colour and a marker of its own."""

from __future__ import annotations

from perfmodel.kernels import KERNELS
from perfmodel.plotting.style import KERNEL_COLOURS, KERNEL_MARKERS


def test_every_kernel_has_a_colour_and_a_marker_of_its_own() -> None:
    for looks in (KERNEL_COLOURS, KERNEL_MARKERS):
        assert set(looks) == set(KERNELS)
        assert len(set(looks.values())) == len(looks)
