"""A chart with a slider: moving it picks rows of a table that was computed beforehand, so that nothing has to run.

The browser moves it, by mouse, arrow keys or Page Up and Page Down (JupyterLab keeps arrows for itself). Where nothing
moves, as on GitHub and in the documentation, a picture of the value that it opens with stands in its place.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd

from perfmodel.plotting import vega
from perfmodel.plotting.style import BLACK, FORMAT_COLOURS, GREY, KERNEL_COLOURS, OTHERS

WIDTH, BAR = 560, 26  # pixels between the axes, and of a bar
PALETTE = 64  # colours of the picture
DIGITS = 5  # of a number in the browser: finer than a pixel
HEADROOM = 1.06  # above the highest value
COLOURS = {**FORMAT_COLOURS, **KERNEL_COLOURS}
MARKER = {"type": "point", "filled": True, "size": 55, "opacity": 1, "stroke": BLACK, "strokeWidth": 0.6}
LABEL = {"type": "text", "align": "left", "dx": 5, "color": BLACK}
STILL = "a slider moves this in JupyterLab"


class Slider(vega.Chart):
    """A chart that shows itself with its slider, or as a picture where that cannot be."""

    def _repr_mimebundle_(self, **_: Any) -> vega.Spec:
        """How Jupyter shows it, and whoever reads what Jupyter stored."""
        picture = {"image/png": base64.b64encode(self.picture()).decode()} if find_spec("vl_convert") else {}
        return super()._repr_mimebundle_() | picture

    def picture(self) -> bytes:
        """PNG of the chart as it opens, which says where it moves; needs vl-convert-python."""
        from matplotlib.image import imread
        from PIL import Image
        from vl_convert import vegalite_to_png

        title = self.spec["title"]
        still = title | {"subtitle": [*title["subtitle"], STILL]}
        drawn = vegalite_to_png(self.spec | {"title": still}, vl_version=vega.VERSION, scale=1.5, allowed_base_urls=[])
        pixels = (imread(BytesIO(drawn))[..., :3] * 255).round().astype(np.uint8)
        small = BytesIO()  # a tenth of the bytes, which notebooks keep
        Image.fromarray(pixels).quantize(PALETTE).save(small, "PNG", optimize=True)
        return small.getvalue()


def slider(
    table: pd.DataFrame,
    by: str,
    start: Any,
    *,
    x: str,
    y: str,
    series: str | None = None,
    measured: str | None = None,
    words: Mapping[str, str] | None = None,
    colours: Mapping[str, str] | None = None,
    rules: Mapping[str, float] | None = None,
    log: str = "",
) -> Slider:
    """A chart of the rows where ``by`` has the slider's value: lines, or bars along x where ``y`` holds text.

    Parameters
    ----------
    table : DataFrame
        Every row that the slider may ask for.
    by, start
        Column that the slider moves through, and the value it opens with. It stops at that column's values only.
    x, y, series, measured
        Columns: of both axes; of the names of lines, or of the parts that a bar is stacked from; of what somebody
        measured, drawn as markers where a line has its y and a bar its x.
    words : mapping, optional
        What readers see for a column, its unit included, and for a name in it.
    colours : mapping, optional
        Of names other than kernels and formats, which have theirs.
    rules : mapping, optional
        Words to the value where a dashed line bears them.
    log : str
        Which axes of lines are logarithmic: "", "x", "y" or "xy".

    Raises
    ------
    ValueError
        If a column is missing, nothing can be drawn, or ``start`` is not among the values of ``by``.

    Examples
    --------
    >>> table = pd.DataFrame({"n": [1, 1, 8, 8], "sparsity": [0.5, 0.9, 0.5, 0.9], "time_us": [4.0, 2.0, 5.0, 3.0]})
    >>> slider(table, "n", 8, x="sparsity", y="time_us").spec["description"]
    'time_us over sparsity. A slider sets n to one of 1, 8; it opens at 8.'
    """
    given = {"x": x, "y": y, "series": series, "measured": measured}
    parts = {part: column for part, column in given.items() if column}
    stops = _stops(table, by, start, list(parts.values()))
    rows = _rows(table, parts, pd.Index(stops).get_indexer(table[by]))
    words = words or {}
    titles = {part: words.get(column, column) for part, column in [*parts.items(), ("step", by)]}
    return _chart(_Drawing(rows, titles, words, COLOURS | dict(colours or {}), rules or {}, log), stops, start)


def _stops(table: pd.DataFrame, by: str, start: Any, columns: list[str]) -> list[Any]:
    """Values that the slider stops at: numbers in rising order, text as it comes."""
    absent = [column for column in [by, *columns] if column not in table]
    if absent:
        raise ValueError(f"no column {absent[0]!r} in the table: it has {', '.join(map(str, table))}")
    stops = table[by].unique()
    if start not in stops:
        raise ValueError(
            f"the slider cannot open at {start!r}: {by!r} is one of {', '.join(map(str, stops)) or 'none'}"
        )
    return (np.sort(stops) if pd.api.types.is_numeric_dtype(stops) else stops).tolist()


def _rows(table: pd.DataFrame, parts: Mapping[str, str], steps: np.ndarray) -> pd.DataFrame:
    """Rows with something to draw, by the parts their columns play, each with its stop; what is infinite is absent."""
    rows = pd.DataFrame({"step": steps, **{part: table[column].to_numpy() for part, column in parts.items()}})
    numbers = rows.select_dtypes("number").columns
    rows[numbers] = rows[numbers].map(lambda number: float(f"{number:.{DIGITS}g}") if np.isfinite(number) else np.nan)
    value = "y" if "y" in numbers else "x"
    if value not in numbers or rows[value].isna().all():
        raise ValueError(f"nothing to draw: no number in column {parts[value]!r}")
    rows = rows.dropna(axis="columns", how="all")
    return rows.dropna(subset=[name for name in (value, "measured") if name in rows], how="all")


@dataclass(frozen=True)
class _Drawing:
    """Rows of ``step, x, y`` and perhaps ``series, measured``, and what readers see for them."""

    rows: pd.DataFrame
    titles: Mapping[str, str]
    words: Mapping[str, str]
    colours: Mapping[str, str]
    rules: Mapping[str, float]
    log: str

    @property
    def bars(self) -> bool:
        return not pd.api.types.is_numeric_dtype(self.rows["y"])

    @property
    def value(self) -> str:
        """The axis that bars or lines reach along."""
        return "x" if self.bars else "y"

    def names(self, part: str) -> dict[str, str]:
        """Each name in a column of text, and what readers see for it."""
        return {name: self.words.get(name, name) for name in self.rows[part].unique()}

    def data(self) -> vega.Spec:
        """Rows in readers' words."""
        text = [part for part in ("y"[: self.bars], "series") if part in self.rows]
        rows = self.rows.assign(**{part: self.rows[part].map(self.names(part)) for part in text})
        return vega.values(rows.assign(place=pd.factorize(rows["series"])[0]) if "series" in rows else rows)

    def layers(self) -> list[vega.Spec]:
        """Model, measurements and rules, in the order in which they are drawn."""
        tip = [vega.tip(part, title) for part, title in self.titles.items() if part != "step"]
        place = {axis: self._axis(axis) for axis in ("x", "y")}
        mark = {"type": "bar", "height": {"band": 0.7}} if self.bars else {"type": "line", "strokeWidth": 2.5}
        layers = [_shown(mark, **place, **self._look(), tooltip=tip)]
        if self.bars:
            whole = {"aggregate": [{"op": "sum", "field": "x", "as": "x"}], "groupby": ["y"]}
            text = {"field": "x", "type": "quantitative", "format": ",.3~r"}
            layers.append(_shown(LABEL, whole, **place, text=text))
        if "measured" in self.rows:
            seen = place | {self.value: place[self.value] | {"field": "measured"}}
            layers.append(_shown(MARKER, **seen, **{"color": self._look().get("color", {"value": BLACK})}, tooltip=tip))
        return layers + [each for name, at in self.rules.items() for each in self._rule(name, at)]

    def _axis(self, axis: str) -> vega.Spec:
        if axis == "y" and self.bars:
            names = list(self.names("y").values())
            label = {"labelLimit": 220, "ticks": False}
            return {
                "field": "y",
                "type": "nominal",
                "title": self.titles["y"],
                "scale": {"domain": names},
                "axis": label,
            }
        low, high = self._ends(axis)
        if axis in self.log and not self.bars:
            return vega.log(axis, self.titles[axis], [low, high])
        return vega.axis(axis, self.titles[axis], scale={"domain": [low, high], "nice": False, "zero": False})

    def _ends(self, axis: str) -> tuple[float, float]:
        """The same for every stop of the slider, so that what moves is the curve."""
        numbers = self.rows[axis]
        if axis == self.value:
            stacked = self.rows.groupby(["step", "y"])["x"].sum() if self.bars else numbers
            numbers = pd.concat([stacked, self.rows.get("measured", pd.Series()), pd.Series(self.rules)])
        if axis in self.log and not self.bars:
            numbers = numbers[numbers > 0]
        low = 0.0 if axis == self.value and axis not in self.log else numbers.min()
        return float(low), float(numbers.max() * (HEADROOM if axis == self.value else 1))

    def _look(self) -> vega.Spec:
        """Colour and dash of each line; colour of each bar, or part of one."""
        part = "series" if "series" in self.rows else "y" if self.bars else None
        if part is None:
            return {}
        names, others = self.names(part), cycle(OTHERS)
        colours = [self.colours.get(name) or next(others) for name in names]
        scale = {"domain": list(names.values()), "range": colours}
        colour: vega.Spec = (
            vega.named(part, scale, 4) if part == "series" else {"field": part, "scale": scale, "legend": None}
        )
        if self.bars:
            in_order = {"order": {"field": "place", "type": "quantitative"}} if part == "series" else {}
            return {"color": colour, **in_order}
        legend = colour["legend"] | {"symbolType": "stroke", "symbolSize": 500, "symbolStrokeWidth": 2.5}
        dashes = [vega.DASHES[i % len(vega.DASHES)] for i in range(len(names))]
        return {"color": colour | {"legend": legend}, "strokeDash": vega.named(part, scale | {"range": dashes}, 4)}

    def _rule(self, name: str, at: float) -> list[vega.Spec]:
        """A dashed line across the picture, its words at the end."""
        end = {"align": "left", "dx": 3, "dy": -4, "y": 0} if self.bars else {"align": "right", "dy": -6, "x": WIDTH}
        marks: list[vega.Spec] = [vega.MARKER_LINE, {"type": "text", "color": GREY, "text": name, **end}]
        return [vega.layer(mark, **{self.value: {"datum": at}}) | {"data": {"values": [{}]}} for mark in marks]


def _shown(mark: vega.Spec, *transforms: vega.Spec, **encoding: Any) -> vega.Spec:
    """A layer of the rows that the slider picks."""
    return vega.layer(mark, **encoding) | {"transform": [{"filter": "datum.step === stop"}, *transforms]}


def _chart(drawing: _Drawing, stops: list[Any], start: Any) -> Slider:
    """The drawing under a title that says where the slider stands."""
    by, value, other = (drawing.titles[part] for part in ("step", *(("x", "y") if drawing.bars else ("y", "x"))))
    forms = {float: f",.{DIGITS}g", int: ","}
    shown = [format(stop, forms.get(type(stop), "")) for stop in stops]
    known = [f"{'bar' if drawing.bars else 'line'}: model, marker: measured"] if "measured" in drawing.rows else []
    spoken = f"{value} over {other}. A slider sets {by} to one of {', '.join(shown)}; it opens at {start}."
    title = {"text": {"expr": f"{json.dumps(f'{by}: ')} + {json.dumps(shown)}[stop]"}, "subtitle": known}
    made = vega.chart(
        "slider",
        spoken,
        BAR * drawing.rows["y"].nunique() if drawing.bars else vega.HEIGHT,
        drawing.layers(),
        width=WIDTH,
        data=drawing.data(),
        params=_params(by, stops, start),
        title=title | {"anchor": "start", "frame": "group"},
    )
    return Slider(made.name, made.spec)


def _params(by: str, stops: list[Any], start: Any) -> list[vega.Spec]:
    """The slider, which shows the value itself where stops are evenly spaced, and otherwise its number among them."""
    spaces = np.diff(stops) if not isinstance(stops[0], str) else np.arange(0)
    even = len(spaces) > 0 and np.allclose(spaces, spaces[0])
    low, step = (stops[0], float(f"{spaces[0]:.{DIGITS}g}")) if even else (1, 1)
    at = start if even else stops.index(start) + 1
    name = f"{by} " if even else f"{by}, stop of {len(stops)} "
    bind = {"input": "range", "min": low, "max": stops[-1] if even else len(stops), "step": step, "name": name}
    return [
        {"name": "slider", "value": at, "bind": bind},
        {"name": "stop", "expr": f"round((slider - {low}) / {step})"},
    ]
