"""The study of a language model: its rows, its stored table, and that it goes on where it stopped."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kernels_numba.checkpoints.pruning import Method, PruningRule
from kernels_numba.decoder.config import DecoderConfig
from kernels_numba.decoder.model import Decoder
from kernels_numba.formats import encode_bitmap, encode_quantised_bitmap
from lscd.study import language_model
from lscd.study.language_model import Texts, Variant, changed, run, storage, variants
from perfmodel.catalog import load_table
from tests.kernels_numba.decoder.models import LLAMA, weights_of

RNG = np.random.default_rng(5)
TEXTS = Texts(RNG.integers(0, 61, (6, 20)), RNG.integers(0, 61, (4, 24)))


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    weights = {name: values.astype(np.float16).astype(np.float32) for name, values in weights_of(LLAMA).items()}
    return Decoder(DecoderConfig.from_dict(LLAMA), weights)


def matrices(decoder: Decoder) -> list[np.ndarray]:
    return [decoder.weights[name] for index in range(2) for name in decoder.config.matrices(index)]


def test_the_table_goes_on_where_it_stopped(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    all_rows = [Variant("none"), Variant("wanda", PruningRule(Method.WANDA, 0.5)), Variant("int4", bits=4)]
    monkeypatch.setattr(language_model, "variants", lambda: iter(all_rows))
    *_, first = run(decoder, TEXTS, all_rows[2:], pd.DataFrame())
    *_, table = run(decoder, TEXTS, all_rows, first)
    assert table["row"].tolist() == ["none", "wanda-0.5", "int4"]
    assert table.iloc[2].to_dict() == pytest.approx(first.iloc[0].to_dict(), nan_ok=True)
    assert list(run(decoder, TEXTS, all_rows, table)) == []
    dense, wanda = table.iloc[0], table.iloc[1]
    assert (dense["loss"], dense["loss_error"], dense["sparsity"]) == (0, 0, 0)
    assert wanda["loss"] == pytest.approx(np.log(wanda["perplexity"] / dense["perplexity"]), abs=2e-4)
    assert (wanda["tokens"], wanda["calibration_tokens"], wanda["sparsity_wanted"]) == (4 * 23, 120, 0.5)
    assert dense["calibration_tokens"] == table.iloc[2]["calibration_tokens"] == 0


def test_bytes_are_those_of_the_encoders(decoder: Decoder) -> None:
    pruned = Variant("sparsegpt", PruningRule(Method.SPARSEGPT, 0.5))
    new = changed(decoder, pruned, TEXTS.calibration)
    found = storage(new, pruned)
    halves = [matrix.astype(np.float16) for matrix in matrices(new)]
    assert all((half == matrix).all() for half, matrix in zip(halves, matrices(new), strict=True)), "rounded to float16"
    assert found["bitmap_bytes"] == sum(encode_bitmap(half).nbytes for half in halves)
    assert found["dense_bytes"] == sum(half.nbytes for half in halves)
    assert found["best_bytes"] <= found["bitmap_bytes"]


@pytest.mark.parametrize("bits", [8, 4])
def test_rounded_rows_hold_what_codes_and_scales_say(decoder: Decoder, bits: int) -> None:
    variant = Variant(f"int{bits}", bits=bits)
    new = changed(decoder, variant, TEXTS.calibration)
    encoded = [encode_quantised_bitmap(matrix.astype(np.float16), bits) for matrix in matrices(decoder)]
    for found, wanted in zip(matrices(new), encoded, strict=True):
        np.testing.assert_array_equal(found, wanted.decode())
    size = sum(matrix.size for matrix in matrices(decoder))
    assert storage(new, variant)["best_bytes"] == size * bits // 8 + sum(each.scales.nbytes for each in encoded)
    again = [encode_quantised_bitmap(matrix.astype(np.float16), bits) for matrix in matrices(new)]
    assert storage(new, variant)["bitmap_bytes"] == sum(each.nbytes for each in again)


def test_the_stored_table_is_whole() -> None:
    table = load_table("measured/smollm2/pruning.csv")
    assert table["row"].tolist() == [variant.label for variant in variants()]
    np.testing.assert_allclose(table["loss"], np.log(table["perplexity"] / table["perplexity"][0]), atol=2e-4)
    pruned = table[table["sparsity_wanted"] > 0]
    np.testing.assert_allclose(pruned["sparsity"], pruned["sparsity_wanted"], atol=2e-3)
    assert set(table["dense_bytes"]) == {212_336_640}
    assert (table["tokens"] == 32 * 511).all()


def test_what_the_stored_table_shows() -> None:
    """At each sparsity SparseGPT loses less than Wanda, and that less than magnitude, beyond twice the errors."""
    table = load_table("measured/smollm2/pruning.csv").set_index("row")
    for sparsity in language_model.SPARSITIES:
        magnitude, wanda, sparsegpt = (table.loc[f"{x}-{sparsity:g}"] for x in ("magnitude", "wanda", "sparsegpt"))
        for better, worse in ((sparsegpt, wanda), (wanda, magnitude)):
            error = np.hypot(better["loss_error"], worse["loss_error"])
            assert worse["loss"] - better["loss"] > 2 * error
