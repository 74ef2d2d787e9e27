"""LaTeX gets figures in floats of their width, in order, and no character that it would read as something else."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from lscd.report.captions import captions, latex
from lscd.report.exhibit import Exhibit
from perfmodel.plotting.style import COLUMN, PAGE


def exhibit(name: str, number: int, inches: float | None) -> Exhibit:
    figure = None if inches is None else plt.figure(figsize=(inches, 2.0))
    plt.close("all")
    return Exhibit(name, "A title?", "Finding: 5 % of a_b & c.", "Evidence.", (), pd.DataFrame(), figure, None, number)


def test_floats_have_the_width_and_the_order_of_the_figures_and_tables_have_none() -> None:
    made = captions([exhibit("narrow", 1, COLUMN), exhibit("rows", 1, None), exhibit("broad", 2, PAGE)], "version 1")
    floats = made.split("\n\n")[1:]
    assert [text.splitlines()[:2] for text in floats] == [
        ["% Figure 1: narrow.pdf, 3.33 in wide", r"\begin{figure}"],
        ["% Figure 2: broad.pdf, 7 in wide", r"\begin{figure*}"],
    ]
    assert r"\includegraphics[width=3.33in]{narrow.pdf}" in floats[0]
    assert r"\caption{\textbf{A title?} Finding: 5 \% of a\_b \& c. Evidence.}" in floats[0]
    assert r"\label{fig:narrow}" in floats[0]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("50 % of $2", r"50 \% of \$2"),
        (r"\input{x}", r"\textbackslash{}input\{x\}"),
        ("a_b^c~#&", r"a\_b\textasciicircum{}c\textasciitilde{}\#\&"),
        ("3 × 4 ≥ 2 µs – ok", r"3 $\times$ 4 $\geq$ 2 $\mu$s -- ok"),
    ],
)
def test_special_characters_are_written_out(text: str, written: str) -> None:
    assert latex(text) == written
