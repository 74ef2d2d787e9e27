"""Whole-model runs: parts add up, limits, invariants, errors in words."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from perfmodel.catalog import load_model
from perfmodel.catalog.specs import Launch
from perfmodel.kernels import Machine
from perfmodel.kernels.call import STREAM_LAUNCH_S
from perfmodel.serving.run import evaluate
from perfmodel.serving.systems import SYSTEMS, calibrated_systems
from perfmodel.serving.transformer import Part
from tests.perfmodel.cases import OURS
from tests.perfmodel.serving.cases import A100, FLASH, FT, RUN


def test_whole_models_on_them_are_extrapolations() -> None:
    asked = {"batch": 16, "input_len": 64, "output_len": 512, "sparsity": 0.8, "gpus": 2}
    measured, ours = (
        evaluate("opt-66b", "a100-80gb", system, **asked) for system in ("flash-llm", f"fastertransformer+{OURS}")
    )
    assert not measured.extrapolated
    assert ours.extrapolated
    assert ours.memory.weights < measured.memory.weights


def test_parts_add_up_and_prefill_plus_decode_is_the_run():
    run = evaluate("opt-66b", A100, FLASH, **RUN, gpus=2, sparsity=0.8)
    assert float(sum(run.parts.values())) == pytest.approx(float(run.total_s), rel=1e-12)
    assert float(run.ttft_s + 511 * run.tpot_s) == pytest.approx(float(run.total_s), rel=1e-12)
    assert float(sum(run.gpu_seconds.values())) == pytest.approx(2 * float(run.total_s), rel=1e-12)
    assert all(float(seconds) > 0 for seconds in run.parts.values())


def test_closed_form_equals_one_run_per_token():
    # The time of the i-th step is what a longer run adds; their sum must be the long run.
    lengths = np.arange(1, 201)
    run = evaluate("opt-30b", A100, FT, batch=4, input_len=32, output_len=lengths)
    model, parameters = load_model("opt-30b"), calibrated_systems()
    kv = 4 * 2 * model.shape.layers * model.shape.hidden_size * 2
    wait_s = model.shape.layers * parameters.attention_cycles / A100.clock.boost_hz
    per_token_s = kv / Machine.of(A100).streamed_bytes_per_s + wait_s
    steps = np.diff(run.total_s)
    assert np.diff(steps) == pytest.approx(per_token_s, rel=1e-6)
    assert run.total_s[-1] == pytest.approx(run.ttft_s[0] + steps.sum(), rel=1e-12)


def test_one_gpu_does_not_communicate():
    run = evaluate("opt-30b", A100, FT, **RUN)
    assert float(run.parts[Part.COMMUNICATION]) == 0


def test_single_output_token_has_no_time_between_tokens():
    run = evaluate("opt-30b", A100, FT, batch=8, output_len=1)
    assert np.isnan(run.tpot_s)
    assert run.total_s == run.ttft_s


def test_more_bandwidth_is_never_slower():
    faster = replace_dram(A100, 2 * A100.dram.bandwidth_bytes_per_s)
    for system in SYSTEMS:
        slow, fast = (evaluate("opt-66b", gpu, system, **RUN, gpus=4, sparsity=0.8) for gpu in (A100, faster))
        assert float(fast.total_s) < float(slow.total_s)


def replace_dram(gpu, bandwidth):

    return msgspec.structs.replace(gpu, dram=msgspec.structs.replace(gpu.dram, bandwidth_bytes_per_s=bandwidth))


def test_sparsity_under_half_changes_nothing():
    times = evaluate("opt-30b", A100, FLASH, **RUN, sparsity=[0.0, 0.3, 0.49, 0.8]).total_s
    assert times[0] == times[1] == times[2] > times[3]
    assert float(evaluate("opt-30b", A100, FT, **RUN).total_s) == times[0]


def test_pipeline_parallel_moves_less_and_keeps_throughput_below_ideal():
    one = evaluate("opt-30b", A100, FT, **RUN)
    two = evaluate("opt-30b", A100, FT, **RUN, gpus=2, pipeline_parallel=2)
    split = evaluate("opt-30b", A100, FT, **RUN, gpus=2)
    assert float(two.parts[Part.COMMUNICATION]) < float(split.parts[Part.COMMUNICATION])
    assert float(two.tokens_per_gpu_s) < float(one.tokens_per_gpu_s)
    assert float(two.memory.weights) < float(one.memory.weights)


def test_broadcast_equals_one_by_one():
    batches, sparsities = np.array([1, 8, 33]), np.array([0.0, 0.5, 0.9])[:, None]
    grid = evaluate("llama-3.1-70b", "h100", FLASH, batch=batches, sparsity=sparsities, gpus=4).total_s
    for i, s in enumerate(sparsities[:, 0]):
        for j, b in enumerate(batches):
            assert grid[i, j] == evaluate("llama-3.1-70b", "h100", FLASH, batch=b, sparsity=s, gpus=4).total_s


def test_price_of_a_million_tokens_by_hand():
    run = evaluate("opt-30b", A100, FT, **RUN)
    low, high = run.usd_per_million_tokens
    assert float(low) == pytest.approx(0.80 * 1e6 / float(run.tokens_per_gpu_s) / 3600)
    assert float(high / low) == pytest.approx(3.00 / 0.80)
    low, mean, high = (float(joules * run.tokens_per_gpu_s) for joules in run.joules_per_token)
    assert 100 < low < mean < high <= 400  # watts of a board of 400 W that reads its memory


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 0}, "batch must be a whole number of at least 1, got 0"),
        ({"batch": 1.5}, "batch must be a whole number of at least 1, got 1.5"),
        ({"output_len": float("inf")}, "output_len must be a whole number of at least 1, got inf"),
        ({"sparsity": 80}, "did you mean 0.8"),
        ({"gpus": 3}, "opt-30b cannot be shared by 3 GPUs"),
        ({"gpus": 3, "pipeline_parallel": 2}, "gpus must be a multiple of pipeline_parallel"),
        ({"gpus": 64, "pipeline_parallel": 64}, "pipeline_parallel must be at most the 48 layers, got 64"),
        ({"input_len": 2000}, "opt-30b knows 2048 positions, got 2512"),
        ({"cache_bits": 1}, "cache_bits is 1, allowed is a number from 2 to 16"),
        ({"expert_parallel": 2, "gpus": 2}, "expert_parallel must be 1 for opt-30b, which has no experts"),
    ],
)
def test_bad_values_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        evaluate("opt-30b", A100, FT, **{**RUN, **change})


def test_parameters_can_be_given():
    slow = replace(calibrated_systems(), launch_s=2e-5)
    base, slower = (
        evaluate("opt-30b", A100, FT, **RUN, parameters=parameters) for parameters in (calibrated_systems(), slow)
    )
    # A launch for each of 4 products, 3 other kernels and one attention in 48 layers, and 10 + 1 a step; the products'
    # own launches are inside the kernel models, so they only move from one part to the other.
    per_step = (slow.launch_s - calibrated_systems().launch_s) * (48 * 4 + 10)
    assert float(slower.total_s - base.total_s) == pytest.approx(512 * per_step)


def test_a_graph_saves_the_launches_of_products() -> None:
    """Four products a layer and the head, each `STREAM_LAUNCH_S` of a step."""
    asked = {"batch": 8, "input_len": 64, "output_len": 512}
    stream, graph = (evaluate("opt-30b", "a100-80gb", "fastertransformer", **asked, launch=how) for how in Launch)
    products = 4 * load_model("opt-30b").shape.layers + 1
    assert float(stream.tpot_s - graph.tpot_s) == pytest.approx(products * STREAM_LAUNCH_S)
    assert not stream.extrapolated
    with pytest.raises(ValueError, match="launch is 'grid', allowed are stream, graph"):
        evaluate("opt-30b", "a100-80gb", "fastertransformer", **asked, launch="grid")
