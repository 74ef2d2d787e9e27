"""The chart of bounds: a cell where a kernel runs, a dash where it cannot, slanted names for what nobody ran."""

from __future__ import annotations

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from perfmodel.pipeline.words import WAITS
from perfmodel.plotting.pipeline import WAIT_COLOURS
from perfmodel.plotting.roofs import RESOURCE_COLOURS, roofs
from perfmodel.plotting.style import KERNEL_COLOURS, house_style
from tests.figures import faults
from tests.perfmodel.plotting.boxes import overlaps

KERNELS = {"cublas": "cuBLAS", "numba-bitmap": "bitmap"}


def test_cells_say_what_binds_and_dashes_what_cannot_run() -> None:
    table = pd.DataFrame(
        [("h100", "cublas", 0.5, "memory", 246.0, 0.83), ("h100", "numba-bitmap", 0.5, "instructions", 144.0, 0.8),
         ("t4", "cublas", 0.5, "memory", 999.0, 0.9)],
        columns=["gpu", "kernel", "sparsity", "roof", "simulated_us", "reached"],
    )  # fmt: skip
    with house_style():
        figure = roofs(table, KERNELS, {"h100": "H100", "t4": "T4"}, ("numba-bitmap",))
        hopper, turing = figure.axes
        cells = [to_hex(patch.get_facecolor()) for patch in hopper.patches if isinstance(patch, Rectangle)]
        assert cells == [RESOURCE_COLOURS[name].lower() for name in ("memory", "instructions")]
        assert [text.get_text() for text in hopper.texts] == ["246", "83%", "144", "80%"]
        assert [text.get_text() for text in turing.texts] == ["999", "90%", "-"]
        assert [label.get_fontstyle() for label in hopper.get_yticklabels()] == ["normal", "italic"]
        assert not overlaps(figure)
        assert not faults(figure)
        plt.close(figure)


def test_resources_have_colours_that_no_kernel_has() -> None:
    assert set(WAIT_COLOURS) == set(WAITS)
    assert not {*RESOURCE_COLOURS.values(), *WAIT_COLOURS.values()} & set(KERNEL_COLOURS.values())
