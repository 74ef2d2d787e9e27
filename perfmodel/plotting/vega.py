"""Vega-Lite specifications: pictures that the reader's browser draws from the numbers of a table.

A picture costs the server under a millisecond, the browser saves it as SVG or PNG, and the same object shows itself in
marimo and in JupyterLab. Nothing is fetched: a specification names no address.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from perfmodel.plotting.style import GREY

if TYPE_CHECKING:
    import pandas as pd

Spec = dict[str, Any]

VERSION = "5.20"  # of Vega-Lite, where a picture is drawn here
MIME = "application/vnd.vegalite.v5+json"
DASHES = ([1, 0], [6, 2], [2, 2], [8, 3, 2, 3], [4, 4], [10, 3], [3, 6], [12, 2, 2, 2], [5, 2, 1, 2])
HEIGHT = 220  # pixels of a chart with two axes
COLUMNS = {"expr": "width < 300 ? 1 : 2"}  # of a legend: one on a phone
MARKER_LINE = {"type": "rule", "color": GREY, "strokeDash": [2, 3]}


@dataclass(frozen=True)
class Chart:
    """A picture with the sentence that a screen reader speaks in its place."""

    name: str
    spec: Spec

    def _mime_(self) -> tuple[str, str]:
        """How marimo shows it."""
        return MIME, json.dumps(self.spec)

    def _repr_mimebundle_(self, **_: Any) -> Spec:
        """How Jupyter shows it."""
        return {MIME: self.spec, "text/plain": self.spec["description"]}


def chart(name: str, description: str, height: int, layers: list[Spec], **extra: Any) -> Chart:
    """Layers of one picture, as wide as its place; ``description`` is what a screen reader speaks."""
    export = {"export": True, "source": False, "compiled": False, "editor": False}
    spec = {
        "description": description,
        "width": "container",
        "height": height,
        "background": "white",
        "padding": 4,
        "layer": [one for one in layers if one.get("data", {}).get("values") != []],  # else axes have no ends
        "config": {
            "font": "system-ui, sans-serif",
            "axis": {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "gridColor": "#e8e8e8"},
            "legend": {
                "labelFontSize": 11,
                "columnPadding": 4,
                "orient": "bottom",
                "title": None,
                "columns": COLUMNS,
                "labelLimit": 260,
            },
            "text": {"fontSize": 12},
            "view": {"stroke": None},
        },
        "usermeta": {"embedOptions": {"renderer": "svg", "downloadFileName": f"lscd-{name}", "actions": export}},
        **extra,
    }
    return Chart(name, spec)


def values(table: pd.DataFrame) -> Spec:
    """The rows of a table as Vega-Lite data; NaN becomes null."""
    return {"values": json.loads(table.to_json(orient="records", double_precision=15))}


def axis(field: str, title: str, **extra: Any) -> Spec:
    """A linear channel of numbers."""
    return {"field": field, "type": "quantitative", "title": title, **extra}


def log(field: str, title: str, domain: list[float]) -> Spec:
    """A logarithmic channel over ``domain``; marks outside are cut."""
    return axis(field, title, scale={"type": "log", "domain": domain, "nice": False}, axis={"tickCount": 4})


def layer(mark: Spec | str, table: pd.DataFrame | None = None, **encoding: Any) -> Spec:
    """One layer; without a table of its own it draws the chart's."""
    data = {} if table is None else {"data": values(table)}
    return {"mark": mark, "encoding": encoding, **data}


def named(field: str, scale: Spec, columns: int | Spec = COLUMNS) -> Spec:
    """A nominal channel with a legend; channels of the same field and domain share one."""
    return {"field": field, "type": "nominal", "scale": scale, "sort": None, "legend": {"columns": columns}}


def tip(field: str, title: str, form: str = "") -> Spec:
    """A line of a tooltip."""
    kind = "quantitative" if form or field == "batch" else "nominal"
    return {"field": field, "type": kind, "title": title, **({"format": form} if form else {})}
