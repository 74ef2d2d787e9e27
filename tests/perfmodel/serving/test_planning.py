"""Plans: fewest GPUs, best batch, where sparse pays."""

from __future__ import annotations

from perfmodel.serving.planning import plan
from perfmodel.serving.run import evaluate
from tests.perfmodel.serving.cases import A100, invoke

PAIR = ("flash-llm", "fastertransformer")


def test_plan_answers():
    found = plan("opt-175b", "a100-80gb")
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
    found = plan("opt-66b", A100, output_len=1900)
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
    assert "Sparse is slower at every batch tried on FasterTransformer's 1 GPU." in text
