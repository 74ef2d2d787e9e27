"""Pictures of the simulator are drawn."""

from __future__ import annotations

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.patches import PathPatch, Rectangle

from perfmodel.pipeline import simulate
from perfmodel.pipeline.timeline import busy_table, stall_table, timeline
from perfmodel.pipeline.words import RATES, WAITS
from tests.perfmodel.pipeline.cases import SHAPE
from tests.perfmodel.plotting.boxes import overlaps


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


def test_agreement_hatches_guesses_and_frames_what_is_outside_its_interval():
    from perfmodel.plotting.pipeline import agreement
    from perfmodel.plotting.style import house_style

    table = pd.DataFrame(
        [("h100", 8, 0.5, 1.0, True, False), ("h100", 8, 0.9, 1.2, False, False), ("h100", 16, 0.5, 1.0, True, True),
         ("h100", 16, 0.9, 0.6, False, True)],
        columns=["gpu", "n", "sparsity", "ratio", "within", "extrapolated"],
    )  # fmt: skip
    with house_style():
        figure = agreement(table)
        axes = figure.axes[0]
        (hatched,) = [patch for patch in axes.patches if isinstance(patch, PathPatch)]
        assert sorted(cell.mean(axis=0).round().tolist() for cell in hatched.get_path().to_polygons()) == [
            [0, 1],
            [1, 1],
        ]
        frames = [patch.get_xy() for patch in axes.patches if isinstance(patch, Rectangle)]
        assert sorted((round(x + 0.46), round(y + 0.46)) for x, y in frames) == [(1, 0), (1, 1)]
        assert not overlaps(figure)
        plt.close(figure)


def test_letters_are_dark_on_light_and_light_on_dark():
    from perfmodel.plotting.pipeline import readable_on

    assert readable_on("#ffffff") != "white" == readable_on("#000000")
