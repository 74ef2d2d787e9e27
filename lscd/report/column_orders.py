"""Exhibit: which masks fit 2:4 once the columns of a strip may change places, counted, beside a bound."""

from __future__ import annotations

from math import comb, factorial, lgamma, log, log1p

import numpy as np
from scipy.optimize import brentq

from lscd.report.exhibit import Context, Exhibit, percent
from perfmodel.catalog import load_table
from perfmodel.plotting import orders as draw

TABLE = "measured/condensed_orders.csv"
COLUMNS, GROUP, OCTETS = 64, 4, 8
GROUPS = COLUMNS // GROUP
LEVEL = 0.8


def log_orders(bank_rule: bool) -> float:
    """Natural logarithm of the ways to split 64 columns into 16 groups of 4.

    With the bank rule two groups make an octet whose columns differ modulo 8: octets take one column of each of the 8
    residues, and each octet is cut in two.
    """
    if not bank_rule:
        return lgamma(COLUMNS + 1) - GROUPS * log(factorial(GROUP)) - lgamma(GROUPS + 1)
    octets = OCTETS * lgamma(COLUMNS // OCTETS + 1) - lgamma(OCTETS + 1)
    return octets + OCTETS * log(comb(2 * GROUP, GROUP) / 2)


def bound(rows: int, bank_rule: bool) -> float:
    """Sparsity of random masks at which one order is expected to fit a strip of ``rows`` rows: the first moment.

    A row's four places of a group hold at most two weights with probability ``1 - 4 d^3 (1 - d) - d^4``. An order fits
    with that probability to the power of ``rows x 16``, and there are ``exp(log_orders)`` orders. Below this sparsity
    no search finds one, save in strips that are emptier than the mean.
    """

    def log_expected(density: float) -> float:
        return log_orders(bank_rule) + rows * GROUPS * log1p(-4 * density**3 * (1 - density) - density**4)

    return 1 - float(brentq(log_expected, 0.01, 0.99))


def column_orders(context: Context) -> Exhibit:
    """Weights left over 2:4 by sparsity, height of a strip and kind of mask."""
    table = load_table(TABLE)
    bounds = {(rows, rule): bound(rows, rule) for rows in (32, 64) for rule in (False, True)}
    at = table[np.isclose(table["sparsity_wanted"], LEVEL) & (table["strip_rows"] == 32)]
    over = at.set_index(["source_of_mask", "mask"])["over_any"]
    exact = table[(table["mask"] == "random") & (table["strip_rows"] == 32) & (table["over_bank"] == 0)]
    return Exhibit(
        name="column_orders",
        title="Random sparsity becomes 2:4 if columns may change places",
        finding=(
            f"Of random masks every strip of 32 rows fits from {percent(exact['sparsity_wanted'].min(), 0)} sparsity "
            f"on, reads of X free of bank conflicts. At {percent(LEVEL, 0)} {percent(over['MiniLM', 'rows by Wanda'])} "
            f"of MiniLM's strips do not fit if it is pruned by rows, {percent(over['MiniLM', 'magnitude'])} if by "
            "matrix, which leaves rows too full for any order."
        ),
        evidence=(
            "Counted on strips of 64 columns, the best of two searches. Lines: the sparsity at which one fitting order "
            f"is to be expected, for 32 rows {percent(bounds[32, False])}, with the bank rule (dashed) "
            f"{percent(bounds[32, True])}; for 64 rows {percent(bounds[64, False])} and {percent(bounds[64, True])}. "
            "SmolLM2's weights are dequantised 4-bit values. What is left over costs a step of 16 more columns."
        ),
        sources=("condensed-orders",),
        table=table,
        figure=draw.column_orders(table, bounds),
    )
