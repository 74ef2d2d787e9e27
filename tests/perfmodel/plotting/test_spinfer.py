"""Pictures of SpInfer's figures: boxes where the quartiles are, lines and markers on the right panels."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle

from perfmodel.plotting import spinfer
from perfmodel.plotting.style import house_style

SYSTEMS = {"fastertransformer+bitmap": "SpInfer", "fastertransformer": "FasterTransformer"}


@pytest.fixture(autouse=True)
def style() -> Iterator[None]:
    with house_style():
        yield
    plt.close("all")


def boxes() -> pd.DataFrame:
    cases = list(product(("rtx-4090", "rtx-a6000"), ("bitmap", "sputnik"), (8, 16), (0.5, 0.7)))
    table = pd.DataFrame(cases, columns=["gpu", "kernel", "n", "sparsity"])
    levels = {"q1": 0.9, "median": 1.0, "q3": 1.2}
    published = {name: value * (1 + table["sparsity"]) for name, value in levels.items()}
    return table.assign(**published, **{f"predicted_{name}": 1.1 * values for name, values in published.items()})


def test_boxes_stand_where_the_quartiles_are() -> None:
    table = boxes()
    titles = {"bitmap": "SpInfer", "sputnik": "Sputnik"}
    figure = spinfer.quartiles(table, titles, {"rtx-4090": "RTX 4090", "rtx-a6000": "RTX A6000"})
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        f"{gpu}, N = {n}" for gpu in ("RTX 4090", "RTX A6000") for n in (8, 16)
    ]
    for axes in figure.axes:
        drawn = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
        assert len(drawn) == 2 * 2 * 2  # kernels, sparsities, published and predicted
        edges = sorted((round(box.get_y(), 6), round(box.get_y() + box.get_height(), 6)) for box in drawn)
        rows = table[(table["gpu"] == "rtx-4090") & (table["n"] == 8)]
        both = [rows[[f"{which}q1", f"{which}q3"]].round(6) for which in ("", "predicted_")]
        assert edges == sorted(map(tuple, np.concatenate(both).tolist()))
        at = sorted(box.get_x() + box.get_width() / 2 for box in drawn)
        assert min(np.diff(at)) > drawn[0].get_width(), "no box over another"


def test_hollow_boxes_are_the_predicted_ones() -> None:
    table = boxes()
    figure = spinfer.quartiles(table, {"bitmap": "SpInfer", "sputnik": "Sputnik"}, {"rtx-4090": "RTX 4090"})
    hollow = [box for box in figure.axes[0].patches if box.get_facecolor()[:3] == (1.0, 1.0, 1.0)]
    predicted = table[(table["gpu"] == "rtx-4090") & (table["n"] == 8)]["predicted_q1"]
    assert sorted(round(box.get_y(), 6) for box in hollow) == sorted(predicted.round(6))


def test_edges_are_darker_than_what_they_enclose() -> None:
    assert spinfer.darker("#ffffff") == pytest.approx((spinfer.DARKER,) * 3 + (1.0,))


def test_token_sweep_shows_all_of_both() -> None:
    n = np.array([8, 64, 512, 4096])
    lines = pd.concat(
        pd.DataFrame(
            {"kernel": "bitmap", "n": n, "sparsity": s, "speedup": 2.2 - 0.3 * np.log10(n), "extrapolated": True}
        )
        for s in (0.5, 0.6)
    )
    markers = lines[lines["n"] != 512].assign(speedup=lambda rows: 1.2 * rows["speedup"])
    figure = spinfer.token_sweep(lines, markers, {"bitmap": "SpInfer"})
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["50 % sparsity", "60 % sparsity"]
    for axes in figure.axes:
        shown = [line for line in axes.lines if len(line.get_xdata()) > 2]
        assert max(np.nanmax(np.asarray(line.get_ydata(), dtype=float)) for line in shown) < axes.get_ylim()[1]
        assert any(line.get_linestyle() == ":" for line in shown)
        assert any(line.get_marker() == "P" for line in shown)


def test_each_run_is_on_the_panel_of_its_setup_and_length() -> None:
    cases = list(product(("OPT-13B\n1 GPU", "OPT-30B\n2 GPUs"), (64, 512), SYSTEMS, (8, 16, 32)))
    lines = pd.DataFrame(cases, columns=["setup", "output_len", "system", "batch"])
    lines["tokens_per_gpu_s"] = lines["batch"] * np.where(lines["setup"].str.startswith("OPT-13B"), 30.0, 10.0)
    markers = lines[lines["batch"] < 32]
    figure = spinfer.end_to_end(lines, markers, SYSTEMS)
    assert len(figure.axes) == 4
    assert [axes.get_ylabel() for axes in figure.axes[::2]] == ["OPT-13B\n1 GPU", "OPT-30B\n2 GPUs"]
    for axes, top in zip(figure.axes, (960, 960, 320, 320), strict=True):
        line, seen = axes.lines[:2]
        assert list(line.get_xdata()) == [8, 16, 32]
        assert list(seen.get_xdata()) == [8, 16]
        assert max(line.get_ydata()) == top < axes.get_ylim()[1]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(SYSTEMS.values())
