"""Intervals of whole runs: what widens them, and that each contains its value."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perfmodel.serving import uncertainty
from perfmodel.serving.run import evaluate
from perfmodel.serving.uncertainty import SPREADS, fitted_serving
from tests.perfmodel.cases import OURS
from tests.perfmodel.serving.cases import A100, FLASH, FT, RUN

NAMES = ("tokens_per_gpu_s", "ttft_s", "tpot_s")


def width(run, name="tokens_per_gpu_s"):
    low, high = getattr(run, f"{name}_interval")
    return float(high / low)


@pytest.mark.parametrize("system", ["flash-llm", "fastertransformer", "lmdeploy", "fastertransformer+int4",
                                    f"fastertransformer+{OURS}"])  # fmt: skip
@pytest.mark.parametrize("gpu", ["a100-80gb", "rtx-4090"])
def test_each_interval_contains_its_value(gpu, system):
    run = evaluate("opt-6.7b", gpu, system, batch=np.array([1, 8, 200]), sparsity=0.8, pipeline_parallel=1)
    for name in NAMES:
        low, high = getattr(run, f"{name}_interval")
        assert (low <= getattr(run, name)).all()
        assert (getattr(run, name) <= high).all()


def test_experts_in_formats_that_pad_whole_tiles_have_an_interval():
    """As many experts as get a token on average are no whole number, and their rows are."""
    run = evaluate("mixtral-8x7b", A100, f"vllm+{OURS}", batch=np.array([1, 3, 8]), sparsity=0.4, gpus=2)
    for name in NAMES:
        low, high = getattr(run, f"{name}_interval")
        assert ((low <= getattr(run, name)) & (getattr(run, name) <= high)).all()


def test_ends_of_the_run_follow_its_time():
    run = evaluate("opt-30b", A100, FT, **RUN)
    low, high = run.tokens_per_gpu_s_interval
    faster, slower = run.half_widths().run
    assert float(low) == pytest.approx(float(run.tokens_per_gpu_s * np.exp(-slower)))
    assert float(high) == pytest.approx(float(run.tokens_per_gpu_s * np.exp(faster)))


def test_without_spreads_the_kernels_are_left_and_shapes_err_apart():
    none = dict.fromkeys(SPREADS, 0.0)
    run = evaluate("opt-30b", A100, FT, **RUN)
    bare = run.half_widths(none)
    own = fitted_serving().spread["inside"]
    assert float(run.half_widths().step[0]) == pytest.approx(float(np.hypot(bare.step[0], own)))
    # cuBLAS's own 90 % half-width is some 0.15; four shapes of a layer that err apart give about half of it.
    assert 0.03 < float(bare.step[1]) < 0.1


def test_wider_on_another_card_for_another_system_and_in_the_prefill():
    home = evaluate("opt-30b", A100, FT, **RUN)
    assert width(evaluate("opt-30b", "rtx-a6000", FT, **RUN)) > width(home)
    assert width(evaluate("opt-30b", A100, "lmdeploy", **RUN)) > width(home)
    assert width(home, "ttft_s") > width(home, "tpot_s")
    short = evaluate("opt-30b", A100, FT, batch=8, input_len=512, output_len=2)
    assert width(short) > width(home)


def test_kernels_that_nobody_measured_widen_it_most():
    asked = {**RUN, "sparsity": 0.8}
    ours = evaluate("opt-30b", A100, f"fastertransformer+{OURS}", **asked)
    assert width(ours) > 1.2 * width(evaluate("opt-30b", A100, FLASH, **asked))


def test_single_output_token_has_no_interval_between_tokens():
    run = evaluate("opt-30b", A100, FT, batch=8, output_len=1)
    assert all(np.isnan(end) for end in run.tpot_s_interval)
    assert width(run) > 1


@pytest.mark.parametrize("stages", [1, 2, 4])
def test_pipelines_have_intervals_too(stages):
    run = evaluate("opt-30b", A100, FT, **RUN, gpus=4, pipeline_parallel=stages)
    assert 1 < width(run) < 1.5


@pytest.mark.parametrize(
    ("spread", "message"),
    [({"inside": 0.1}, "needed are inside, gpu, system, prefill"),
     (dict.fromkeys(SPREADS, float("inf")), "allowed are finite numbers")],
)  # fmt: skip
def test_a_spread_that_cannot_be_is_refused(monkeypatch, spread, message):
    import msgspec

    broken = msgspec.structs.replace(fitted_serving(), spread=spread)
    monkeypatch.setattr(uncertainty, "load_calibration", lambda name: {"serving": broken})
    with pytest.raises(ValueError, match=message):
        fitted_serving()


def test_parameters_of_ones_own_keep_the_interval():
    from perfmodel.serving.systems import calibrated_systems

    slow = replace(calibrated_systems(), launch_s=2e-5)
    assert width(evaluate("opt-30b", A100, FT, **RUN, parameters=slow)) > 1
