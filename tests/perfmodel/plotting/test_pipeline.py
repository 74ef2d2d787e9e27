"""Pictures of the simulator are drawn."""

from __future__ import annotations

from matplotlib import pyplot as plt

from perfmodel.pipeline import simulate
from perfmodel.pipeline.timeline import busy_table, stall_table, timeline
from perfmodel.pipeline.words import RATES, WAITS
from tests.perfmodel.pipeline.cases import SHAPE


def test_figures_are_drawn(tmp_path):
    from perfmodel.plotting.pipeline import busy, gantt, waits
    from perfmodel.plotting.style import house_style

    result = simulate("flash-llm", "a100-80gb", *SHAPE, 8, 0.8)
    cases = {"flash-llm": result, "cublas": simulate("cublas", "a100-80gb", *SHAPE, 8)}
    with house_style():
        figures = [
            gantt(timeline(result), "title", (6, 8), result.machine.clock_hz),
            busy(busy_table(cases), RATES),
            waits(stall_table(cases), WAITS),
        ]
        for index, figure in enumerate(figures):
            figure.savefig(tmp_path / f"{index}.png")
            assert any(axes.patches for axes in figure.axes)
            plt.close(figure)
