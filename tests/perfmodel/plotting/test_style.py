"""Every kernel has a colour of its own, and among its rivals a marker."""

from __future__ import annotations

from itertools import chain, combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.markers import MarkerStyle

from perfmodel.formats import FORMATS
from perfmodel.kernels import CPU_KERNELS, GPU_KERNELS, KERNELS
from perfmodel.plotting.style import FORMAT_COLOURS, KERNEL_COLOURS, KERNEL_MARKERS, in_order

DEVICES = (GPU_KERNELS, CPU_KERNELS)  # no figure shows kernels of both


def test_every_kernel_has_a_colour_of_its_own_and_a_marker() -> None:
    assert set(KERNEL_COLOURS) == set(KERNEL_MARKERS) == set(KERNELS)
    for device in DEVICES:
        assert len({KERNEL_COLOURS[name] for name in device}) == len(device)


def test_formats_that_do_the_same_to_the_weights_share_no_marker() -> None:
    """A streamed kernel has the marker of the one it shares its format with, in another colour."""
    for one, other in chain.from_iterable(combinations(device.values(), 2) for device in DEVICES):
        if KERNEL_MARKERS[one.name] == KERNEL_MARKERS[other.name]:
            assert one.format.change != other.format.change or other.name == f"{one.name}-bulk", (one.name, other.name)
    assert [KERNEL_MARKERS[name] for name in GPU_KERNELS].count(KERNEL_MARKERS["cublas"]) == 1


def test_colours_are_far_enough_apart_to_tell() -> None:
    """In redmean's distance, which weighs green most, as eyes do; black to white is 765."""
    for one, other in chain.from_iterable(combinations([*device, "my-kernel"], 2) for device in DEVICES):
        a, b = (255 * np.array(to_rgb(KERNEL_COLOURS[name])) for name in (one, other))
        red = (a[0] + b[0]) / 2
        distance = np.sqrt((a - b) ** 2 @ [2 + red / 256, 4, 2 + (255 - red) / 256])
        assert distance > 70, (one, other, distance)


def test_a_users_own_kernel_has_a_colour_that_no_other_has_and_comes_last() -> None:
    assert KERNEL_COLOURS["my-kernel"] == KERNEL_COLOURS["another"]
    assert KERNEL_COLOURS["my-kernel"] not in KERNEL_COLOURS.values()
    assert MarkerStyle(KERNEL_MARKERS["my-kernel"]).is_filled()
    assert in_order(["my-kernel", "macko", "cublas", "macko"]) == ["cublas", "macko", "my-kernel"]
    assert set(KERNEL_COLOURS) == set(KERNELS), "asking changes nothing"


@pytest.mark.parametrize("kernel", list(KERNELS))
def test_markers_are_filled_letters(kernel: str) -> None:
    """So that their edge can be black, as that of measurements is, and that a format string of a plot may hold them."""
    assert MarkerStyle(KERNEL_MARKERS[kernel]).is_filled()
    assert len(KERNEL_MARKERS[kernel]) == 1


def test_a_format_has_the_colour_of_the_kernel_that_reads_it() -> None:
    readers: dict[str, set[str]] = {}
    for model in KERNELS.values():
        readers.setdefault(model.format_name, set()).add(KERNEL_COLOURS[model.name])
    assert set(FORMAT_COLOURS) <= set(FORMATS)
    for name, colour in FORMAT_COLOURS.items():
        assert colour in readers.get(name, {colour}), name
