"""Which sparsities published pruning results allow."""

from __future__ import annotations

from perfmodel.catalog import load_table
from perfmodel.evidence.feasibility import feasible_sparsity, pruning_results


def test_pruning_never_beats_dense_by_much_and_grows_with_sparsity() -> None:
    table = load_table("published/pruning_accuracy.csv")
    assert table.sparsity.between(0.5, 0.9).all()
    assert (table.loc[table.pattern != "unstructured", "sparsity"] == 0.5).all()
    lower_is_better = table.metric.isin(["wikitext2-perplexity", "accuracy-drop"])
    loss = (table.pruned_value - table.dense_value).where(lower_is_better, table.dense_value - table.pruned_value)
    # The published exceptions: OPT-66B/175B gain at 50 %, fine-tuned MPT-7B at 60 %.
    assert loss.min() >= -0.61
    keys = ["method", "model", "pattern", "metric"]
    curves = [curve for _, curve in table.assign(loss=loss).sort_values("sparsity").groupby(keys) if len(curve) > 1]
    assert len(curves) >= 5
    assert all(curve.loss.is_monotonic_increasing for curve in curves)
    assert not table.duplicated([*keys, "sparsity", "source"]).any()


def test_feasible_range_rests_on_published_results() -> None:
    assert feasible_sparsity(retrained=False) == 0.5
    assert feasible_sparsity(retrained=True) == 0.8
    kept = pruning_results().query("keeps_accuracy and sparsity > 0.5")
    assert kept["retrained"].all()
