"""Sliders: at every stop the browser shows the table's rows of that value, and no others, on axes that stay."""

from __future__ import annotations

import base64
import re
import sys
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import vl_convert

from perfmodel.plotting import vega
from perfmodel.plotting.slider import Slider, slider
from perfmodel.plotting.style import KERNEL_COLOURS

TOKENS = [1, 8, 64]  # unevenly spaced
LEVELS = [0.5, 0.6, 0.7, 0.8]  # evenly


def times() -> pd.DataFrame:
    """Two kernels over sparsity and tokens; every time occurs once."""
    grid = pd.MultiIndex.from_product([TOKENS, ["cublas", "flash-llm"], LEVELS], names=["n", "kernel", "sparsity"])
    table = grid.to_frame(index=False)
    return table.assign(time_us=100.0 + np.arange(len(table)), seen_us=np.where(table["n"] == 8, 50.0, np.nan))


def lines(**options: object) -> Slider:
    words = {"n": "tokens N", "time_us": "time [us]", "cublas": "cuBLAS", "flash-llm": "Flash-LLM"}
    return slider(times(), "n", 8, **{"x": "sparsity", "y": "time_us", "series": "kernel", "words": words, **options})


def at(chart: Slider, position: float) -> str:
    """What the browser draws with the slider there."""
    first, *others = chart.spec["params"]
    moved = chart.spec | {"params": [first | {"value": position}, *others]}
    return vl_convert.vegalite_to_svg(moved, vl_version="5.20", allowed_base_urls=[])


def positions(chart: Slider) -> np.ndarray:
    """Where the slider can stand."""
    bind = chart.spec["params"][0]["bind"]
    return np.arange(bind["min"], bind["max"] + bind["step"] / 2, bind["step"])


def drawn(svg: str, words: str) -> set[float]:
    """Numbers of one channel, as marks tell them to screen readers."""
    marks = re.findall(r'aria-label="([^"]*)" role="graphics-symbol" aria-roledescription="(?!text)', svg)
    found = [re.search(rf"(?:^|; ){re.escape(words)}: (-?[\d.,]+)", mark) for mark in marks]
    return {float(each[1].replace(",", "")) for each in found if each}


def test_a_stop_shows_the_rows_of_its_value_and_no_others() -> None:
    chart, table = lines(measured="time_us"), times()
    assert list(positions(chart)) == [1, 2, 3]
    for position, n in zip(positions(chart), TOKENS, strict=True):
        svg = at(chart, position)
        assert f"tokens N: {n}<" in svg
        assert drawn(svg, "time [us]") == set(table.loc[table["n"] == n, "time_us"])


def test_evenly_spaced_values_stand_on_the_slider_itself() -> None:
    table = times()
    chart = slider(table, "sparsity", 0.7, x="time_us", y="kernel")
    assert positions(chart) == pytest.approx(LEVELS)
    for position, level in zip(positions(chart), LEVELS, strict=True):
        svg = at(chart, float(position))
        assert f"sparsity: {level}<" in svg
        assert drawn(svg, "time_us") == set(table.loc[table["sparsity"] == level, "time_us"])


def test_the_slider_has_a_label_and_opens_at_its_start() -> None:
    (first, _) = lines().spec["params"]
    assert first["bind"]["input"] == "range"
    assert first["bind"]["name"] == "tokens N, stop of 3 "
    assert first["value"] == 2
    assert lines().spec["description"].endswith("A slider sets tokens N to one of 1, 8, 64; it opens at 8.")


@pytest.mark.parametrize("log", ["", "xy"])
def test_axes_stay_where_they_are(log: str) -> None:
    chart = lines(log=log, rules={"a limit": 400.0})
    axes = [re.findall(r'aria-label="([XY]-axis[^"]*)"', at(chart, position)) for position in positions(chart)]
    assert len(axes[0]) == 2
    assert axes[0] == axes[1] == axes[2]
    assert f"from {100 if log else 0} to 4" in axes[0][1], "the rule is within the picture"


def test_a_rule_is_drawn_once_with_its_words() -> None:
    assert at(lines(rules={"a limit": 120.0}), 1).count("a limit<") == 1


def test_models_are_lines_and_measurements_markers() -> None:
    chart = lines(measured="seen_us")
    assert chart.spec["title"]["subtitle"] == ["line: model, marker: measured"]
    marks = [each["mark"]["type"] for each in chart.spec["layer"]]
    assert marks == ["line", "point"]
    assert drawn(at(chart, 2), "seen_us") == {50.0}
    assert drawn(at(chart, 1), "seen_us") == set(), "nobody measured that value"


def test_a_kernel_has_its_colour_and_a_dash_beside_it() -> None:
    look = lines().spec["layer"][0]["encoding"]
    assert look["color"]["scale"] == {
        "domain": ["cuBLAS", "Flash-LLM"],
        "range": [KERNEL_COLOURS[name] for name in ("cublas", "flash-llm")],
    }
    assert len({str(dash) for dash in look["strokeDash"]["scale"]["range"]}) == 2


def test_bars_are_stacked_from_their_parts() -> None:
    parts = pd.DataFrame({"n": [1, 1, 8, 8], "of": "all", "part": ["a", "b"] * 2, "ms": [1.0, 2.0, 3.0, 4.0]})
    chart = slider(parts, "n", 1, x="ms", y="of", series="part")
    assert chart.spec["layer"][0]["encoding"]["x"]["scale"]["domain"][1] > 7
    svg = at(chart, 8)
    assert drawn(svg, "ms") == {3.0, 4.0}
    assert re.search(r"<text[^>]*>7<", svg), "the label is of the whole bar"


def test_jupyter_gets_the_chart_and_a_picture_that_says_where_it_moves() -> None:
    bundle = lines()._repr_mimebundle_()
    assert bundle[vega.MIME] == lines().spec
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    assert lines().picture() != lines(rules={"a limit": 120.0}).picture()
    assert lines()._mime_()[0] == vega.MIME


def test_without_the_converter_there_is_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", ModuleType("vl_convert"))
    monkeypatch.setattr("perfmodel.plotting.slider.find_spec", lambda name: None)
    assert set(lines()._repr_mimebundle_()) == {vega.MIME, "text/plain"}


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"by": "batch"}, "no column 'batch' in the table: it has n, kernel, sparsity, time_us, seen_us"),
        ({"start": 16}, "the slider cannot open at 16: 'n' is one of 1, 8, 64"),
        ({"table": times().assign(time_us=np.inf)}, "nothing to draw: no number in column 'time_us'"),
        ({"table": times().iloc[:0]}, "the slider cannot open at 8: 'n' is one of none"),
    ],
)
def test_what_cannot_be_drawn_is_refused(changed: dict[str, object], sentence: str) -> None:
    given = {"table": times(), "by": "n", "start": 8, "x": "sparsity", "y": "time_us"} | changed
    with pytest.raises(ValueError, match=re.escape(sentence)):
        slider(**given)  # type: ignore[arg-type]


def test_other_names_have_the_colours_they_are_given() -> None:
    chart = slider(times(), "n", 8, x="time_us", y="kernel", colours={"flash-llm": "#123456"})
    assert chart.spec["layer"][0]["encoding"]["color"]["scale"]["range"] == [KERNEL_COLOURS["cublas"], "#123456"]


def test_what_has_no_numbers_is_not_spoken_of() -> None:
    table = times().assign(seen_us=np.nan)
    table.loc[table["kernel"] == "flash-llm", "time_us"] = np.nan
    chart = slider(table, "n", 8, x="sparsity", y="time_us", series="kernel", measured="seen_us")
    assert chart.spec["title"]["subtitle"] == []
    assert chart.spec["layer"][0]["encoding"]["color"]["scale"]["domain"] == ["cublas"]
