"""Every figure is one of a paper: of its widths, its letters readable and nowhere on each other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from matplotlib import pyplot as plt
from matplotlib.text import Text

from lscd.report import inside, kernels, pays, trust
from lscd.report.exhibit import Context, Maker
from perfmodel.plotting.style import house_style
from tests.figures import faults
from tests.perfmodel.plotting.boxes import on_markers, overlaps

SLOW = {inside.agreement, trust.interval_coverage}  # minutes of simulation or of fits; tests of plotting draw them
MAKERS = [
    maker
    for chapter in (kernels.CHAPTER, pays.CHAPTER, inside.CHAPTER, trust.CHAPTER)
    for maker in chapter.makers
    if maker not in SLOW
]


@pytest.fixture(autouse=True)
def style() -> Iterator[None]:
    with house_style():
        yield
    plt.close("all")


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
def test_a_figure_is_fit_to_print(maker: Maker, context: Context) -> None:
    figure = maker(context).figure
    if figure is None:
        pytest.skip("a table")
    assert not faults(figure)
    assert not overlaps(figure)
    assert not on_markers(figure)


def test_every_kernel_has_its_name_in_the_figure(context: Context) -> None:
    for maker in (
        kernels.kernel_benchmark,
        kernels.kernel_benchmark_n16,
        kernels.time_against_sparsity,
        trust.residuals,
    ):
        exhibit = maker(context)
        assert exhibit.figure is not None
        words = " ".join(text.get_text() for text in exhibit.figure.findobj(Text))
        for kernel in exhibit.table["kernel"].unique():
            assert kernels.TITLES[kernel].split(" (")[0] in words, maker.__name__
