"""Figures of the report as a reader of paper sees them: one of two widths, legible, no word over another or cut."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from matplotlib import pyplot as plt

from lscd.report import accuracy, beyond, column_orders, rivals, serving, spinfer, today
from lscd.report.exhibit import Context, Maker
from perfmodel.plotting.style import COLUMN, PAGE, house_style
from tests.perfmodel.plotting.sight import cut, overlaps, small

CHAPTERS = (rivals.CHAPTER, accuracy.CHAPTER, serving.CHAPTER, today.CHAPTER)
OTHERS = (
    beyond.own_kernel,
    beyond.accuracy_beside_speed,
    column_orders.column_orders,
    spinfer.box_plots,
    spinfer.many_tokens,
    spinfer.end_to_end,
    spinfer.breakdown,
)


@pytest.fixture(autouse=True)
def style() -> Iterator[None]:
    with house_style():
        yield
    plt.close("all")


@pytest.mark.parametrize(
    "maker", [*(maker for chapter in CHAPTERS for maker in chapter.makers), *OTHERS], ids=lambda maker: maker.__name__
)
def test_a_figure_is_read_at_its_size(maker: Maker, context: Context) -> None:
    figure = maker(context).figure
    if figure is None:
        return  # a table
    assert figure.get_size_inches()[0] in (COLUMN, PAGE)
    assert not small(figure)
    assert not overlaps(figure)
    assert not cut(figure)
