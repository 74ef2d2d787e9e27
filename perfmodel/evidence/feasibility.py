"""Up to which sparsity does a pruned model keep its accuracy, by published results?

Speed alone decides nothing: a sparsity counts only if somebody has shown a language model that survives it. A result
"keeps accuracy" if perplexity rises by at most 10 % or a task accuracy drops by at most 2 points.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perfmodel.catalog import load_table

if TYPE_CHECKING:
    import pandas as pd

PERPLEXITY_RISE = 0.10
ACCURACY_POINTS = 2.0


def pruning_results() -> pd.DataFrame:
    """Published results of unstructured pruning, with a column ``keeps_accuracy``."""
    table = load_table("published/pruning_accuracy.csv")
    table = table[table["pattern"] == "unstructured"].copy()
    perplexity = table["metric"].str.contains("perplexity")
    drop = table["dense_value"] - table["pruned_value"]
    drop = drop.where(table["metric"] != "accuracy-drop", table["pruned_value"])
    rise = table["pruned_value"] / table["dense_value"] - 1
    table["keeps_accuracy"] = (perplexity & (rise <= PERPLEXITY_RISE)) | (~perplexity & (drop <= ACCURACY_POINTS))
    return table


def feasible_sparsity(retrained: bool) -> float:
    """Highest sparsity (fraction) at which some published result keeps accuracy, one-shot or with retraining."""
    table = pruning_results()
    kept = table[table["keeps_accuracy"] & (table["retrained"] == retrained)]
    return float(kept["sparsity"].max())
