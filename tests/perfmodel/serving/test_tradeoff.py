"""Throughput against latency: the front, the runs it is made of, limits, and who takes part."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.catalog import load_model
from perfmodel.catalog.sparsities import LayerSparsity, Sparsities
from perfmodel.kernels.rivals import NOT_MEASURED
from perfmodel.serving.contenders import hosted_systems, own_sparsity, rival_systems
from perfmodel.serving.planning import Limits
from perfmodel.serving.run import evaluate
from perfmodel.serving.steady import serve
from perfmodel.serving.systems import load_system
from perfmodel.serving.tradeoff import BATCHES, _judged, on_front, tradeoff
from perfmodel.serving.transformer import all_matrices

LENGTHS = {"input_len": 1024, "output_len": 256}


def weighed(model: str = "llama-3.1-8b", gpu: str = "h100", **asked: Any) -> pd.DataFrame:
    return tradeoff(model, gpu, **(LENGTHS | asked))


def made_up(rows: list[tuple[Any, ...]]) -> dict[str, Any]:
    """Columns of rows of user rate, GPU rate, fits, measured; intervals of a tenth, a tenth of a second to a token."""
    user, rate, fits, measured = (np.array(column) for column in zip(*rows, strict=True))
    rate = rate.astype(float)
    ends = {"low": 0.9 * rate, "high": 1.1 * rate}
    times = {"ttft_s": np.full(len(rows), 0.1), "tpot_s": 1 / user}
    return {
        "tokens_per_user_s": user.astype(float),
        "tokens_per_gpu_s": rate,
        **ends,
        **times,
        "fits": fits,
        "measured": measured,
    }


def test_the_front_of_a_table_made_by_hand() -> None:
    rows = [
        (100, 10, True, True),  # the quickest for a user
        (90, 9, True, True),  # beaten in both, within a tenth
        (80, 50, True, True),
        (80, 30, True, True),  # as quick as the one above, and far less for the GPU
        (70, 48, True, True),  # beaten in both, within a tenth
        (60, 200, False, True),  # does not fit
        (60, 300, True, False),  # nobody has measured it
        (20, 90, True, True),  # most for the GPU
        (5, 95, True, True),  # beyond the limit
    ]
    found = _judged(made_up(rows), Limits(tpot_s=0.1))
    assert found["front"].tolist() == [True, False, True, False, False, False, False, True, False]
    assert found["ties"].tolist() == [False, True, False, False, True, False, False, False, False]
    assert found["keeps"].tolist() == [True, True, True, True, True, False, True, True, False]
    assert not _judged(made_up(rows), Limits(tpot_s=1e-3))["front"].any()


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=30))
def test_no_pair_of_the_front_is_beaten_and_every_other_is(pairs: list[tuple[int, int]]) -> None:
    first, second = np.array(pairs, dtype=float).T
    for x, y, on in zip(first, second, on_front(first, second), strict=True):
        beaten = bool(np.any((first >= x) & (second >= y) & ((first > x) | (second > y))))
        assert on != beaten


@pytest.mark.parametrize(
    ("model", "gpu", "gpus", "sparsity"),
    [
        ("llama-3.1-70b", "h100", 4, 0.6),
        ("mixtral-8x7b", "a100-80gb", 2, 0.5),
        ("opt-13b", "v100", 1, 0.8),
        ("llama-3.1-8b", "rtx-4090", 1, 0.7),
    ],
)
@pytest.mark.parametrize("served", [False, True])
def test_nothing_that_may_be_recommended_beats_the_front(
    model: str, gpu: str, gpus: int, sparsity: float, served: bool
) -> None:
    """In tokens/s of a GPU and of a user; what nobody measured is in the table and not on the front."""
    table = weighed(model, gpu, gpus=gpus, sparsity=sparsity, served=served, unmeasured=True, input_len=512)
    able = table[table["keeps"] & table["measured"]]
    for row in able[able["front"]].itertuples():
        quicker = able["tokens_per_user_s"] > row.tokens_per_user_s
        assert not (quicker & (able["tokens_per_gpu_s"] > row.tokens_per_gpu_s)).any()
    unmeasured = table[~table["measured"]]
    assert len(unmeasured)
    assert not unmeasured[["front", "ties"]].any(axis=None)
    assert (unmeasured["change"] == NOT_MEASURED).all()
    kept = table[table["fits"]]
    assert ((kept["low"] <= kept["tokens_per_gpu_s"]) & (kept["tokens_per_gpu_s"] <= kept["high"])).all()
    assert table.loc[~table["fits"], ["tokens_per_gpu_s", "low", "high", "ttft_s", "tpot_s"]].isna().all(axis=None)


@pytest.mark.parametrize("system", ["vllm", "vllm+int4", "vllm+flash-llm", "vllm+two-four"])
def test_values_are_those_of_the_batch(system: str) -> None:
    table = weighed(sparsity=0.6, batches=[1, 16, 64], gpus=2, systems=[system])
    sparsity = own_sparsity(load_system(system), 0.6)
    run = evaluate("llama-3.1-8b", "h100", system, batch=[1, 16, 64], sparsity=sparsity, gpus=2, **LENGTHS)
    low, high = run.tokens_per_gpu_s_interval
    for name, value in {
        "tokens_per_gpu_s": run.tokens_per_gpu_s, "low": low, "high": high, "ttft_s": run.ttft_s, "tpot_s": run.tpot_s,
        "tokens_per_user_s": 1 / run.tpot_s, "extrapolated": run.extrapolated, "fits": run.memory.fits,
    }.items():  # fmt: skip
        assert table[name].to_numpy() == pytest.approx(value, rel=1e-12), name


@pytest.mark.parametrize("system", ["vllm", "vllm+fp8", "vllm+bitmap"])
def test_values_are_those_of_the_loaded_server(system: str) -> None:
    """As sure as a batch of the sequences that decode there."""
    table = weighed(sparsity=0.6, batches=[1, 64, 1024], systems=[system], served=True)
    load = serve("llama-3.1-8b", "h100", system, users=[1, 64, 1024], sparsity=0.6, **LENGTHS)
    for name in ("tokens_per_gpu_s", "ttft_s", "tpot_s", "fits"):
        assert table[name].to_numpy() == pytest.approx(getattr(load, name), rel=1e-12), name
    alike = evaluate("llama-3.1-8b", "h100", system, batch=np.round(load.decoding), sparsity=0.6, **LENGTHS)
    ratio = alike.tokens_per_gpu_s_interval[1] / alike.tokens_per_gpu_s
    assert (table["high"] / table["tokens_per_gpu_s"]).to_numpy() == pytest.approx(ratio, rel=1e-9)


def test_limits_move_the_front_to_fewer_sequences() -> None:
    free, held = weighed(), weighed(ttft_s=0.5, tpot_s=0.01)
    assert (held["keeps"] == (held["fits"] & (held["ttft_s"] <= 0.5) & (held["tpot_s"] <= 0.01))).all()
    assert held.loc[held["front"], "batch"].max() < free.loc[free["front"], "batch"].max()
    assert held["front"].any()
    assert free.drop(columns=["keeps", "front", "ties"]).equals(held.drop(columns=["keeps", "front", "ties"]))


def test_by_default_one_engine_with_every_measured_kernel_that_the_gpu_runs() -> None:
    table = weighed(sparsity=0.6, batches=[1])
    assert tuple(table["system"]) == rival_systems("h100", 0.6, "vllm")
    assert table["measured"].all()
    wider = weighed(sparsity=0.6, batches=[1], unmeasured=True)
    assert set(table["system"]) < set(wider["system"])
    assert set(weighed(batches=[1], engine="sglang")["system"]) == set(rival_systems("h100", 0.0, "sglang"))
    assert len(weighed()) == len(BATCHES) * len(rival_systems("h100", 0.0, "vllm"))


@pytest.mark.parametrize("gpu", ["a100-80gb", "v100"])
def test_what_takes_no_part_says_why(gpu: str) -> None:
    table = weighed(gpu=gpu, sparsity=0.3, batches=[1])
    reasons = table.attrs["left_out"]
    assert "has no FP8 Tensor Cores" in reasons["vllm+fp8"]
    assert "it keeps weights of 30% sparsity dense" in reasons["vllm+flash-llm"]
    assert "vllm+two-four" in reasons
    assert set(reasons) | set(table["system"]) == {"vllm", *hosted_systems("vllm")}
    assert not set(reasons) & set(table["system"])


def test_a_pattern_drops_no_more_than_is_asked_for() -> None:
    milder = weighed(sparsity=0.3, batches=[1], systems=["vllm", "vllm+six-eight", "vllm+two-four"])
    assert milder["system"].tolist() == ["vllm", "vllm+six-eight"]
    assert milder["sparsity"].tolist() == [0.0, 0.25]
    assert "drops 50% of the weights, more than 30%" in milder.attrs["left_out"]["vllm+two-four"]
    assert "vllm+two-four" in set(weighed(sparsity=0.5, batches=[1])["system"])


def test_a_format_without_a_kernel_is_a_bound_and_never_on_the_front() -> None:
    table = weighed(batches=[1, 4], systems=["vllm", "vllm+df11"])
    bound = table[table["system"] == "vllm+df11"]
    assert bound["bound"].all()
    assert (bound["low"] == 0).all()
    assert not bound["front"].any()
    assert table.loc[table["system"] == "vllm", "front"].all()


def test_weights_that_a_checkpoint_has_rounded_are_rounded() -> None:
    table = weighed("gpt-oss-20b", "h200", batches=[1], systems=["vllm"])
    assert table["change"].tolist() == ["rounded"]


def test_each_matrix_may_have_a_sparsity_of_its_own() -> None:
    """Those of one value everywhere are that value; a pattern keeps its own."""
    layers = tuple(LayerSparsity(layer=layer, sparsity=0.6) for layer in range(32))
    names = {matrix.name for matrix in all_matrices(load_model("llama-3.1-8b").shape) if matrix.prunable}
    zeros = Sparsities(source="mine.csv", matrices=dict.fromkeys(names, layers))
    each, whole = (weighed(batches=[8], sparsity=share) for share in (zeros, 0.6))
    pd.testing.assert_frame_equal(each, whole, rtol=1e-9)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"output_len": 1}, "output_len must be a whole number of at least 2, got 1"),
        ({"batches": []}, "batches is empty"),
        ({"batches": [0]}, "batches must be a whole number of at least 1, got 0"),
        ({"systems": ["vlm"]}, "unknown system 'vlm'"),
        ({"systems": []}, "no system to compare: systems is empty"),
        ({"systems": ["vllm+nvfp4"]}, "no system to compare: vllm\\+nvfp4: .* has no FP4 Tensor Cores"),
        ({"engine": "vlm"}, "unknown system 'vlm'"),
        ({"sparsity": 60}, "sparsity"),
        ({"ttft_s": 0.0}, "ttft must be above 0, got 0"),
        ({"tpot_s": float("nan")}, "tpot"),
        ({"gpus": 3}, "llama-3.1-8b"),
        ({"served": True, "pipeline_parallel": 2, "gpus": 2}, "pipeline_parallel must be 1 under load, got 2"),
    ],
)
def test_what_cannot_be_weighed_is_a_sentence(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        weighed(**asked)
