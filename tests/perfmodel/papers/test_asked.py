"""Each quantity of a published number, answered as the public API answers it, or counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel import predict
from perfmodel.catalog.papers import NUMBER_COLUMNS, load_paper
from perfmodel.inverse import sparsity_for_speedup
from perfmodel.papers.asked import Asked, UnansweredError
from perfmodel.papers.judge import QUANTITIES
from perfmodel.serving.run import evaluate

SIZE = {"m": "36864", "k": "9216"}
PRODUCT = {**SIZE, "gpu": "a100-80gb", "kernel": "flash-llm", "n": "16", "sparsity": "0.8"}
RUN = {"model": "opt-66b", "gpu": "a100-80gb", "gpus": "2", "system": "flash-llm", "sparsity": "0.8/0"}
RUN |= {"batch": "16", "input_len": "64", "output_len": "512"}
OPERATOR = {"model": "llama-2-7b", "gpu": "rtx-a6000", "kernel": "q", "batch": "1", "input_len": "2048"}


def answer(quantity: str, **cells: str):
    asked = Asked(load_paper("flash-llm"), dict.fromkeys(NUMBER_COLUMNS, "") | cells)
    return QUANTITIES[quantity](asked)


def test_time_and_speedup_are_those_of_predict() -> None:
    p = predict("flash-llm", "a100-80gb", 36864, 9216, 16, 0.8, cache="warm")
    found = answer("kernel-time", **PRODUCT)
    assert found.value == pytest.approx(float(p.time_s) * 1e6)
    assert found.low == pytest.approx(float(p.lo_s) * 1e6)
    assert found.value < found.high <= float(p.hi_s) * 1e6 * 1.0001  # no other variant is meant
    speedup = answer("kernel-speedup", **PRODUCT, baseline="cublas")
    assert speedup.value == pytest.approx(float(p.speedup_vs_dense))
    assert speedup.low < speedup.value < speedup.high


def test_statistics_span_shapes_tokens_and_sparsities() -> None:
    cells = {"gpu": "a100-80gb", "kernel": "flash-llm", "baseline": "cublas", "shapes": "flash-llm"}
    cells |= {"n": "8;16", "sparsity": "0.7;0.9"}
    found = {name: answer("kernel-speedup", **cells, statistic=name).value for name in ("min", "mean", "max", "median")}
    assert found["min"] < found["mean"] < found["max"]
    assert answer("kernel-speedup", **cells, statistic="geomean").value < found["mean"]
    with pytest.raises(ValueError, match="48 numbers need a statistic"):
        answer("kernel-speedup", **cells)


def test_break_even_is_where_the_inverse_finds_it() -> None:
    cells = {**PRODUCT, "sparsity": "", "baseline": "cublas"}
    where = sparsity_for_speedup("flash-llm", "a100-80gb", m=36864, k=9216, n=16, speedup=1.0)
    found = answer("break-even-sparsity", **cells)
    assert found.value == pytest.approx(
        where, abs=0.03
    )  # the inverse asks for weights in memory, a paper's loop is warm
    assert 0 < found.low < found.value < found.high < 1


def test_break_even_tokens_end_where_the_gain_does() -> None:
    cells = {**PRODUCT, "n": "", "baseline": "cublas"}
    last = int(answer("break-even-tokens", **cells).value)
    gains = predict("flash-llm", "a100-80gb", 36864, 9216, [last, 4 * last], 0.8, cache="warm").speedup_vs_dense
    assert gains[0] > 1 > gains[1]


def test_bytes_are_counted() -> None:
    assert answer("size-ratio", **SIZE, kernel="2:4", sparsity="0.5").value == pytest.approx(9 / 16)
    assert answer("model-gb", model="opt-175b", system="fastertransformer").value == pytest.approx(350, rel=0.01)
    assert answer("cache-ratio", sparsity="0.7").value == pytest.approx(0.45, abs=0.02)


def test_runs_are_those_of_evaluate() -> None:
    run = evaluate("opt-66b", "a100-80gb", "flash-llm", batch=16, sparsity=0.8, gpus=2)
    assert answer("run-rate", **RUN).value == pytest.approx(float(run.tokens_per_s))
    assert answer("ttft-ms", **RUN).value == pytest.approx(float(run.ttft_s) * 1e3)
    assert answer("tpot-ms", **RUN).value == pytest.approx(float(run.tpot_s) * 1e3)
    assert answer("memory-gb", **RUN).value == pytest.approx(float(run.memory.total) / 1e9)
    shares = [
        answer("part-share", **RUN, kernel=part).value for part in ("matmul", "attention", "communication", "other")
    ]
    assert sum(shares) == pytest.approx(1)


def test_each_side_of_a_comparison_has_its_own_gpus_and_batch() -> None:
    dense = evaluate("opt-66b", "a100-80gb", "fastertransformer", batch=8, gpus=4)
    own = evaluate("opt-66b", "a100-80gb", "flash-llm", batch=16, sparsity=0.8, gpus=2)
    cells = RUN | {"gpus": "2/4", "batch": "16/8", "baseline_system": "fastertransformer"}
    found = answer("run-speedup", **cells)
    assert found.value == pytest.approx(float(own.tokens_per_gpu_s / dense.tokens_per_gpu_s))
    assert found.low < found.value < found.high


def test_an_operator_counted_by_hand() -> None:
    weights, tokens = 4096 * 4096, 2048
    flop, moved = 2 * weights * tokens, 2 * (weights + 2 * 4096 * tokens)
    cells = OPERATOR | {"system": "prefill"}
    assert answer("gflop", **cells).value == pytest.approx(flop / 1e9)
    assert answer("traffic-gb", **cells).value == pytest.approx(moved / 1e9)
    assert answer("intensity", **cells).value == pytest.approx(flop / moved)
    assert answer("attainable-tflops", **cells).value == pytest.approx(154.8, rel=0.01)  # bound by the Tensor Cores
    decode = answer("attainable-tflops", **OPERATOR, system="decode").value
    assert decode == pytest.approx(0.768 * answer("intensity", **OPERATOR, system="decode").value, rel=0.01)


def test_scores_of_attention_grow_with_the_square_of_the_prompt() -> None:
    one, two = (
        answer("gflop", **OPERATOR | {"kernel": "qk", "input_len": n, "system": "prefill"}) for n in ("512", "1024")
    )
    assert two.value == pytest.approx(4 * one.value)
    assert answer("gflop", **OPERATOR | {"kernel": "qk", "system": "decode"}).value == pytest.approx(
        2 * 4096 * 2048 / 1e9
    )


@pytest.mark.parametrize(
    ("quantity", "cells", "says"),
    [
        ("kernel-time", PRODUCT | {"kernel": "lscd-bitmap"}, "nobody has measured lscd-bitmap"),
        ("kernel-time", PRODUCT | {"kernel": "cusparse"}, "only a bound is known of cusparse"),
        ("kernel-time", PRODUCT | {"gpu": ""}, "the source does not say: gpu"),
        ("kernel-time", PRODUCT | {"kernel": "fp8"}, "lacks|has no"),
        ("size-ratio", SIZE | {"kernel": "twell", "sparsity": "0.9"}, "we have no format twell"),
        ("gflop", OPERATOR | {"kernel": "norm", "system": "decode"}, "has no operator norm, but q, k, v, o"),
        ("run-rate", RUN | {"system": "vllm+mxfp4", "sparsity": "0"}, "only a bound|lacks|needs"),
    ],
)
def test_what_we_cannot_answer_says_why(quantity: str, cells: dict[str, str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        answer(quantity, **cells)


def test_a_bound_is_no_answer() -> None:
    from perfmodel.papers.asked import Answer

    with pytest.raises(UnansweredError):
        Answer(float("nan"), 0.0, 1.0)
    assert np.isfinite(Answer(1.0, 0.5, 2.0).value)
