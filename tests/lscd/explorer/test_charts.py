"""The explorer's charts: the tables' numbers, and nothing fetched."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lscd.explorer import charts, run_charts
from lscd.explorer.state import PRESETS, State
from lscd.explorer.view import View, view
from perfmodel.plotting import vega

DRAWINGS = (
    charts.kernel_times, charts.speedups, charts.roofline,
    run_charts.memory, run_charts.throughput, run_charts.breakdown, run_charts.operators, run_charts.tradeoff,
)  # fmt: skip


@pytest.mark.parametrize("name", PRESETS)
def test_charts_carry_the_tables_numbers_and_no_address(name: str) -> None:
    found = view(PRESETS[name].state)
    specs = {chart.name: chart.spec for chart in (draw(found) for draw in DRAWINGS)}
    assert {row["kernel"] for row in specs["kernels"]["data"]["values"]} == set(found.kernels["kernel"])
    drawn = {row["kernel"]: row["time_us"] for row in specs["kernels"]["data"]["values"]}
    assert drawn == pytest.approx(dict(zip(found.kernels["kernel"], found.kernels["time_us"], strict=True)))
    assert sum(row["gigabytes"] for row in specs["memory"]["layer"][0]["data"]["values"]) == pytest.approx(
        found.memory["gigabytes"].sum()
    )
    own = found.operators.groupby("phase")["time_s"].sum() * 1e3
    bars = pd.DataFrame(specs["breakdown"]["layer"][0]["data"]["values"]).groupby("bar")["milliseconds"].sum()
    for phase, whole in own.items():
        bar = phase if found.system == found.engine else f"{phase}, chosen"
        assert bars[bar] == pytest.approx(whole)
    dots = specs["operators"]["layer"][2]["data"]["values"]
    rows = found.operators.set_index(["phase", "operator"])
    assert dots
    for dot in dots:
        row = rows.loc[(dot["phase"], dot["operator"])]
        assert dot["tflops"] == pytest.approx(row["flop"] / row["time_s"] / 1e12)
        assert dot["intensity"] == pytest.approx(row["intensity"])
    front = specs["tradeoff"]["layer"][2]["data"]["values"] if specs["tradeoff"]["layer"] else []
    assert {(dot["system"], dot["batch"]) for dot in front} == set(
        found.tradeoff.loc[found.tradeoff["front"], ["system", "batch"]].itertuples(index=False, name=None)
    )
    text = json.dumps(specs, allow_nan=False)
    assert "http" not in text


def test_a_chart_shows_itself_in_jupyter(shown: View) -> None:
    bundle = run_charts.memory(shown)._repr_mimebundle_()
    assert bundle[vega.MIME]["layer"]
    assert "GB needed" in bundle["text/plain"]


@pytest.mark.parametrize("gpu", ["h100", "rtx-4090"])
def test_numbers_under_the_roof_leave_each_other_readable(gpu: str) -> None:
    found = view(State("llama-3.1-70b", gpu, 8, "vllm", unmeasured=True))
    spec = charts.roofline(found).spec
    marks, numbers = (layer["data"]["values"] for layer in spec["layer"][1:])
    ends = [spec["layer"][2]["encoding"][axis]["scale"]["domain"] for axis in "xy"]
    sizes = charts.ROOFLINE_PX, spec["height"]

    def place(row: dict[str, Any]) -> list[float]:
        values = row["intensity"], row["tflops"]
        pairs = zip(values, ends, sizes, strict=True)
        return [size * np.log(value / low) / np.log(high / low) for value, (low, high), size in pairs]

    def close(row: dict[str, Any], other: dict[str, Any]) -> bool:
        apart = np.abs(np.subtract(place(row), place(other)))
        return bool((apart < charts.NUMBER_PX).all())

    assert 1 < len(numbers) < len(marks)
    assert not any(close(one, other) for one, other in itertools.combinations(numbers, 2))
    shown = {row["rank"] for row in numbers}
    for row in marks:
        assert row["rank"] in shown or any(close(row, one) and one["rank"] < row["rank"] for one in numbers)
    assert spec["description"].endswith("in the kernel times, where there is room.")
