"""Pictures of kernels say where a model gives no more than a bound."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from perfmodel.plotting import kernels
from perfmodel.plotting.style import KERNEL_COLOURS, KERNEL_MARKERS, house_style

TITLES = {"cublas": "cuBLAS", "cusparse": "cuSPARSE"}


@pytest.fixture(autouse=True)
def style() -> Iterator[None]:
    with house_style():
        yield
    plt.close("all")


def words(figure: Figure) -> set[str]:
    return {text.get_text() for text in figure.findobj(Text)}


def lines() -> pd.DataFrame:
    table = pd.DataFrame(list(product(TITLES, (0.5, 0.7, 0.9))), columns=["kernel", "sparsity"])
    ends = {"time_us": 100.0, "low_us": 80.0, "high_us": 130.0}
    return table.assign(**ends, extrapolated=table["sparsity"] > 0.8, at_least=table["kernel"] == "cusparse")


def bars() -> pd.DataFrame:
    table = pd.DataFrame(list(product(TITLES, (8, 16), (0.7, 0.9))), columns=["kernel", "n", "sparsity"])
    return table.assign(m=64, k=64, tflops=10.0, predicted_tflops=11.0, at_least=table["kernel"] == "cusparse")


def test_a_line_that_is_a_bound_says_so_and_has_no_band() -> None:
    figure = kernels.time_against_sparsity(lines(), lines(), TITLES, top_us=200)
    assert {"cuBLAS", "cuSPARSE,\nat least"} <= words(figure)
    left, right = figure.axes[0].get_xlim()
    assert left < 50
    assert right > 90, "markers at both ends are whole"
    drawn = {to_hex(part.get_facecolor()[0]) for part in figure.axes[0].collections if len(part.get_facecolor())}
    assert to_hex(KERNEL_COLOURS["cublas"]) in drawn
    assert to_hex(KERNEL_COLOURS["cusparse"]) not in drawn


def test_the_band_is_hatched_where_extrapolated_and_nowhere_else() -> None:
    figure = kernels.time_against_sparsity(lines(), lines(), TITLES, top_us=200)
    bands = {bool(part.get_hatch()): part.get_datalim(figure.axes[0].transData) for part in figure.axes[0].collections}
    assert (bands[True].x0, bands[True].x1) == (90, 90)
    assert (bands[False].x0, bands[False].x1) == (50, 90), "shaded and hatched parts meet"


def test_published_are_markers_and_the_model_a_line_through_them() -> None:
    figure = kernels.kernel_benchmark(bars(), TITLES)
    assert {"cuBLAS", "cuSPARSE,\nat most", "N = 8", "N = 16"} <= words(figure)
    for axes in figure.axes:
        seen = [line for line in axes.lines if line.get_marker() == KERNEL_MARKERS["cublas"]]
        model = [line for line in axes.lines if line.get_linestyle() == "-" and line.get_marker() == "None"]
        assert [list(line.get_ydata()) for line in seen] == [[10, 10]]
        assert [list(line.get_ydata()) for line in model] == [[11, 11]]


def test_a_panel_alone_is_higher_than_one_of_several() -> None:
    table = bars()
    one = kernels.kernel_benchmark(table[table["n"] == 16], TITLES)
    assert len(one.axes) == 1
    assert one.get_figheight() > kernels.kernel_benchmark(table, TITLES).get_figheight() / 2


def test_solid_and_dotted_stretches_meet() -> None:
    table = lines()[lines()["kernel"] == "cublas"]
    parts = dict(kernels.stretches(table["time_us"], table["extrapolated"]))
    assert list(parts["-"].notna()) == [True, True, True]
    assert list(parts[":"].notna()) == [False, False, True]
    assert list(dict(kernels.stretches(table["time_us"], table["sparsity"] > 1))) == ["-"]


def test_formats_of_one_size_share_a_line_with_both_names() -> None:
    grid = [0.0, 0.5, 1.0]
    sizes = pd.concat(
        pd.DataFrame({"format": name, "sparsity": grid, "bits": [at, at / 2, 0.0]})
        for name, at in (("tiled-csl", 32.0), ("sputnik-csr", 32.1), ("coo", 80.0))
    )
    titles = {"tiled-csl": "Tiled-CSL", "sputnik-csr": "Sputnik CSR", "coo": "COO"}
    found = {name: set(rows["format"]) for name, rows in kernels.coinciding(sizes, titles)}
    assert sorted(map(sorted, found.values())) == [["coo"], ["sputnik-csr", "tiled-csl"]]
    assert all(titles[fmt] in name for name, formats in found.items() for fmt in formats)


def test_the_share_of_the_roof_is_that_of_the_dense_kernel() -> None:
    roof = pd.DataFrame({"intensity": [1.0, 100.0, 1000.0], "flops_per_s": [2e12, 2e14, 2e14]})
    points = pd.DataFrame({"kernel": ["cublas", "flash-llm"], "n": 8, "intensity": [10.0, 20.0]})
    points = points.assign(flops_per_s=[15e12, 30e12], published_flops_per_s=[15e12, 10e12])
    figure = kernels.roofline(roof, points, {"cublas": "cuBLAS", "flash-llm": "Flash-LLM"})
    assert "75% of it" in words(figure)
