"""Which published compressions a weight format stands for."""

from __future__ import annotations

import pytest

from perfmodel.catalog import load_table
from perfmodel.evidence.accuracy import TABLE, loss_at
from perfmodel.evidence.ways import WAYS, ZEROS_ANYWHERE, cost_of, way_of
from perfmodel.formats import FORMATS
from perfmodel.kernels.rivals import rivals


def test_every_measured_kernel_that_changes_weights_has_a_way() -> None:
    for model in rivals():
        way = way_of(model.format_name)
        assert (way is None) == (model.format.change == "lossless"), model.name
        if way is not None:
            assert way.prunes == model.format.prunes


def test_ways_name_formats_that_exist_each_once() -> None:
    named = [name for way in WAYS for name in way.formats]
    assert len(named) == len(set(named))
    assert set(named) <= set(FORMATS)
    assert len({way.title for way in WAYS}) == len(WAYS)


def test_published_results_use_the_words_of_the_ways() -> None:
    """All but those of weights that no kernel here multiplies."""
    table = load_table(TABLE)
    known = {(way.pattern, way.weights, way.activation_bits) for way in WAYS} | {("none", "fp16", 16)}
    used = table[["pattern", "weights", "activation_bits"]].itertuples(index=False, name=None)
    assert sum(combination in known for combination in used) > 0.6 * len(table)


@pytest.mark.parametrize(("name", "zeros"), [("2:4", 0.5), ("4:8", 0.5), ("6:8", 0.25), ("FP8", 0.0), ("2:4 FP8", 0.5)])
def test_a_pattern_has_its_own_zeros(name: str, zeros: float) -> None:
    assert next(way for way in WAYS if way.title == name).sparsity == zeros


def test_a_cost_is_of_the_formats_own_way() -> None:
    assert way_of("dense") is None
    assert cost_of("llama-2-7b", "dense", 0.5) is None
    assert way_of("bitmap") is way_of("tiled-csl") is ZEROS_ANYWHERE
    anywhere, pattern = (cost_of("llama-2-7b", name, 0.5) for name in ("bitmap", "2:4"))
    assert anywhere == loss_at("llama-2-7b", 0.5)
    assert anywhere is not None
    assert pattern is not None
    assert pattern.value > anywhere.value
    assert cost_of("llama-2-7b", "2:4", 0.1) == pattern  # whatever is asked, 2:4 has half
    rounded = cost_of("llama-3.1-8b", "fp8-row", 0.0)
    assert rounded is not None
    assert abs(rounded.value) < 1
