"""Pictures of kernels say where a model gives no more than a bound."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from perfmodel.plotting import kernels
from perfmodel.plotting.style import house_style

TITLES = {"cublas": "cuBLAS", "cusparse": "cuSPARSE"}


@pytest.fixture(autouse=True)
def style() -> Iterator[None]:
    with house_style():
        yield
    plt.close("all")


def labels(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def lines() -> pd.DataFrame:
    table = pd.DataFrame(list(product(TITLES, (0.5, 0.7, 0.9))), columns=["kernel", "sparsity"])
    return table.assign(time_us=100.0, extrapolated=table["sparsity"] > 0.8, at_least=table["kernel"] == "cusparse")


def test_a_line_that_is_a_bound_says_so() -> None:
    figure = kernels.time_against_sparsity(lines(), lines(), TITLES, top_us=200)
    assert labels(figure)[:2] == ["cuBLAS", "cuSPARSE (line: at least)"]
    left, right = figure.axes[0].get_xlim()
    assert left < 50
    assert right > 90, "markers at both ends are whole"


def test_tables_without_bounds_are_drawn_as_before() -> None:
    figure = kernels.time_against_sparsity(lines().drop(columns="at_least"), lines(), TITLES, top_us=200)
    assert labels(figure)[:2] == ["cuBLAS", "cuSPARSE"]


def test_a_bar_with_a_bound_for_its_rate_says_so() -> None:
    table = pd.DataFrame(list(product(TITLES, (8, 16), (0.7, 0.9))), columns=["kernel", "n", "sparsity"])
    table = table.assign(m=64, k=64, tflops=10.0, predicted_tflops=11.0, at_least=table["kernel"] == "cusparse")
    assert labels(kernels.kernel_benchmark(table, TITLES))[:2] == ["cuBLAS", "cuSPARSE (dash: at most)"]


def test_solid_and_dotted_stretches_meet() -> None:
    table = lines()[lines()["kernel"] == "cublas"]
    parts = dict(kernels.stretches(table["time_us"], table["extrapolated"]))
    assert list(parts["-"].notna()) == [True, True, True]
    assert list(parts[":"].notna()) == [False, False, True]
    assert list(dict(kernels.stretches(table["time_us"], table["sparsity"] > 1))) == ["-"]
