"""How much quality does a compressed language model keep, by published results, and up to which sparsity?

A row of ``published/accuracy.csv`` is one compressed model judged by one metric beside the same model uncompressed, in
one table of one source. Its loss is in the metric's own unit, points of accuracy or percent that perplexity rises; one
is never turned into the other, because what a rise of perplexity costs differs from model to model.

Results count for the model they are of. Where it has none, those of the model of its family nearest in size count
(`perfmodel.evidence.relatives`), and carry that model's name. Otherwise nothing is published, and the answer None.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from perfmodel.catalog.files import data_directory, once_a_version, read_table
from perfmodel.catalog.names import unknown_name
from perfmodel.evidence.quality_words import PERPLEXITY, POINTS, amount, count_words, lost, spread
from perfmodel.evidence.relatives import near_models, plain_name, smaller

if TYPE_CHECKING:
    import pandas as pd

TABLE = "published/accuracy.csv"
DROP = "accuracy-drop"  # of tasks that the source leaves unnamed, without what dense reaches
BROAD = ("mean-zero-shot", "mean-leaderboard-v1", "mean-leaderboard-v2", "mmlu", DROP)  # of many tasks: percent right
UNSTRUCTURED = "unstructured"
DENSE = "dense"  # a method that changes nothing: rows that only say how well a model of some size does
WHOLE = "none"  # pattern of weights that are all kept
TOLERANCES = {POINTS: 2.0, PERPLEXITY: 10.0}  # what counts as kept unless asked otherwise: points, percent
FIRST_ASKED = (POINTS, "wikitext2-perplexity")  # metrics by how much they say of a model's use
TRAININGS = {"one shot": False, "retrained": True}  # whether weights were trained after pruning, by its name
SAME = 0.005  # sparsities no further apart are one
HALF = 0.5
_KIND = ["pattern", "weights", "activation_bits", "retrained"]
_PLAIN = {"pattern": UNSTRUCTURED, "weights": "fp16", "activation_bits": 16, "retrained": False}
VARIANT = ["method", "retrained", "retraining_tokens", "pattern", "sparsity", "weights", "activation_bits", "group"]
_JUDGED = ["variant", "metric", "sequence_length", "shots", "source", "table"]  # what must agree to compare models
# One curve: a source may print each sparsity in a table of its own, of the same dense model.
_CURVE = ["model", "method", "retrained", "retraining_tokens", *_JUDGED[:-1], "dense_value"]
_PATTERN = re.compile(r"\d+:\d+")

Curve = tuple[str, np.ndarray, np.ndarray]  # source, sparsities, losses
Method = tuple[str, "pd.DataFrame", tuple[Curve, ...]]  # its name, its rows and the curves through them


@dataclass(frozen=True)
class Limit:
    """Up to which sparsity published results keep what was asked.

    Attributes
    ----------
    sparsity : float
        Fraction of zeros: median over the curves of the best method, between whose points it is interpolated.
    low, high : float
        Least and most of those curves.
    beyond : bool
        Whether half of them still keep it at the highest sparsity tried, so that the limit lies further.
    model, method : str
        Whose results, and how it was pruned.
    metric, tolerance
        What had to be kept: at most so many points, or percent of perplexity, may be lost.
    results : int
        Published numbers of that method.
    sources : tuple of str
        Keys of ``sources.toml``.
    """

    sparsity: float
    low: float
    high: float
    beyond: bool
    model: str
    method: str
    metric: str
    tolerance: float
    results: int
    sources: tuple[str, ...]

    @property
    def share(self) -> str:
        """The sparsity alone: ``37%``, or ``at least 50%``."""
        return f"{'at least ' * self.beyond}{self.sparsity:.0%}"

    @property
    def words(self) -> str:
        """What it says, on what it rests."""
        spread = f" ({self.low:.0%} to {self.high:.0%})" if self.high - self.low > SAME else ""
        kept = amount(self.tolerance, self.metric)
        return f"{self.share}{spread} within {kept} {_rests_on(self)}"


@dataclass(frozen=True)
class Loss:
    """What published results say a way of compression costs: points, or percent of perplexity.

    ``value`` is the median over curves or rows, ``low`` and ``high`` their least and most; the rest as in `Limit`.
    """

    value: float
    low: float
    high: float
    model: str
    method: str
    metric: str
    results: int
    sources: tuple[str, ...]

    @property
    def words(self) -> str:
        """What it says, on what it rests."""
        return f"{self.change}{spread(self.low, self.high, ' (', ')')} {_rests_on(self)}"

    @property
    def change(self) -> str:
        """What becomes of the metric, as `lost` says it."""
        return lost(self.value, self.metric)

    @property
    def kept(self) -> bool:
        """Whether that counts as kept unless asked otherwise."""
        return self.value <= tolerance_of(self.metric)


def _rests_on(found: Limit | Loss) -> str:
    return f"({found.method} on {found.model}, {count_words(found.results, len(found.sources))})"


def published() -> pd.DataFrame:
    """Every row with its ``loss``: points that an accuracy drops, or percent that a perplexity rises."""
    return _with_losses(data_directory() / TABLE)


@once_a_version
def _with_losses(path: Path) -> pd.DataFrame:
    table = read_table(path)
    perplexity = table["metric"].str.endswith(PERPLEXITY)
    points = table["dense_value"] - table["value"]
    rise = 100 * (table["value"] / table["dense_value"] - 1)
    return table.assign(loss=points.where(~perplexity, rise))


def tolerance_of(metric: str) -> float:
    """What counts as kept unless asked otherwise."""
    return TOLERANCES[PERPLEXITY if metric.endswith(PERPLEXITY) else POINTS]


def results(model: str, metric: str = POINTS, **asked: Any) -> pd.DataFrame:
    """Rows of one metric and of the columns ``asked``, of ``model`` or of the nearest of its family.

    Parameters
    ----------
    model : str
        A name as in the catalogue.
    metric : str
        A metric of the table, or "points" for any mean of many tasks.
    **asked
        Columns and what must stand in them; None is anything.

    Raises
    ------
    ValueError
        If no row has that metric, or nobody's that method or pattern; names the nearest.
    """
    return _results(data_directory() / TABLE, model, metric, tuple(asked.items())).copy()


@once_a_version
def _results(path: Path, model: str, metric: str, wanted: tuple[tuple[str, Any], ...]) -> pd.DataFrame:
    """`results`, which a page asks for at every change."""
    table, asked = _with_losses(path), dict(wanted)
    _check_known(table, {"metric": metric, **asked})
    table = table[(table["method"] != DENSE) & table["metric"].isin(BROAD if metric == POINTS else [metric])]
    for column, value in asked.items():
        table = table if value is None else table[table[column] == value]
    kinds = table.groupby(_KIND, sort=False).ngroup()
    near = near_models(tuple(table["model"].unique()), model)
    # Of each kind of compression the nearest model that has results of it; of two equally near the better known.
    ranked = table.assign(kind=kinds, distance=table["model"].map(near)).dropna(subset=["distance"])
    counts = ranked.groupby(["kind", "distance", "model"]).size().reset_index(name="count")
    first = counts.sort_values(["distance", "count"], ascending=[True, False]).drop_duplicates("kind")
    return ranked.merge(first[["kind", "model"]], on=["kind", "model"]).drop(columns=["kind", "distance"])


def _check_known(table: pd.DataFrame, asked: dict[str, Any]) -> None:
    """Refuse a metric, method or pattern of which there is no result at all; N:M may be any."""
    for column in ("metric", "method", "pattern"):
        value: str = asked.get(column, POINTS)
        known = value in (None, POINTS) or _PATTERN.fullmatch(value) or (table[column] == value).any()
        if not known:
            raise ValueError(
                unknown_name(column, value, [POINTS] * (column == "metric") + sorted(table[column].unique()))
            )


def feasible(
    model: str, *, method: str | None = None, pattern: str = UNSTRUCTURED, retrained: bool = False,
    metric: str = POINTS, tolerance: float | None = None, sources: int = 1,
) -> Limit | None:  # fmt: skip
    """Highest sparsity at which published pruning keeps ``model`` within ``tolerance``; None if nothing is published.

    Within one source's results of one method it is interpolated between neighbouring points, dense among them: from
    there down, that is cautious, because losses bend upwards. Patterns have their own sparsities and no others. Of
    several methods the one that reaches furthest answers; how many sources it has is said with it.

    Parameters
    ----------
    model, metric
        As in `results`.
    method, pattern : str
        Any method by default, and zeros anywhere.
    retrained : bool
        Whether weights were trained after, or while, pruning.
    tolerance : float
        Points lost, or percent that perplexity rises; 2 and 10 by default.
    sources : int
        Only methods of which at least so many sources have results.
    """
    found = _methods(model, metric, _PLAIN | {"method": method, "pattern": pattern, "retrained": retrained})
    allowed = tolerance_of(metric) if tolerance is None else tolerance
    between = pattern == UNSTRUCTURED
    limits = [_limit(rows, through, metric, allowed, between=between) for _, rows, through in found]
    able = [limit for limit in limits if len(limit.sources) >= sources]
    return max(able, key=lambda limit: (limit.sparsity, limit.results), default=None)


def reach(model: str, *, retrained: bool, pattern: str = UNSTRUCTURED) -> Limit | None:
    """`feasible` by the first metric of `FIRST_ASKED` in which anything is published."""
    found = (feasible(model, pattern=pattern, retrained=retrained, metric=metric) for metric in FIRST_ASKED)
    return next((limit for limit in found if limit is not None), None)


def reaches(model: str) -> dict[str, Limit]:
    """`reach` of zeros anywhere, by the names of `TRAININGS`, as far as anything is published."""
    found = {name: reach(model, retrained=retrained) for name, retrained in TRAININGS.items()}
    return {name: limit for name, limit in found.items() if limit is not None}


def _methods(model: str, metric: str, asked: dict[str, Any]) -> list[Method]:
    return _drawn(data_directory() / TABLE, model, metric, tuple(asked.items()))


@once_a_version
def _drawn(path: Path, model: str, metric: str, wanted: tuple[tuple[str, Any], ...]) -> list[Method]:
    """Rows of `results` and the curves through them, by method."""
    methods = _results(path, model, metric, wanted).groupby("method", sort=True)
    return [(str(name), rows, tuple(curves(rows))) for name, rows in methods]


def _limit(rows: pd.DataFrame, through: Sequence[Curve], metric: str, tolerance: float, *, between: bool) -> Limit:
    """Limit of one method."""
    ends = [_last_kept(zeros, loss, tolerance, between) for _, zeros, loss in through]
    reached = [end for end, _ in ends]
    return Limit(
        float(np.median(reached)), min(reached), max(reached), bool(np.mean([beyond for _, beyond in ends]) >= HALF),
        rows["model"].iloc[0], rows["method"].iloc[0], metric, tolerance, len(rows), tuple(sorted(set(rows["source"]))),
    )  # fmt: skip


def curves(rows: pd.DataFrame) -> Iterator[Curve]:
    """Source, sparsity and loss of each curve of one method, dense first."""
    for _, table in rows.groupby(_CURVE, sort=True, dropna=False):
        points = table.groupby("sparsity")["loss"].mean()
        zeros = np.append(0.0, points.index.to_numpy())
        yield str(table["source"].iloc[0]), zeros, np.append(0.0, points.to_numpy())


def _last_kept(sparsity: np.ndarray, loss: np.ndarray, tolerance: float, between: bool) -> tuple[float, bool]:
    """Where a curve first leaves ``tolerance``, and whether it does so nowhere."""
    failed = np.flatnonzero(loss > tolerance)
    if not failed.size:
        return float(sparsity[-1]), True
    last = failed[0] - 1
    if not between:
        return float(sparsity[last]), False
    share = (tolerance - loss[last]) / (loss[last + 1] - loss[last])
    return float(sparsity[last] + share * (sparsity[last + 1] - sparsity[last])), False


def loss_at(model: str, sparsity: float, *, metric: str = POINTS, **asked: Any) -> Loss | None:
    """What published compression costs ``model``, by the method that costs least; None if nothing is known.

    Zeros anywhere are interpolated as `feasible` does, never beyond the highest sparsity of a curve.

    Parameters
    ----------
    model, metric, **asked
        As in `results`; in one shot, anywhere and 16-bit weights unless asked otherwise.
    sparsity : float
        Fraction of zeros.
    """
    losses = []
    for name, rows, through in _methods(model, metric, _PLAIN | asked):
        if rows["pattern"].iloc[0] == UNSTRUCTURED:
            within = [(of, zeros, loss) for of, zeros, loss in through if sparsity <= zeros[-1] + SAME]
            values = [float(np.interp(sparsity, zeros, loss)) for _, zeros, loss in within]
            sources = [of for of, _, _ in within]
        else:
            reached = rows[(rows["sparsity"] - sparsity).abs() < SAME]
            values, sources = reached["loss"].to_list(), list(reached["source"])
        if values:
            losses.append(_loss(values, rows["model"].iloc[0], sources, name, metric))
    return min(losses, key=lambda loss: (loss.value, -loss.results), default=None)


def costs(model: str, sparsity: float, **asked: Any) -> Loss | None:
    """`loss_at` by the first metric of `FIRST_ASKED` in which anything is published."""
    found = (loss_at(model, sparsity, metric=metric, **asked) for metric in FIRST_ASKED)
    return next((loss for loss in found if loss is not None), None)


def _loss(values: list[float], model: str, sources: Iterable[str], method: str, metric: str) -> Loss:
    ends = (float(np.median(values)), min(values), max(values))
    return Loss(*ends, model, method, metric, len(values), tuple(sorted(set(sources))))


def variants(model: str, metric: str = POINTS) -> pd.DataFrame:
    """Every published compression of ``model`` (or the nearest of its family) with the spread of its losses.

    Returns
    -------
    pandas.DataFrame
        `VARIANT`, ``model``; ``loss``, the median, ``loss_low``, ``loss_high``; ``results``, their number; ``sources``,
        joined by spaces.
    """
    import pandas as pd

    found = results(model, metric)
    rows = []
    for key, group in found.groupby(VARIANT, sort=False, dropna=False):
        loss = _loss(group["loss"].to_list(), group["model"].iloc[0], group["source"], str(key[0]), metric)
        spread = {"loss": loss.value, "loss_low": loss.low, "loss_high": loss.high, "results": loss.results}
        named = {"model": loss.model, "sources": " ".join(loss.sources)}
        rows.append(dict(zip(VARIANT, key, strict=True)) | named | spread)
    columns = [*VARIANT, "model", "sources", "loss", "loss_low", "loss_high", "results"]
    return pd.DataFrame(rows, columns=columns)


def siblings(model: str, metric: str = POINTS) -> pd.DataFrame:
    """Smaller dense models of the family, judged beside ``model`` in the same tables.

    Returns
    -------
    pandas.DataFrame
        ``model``, the smaller one; ``loss, loss_low, loss_high, results, sources`` as in `variants`.
    """
    table = published()
    table = table[table["metric"].isin(BROAD if metric == POINTS else [metric]) & (table["metric"] != DROP)]
    dense = table.groupby(["model", *_JUDGED], dropna=False)["dense_value"].median().reset_index()
    pairs = dense[dense["model"] == plain_name(model)].merge(dense, on=_JUDGED, suffixes=("_large", ""))
    pairs = pairs[np.array([smaller(name, model) for name in pairs["model"]], dtype=bool)]
    large, small = pairs["dense_value_large"], pairs["dense_value"]
    rises = pairs["metric"].str.endswith(PERPLEXITY)
    pairs["loss"] = (large - small).where(~rises, 100 * (small / large - 1))
    return pairs.groupby("model").agg(
        loss=("loss", "median"), loss_low=("loss", "min"), loss_high=("loss", "max"), results=("loss", "size"),
        sources=("source", lambda keys: " ".join(sorted(set(keys)))),
    ).reset_index()  # fmt: skip
