"""Analysis helpers against answers known by hand, by brute force, or from closed forms."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.analysis import (
    bandwidth_for_speedup,
    crossover_sparsity,
    crossover_surface,
    expert_speedups,
    layer_times,
    pareto_front,
    prediction_sensitivity,
    sobol_indices,
    sparsity_for_speedup,
    value_where,
)
from perfmodel.catalog import load_gpu, load_model
from perfmodel.catalog.specs import Gpu
from perfmodel.prediction import predict
from perfmodel.serving.transformer import layer_matrices
from tests.comparison import assert_close

LARGE = {"m": 36864, "k": 9216, "n": 8}


def test_layer_times_are_the_sum_of_its_products() -> None:
    own, dense = layer_times("flash-llm", "a100-80gb", "opt-66b", [8, 16], 0.8)
    matrices = layer_matrices(load_model("opt-66b").shape)
    for column, name in ((own, "flash-llm"), (dense, "cublas")):
        parts = [predict(name, "a100-80gb", float(w.m), float(w.k), [8, 16], 0.8).time_s for w in matrices]
        assert_close(column, np.sum(parts, axis=0), relative=1e-12)


@pytest.mark.parametrize("model", ["opt-30b", "mixtral-8x7b"])
def test_crossover_is_where_the_winner_changes(model: str) -> None:
    tokens = np.array([8, 16, 32])
    found = crossover_sparsity("flash-llm", "rtx-4090", model, tokens)
    assert ((found > 0.3) & (found < 0.8)).all()
    for side, wins in ((-1e-6, False), (1e-6, True)):
        own, dense = layer_times("flash-llm", "rtx-4090", model, tokens, found + side)
        assert ((dense >= own) == wins).all()


def test_crossover_knows_never_and_always() -> None:
    never = crossover_sparsity("flash-llm", "a100-80gb", "opt-30b", [512, 1024])
    assert np.isnan(never).all()
    assert np.isnan(crossover_sparsity("macko", "a100-80gb", "opt-30b", 8))  # takes a single token
    assert crossover_sparsity("int8", "a100-80gb", "opt-30b", 8) == 0  # smaller whatever the zeros
    assert crossover_sparsity("cublas", "a100-80gb", "opt-30b", 8, speedup=0.9) == 0
    with pytest.raises(ValueError, match="speedup must be above 0, got 0"):
        crossover_sparsity("flash-llm", "a100-80gb", "opt-30b", 8, speedup=0)


def test_a_bound_answers_no_question() -> None:
    """cuSPARSE beyond one token is known from below only."""
    assert np.isnan(crossover_sparsity("cusparse", "a100-80gb", "opt-30b", [2, 8])).all()
    with pytest.raises(ValueError, match="of cusparse no more than a lower bound of the time is known at N = 8"):
        sparsity_for_speedup("cusparse", "a100-80gb", 1.0, m=36864, k=9216, n=8)


def test_crossover_surface_is_a_table_of_crossovers() -> None:
    asked = {"gpus": ["a100-80gb", "h100"], "models": ["opt-13b"], "n": [8, 64]}
    table = crossover_surface("flash-llm", **asked, speedup=1.2)
    assert list(table.columns) == ["kernel", "gpu", "model", "n", "sparsity"]
    assert list(zip(table["gpu"], table["n"], strict=True)) == [(g, n) for g in ("a100-80gb", "h100") for n in (8, 64)]
    alone = crossover_sparsity("flash-llm", "h100", "opt-13b", 64, 1.2)
    assert table["sparsity"].iloc[3] == pytest.approx(float(alone), nan_ok=True)
    easier = crossover_surface("flash-llm", **asked)
    assert (easier["sparsity"].to_numpy()[:2] < table["sparsity"].to_numpy()[:2]).all()


EXPERTS = "qwen3-30b-a3b"


def test_dense_experts_are_as_fast_as_dense_ones() -> None:
    table = expert_speedups(["cublas"], "h100", EXPERTS, [1, 64, 4096], 0.7)
    assert list(table.columns) == ["kernel", "n", "active", "each", "speedup"]
    assert table["speedup"].tolist() == [1, 1, 1]
    assert table["n"].tolist() == [1, 64, 4096]
    assert table["active"].tolist() == pytest.approx([8, 128 * (1 - (1 - 8 / 128) ** 64), 128])
    assert (table["active"] * table["each"]).tolist() == pytest.approx([8, 8 * 64, 8 * 4096])


def test_quantised_experts_are_ahead_while_they_are_skinny() -> None:
    names, tokens = ["int4", "fp8", "flash-llm", "cublas"], [32, 64, 128, 4096]
    table = expert_speedups(names, "h100", EXPERTS, tokens, 0.7)
    assert table["kernel"].tolist() == [name for name in names for _ in tokens]
    speedup = table.set_index(["kernel", "n"])["speedup"]
    for n in tokens[:3]:
        assert 4 > speedup["int4", n] > speedup["fp8", n] > speedup["cublas", n] == 1
    assert speedup["flash-llm", 64] > 1 > speedup["flash-llm", 4096]
    assert speedup["int4", 4096] < 1  # 256 tokens of an expert: decoding is not hidden


def test_more_zeros_are_faster_experts_but_for_what_does_not_prune() -> None:
    half, most = (
        expert_speedups(["flash-llm", "two-four", "int4"], "h100", EXPERTS, [64], share)["speedup"].tolist()
        for share in (0.5, 0.9)
    )
    assert half[0] < most[0]
    assert half[1:] == most[1:]  # a pattern has its own zeros


def test_experts_take_no_tokens_that_their_kernel_does_not() -> None:
    table = expert_speedups(["macko", "cusparse"], "h100", EXPERTS, [1, 64, 4096], 0.7)
    assert table["speedup"].isna().tolist() == [False, True, True] * 2
    assert table["each"].tolist()[0] == 1  # a kernel of one token has its place where a single sequence decodes


def test_one_number_of_tokens_is_one_row() -> None:
    table = expert_speedups(["int4"], "h100", EXPERTS, 64, 0.7)
    pd.testing.assert_frame_equal(table, expert_speedups(["int4"], "h100", EXPERTS, [64], 0.7))


@pytest.mark.parametrize(
    ("kernel", "model", "message"),
    [
        ("int4", "llama-3.1-8b", "llama-3.1-8b has no experts"),
        ("itn4", EXPERTS, "unknown kernel 'itn4': did you mean int4"),
        ("int4", "qwen3-30b-a4b", "unknown model 'qwen3-30b-a4b': did you mean qwen3-30b-a3b"),
    ],
)
def test_speed_ups_of_what_has_no_experts_are_refused(kernel: str, model: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        expert_speedups([kernel], "h100", model, [8], 0.7)


@given(st.lists(st.tuples(*[st.integers(0, 6)] * 3), min_size=1, max_size=40))
@settings(max_examples=60, deadline=None)
def test_pareto_front_is_what_nobody_beats(rows: list[tuple[int, int, int]]) -> None:
    table = pd.DataFrame(rows, columns=["speed", "memory", "cost"])

    def beats(a: pd.Series, b: pd.Series) -> bool:
        better = [a["speed"] - b["speed"], b["memory"] - a["memory"], b["cost"] - a["cost"]]
        return min(better) >= 0 and max(better) > 0

    records = [row for _, row in table.iterrows()]
    expected = [not any(beats(other, row) for other in records) for row in records]
    assert list(pareto_front(table, maximise=["speed"], minimise=["memory", "cost"])) == expected


def test_pareto_front_leaves_missing_values_out_and_names_unknown_columns() -> None:
    table = pd.DataFrame({"speed": [1.0, np.nan, 3.0], "cost": [1.0, 0.0, 9.0]})
    assert list(pareto_front(table, maximise=["speed"], minimise=["cost"])) == [True, False, True]
    with pytest.raises(ValueError, match="unknown column 'sped': did you mean speed"):
        pareto_front(table, maximise=["sped"])
    with pytest.raises(ValueError, match="at least one column"):
        pareto_front(table)


def test_sobol_indices_of_the_ishigami_function() -> None:
    """Closed form for a = 7, b = 0.1: first 0.3139, 0.4424, 0; total 0.5576, 0.4424, 0.2437 (Ishigami, Homma, 1990)."""
    ends = (-np.pi, np.pi)
    found = sobol_indices(
        lambda x: np.sin(x["x1"]) + 7 * np.sin(x["x2"]) ** 2 + 0.1 * x["x3"] ** 4 * np.sin(x["x1"]),
        {"x1": ends, "x2": ends, "x3": ends},
        samples=4096,
    ).set_index("input")
    assert list(found.index) == ["x1", "x2", "x3"]
    assert found["first"].to_numpy() == pytest.approx([0.3139, 0.4424, 0.0], abs=0.02)
    assert found["total"].to_numpy() == pytest.approx([0.5576, 0.4424, 0.2437], abs=0.02)


def test_sensitivity_finds_bandwidth_where_dram_is_the_bound() -> None:
    ranges = {"dram_bandwidth_scale": (0.8, 1.25), "clock_scale": (0.8, 1.25), "tensor_peak_scale": (0.8, 1.25)}
    found = prediction_sensitivity("cublas", "a100-80gb", ranges, **LARGE, samples=128)
    assert found["input"].iloc[0] == "dram_bandwidth_scale"
    assert found["first"].iloc[0] > 0.95
    wide = prediction_sensitivity("cublas", "a100-80gb", ranges, m=36864, k=9216, n=4096, samples=128)
    assert wide.set_index("input")["total"]["dram_bandwidth_scale"] < 0.05


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ranges": {"dram_scale": (1, 2)}}, "unknown input 'dram_scale': did you mean dram_bandwidth_scale"),
        ({"ranges": {"sparsity": (0.9, 0.5)}}, "range of sparsity is 0.9 to 0.5"),
        ({"ranges": {"sparsity": (0.5, 0.9)}, "samples": 100}, "samples is 100, allowed is a power of two"),
        ({"ranges": {"l2_bandwidth_scale": (1.0, 1.1)}, "kernel": "flash-llm"}, "must be finite and vary"),
    ],
)
def test_sensitivity_refuses(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prediction_sensitivity(**{"kernel": "cublas", "gpu": "a100-80gb", **LARGE, **arguments})


def test_value_where_finds_the_first_crossing_or_none() -> None:
    assert value_where(lambda x: x * x, 2.0, 0.0, 10.0) == pytest.approx(2**0.5, rel=1e-9)
    assert value_where(np.sin, 0.5, 0.1, 6.0) == pytest.approx(np.pi / 6, rel=1e-8)
    assert value_where(lambda x: 1 / x, 1e-4, 1e-3, 1e6, log=True) == pytest.approx(1e4, rel=1e-8)
    assert value_where(float, 5.0, 0.0, 1.0) is None
    assert value_where(float, 0.0, 0.0, 1.0) == 0.0
    with pytest.raises(ValueError, match="low < high, above 0"):
        value_where(float, 1.0, 0.0, 1.0, log=True)


def test_inverse_questions_return_what_the_model_then_confirms() -> None:
    sparsity = sparsity_for_speedup("flash-llm", "a100-80gb", 2.0, **LARGE)
    assert sparsity is not None
    confirmed = predict("flash-llm", "a100-80gb", **LARGE, sparsity=sparsity)
    assert float(confirmed.speedup_vs_dense) == pytest.approx(2.0, rel=1e-6)
    assert sparsity_for_speedup("flash-llm", "a100-80gb", 20.0, **LARGE) is None
    bandwidth = bandwidth_for_speedup("flash-llm", "a100-80gb", 2.0, **LARGE, sparsity=0.8)
    assert bandwidth is not None
    confirmed = predict("flash-llm", with_bandwidth(bandwidth), **LARGE, sparsity=0.8)
    assert float(confirmed.speedup_vs_dense) == pytest.approx(2.0, rel=1e-6)
    with pytest.raises(ValueError, match="macko takes N of 1, got 8"):
        sparsity_for_speedup("macko", "a100-80gb", 2.0, **LARGE)


def with_bandwidth(bytes_per_s: float) -> Gpu:
    import msgspec

    gpu = load_gpu("a100-80gb")
    dram = msgspec.structs.replace(gpu.dram, bandwidth_bytes_per_s=bytes_per_s)
    return msgspec.structs.replace(gpu, dram=dram)
