"""Perplexity beside points: pairs of one model in one table."""

from __future__ import annotations

from perfmodel.evidence import accuracy
from perfmodel.evidence.both_metrics import both_metrics


def test_a_pair_is_one_model_in_one_table() -> None:
    pairs = both_metrics()
    assert len(pairs) >= 50
    same = [*accuracy.VARIANT, "model", "variant", "source", "table"]
    assert not pairs.duplicated(same).any()
    assert pairs["percent"].between(1, 100).all()
    assert set(pairs["metric"]) == {"wikitext2-perplexity"}
    assert set(pairs["metric_points"]) == {"mean-zero-shot"}
    table, row = accuracy.published(), pairs.iloc[0]
    known = [name for name in same if row.notna()[name]]
    alike = table[(table[known] == row[known]).all(axis=1)].groupby("metric")["loss"].agg(list)
    assert row["percent"] in alike["wikitext2-perplexity"]
    assert row["points"] in alike["mean-zero-shot"]


def test_they_rise_together_but_loosely() -> None:
    pairs = both_metrics()
    assert 0.6 < pairs["percent"].corr(pairs["points"], method="spearman") < 0.9
    near = pairs.loc[pairs["percent"].between(20, 40), "points"]
    assert near.max() > 3 * near.quantile(0.1) > 0
