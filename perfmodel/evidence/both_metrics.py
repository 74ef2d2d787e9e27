"""Does a rise of perplexity tell how many points of accuracy are lost? Pruned models of which one table gives both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perfmodel.evidence import accuracy
from perfmodel.evidence.relatives import family_and_size

if TYPE_CHECKING:
    import pandas as pd

_SAME = [*accuracy.VARIANT, "model", "variant", "source", "table"]
_KEPT, _RUINED = 1.0, 100.0  # percent that perplexity rises: below, nothing was lost; above, nothing is left


def both_metrics() -> pd.DataFrame:
    """Compressed models with a loss in perplexity and in points, each once in a table.

    Returns
    -------
    pandas.DataFrame
        The columns of `accuracy.published` of the row in perplexity, its loss as ``percent`` (on WikiText-2, from
        1 to 100); ``points``, mean zero-shot accuracy lost by the same model in the same table; ``family``.
    """
    table = accuracy.published()
    rise = table[table["metric"] == "wikitext2-perplexity"].drop_duplicates([*_SAME, "note"], keep=False)
    lost = table[table["metric"] == "mean-zero-shot"].drop_duplicates(_SAME, keep=False)
    pairs = rise.merge(lost, on=_SAME, suffixes=("", "_points")).drop_duplicates(_SAME, keep=False)
    pairs = pairs.rename(columns={"loss": "percent", "loss_points": "points"})
    families = pairs["model"].map(lambda name: family_and_size(name)[0])
    return pairs.assign(family=families)[pairs["percent"].between(_KEPT, _RUINED)]
