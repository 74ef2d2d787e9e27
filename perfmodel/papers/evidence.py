"""Numbers of a paper that are evidence here already: single products, runs, their parts, printed speed-ups."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING

import pandas as pd

from perfmodel.evidence.kernel_fit import fitted_speedups
from perfmodel.evidence.runs import joined_parts, joined_runs
from perfmodel.evidence.summary import second_sources
from perfmodel.evidence.validation import join_predictions

if TYPE_CHECKING:
    from perfmodel.catalog.papers import PaperExhibit

COLUMNS = ["quantity", "what", "published", "ours", "error", "fitted", "source"]


def evidence_numbers(exhibit: PaperExhibit) -> pd.DataFrame:
    """Numbers of an exhibit beside ours, none where its evidence is no table of ours.

    Returns
    -------
    pandas.DataFrame
        `COLUMNS`: ``what`` says in words of which product or run, ``error`` is ours over published minus one, of the
        quantity as it was published, ``fitted`` whether a fit saw the row.

    Raises
    ------
    ValueError
        If the table is unknown.
    """
    if exhibit.table is None:
        return pd.DataFrame(columns=COLUMNS)
    if exhibit.table not in TABLES:
        raise ValueError(f"exhibit {exhibit.name!r}: table is {exhibit.table!r}, allowed are {', '.join(TABLES)}")
    try:
        rows = TABLES[exhibit.table]().query(exhibit.rows)
    except (SyntaxError, ValueError, KeyError, NameError) as error:
        raise ValueError(f"exhibit {exhibit.name!r}: rows {exhibit.rows!r} is no query of them: {error}") from None
    return rows.assign(error=rows["ours"] / rows["published"] - 1)[COLUMNS].reset_index(drop=True)


@cache
def _products() -> pd.DataFrame:
    rows = join_predictions()
    rows = rows[~rows["at_least"]]
    shape = rows["m"].astype(str) + " x " + rows["k"].astype(str) + ", N = " + rows["n"].astype(str)
    what = rows["kernel"] + " on " + rows["gpu"] + ", " + shape + rows["sparsity"].map(", sparsity {:g}".format)
    return rows.assign(quantity="time (us)", what=what, published=rows["time_us"], ours=rows["predicted_us"])


@cache
def _runs() -> pd.DataFrame:
    rows = joined_runs()
    ours = 1e6 / rows["predicted_us"]
    return rows.assign(quantity="tokens/s/GPU", what=_run_words(rows), published=rows["tokens_per_gpu_s"], ours=ours)


@cache
def _parts() -> pd.DataFrame:
    rows = joined_parts()
    what = rows["part"] + " of " + _run_words(rows)
    return rows.assign(quantity="GPU-seconds", what=what, published=rows["gpu_s"], ours=rows["predicted_gpu_s"])


def _run_words(rows: pd.DataFrame) -> pd.Series:
    cards = rows["gpus"].astype(str) + " x " + rows["gpu"]
    return rows["model"] + " in " + rows["system"] + " on " + cards + ", batch " + rows["batch"].astype(str)


@cache
def _speedups() -> pd.DataFrame:
    rows = second_sources()
    where = rows["gpu"] + ", N = " + rows["n"].astype(str) + rows["sparsity"].map(", sparsity {:g}".format)
    what = rows["kernel"] + " over cublas on " + where
    return rows.assign(quantity="speed-up", what=what, ours=rows["predicted"], fitted=fitted_speedups(rows))


TABLES: Mapping[str, Callable[[], pd.DataFrame]] = {
    "products": _products,
    "runs": _runs,
    "parts": _parts,
    "speedups": _speedups,
}
