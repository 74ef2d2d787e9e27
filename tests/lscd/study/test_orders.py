"""The study of column orders: strips as words, masks by kind, the measures by hand, and the stored table."""

from __future__ import annotations

import numpy as np
import pytest

from kernels_numba.checkpoints.safetensors_reader import open_checkpoint
from lscd.study import orders
from lscd.study.orders import MAKERS, Case, measure, real_cases, rows_of, sampled, strips_of, synthetic_cases
from perfmodel.catalog import load_sources, load_table
from tests.kernels_numba.checkpoints.files import save


def test_strips_as_words() -> None:
    mask = np.zeros((70, 130), np.bool_)
    mask[33, 64] = mask[69, 129] = True  # the second lies beyond the last whole strip
    words = strips_of(mask, 32)
    assert words.shape == (4, 64)
    assert np.argwhere(words).tolist() == [[3, 0]]
    assert int(words[3, 0]) == 1 << 1
    assert int(strips_of(mask, 64)[1, 0]) == 1 << 33
    assert sampled(words, 2).tolist() == words[[0, 3]].tolist()


@pytest.mark.parametrize("kind", MAKERS)
def test_masks_have_the_sparsity_asked_for(kind: str) -> None:
    make, _ = MAKERS[kind]
    mask = make((256, 512), 0.75, np.random.default_rng(1))
    assert 1 - mask.mean() == pytest.approx(0.75, abs=0.05)
    if kind == "rows":
        assert set(mask.sum(1).tolist()) == {128}
    if kind == "n-of-8":
        assert set(mask.reshape(-1, 8).sum(1).tolist()) == {2}


def test_measures_by_hand() -> None:
    """Full columns 4 g and 4 g + 1 fit as they stand; a full row fits in no order, and half of it goes to tails."""
    pattern = np.broadcast_to(np.arange(64) % 4 < 2, (32, 64))
    found = measure(strips_of(pattern, 32), 32)
    assert (found["left_natural"], found["tails"], found["registers"], found["full_row"]) == (0, 0, 1, 0)
    row = np.zeros((32, 64), np.bool_)
    row[3] = True
    found = measure(strips_of(row, 32), 32)
    assert found["left_natural"] == found["left_bank"] == found["left_any"] == 0.5
    assert (found["tails"], found["tail_weights"], found["full_row"]) == (2, 0.5, 1)
    assert found["registers"] == 16 / 512


def test_cases_of_made_up_and_of_real_masks(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "SPARSITIES", (0.8,))
    rng = np.random.default_rng(2)
    weights = {"a.weight": rng.standard_normal((64, 128)).astype(np.float32)}
    save(tmp_path / "model.safetensors", weights, {"a.weight": "F32"})
    norms = {"a.weight": rng.random(128).astype(np.float32)}
    save(tmp_path / "norms.safetensors", norms, {"a.weight": "F32"})
    cases = list(
        real_cases(
            "m", open_checkpoint(tmp_path / "model.safetensors"), open_checkpoint(tmp_path / "norms.safetensors")
        )
    )
    assert [case.kind for case in cases] == ["magnitude", "rows by magnitude", "rows by Wanda"]
    masks = [next(case.masks()) for case in cases]
    assert all(1 - mask.mean() == pytest.approx(0.8, abs=0.01) for mask in masks)
    assert (masks[1] != masks[2]).any()
    rows = rows_of(cases[0])
    assert [row["strip_rows"] for row in rows] == [32, 64]
    assert [row["strips"] for row in rows] == [4, 2]
    assert set(rows[0]) == set(load_table("measured/condensed_orders.csv").columns)
    first = next(iter(synthetic_cases(strips=16)))
    assert isinstance(first, Case)
    assert next(first.masks()).shape == (32, 1024)


def test_the_stored_table_is_what_it_says() -> None:
    table = load_table("measured/condensed_orders.csv")
    assert set(table["source"]) <= set(load_sources())
    assert not table.duplicated(["source_of_mask", "mask", "sparsity_wanted", "strip_rows"]).any()
    # Left over as columns stand, by theory: 4 d^3 (1 - d) of the groups hold one too many, d^4 two.
    random = table[table["mask"] == "random"]
    d = 1 - random["sparsity"]
    expected = (4 * d**3 * (1 - d) + 2 * d**4) / (4 * d).where(d > 0, 1)
    assert (random["left_natural"] - expected).abs().max() < 0.004
    assert (table["left_bank"] <= table["left_natural"] + 1e-9).all()
    at = random[np.isclose(random["sparsity_wanted"], 0.75) & (random["strip_rows"] == 32)].iloc[0]
    assert (at["left_bank"], at["tails"]) == (0, 0)
    assert (random.loc[random["sparsity_wanted"] <= 0.55, "over_any"] == 1).all()


def test_what_the_page_says_of_real_masks() -> None:
    """By rows a real model's masks fit nearly as random ones do; by matrix some rows of strips are too full."""
    table = load_table("measured/condensed_orders.csv")
    at = table[np.isclose(table["sparsity_wanted"], 0.8) & (table["strip_rows"] == 32)].set_index(
        ["source_of_mask", "mask"]
    )
    for model in ("MiniLM", "SmolLM2, 4 bits"):
        assert at.loc[(model, "rows by magnitude"), "tails"] < 0.01
        whole = at.loc[(model, "magnitude")]
        assert whole["tails"] > 0.1
        assert whole["over_any"] - whole["full_row"] < 0.01, "rows that fit in no order, and hardly anything else"
