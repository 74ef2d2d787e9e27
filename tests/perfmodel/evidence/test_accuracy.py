"""What published results say compression costs: whose results count, and between which points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from perfmodel.catalog import load_table, model_names
from perfmodel.evidence import accuracy
from perfmodel.evidence.accuracy import (
    BROAD,
    DENSE,
    UNSTRUCTURED,
    WHOLE,
    feasible,
    loss_at,
    reach,
    results,
    siblings,
    variants,
)
from perfmodel.evidence.relatives import family_and_size, plain_name

COLUMNS = [
    "method", "model", "variant", "pattern", "sparsity", "weights", "activation_bits", "group", "retrained",
    "retraining_tokens", "metric", "sequence_length", "shots", "dense_value", "value", "source", "table", "note",
]  # fmt: skip
RUN = [*COLUMNS[:13], "source", "table", "note"]


def table_of(*rows: tuple[str, str, float, float], **columns: object) -> pd.DataFrame:
    """A table of evidence: model, method, sparsity and value of each row; dense reaches 70 %."""
    plain: dict[str, object] = {
        "variant": None, "pattern": UNSTRUCTURED, "weights": "fp16", "activation_bits": 16, "group": None,
        "retrained": False, "retraining_tokens": np.nan, "metric": "mean-zero-shot", "sequence_length": np.nan,
        "shots": np.nan, "dense_value": 70.0, "source": "a", "table": "1", "note": None,
    }  # fmt: skip
    found = pd.DataFrame(rows, columns=["model", "method", "sparsity", "value"]).assign(**(plain | columns))
    return found.assign(loss=found["dense_value"] - found["value"])


@pytest.fixture
def evidence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> object:
    """Puts another table in the place of the published one."""

    def put(*tables: pd.DataFrame) -> None:
        file = tmp_path / f"{len(list(tmp_path.iterdir()))}.csv"  # what is read once a version must be another file
        pd.concat(tables, ignore_index=True).drop(columns="loss").to_csv(file, index=False)
        monkeypatch.setattr(accuracy, "TABLE", file)

    return put


def test_the_table_is_as_large_and_as_broad_as_it_claims() -> None:
    table = load_table(accuracy.TABLE)
    assert list(table.columns) == COLUMNS
    assert len(table) >= 250
    assert len({family_and_size(model)[0] for model in table["model"]}) >= 10
    assert table["metric"].nunique() >= 4
    pruned = table[table["pattern"] != WHOLE]
    assert {"magnitude", "wanda", "sparsegpt", "owl-wanda", "squarehead", "slicegpt"} <= set(pruned["method"])
    assert {"gptq", "awq", "rtn", "fp8", "nvfp4"} <= set(table.loc[table["pattern"] == WHOLE, "method"])
    assert table["table"].notna().all()  # every number is from a named table or card


def test_rows_are_well_formed() -> None:
    table = load_table(accuracy.TABLE)
    assert not table.duplicated(RUN).any()
    assert table["sparsity"].between(0, 0.95).all()
    assert (table["pattern"].str.startswith(WHOLE) == (table["sparsity"] == 0)).all()
    assert table["activation_bits"].isin([4, 6, 8, 16]).all()
    perplexity = table["metric"].str.endswith("perplexity")
    assert (table.loc[perplexity, ["dense_value", "value"]] > 1).all(axis=None)
    others = table.loc[~perplexity & (table["metric"] != accuracy.DROP), ["dense_value", "value"]]
    assert ((others >= 0) & (others <= 100)).all(axis=None)
    of_pattern = table[table["pattern"].str.fullmatch(r"\d+:\d+")]
    kept = of_pattern["pattern"].str.split(":", expand=True).astype(float)
    assert np.allclose(of_pattern["sparsity"], 1 - kept[0] / kept[1])


def test_dense_values_agree_between_sources() -> None:
    """A swapped model or data set shows here: a model's perplexity depends on the length of texts, and little else."""
    table = load_table(accuracy.TABLE)
    table = table[(table["metric"] == "wikitext2-perplexity") & table["sequence_length"].notna()]
    alike = table.fillna({"variant": ""}).groupby(["model", "variant", "sequence_length"])["dense_value"]
    spread = alike.max() / alike.min() - 1
    assert len(spread) >= 10
    assert spread.max() < 0.04


def test_more_zeros_cost_more() -> None:
    """In all but a few of the curves, which are noise near dense."""
    curves = [
        loss
        for _, rows in results("llama-2-7b", "wikitext2-perplexity", pattern=UNSTRUCTURED).groupby("method")
        for _, _, loss in accuracy.curves(rows)
        if len(loss) > 2
    ]
    assert len(curves) >= 3
    assert all(np.all(np.diff(loss) > 0) for loss in curves)


@pytest.mark.parametrize(
    ("name", "family", "size"),
    [
        ("llama-2-7b", "llama-2", 7),
        ("llama-7b", "llama", 7),
        ("Llama-3.1-8B-Instruct", "llama-3", 8),
        ("llama-3-70b", "llama-3", 70),
        ("mixtral-8x7b", "mixtral", 56),
        ("qwen3-30b-a3b", "qwen3-a3b", 30),
        ("qwen3-8b", "qwen3", 8),
        ("opt-125m", "opt", 0.125),
        ("codellama-34b", "codellama", 34),
        ("llama-4-scout", "llama-4-scout", None),
        ("phi-3-mini", "phi-3-mini", None),
    ],
)
def test_names_tell_family_and_size(name: str, family: str, size: float | None) -> None:
    assert family_and_size(name) == (family, size)


def test_results_of_another_family_never_count() -> None:
    for model in model_names():
        family, size = family_and_size(model)
        for metric in accuracy.FIRST_ASKED:
            for _, rows in results(model, metric).groupby(["pattern", "weights", "activation_bits", "retrained"]):
                (used,) = rows["model"].unique()  # of each kind one model
                its_family, its_size = family_and_size(used)
                assert used == model or its_family == family
                if used != model:
                    assert size is not None
                    assert its_size is not None
                    assert 0.5 <= its_size / size <= 2


def test_each_kind_of_compression_finds_its_nearest_model(evidence: object) -> None:
    own = table_of(("llama-3.1-70b", "gptq", 0.0, 69.0), pattern=WHOLE, weights="int4")
    other = table_of(("llama-3-70b", "wanda", 0.5, 60.0))
    evidence(own, other)  # type: ignore[operator]
    found = results("llama-3.1-70b").set_index("pattern")["model"]
    assert found.to_dict() == {WHOLE: "llama-3.1-70b", UNSTRUCTURED: "llama-3-70b"}
    assert len(variants("llama-3.1-70b")) == 2
    assert feasible("llama-3.1-70b").model == "llama-3-70b"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("Meta-Llama-3.1-8B-Instruct", "llama-3.1-8b"),
        ("mistral-7b-v0.3", "mistral-7b"),
        ("deepseek-v3.2", "deepseek-v3.2"),
        ("qwen3-30b-a3b-instruct-2507", "qwen3-30b-a3b"),
    ],
)
def test_tuning_is_no_other_model(name: str, plain: str) -> None:
    assert plain_name(name) == plain


def test_a_version_is_another_model_and_a_size_of_zero_is_none() -> None:
    assert not results("deepseek-v3.2", "mmlu-pro").empty
    assert results("deepseek-v3", "mmlu-pro").empty
    assert family_and_size("llama-0b") == ("llama", None)


def test_the_nearest_of_the_family_answers_within_a_factor_of_two(evidence: object) -> None:
    evidence(table_of(("llama-2-7b", "wanda", 0.5, 65.0), ("llama-2-13b", "wanda", 0.5, 69.0)))  # type: ignore[operator]
    assert results("llama-2-7b")["model"].tolist() == ["llama-2-7b"]
    assert results("llama-2-20b")["model"].tolist() == ["llama-2-13b"]
    assert results("llama-2-70b").empty
    assert results("llama-3.1-8b").empty
    assert feasible("llama-3.1-8b") is None
    assert loss_at("llama-3.1-8b", 0.5) is None


def test_a_limit_is_interpolated_between_points_of_one_table(evidence: object) -> None:
    evidence(table_of(("opt-13b", "wanda", 0.5, 69.0), ("opt-13b", "wanda", 0.6, 65.0)))  # type: ignore[operator]
    limit = feasible("opt-13b", tolerance=2.0)
    assert limit is not None
    assert limit.sparsity == pytest.approx(0.5 + 0.1 * (2 - 1) / (5 - 1))
    assert not limit.beyond
    assert (limit.results, limit.model, limit.method) == (2, "opt-13b", "wanda")
    below = feasible("opt-13b", tolerance=0.5)
    assert below is not None
    assert below.sparsity == pytest.approx(0.25)  # between dense and the first point
    all_kept = feasible("opt-13b", tolerance=5.0)
    assert all_kept is not None
    assert all_kept.beyond
    assert all_kept.sparsity == 0.6


def test_points_of_two_methods_or_tables_are_never_joined(evidence: object) -> None:
    low, high = ("opt-13b", "wanda", 0.5, 69.0), ("opt-13b", "sparsegpt", 0.6, 60.0)
    evidence(table_of(low, high))  # type: ignore[operator]
    limit = feasible("opt-13b", tolerance=2.0)
    assert limit is not None
    assert (limit.sparsity, limit.method, limit.beyond) == (0.5, "wanda", True)
    evidence(table_of(low), table_of(("opt-13b", "wanda", 0.6, 60.0), source="b"))  # type: ignore[operator]
    limit = feasible("opt-13b", tolerance=2.0)
    assert limit is not None
    assert (limit.low, limit.high) == (pytest.approx(0.6 * 2 / 10), 0.5)
    assert limit.sources == ("a", "b")


def test_a_source_that_prints_each_sparsity_apart_is_one_curve(evidence: object) -> None:
    apart = [table_of(("opt-13b", "wanda", s, v), table=name) for s, v, name in ((0.5, 69.0, "A"), (0.6, 65.0, "B"))]
    evidence(*apart)  # type: ignore[operator]
    limit = feasible("opt-13b", tolerance=2.0)
    assert limit is not None
    assert limit.sparsity == pytest.approx(0.525)
    measured = loss_at("opt-13b", 0.5)
    assert measured is not None
    assert (measured.value, measured.results) == (1.0, 1)  # as printed, not a line to the other point
    other_dense = table_of(("opt-13b", "wanda", 0.6, 60.0), table="C", dense_value=62.0)
    evidence(*apart, other_dense)  # type: ignore[operator]
    two = feasible("opt-13b", tolerance=2.0)
    assert two is not None
    assert two.high == pytest.approx(0.6)


def test_the_best_method_answers_and_says_on_how_many_sources(evidence: object) -> None:
    seen = table_of(("opt-13b", "wanda", 0.5, 66.0)), table_of(("opt-13b", "wanda", 0.5, 65.0), source="b")
    claim = table_of(("opt-13b", "wonder", 0.5, 70.0), source="c")
    evidence(*seen)  # type: ignore[operator]
    loss = loss_at("opt-13b", 0.5)
    assert loss is not None
    assert (loss.low, loss.value, loss.high) == (4.0, 4.5, 5.0)
    assert loss.words == "4.5 points lost (4.0 to 5.0) (wanda on opt-13b, 2 results of 2 sources)"
    evidence(*seen, claim)  # type: ignore[operator]
    best = loss_at("opt-13b", 0.5)
    assert best is not None
    assert best.words == "nothing lost (wonder on opt-13b, 1 result)"


def test_nothing_is_said_beyond_the_last_point_or_of_another_pattern(evidence: object) -> None:
    evidence(table_of(("opt-13b", "wanda", 0.5, 69.0)), table_of(("opt-13b", "wanda", 0.5, 60.0), pattern="2:4"))  # type: ignore[operator]
    assert loss_at("opt-13b", 0.6) is None
    half = loss_at("opt-13b", 0.25)
    assert half is not None
    assert half.value == pytest.approx(0.5)
    pattern = feasible("opt-13b", pattern="2:4")
    assert pattern is not None
    assert pattern.sparsity == 0.0  # a pattern has no half
    assert loss_at("opt-13b", 0.4, pattern="2:4") is None


def test_retrained_and_rounded_results_stay_apart(evidence: object) -> None:
    shot = table_of(("opt-13b", "wanda", 0.5, 60.0))
    trained = table_of(("opt-13b", "gradual", 0.8, 69.0), retrained=True)
    rounded = table_of(("opt-13b", "gptq", 0.0, 69.5), pattern=WHOLE, weights="int4")
    evidence(shot, trained, rounded)  # type: ignore[operator]
    assert feasible("opt-13b").sparsity == pytest.approx(0.1)  # type: ignore[union-attr]
    assert feasible("opt-13b", retrained=True).sparsity == 0.8  # type: ignore[union-attr]
    assert loss_at("opt-13b", 0.0, pattern=WHOLE, weights="int4").value == pytest.approx(0.5)  # type: ignore[union-attr]
    assert len(variants("opt-13b")) == 3


def test_smaller_siblings_are_judged_in_the_same_table(evidence: object) -> None:
    large = table_of(("opt-30b", "wanda", 0.5, 60.0), dense_value=72.0)
    small = table_of(("opt-13b", "wanda", 0.5, 60.0), dense_value=70.5)
    elsewhere = table_of(("opt-6.7b", "wanda", 0.5, 60.0), dense_value=50.0, source="b")
    evidence(large, small, elsewhere)  # type: ignore[operator]
    found = siblings("opt-30b")
    assert found["model"].tolist() == ["opt-13b"]
    assert found["loss"].tolist() == [1.5]
    assert siblings("opt-13b").empty


def test_unknown_questions_name_what_is_known() -> None:
    with pytest.raises(ValueError, match=r"unknown metric 'mmlu-x': did you mean mmlu"):
        results("opt-30b", "mmlu-x")
    with pytest.raises(ValueError, match=r"unknown method 'wandaa': did you mean wanda"):
        feasible("opt-30b", method="wandaa")
    with pytest.raises(ValueError, match="unknown metric ''"):
        results("opt-30b", "")
    with pytest.raises(ValueError, match="unknown pattern 'unstructrd': did you mean unstructured"):
        feasible("opt-30b", pattern="unstructrd")
    assert feasible("opt-30b", pattern="3:5") is None


def test_the_lines_of_the_paper_are_those_of_its_models_alone() -> None:
    """80 % with retraining is a result of OPT-30B and GPT-NeoX-20B, stated without tasks, and of no other family."""
    eighty = [
        model
        for model in model_names()
        if (limit := reach(model, retrained=True)) is not None and limit.sparsity >= 0.8
    ]
    assert set(eighty) <= {"opt-30b", "opt-66b", "opt-13b", "gpt-neox-20b", "mpt-7b"}
    llama = reach("llama-3.1-8b", retrained=False)
    assert llama is not None
    assert llama.sparsity < 0.5


def test_words_say_on_what_they_rest() -> None:
    limit = feasible("opt-30b", retrained=True)
    assert limit is not None
    assert feasible("opt-30b", retrained=True, sources=2) is None
    assert limit.words == "at least 80% within 2 points (pruning+finetuning on opt-30b, 1 result)"
    loss = loss_at("opt-175b", 0.5, method="sparsegpt")
    assert loss is not None
    assert loss.words == "0.2 points gained (sparsegpt on opt-175b, 1 result)"
    assert {DENSE}.isdisjoint(results("qwen3-8b")["method"])
    assert set(results("qwen3-8b")["metric"]) <= set(BROAD)
