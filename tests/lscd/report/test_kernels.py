"""Chapter on one product: the held-out panel, lines called as the benchmark was, and a bound that is no time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.text import Text

from lscd.report import kernels
from lscd.report.exhibit import Context, percent
from perfmodel.plotting.style import house_style

BOUNDED = "cusparse"


@pytest.fixture(autouse=True)
def style() -> Iterator[None]:
    with house_style():
        yield
    plt.close("all")


def test_held_out_panel_is_sixteen_tokens_and_nothing_else(context: Context) -> None:
    """Products of 8 and 32 tokens whose weights the L2 holds are held out too, but are not that panel."""
    rows = context.joined[context.joined["source"] == "flash-llm-fig9"]
    assert (~rows.loc[rows["n"] != kernels.HELD_OUT_TOKENS, "fitted"]).any()
    panel = rows[rows["n"] == kernels.HELD_OUT_TOKENS]
    exhibit = kernels.kernel_benchmark_n16(context)
    assert set(exhibit.table["n"]) == {kernels.HELD_OUT_TOKENS}
    for kernel in kernels.GOALS:
        mean = panel.loc[panel["kernel"] == kernel, "error"].abs().mean()
        assert f"{kernels.TITLES[kernel]} {percent(mean)}" in exhibit.finding


def test_lines_are_called_in_a_loop_as_the_benchmark_was(context: Context) -> None:
    seen = context.joined[context.joined["source"] == "flash-llm-sweep"]
    for kernel in ("flash-llm", "sputnik"):
        rows = seen[seen["kernel"] == kernel]
        line = kernels.sweep_line(kernel, kernels.GPU, **kernels.SWEEP_SHAPE, sparsity=rows["sparsity"].to_numpy())
        np.testing.assert_allclose(line["time_us"], rows["predicted_us"])


def test_a_bound_is_drawn_as_one_and_judged_nowhere(context: Context) -> None:
    for exhibit in (kernels.time_against_sparsity(context), kernels.kernel_benchmark(context)):
        assert exhibit.figure is not None
        words = {text.get_text() for text in exhibit.figure.findobj(Text)}
        mine = {word for word in words if word.startswith(kernels.TITLES[BOUNDED])}
        assert len(mine) == 1
        assert "at least" in min(mine) or "at most" in min(mine)
        assert kernels.TITLES[BOUNDED] not in exhibit.finding
    assert BOUNDED not in set(kernels.scatter(context).table["kernel"])


def test_dense_marker_stands_at_every_sparsity(context: Context) -> None:
    seen = context.joined[context.joined["source"] == "flash-llm-sweep"]
    drawn = kernels.at_every_sparsity(seen, "flash-llm")
    levels = seen.loc[seen["kernel"] == "flash-llm", "sparsity"]
    assert sorted(drawn.loc[drawn["kernel"] == "cublas", "sparsity"]) == sorted(levels)
    assert drawn.loc[drawn["kernel"] == "cublas", "time_us"].nunique() == 1
