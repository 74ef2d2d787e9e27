"""Plans: fewest GPUs, best batch, where sparse pays."""

from __future__ import annotations

import msgspec
import pytest

from lscd.plan import _cheapest_words
from perfmodel.catalog import gpu_names, load_gpu, load_model
from perfmodel.catalog.language_model import Stored
from perfmodel.kernels import BOUNDED
from perfmodel.kernels.rivals import Verdict, rivals
from perfmodel.serving.contenders import rival_systems
from perfmodel.serving.planning import Limits, Option, Plan, judge, plan
from perfmodel.serving.run import evaluate
from perfmodel.serving.systems import load_system
from tests.perfmodel.serving.cases import A100, invoke

PAIR = ("flash-llm", "fastertransformer")


def test_plan_answers():
    found = plan("opt-175b", "a100-80gb", sparsity=0.8)
    assert (found.fewest_gpus("fastertransformer"), found.fewest_gpus("flash-llm")) == (8, 2)
    assert found.best("flash-llm").tokens_per_gpu_s == max(
        option.tokens_per_gpu_s for option in found.options if option.system == "flash-llm"
    )
    assert all(1 <= option.batch <= option.largest_batch for option in found.options)
    assert 0.5 <= found.break_even_sparsity < 1


def test_plan_of_a_model_too_large_for_any_machine():
    found = plan("llama-3.1-405b", "rtx-3090", sparsity=0.5)
    assert found.options == ()
    assert found.break_even_sparsity is None
    assert found.sparse_faster_at_batch == found.sparse_faster_at_prompt == {}


def test_plan_says_at_which_loads_sparse_is_faster():
    """Each entry is the comparison of two runs; batch and prompt are those of the dense system's best option."""
    found = plan("opt-66b", A100, sparsity=0.8, output_len=1900)
    best = found.best("fastertransformer")
    assert list(found.sparse_faster_at_batch) == [2**i for i in range(11)]
    assert list(found.sparse_faster_at_prompt) == [16, 32, 64, 128]  # 2,048 positions less 1,900
    for axis, answers in (("batch", found.sparse_faster_at_batch), ("input_len", found.sparse_faster_at_prompt)):
        for value, faster in answers.items():
            load = {"batch": best.batch, "input_len": 64, "output_len": 1900} | {axis: value}
            runs = [evaluate("opt-66b", A100, name, sparsity=0.8, gpus=best.gpus, **load) for name in PAIR]
            assert faster == (float(runs[0].total_s) < float(runs[1].total_s))


def test_plan_of_a_case_where_sparse_never_pays():
    text = " ".join(invoke("plan", "--model", "opt-13b", "--gpu", "a100-80gb", "--sparsity", "0.5").stdout.split())
    assert "Flash-LLM is slower at every batch tried on FasterTransformer's 1 GPU." in text


def option(change: str, rate: float, system: str = "made-up") -> Option:
    """An option whose throughput is known to a tenth."""
    numbers = {"gpus": 1, "batch": 8, "largest_batch": 8, "ttft_s": 1.0, "tpot_s": 0.1, "usd_per_million_tokens": None}
    ends = (0.9 * rate, 1.1 * rate)
    return Option(
        system=system, tokens_per_gpu_s=rate, extrapolated=False, tokens_per_gpu_s_interval=ends, change=change,
        sparsity=0.6, **numbers,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "verdict"),
    [
        ([("pruned", 200), ("lossless", 100), ("rounded", 110)], "yes"),
        ([("pruned", 100), ("lossless", 50), ("rounded", 200)], "no"),
        ([("pruned", 100), ("rounded", 110)], "tie"),
        ([("pruned", 100)], "yes"),  # nothing that keeps all weights fits
        ([("rounded", 100), ("pruned and rounded", 900)], "no"),  # both sacrifices are another question
        ([("pruned", 100), ("rounded", 200), ("not measured", 900)], "no"),
        ([], "no"),
    ],
)
def test_the_verdict_is_by_intervals_and_of_measured_kernels(options, verdict):
    assert judge([option(change, rate) for change, rate in options]) == verdict


def test_nothing_that_nobody_measured_is_recommended():
    options = [option("rounded", 100, "a"), option("not measured", 900, "b")]
    found = Plan(judge(options), tuple(options), None, {}, {})
    assert [kept.system for kept in found.measured] == ["a"]
    assert "a on 1 GPU is the cheapest" in _cheapest_words(found)


def test_every_measured_kernel_of_the_gpu_takes_part():
    names = rival_systems("h100", 0.6)
    assert len(names) == len(set(names))
    kernels = [load_system(name).kernel for name in names]
    assert kernels.count("flash-llm") == 1
    known = {model.name for model in rivals() if model.refusal(load_gpu("h100")) is None and not model.one_token}
    assert set(kernels) == known - BOUNDED
    with pytest.raises(ValueError, match=r"'vllm\+macko': macko takes N of 1, so it reads no prompt"):
        load_system("vllm+macko")


@pytest.mark.parametrize(("gpu", "sparsity"), [("h100", 0.4), ("a100-80gb", 0.1), ("mi300x", 0.2)])
def test_patterns_that_drop_more_than_asked_take_no_part(gpu, sparsity):
    found = plan("llama-3.1-8b", gpu, sparsity=sparsity)
    assert found.options
    assert max(o.sparsity for o in found.options) <= sparsity
    assert all(o.sparsity == 0 for o in found.options if o.change in ("lossless", "rounded"))


def test_a_pattern_runs_at_its_own_sparsity():
    best = plan("llama-3.1-8b", "h100", sparsity=0.6).best("fastertransformer+two-four")
    assert best.sparsity == 0.5
    load = {"batch": best.batch, "gpus": best.gpus, "sparsity": 0.5}
    run = evaluate("llama-3.1-8b", "h100", "fastertransformer+two-four", **load)
    assert best.tokens_per_gpu_s == pytest.approx(float(run.tokens_per_gpu_s))


@pytest.mark.parametrize("gpu", ["mi300x", "mi355x"])
def test_plan_on_amd_knows_dense_and_patterns_only(gpu):
    found = plan("llama-3.1-70b", gpu, sparsity=0.6)
    assert {load_system(o.system).kernel for o in found.options} <= {
        "cublas", "two-four", "six-eight", "two-four-int8", "two-four-fp8",
    }  # fmt: skip
    assert found.break_even_sparsity is None
    assert found.sparse_faster_at_batch == {}
    text = invoke("plan", "--model", "llama-3.1-70b", "--gpu", gpu, "--sparsity", "0.6").stdout
    assert text.startswith("Worth it: ")
    assert "Flash-LLM" not in text


def test_a_named_system_that_the_gpu_refuses_is_a_sentence():
    with pytest.raises(ValueError, match="no FP8 Tensor Cores"):
        plan("opt-30b", A100, systems=("fastertransformer+fp8",))


@pytest.mark.parametrize("gpu", gpu_names())
def test_every_gpu_has_a_plan(gpu):
    assert plan("llama-3.1-8b", gpu, sparsity=0.6).verdict in set(Verdict)


def test_a_checkpoints_own_cache_makes_room_in_a_plan_too() -> None:
    plain = load_model("llama-3.1-8b")
    eight = msgspec.structs.replace(plain, stored=Stored(method="mine", formats={}, cache_bits=8))
    asked = {"sparsity": 0.0, "systems": ["vllm"], "engine": "vllm", "limits": Limits(gpus=1)}
    wide, narrow = (plan(model, "h100", **asked).options[0].largest_batch for model in (plain, eight))
    assert narrow == pytest.approx(2 * wide, rel=0.05)
