"""What does giving each layer its own sparsity change, in quality and in time? Profiles, and their mean everywhere.

A profile prunes some layers less and others more. Quality gains by it. Time need not: a kernel's time is no straight
line of the sparsity, so a profile may cost or save a little at the same number of zeros; both are given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from perfmodel.catalog import load_gpu, load_model, load_table
from perfmodel.catalog.arguments import text
from perfmodel.catalog.matrix_names import matrix_counts
from perfmodel.catalog.names import unknown_name
from perfmodel.catalog.sparsities import Row, Sparsities, sparsities
from perfmodel.evidence import accuracy
from perfmodel.worth import at_batch

if TYPE_CHECKING:
    import pandas as pd

TABLES = ("published/layer_profiles.csv", "measured/smollm2/layer_profiles.csv")
OWN_QUALITY = "measured/smollm2/pruning.csv"
OWN_SOURCE = "smollm2-pruning"
METRIC = "wikitext2-perplexity"
_NEAR = 0.01  # by which a profile's mean may differ from the sparsity that it was published for


def profiles() -> pd.DataFrame:
    """Sparsities by layer: ``profile, method, model, layer, matrix, weights, sparsity, source``.

    Without a matrix a row counts for all matrices of the layer. The last profile is the census of a checkpoint that was
    pruned here, all others are published.
    """
    import pandas as pd

    return pd.concat([load_table(table) for table in TABLES], ignore_index=True)


def profile(name: str) -> Sparsities:
    """Profile ``name`` as `worth`, `choose` and `plan` take it, for the model that it was made for."""
    rows = profiles()
    if text("profile", name) not in set(rows["profile"]):
        raise ValueError(unknown_name("profile", name, rows["profile"].unique()))
    rows = rows[rows["profile"] == name]
    every = matrix_counts(load_model(rows["model"].iloc[0]).shape)
    return sparsities(
        (
            Row(f"layer {row.layer}", int(row.layer), matrix, float(row.sparsity), _counted(row.weights))
            for row in rows.itertuples()
            for matrix in ([row.matrix] if isinstance(row.matrix, str) else every)
        ),
        name,
    )


def _counted(weights: float) -> float | None:
    return None if np.isnan(weights) else float(weights)


def by_layer() -> pd.DataFrame:
    """Mean sparsity of each layer of each profile: ``profile, model, layer, sparsity``."""
    rows = profiles()
    rows = rows.assign(size=rows["weights"].fillna(1.0))
    rows = rows.assign(zeros=rows["sparsity"] * rows["size"])
    rows = rows.sort_values(["profile", "layer"], kind="stable")
    totals = rows.groupby(["profile", "model", "layer"], sort=False)[["zeros", "size"]].sum().reset_index()
    return totals.assign(sparsity=totals["zeros"] / totals["size"])[["profile", "model", "layer", "sparsity"]]


def compare(gpu: str, batch: int) -> pd.DataFrame:
    """Each profile beside the same number of zeros in every layer.

    Returns
    -------
    pandas.DataFrame
        A row a profile and measured kernel of zeros anywhere: ``profile, model, sparsity`` (mean), ``least, most`` of a
        layer; ``layer_wise, uniform`` and ``dense``, perplexity with either, from the same table, or NaN (on
        WikiText-2, of the checkpoint pruned here on help texts); and ``kernel, step_layer_wise_s,
        step_uniform_s``, a decoding step on one GPU with all products on it; one row a profile, these three missing,
        where the GPU runs no such kernel.
    """
    import pandas as pd

    card, layers, found = load_gpu(gpu), by_layer(), []
    for name, rows in profiles().groupby("profile", sort=False):
        model, own = load_model(rows["model"].iloc[0]), profile(str(name))
        share = layers.loc[layers["profile"] == name, "sparsity"]
        known = {"profile": name, "model": model.key, "sparsity": own.mean(), "least": share.min(), "most": share.max()}
        told = measured_perplexities if rows["source"].iloc[0] == OWN_SOURCE else perplexities
        known |= told(rows["method"].iloc[0], model.key, known["sparsity"])
        asked: dict[str, Any] = {"gpus": 1, "kernels": (), "input_len": 64, "output_len": 512}
        pruned, even = (at_batch(model, card, batch, zeros, **asked) for zeros in (own, own.mean()))
        uniform = {rival.kernel: rival for rival in even.unstructured}
        for rival in pruned.unstructured:
            times = {"step_layer_wise_s": rival.step_s, "step_uniform_s": uniform[rival.kernel].step_s}
            found.append(known | {"kernel": rival.kernel} | times)
        if not pruned.unstructured:
            found.append(known | {"kernel": None, "step_layer_wise_s": np.nan, "step_uniform_s": np.nan})
    return pd.DataFrame(found)


def perplexities(method: str, model: str, sparsity: float) -> dict[str, float]:
    """Published perplexity of a layer-wise method and of its criterion in every layer alike, from one table, or NaN."""
    table = accuracy.published()
    table = table[(table["model"] == model) & (table["metric"] == METRIC)]
    table = table[(table["sparsity"] - sparsity).abs() < _NEAR]
    found = table[table["method"] == method].iloc[:1]
    even = found.merge(
        table[table["method"] == method.rsplit("-", 1)[-1]], on=["source", "table"], suffixes=("", "_even")
    )
    if even.empty:
        return dict.fromkeys(("layer_wise", "uniform", "dense"), np.nan)
    row = even.iloc[0]
    return {"layer_wise": row["value"], "uniform": row["value_even"], "dense": row["dense_value"]}


def measured_perplexities(method: str, model: str, sparsity: float) -> dict[str, float]:
    """The same as measured here, of one small model: `lscd.study.language_model`."""
    table = load_table(OWN_QUALITY)
    allocation, _, criterion = method.partition("-")
    near = (table["sparsity_wanted"] - sparsity).abs() < _NEAR
    of_method = table[(table["method"] == criterion) & near].set_index("allocation")["perplexity"]
    dense = table.loc[table["method"] == "none", "perplexity"].item()
    return {"layer_wise": of_method[allocation], "uniform": of_method["uniform"], "dense": dense}
