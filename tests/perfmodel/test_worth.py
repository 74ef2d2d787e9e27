"""Is pruning worth it: verdicts by hand, who takes part, and what sparse would need."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from perfmodel.catalog import load_gpu, load_model
from perfmodel.catalog.language_model import Stored
from perfmodel.catalog.specs import Gpu
from perfmodel.choice import SEVERAL_MATRICES, Span
from perfmodel.kernels import KERNELS
from perfmodel.kernels.fits import unmeasured_kernels
from perfmodel.kernels.rivals import Verdict
from perfmodel.worth import HIGHEST_SPARSITY, AtBatch, Rival, Worth, at_batch, worth

ASKED = {"gpus": 1, "kernels": (), "input_len": 64, "output_len": 512}
REST_S = 1.0


def exact(seconds: float) -> Span:
    return Span(seconds, seconds, seconds)


def rival(kernel: str, change: str, products: Span, *, fits: bool = True) -> Rival:
    return Rival(kernel, kernel, change, 0.5, products, REST_S, 1e9, fits, False)


def at(*rivals: Rival) -> AtBatch:
    return AtBatch(8, (rival("cublas", "lossless", exact(4.0)), *rivals))


def test_speedup_of_a_step_by_hand() -> None:
    """Products of 2 s against 4 s, beside 1 s of other things: 5 / 3; within a factor of 2 the products' ends move."""
    sparse, dense = rival("flash-llm", "pruned", exact(2.0)), rival("cublas", "lossless", exact(4.0))
    assert sparse.step_s == 3.0
    assert sparse.speedup_over(dense) == pytest.approx((5 / 3,) * 3)
    wide = replace(sparse, products=Span(2.0, 1.0, 4.0))
    ends = 2**SEVERAL_MATRICES
    expected = (5 / 3, 5 / (4 / (2 / ends) + 1), 5 / (4 / (2 * ends) + 1))
    assert wide.speedup_over(dense) == pytest.approx(expected)
    assert wide.speedup_over(replace(wide, fits=False)) == (1, 1, 1)  # against itself there is no doubt


@pytest.mark.parametrize(
    ("sparse", "whole", "verdict"),
    [
        (exact(2.0), exact(3.0), Verdict.YES),
        (exact(3.0), exact(2.0), Verdict.NO),
        (Span(2.0, 1.8, 2.2), Span(3.0, 2.9, 3.1), Verdict.YES),
        (Span(2.0, 1.2, 3.4), Span(3.0, 2.0, 4.5), Verdict.TIE),
        (Span(3.0, 2.0, 4.5), Span(2.0, 1.2, 3.4), Verdict.TIE),
        (exact(3.0), exact(3.0), Verdict.TIE),
    ],
)
def test_verdicts_go_by_intervals(sparse: Span, whole: Span, verdict: Verdict) -> None:
    here = at(rival("fp8", "rounded", whole), rival("flash-llm", "pruned", sparse))
    assert here.whole is not None
    assert here.whole.kernel == "fp8"
    assert here.verdict is verdict
    assert here.margin == pytest.approx((whole.time_s + REST_S) / (sparse.time_s + REST_S))


def test_each_sacrifice_has_its_own_fastest() -> None:
    here = at(
        rival("int4", "rounded", exact(1.0)),
        rival("int8", "rounded", exact(2.0)),
        rival("two-four", "pruned", exact(2.5)),
        rival("flash-llm", "pruned", exact(3.0)),
        rival("two-four-int8", "pruned and rounded", exact(1.5)),
    )
    found = (here.dense, here.whole, here.mild, here.sparse, here.both)
    kernels = [one.kernel for one in found if one is not None]
    assert kernels == ["cublas", "int4", "int8", "two-four", "two-four-int8"]
    assert here.verdict is Verdict.NO
    assert here.verdict_of(here.both) is Verdict.NO
    assert replace(here, rivals=here.rivals[:1] + here.rivals[3:]).verdict is Verdict.YES  # nothing but dense to beat


def test_the_fastest_of_each_kind_fits_if_any_does() -> None:
    here = at(
        rival("int4", "rounded", exact(1.0), fits=False),
        rival("int8", "rounded", exact(2.0)),
        rival("two-four", "pruned", exact(2.5), fits=False),
        rival("flash-llm", "pruned", exact(3.0), fits=False),
    )
    assert {kind: one.kernel for kind, one in here.fastest.items()} == {"rounded": "int8", "pruned": "two-four"}


def test_what_does_not_fit_neither_wins_nor_is_beaten() -> None:
    small, big = rival("flash-llm", "pruned", exact(9.0)), rival("cublas", "lossless", exact(4.0), fits=False)
    alone = AtBatch(8, (big, small))
    assert alone.whole is None
    assert (alone.verdict, alone.margin) == (Verdict.YES, np.inf)
    neither = AtBatch(8, (big, replace(small, fits=False)))
    assert neither.sparse is None
    assert (neither.verdict, neither.margin) == (Verdict.NO, -np.inf)
    with_int8 = AtBatch(8, (big, small, rival("int8", "rounded", exact(2.0))))
    assert with_int8.verdict is Verdict.NO


def test_the_headline_is_the_batch_at_which_sparse_does_best() -> None:
    batches = tuple(
        AtBatch(batch, (rival("cublas", "lossless", exact(4.0)), rival("flash-llm", "pruned", exact(seconds))))
        for batch, seconds in ((1, 5.0), (8, 4.5), (64, 6.0))
    )
    answer = Worth("m", "g", 1, 0.5, 64, 512, batches, {}, None)
    assert answer.headline.batch == 8
    assert answer.verdict is Verdict.NO


@pytest.fixture(scope="module")
def ampere() -> Worth:
    return worth("llama-2-13b", "a100-80gb", batches=(1, 8, 32), sparsity=0.6)


@pytest.mark.parametrize("gpu", ["a100-80gb", "b200", "l40s", "mi300x"])
def test_nothing_unmeasured_and_nothing_refused_takes_part(gpu: str) -> None:
    here = at_batch(load_model("llama-2-13b"), load_gpu(gpu), 8, 0.8, **ASKED)
    kernels = {one.kernel for one in here.rivals}
    assert kernels.isdisjoint(unmeasured_kernels())
    assert kernels <= {name for name, model in KERNELS.items() if model.refusal(load_gpu(gpu)) is None}
    assert here.rivals[0].kernel == "cublas"
    assert {one.sparsity for one in here.rivals if KERNELS[one.kernel].patterns} <= {0.25, 0.5}
    steps = [one.step_s for one in here.rivals if one.fits and one.change == "pruned"]
    assert here.sparse is not None
    assert here.sparse.step_s == min(steps)


@pytest.mark.parametrize(
    ("sparsity", "patterns"),
    [(0.8, {"two-four", "six-eight"}), (0.5, {"two-four", "six-eight"}), (0.4, {"six-eight"}), (0.1, set())],
)
def test_patterns_that_drop_more_than_asked_take_no_part(sparsity: float, patterns: set[str]) -> None:
    here = at_batch(load_model("llama-2-13b"), load_gpu("a100-80gb"), 8, sparsity, **ASKED)
    found = {one.kernel for one in here.rivals if KERNELS[one.kernel].patterns and one.change == "pruned"}
    assert found == patterns


def test_dense_that_does_not_fit_still_has_a_verdict() -> None:
    """OPT-30B is 60 GB in FP16: too much for 48 GB; in INT8 it fits, and pruned to 70 %."""
    asked = {"batches": (1, 8), "sparsity": 0.7}
    answer = worth("opt-30b", "l40s", **asked)
    assert not any(here.dense.fits for here in answer.batches)
    assert answer.headline.whole is not None
    assert answer.headline.whole.change == "rounded"
    alone = worth("opt-30b", "l40s", **asked, kernels=("flash-llm",))
    assert alone.headline.whole is None
    assert (alone.verdict, alone.needed_sparsity) == (Verdict.YES, {})
    neither = worth("opt-30b", "rtx-4090", batches=(1,), sparsity=0.2, kernels=("flash-llm",))
    assert neither.verdict is Verdict.NO


def speedup_at(share: float, kernel: str, answer: Worth, gpu: Gpu) -> float:
    """Best unstructured kernel over ``kernel``, at the batch of the headline."""
    here = at_batch(load_model(answer.model), gpu, answer.headline.batch, share, **ASKED)
    target = next(one for one in here.rivals if one.kernel == kernel)
    ours = [one for one in here.rivals if one.change == "pruned" and not KERNELS[one.kernel].patterns]
    return max(one.speedup_over(target)[0] for one in ours)


def test_at_the_needed_sparsity_both_are_as_fast(ampere: Worth) -> None:
    here = ampere.headline
    assert here.whole is not None
    assert here.mild is not None
    assert set(ampere.needed_sparsity) == {here.whole.kernel, here.mild.kernel}
    gpu, reached = load_gpu("a100-80gb"), 0
    for kernel, share in ampere.needed_sparsity.items():
        if share is None:
            assert speedup_at(HIGHEST_SPARSITY, kernel, ampere, gpu) < 1
        else:
            reached += 1
            assert speedup_at(share, kernel, ampere, gpu) == pytest.approx(1, abs=2e-3)
            assert speedup_at(share - 0.05, kernel, ampere, gpu) < 1
    assert reached


def test_at_the_needed_bandwidth_both_are_as_fast(ampere: Worth) -> None:
    card = load_gpu("a100-80gb")
    assert ampere.needed_bandwidth
    for kernel, rate in ampere.needed_bandwidth.items():
        for scale, faster in ((0.9, True), (1.1, False)):
            memory = msgspec.structs.replace(card.dram, bandwidth_bytes_per_s=scale * rate)
            slowed = msgspec.structs.replace(card, dram=memory)
            assert (speedup_at(0.6, kernel, ampere, slowed) > 1) == faster


def test_no_bandwidth_is_named_where_bytes_decide_or_sparse_is_ahead() -> None:
    """Flash-LLM stores 1.2 bytes a weight at 70 %, more than INT8; and it is ahead of dense as it is."""
    asked = {"batches": (8,), "sparsity": 0.7}
    never = worth("llama-2-13b", "a100-80gb", **asked, kernels=("flash-llm", "int8-w8a8"))
    already = worth("llama-2-13b", "a100-80gb", **asked, kernels=("flash-llm",))
    assert never.headline.margin < 1 < already.headline.margin
    assert never.needed_bandwidth == already.needed_bandwidth == {}


def test_nothing_is_needed_of_kernels_that_are_not_there() -> None:
    """AMD runs patterns alone, and INT8 alone prunes nothing: no sparsity would change that."""
    for gpu, kernels in (("mi300x", ()), ("h100", ("fp8",))):
        answer = worth("llama-2-13b", gpu, batches=(8,), sparsity=0.6, kernels=kernels)
        assert answer.headline.unstructured == []
        assert (answer.needed_sparsity, answer.needed_bandwidth) == ({}, {})


def test_batches_are_needed() -> None:
    with pytest.raises(ValueError, match="batches is empty"):
        worth("opt-13b", "a100-80gb", batches=(), sparsity=0.5)


def test_dense_is_16_bits_in_time_and_memory_of_a_quantised_checkpoint_too() -> None:
    plain = load_model("llama-3.1-8b")
    stored = Stored(method="mine", formats=dict.fromkeys(("qkv", "attention-output", "mlp-in", "mlp-out"), "int4"))
    model = msgspec.structs.replace(plain, stored=stored)
    found, expected = (at_batch(one, load_gpu("h100"), 1, 0.7, **ASKED) for one in (model, plain))
    assert found == expected
    assert all(rival.memory_bytes > 0 for rival in found.rivals)
