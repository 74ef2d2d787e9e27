"""The exhibit of column orders: the bound by hand, by counting, and beside what was measured."""

from __future__ import annotations

from itertools import permutations
from math import exp, factorial, log

import matplotlib.pyplot as plt
import numpy as np
import pytest

from lscd.report import column_orders as exhibit
from lscd.report.exhibit import Context
from perfmodel.catalog import load_table
from perfmodel.plotting.style import house_style


def test_number_of_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    """123.6 and 102.7 nats; of 8 columns in two groups of 4 there are 35 splits."""
    assert exhibit.log_orders(False) == pytest.approx(log(factorial(64) / (24**16 * factorial(16))), rel=1e-12)
    assert exhibit.log_orders(False) == pytest.approx(123.6, abs=0.1)
    assert exhibit.log_orders(True) == pytest.approx(102.7, abs=0.1)
    monkeypatch.setattr(exhibit, "COLUMNS", 8)
    monkeypatch.setattr(exhibit, "GROUPS", 2)
    splits = {frozenset((frozenset(p[:4]), frozenset(p[4:]))) for p in permutations(range(8))}
    assert exp(exhibit.log_orders(False)) == pytest.approx(len(splits))


def test_bound_is_where_one_order_is_expected() -> None:
    for rows in (32, 64):
        for rule in (False, True):
            d = 1 - exhibit.bound(rows, rule)
            fits = 1 - 4 * d**3 * (1 - d) - d**4
            assert exhibit.log_orders(rule) + rows * 16 * log(fits) == pytest.approx(0, abs=1e-6)
    assert 0.43 - 0.005 < 1 - exhibit.bound(32, False) < 0.43 + 0.005


def test_no_strip_fits_below_the_bound_and_all_do_far_above() -> None:
    table = load_table(exhibit.TABLE)
    random = table[table["mask"] == "random"]
    for rows in (32, 64):
        for rule, column in ((False, "over_any"), (True, "over_bank")):
            at = random[random["strip_rows"] == rows]
            bound = exhibit.bound(rows, rule)
            assert (at.loc[at["sparsity"] < bound - 0.01, column] == 1).all()
            assert (at.loc[at["sparsity"] > bound + 0.16, column] == 0).all()


def test_the_exhibit_draws_the_table() -> None:
    with house_style():
        made = exhibit.column_orders(Context())
    left, strips = made.figure.axes
    lines = {line.get_label(): line for line in left.get_lines()}
    rows = made.table[(made.table["mask"] == "random") & (made.table["strip_rows"] == 32)].sort_values("sparsity")
    np.testing.assert_allclose(lines["32 rows, bank rule"].get_ydata(), 100 * rows["left_bank"])
    assert len(strips.get_lines()) == 7
    assert "74 %" in made.finding or "75 %" in made.finding
    plt.close(made.figure)
