"""The checks of where texts stand find what is wrong, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from tests.perfmodel.plotting.boxes import on_markers, overlaps


@pytest.fixture
def axes() -> Iterator[Axes]:
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def test_texts_apart_are_no_fault(axes: Axes) -> None:
    axes.text(0.1, 0.1, "one")
    axes.text(0.1, 0.5, "two", rotation=45, rotation_mode="anchor")
    assert overlaps(axes.figure) == []


def test_texts_on_each_other_are_found_however_turned(axes: Axes) -> None:
    axes.text(0.1, 0.1, "a long line of words")
    axes.text(0.2, 0.05, "steep", rotation=60, rotation_mode="anchor")
    assert overlaps(axes.figure) == [("a long line of words", "steep")]


def test_the_corner_beside_a_slanted_text_is_free(axes: Axes) -> None:
    axes.text(0.1, 0.1, "a long slanted line", rotation=45, rotation_mode="anchor")
    axes.text(0.1, 0.4, "x")
    assert overlaps(axes.figure) == []


def test_words_on_a_marker_are_found(axes: Axes) -> None:
    axes.plot([0.5], [0.5], "o")
    axes.text(0.5, 0.5, "hides it", ha="center", va="center")
    axes.text(0.1, 0.1, "hides nothing")
    assert on_markers(axes.figure) == ["hides it"]
