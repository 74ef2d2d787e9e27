"""Sparsity of its own for each layer: the same zeros, other times and another quality."""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel.catalog import load_model
from perfmodel.catalog.matrix_names import matrix_counts
from perfmodel.layer_wise import by_layer, compare, perplexities, profile, profiles


def test_profiles_are_of_models_here_and_of_the_mean_they_say() -> None:
    table = profiles()
    assert table["profile"].nunique() >= 3
    assert table["method"].nunique() >= 2
    for name, rows in table.groupby("profile"):
        own = profile(str(name))
        model = load_model(rows["model"].iloc[0])
        own.check(model)
        assert set(own.matrices) == set(matrix_counts(model.shape))
        assert own.mean() == pytest.approx(int(str(name).rsplit("-", 1)[1]) / 100, abs=0.002)
        shares = by_layer().query("profile == @name")
        assert len(shares) == model.shape.layers
        assert (shares["layer"].diff().dropna() == 1).all()


def test_a_profile_keeps_more_quality_at_the_same_zeros() -> None:
    table = compare("h100", 16)
    known = table.dropna(subset=["layer_wise"]).drop_duplicates("profile")
    assert len(known) >= 3
    assert (known["dense"] < known["layer_wise"]).all()
    published = known[known["profile"] != "owl-smollm2-135m-60"]
    assert (published["layer_wise"] < published["uniform"]).all()


def test_the_checkpoint_pruned_here_gains_nothing() -> None:
    table = compare("h100", 16)
    own = table[table["profile"] == "owl-smollm2-135m-60"].iloc[0]
    assert own["layer_wise"] > own["uniform"] > own["dense"]
    assert own["sparsity"] == pytest.approx(0.6, abs=1e-4)


def test_a_profile_costs_little_time() -> None:
    """Times are convex in the sparsity, near straight where these profiles lie."""
    table = compare("h100", 16)
    change = table["step_layer_wise_s"] / table["step_uniform_s"]
    assert change.between(0.99, 1.06).all()
    assert (change > 1).any()
    assert {"flash-llm", "bitmap"} <= set(table["kernel"])


def test_perplexities_are_of_one_table() -> None:
    found = perplexities("dlp-wanda", "llama-2-7b", 0.7)
    assert found == {"layer_wise": 22.79, "uniform": 76.84, "dense": 5.47}
    assert np.isnan(perplexities("alpha-wanda", "llama-2-70b", 0.7)["uniform"])


def test_a_gpu_that_runs_no_such_kernel_keeps_the_quality_and_has_no_time() -> None:
    table, known = compare("mi300x", 4096), compare("h100", 16)
    assert table["profile"].tolist() == known["profile"].unique().tolist()
    assert table[["kernel", "step_layer_wise_s", "step_uniform_s"]].isna().all().all()
    assert table["layer_wise"].notna().sum() == known.drop_duplicates("profile")["layer_wise"].notna().sum()
