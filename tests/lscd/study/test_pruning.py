"""The pruning study: quality by hand, a run on a small model, and the measured table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kernels_numba.checkpoints.checkpoint import Method
from kernels_numba.checkpoints.pruning import PruningRule
from lscd.study import pruning as pruning_study
from lscd.study.pruning import Embeddings, quality
from perfmodel.catalog import load_table
from tests.comparison import assert_close
from tests.lscd.study.small_bert import HIDDEN, LAYERS, SIZE, TEXTS


def test_quality_by_hand() -> None:
    """Three functions; one pruned summary turns to another description."""
    original = Embeddings(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32))
    turned = np.eye(3, dtype=np.float32)
    turned[0] = (0.6, 0.8, 0)
    found = quality(Embeddings(turned, np.eye(3, dtype=np.float32)), original)
    assert found["top1_accuracy"] == found["top1_agreement"] == pytest.approx(2 / 3)
    assert found["mean_cosine"] == pytest.approx((0.6 + 5) / 6)
    assert found["mean_reciprocal_rank"] == pytest.approx((0.5 + 1 + 1) / 3)
    assert 0 < found["rank_correlation"] < 1
    same = quality(original, original)
    assert all(value == pytest.approx(1) for value in same.values())


def test_the_study_runs_on_any_bert(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [(text, text + extra) for text in TEXTS for extra in (" s", " don")]
    rules = (PruningRule(Method.MAGNITUDE, 0.5), PruningRule(Method.WANDA, 0.75), PruningRule(Method.NM, 0.5))
    monkeypatch.setattr(pruning_study, "docstring_pairs", lambda: iter(pairs))
    monkeypatch.setattr(pruning_study, "RULES", rules)
    monkeypatch.setattr(pruning_study, "CALIBRATION_SHARE", 2)
    table = pruning_study.run(folder)
    assert list(table["method"]) == ["none", "magnitude", "wanda", "magnitude-2:4"]
    assert list(table["sparsity"]) == [0, 0.5, 0.75, 0.5]
    assert table.loc[0, "top1_agreement"] == 1
    assert (table.loc[1:, "mean_cosine"] < 1).all()
    weights = LAYERS * (4 * SIZE**2 + 2 * SIZE * HIDDEN)
    assert (table["dense_bytes"] == 2 * weights).all()
    assert set(table.columns) == set(load_table("measured/minilm/pruning_quality.csv").columns)


def test_docstrings_give_pairs() -> None:
    pairs = list(pruning_study.docstring_pairs())
    assert len(pairs) > 400
    assert len({summary for summary, _ in pairs}) == len(pairs)
    assert all(summary.endswith(".") and 12 <= len(text.split()) <= 60 for summary, text in pairs)


def test_the_measured_table_is_what_it_says() -> None:
    table = load_table("measured/minilm/pruning_quality.csv")
    matrices = 6 * [(384, 384)] * 4 + 6 * [(1536, 384), (384, 1536)]
    weights = sum(m * k for m, k in matrices)
    nnz = (1 - table["sparsity"]) * weights
    assert (table["dense_bytes"] == 2 * weights).all()
    assert_close(table["csr_bytes"], 6 * nnz + 4 * sum(m + 1 for m, _ in matrices), relative=0, absolute=40)
    assert_close(table["sparsity"], table["sparsity_wanted"], relative=0, absolute=1e-3)
    # Every tile is padded with at most three words.
    assert ((table["tiled_csl_bytes"] - 4 * nnz) / (4 * 1296)).between(0, 4).all()
    quality_columns = ["mean_cosine", "rank_correlation", "top1_agreement", "top1_accuracy", "mean_reciprocal_rank"]
    assert table[quality_columns].stack().between(0, 1).all()


def test_activation_norms_keep_more_quality_than_magnitude_alone() -> None:
    """The finding the documentation states; Wanda's advantage is largest at 70 %."""
    table = load_table("measured/minilm/pruning_quality.csv").set_index(["method", "sparsity_wanted"])
    wanda, magnitude = table.loc["wanda"], table.loc["magnitude"]
    assert (wanda["rank_correlation"] > magnitude["rank_correlation"]).all()
    assert (wanda["top1_accuracy"].diff().dropna() < 0).all()
    advantage = wanda["top1_accuracy"] - magnitude["top1_accuracy"]
    assert advantage.loc[0.7] > 0.1
    assert table.loc[("random", 0.3), "top1_accuracy"] < table.loc[("wanda", 0.8), "top1_accuracy"]
