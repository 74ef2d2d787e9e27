"""Every kernel has a colour of its own, and among its rivals a marker."""

from __future__ import annotations

import ast
from itertools import chain, combinations, product
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.markers import MarkerStyle

from perfmodel.formats import FORMATS
from perfmodel.kernels import CPU_KERNELS, GPU_KERNELS, KERNELS
from perfmodel.plotting import style
from perfmodel.plotting.style import FORMAT_COLOURS, KERNEL_COLOURS, KERNEL_MARKERS, OTHERS, in_order

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


def redmean(one: str, other: str) -> float:
    """A distance that weighs green most, as eyes do; black to white is 765."""
    a, b = (255 * np.array(to_rgb(colour)) for colour in (one, other))
    red = (a[0] + b[0]) / 2
    return float(np.sqrt((a - b) ** 2 @ [2 + red / 256, 4, 2 + (255 - red) / 256]))


def test_colours_are_far_enough_apart_to_tell() -> None:
    for one, other in chain.from_iterable(combinations([*device, "my-kernel"], 2) for device in DEVICES):
        assert redmean(KERNEL_COLOURS[one], KERNEL_COLOURS[other]) > 70, (one, other)


# Machado, Oliveira, Fernandes, "A physiologically-based model for simulation of color vision deficiency", 2009.
DEUTERANOPIA = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
)
PROTANOPIA = np.array(
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
)


def seen(colour: str, eye: np.ndarray) -> str:
    """A colour as an eye without one kind of cone sees it."""
    srgb = np.array(to_rgb(colour))
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    light = np.clip(eye @ linear, 0, 1)
    return to_hex(np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055))


def test_what_is_no_kernel_has_colours_apart_from_all_of_theirs() -> None:
    for colour, kernel in product(OTHERS, KERNEL_COLOURS):
        assert redmean(colour, KERNEL_COLOURS[kernel]) > 70, (colour, kernel)


@pytest.mark.parametrize("eye", [np.eye(3), DEUTERANOPIA, PROTANOPIA], ids=["all cones", "no green", "no red"])
def test_the_first_six_of_these_stay_apart_for_every_eye(eye: np.ndarray) -> None:
    for one, other in combinations(OTHERS[:6], 2):
        assert redmean(seen(one, eye), seen(other, eye)) > 70, (one, other)


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


ROOT = Path(__file__).parents[3]
DRAWING = sorted({*(ROOT / "perfmodel" / "plotting").glob("*.py"), ROOT / "lscd" / "explorer" / "charts.py"})
INK = {style.BLACK, style.GREY}  # of axes, words and bounds in any picture, and of two kernels


def colours_of(module: Path) -> set[str]:
    """Every colour that a module spells out: by a name of `style`, or as a literal."""
    nodes = list(ast.walk(ast.parse(module.read_text())))
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module == style.__name__]
    named = [getattr(style, alias.name) for node in imports for alias in node.names]
    literal = [node.value for node in nodes if isinstance(node, ast.Constant)]
    return {value.upper() for value in named + literal if isinstance(value, str) and value.startswith("#")}


@pytest.mark.parametrize("module", [path for path in DRAWING if path.stem != "style"], ids=lambda path: path.stem)
def test_no_figure_gives_a_kernels_colour_to_something_else(module: Path) -> None:
    """A kernel's colour comes from `KERNEL_COLOURS` by the kernel's name, never by the colour's own."""
    assert colours_of(module) & (set(KERNEL_COLOURS.values()) - INK) == set()
