"""`lscd choose` and its model: totals by hand, agreement with `predict`, honest sentences, errors in words."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from lscd import choose as command
from lscd.cli import app
from perfmodel.catalog import load_gpu, load_model
from perfmodel.choice import Choice, Span, choose
from perfmodel.kernels import KERNELS
from perfmodel.kernels import tiled_csl as flash
from perfmodel.kernels.fits import kernel_fits
from perfmodel.prediction import predict

QUESTION = {"batch": 16, "sparsity": 0.8, "gpus": 2}


LOCAL = {"qkv": (13824, 9216), "attention-output": (9216, 4608), "mlp-in": (18432, 9216), "mlp-out": (9216, 18432)}


@pytest.fixture(scope="module")
def opt66() -> Choice:
    return choose("opt-66b", "a100-80gb", **QUESTION)


def test_every_matrix_is_the_local_share(opt66: Choice) -> None:
    assert {matrix.name: (matrix.m, matrix.k) for matrix in opt66.free} == LOCAL
    head = opt66.matrices[-1]
    assert (head.name, head.prunable, head.m, head.products, head.copies) == ("lm-head", False, 25136, 1, 1)
    assert [candidate.kernel for candidate in head.candidates] == ["cublas"]


def test_candidates_are_the_predictions_of_each_layer(opt66: Choice) -> None:
    """64 layers, each one product; times, interval and bytes as `predict` gives them for one."""
    for matrix in opt66.free:
        running = [name for name, model in KERNELS.items() if model.refusal(load_gpu("a100-80gb")) is None]
        taking = [name for name in running if name in kernel_fits() and not np.isnan(KERNELS[name].padded_n(16))]
        # A bound is no candidate, and neither is a kernel's slower variant.
        taking = [name for name in taking if name not in ("cusparse", "flash-llm-noreorder")]
        assert {"int4", "int8-w8a8", "two-four", "two-four-int8"} < set(taking)
        assert {"fp8", "nvfp4", "two-four-fp8"}.isdisjoint(taking)
        assert [candidate.kernel for candidate in matrix.candidates] == taking
        for candidate in matrix.candidates:
            own = float(KERNELS[candidate.kernel].own_sparsity(0.8))
            p = predict(candidate.kernel, "a100-80gb", matrix.m, matrix.k, 16, own)
            assert candidate.sparsity == (0.0 if candidate.kernel == "cublas" else own)
            found = (candidate.span.time_s, candidate.span.lo_s, candidate.span.hi_s, candidate.weight_bytes)
            expected = (p.time_s, p.lo_s, p.hi_s, p.weight_bytes)
            np.testing.assert_allclose(found, 64 * np.array(expected, np.float64), rtol=1e-12)
            assert candidate.extrapolated == bool(p.extrapolated)


def test_totals_add_up(opt66: Choice) -> None:
    dense, dense_bytes = opt66.dense
    weights = 64 * sum(m * k for m, k in LOCAL.values()) + 25136 * 9216
    assert dense_bytes == 2 * weights
    assert dense.time_s == pytest.approx(sum(matrix.dense.span.time_s for matrix in opt66.matrices))
    fastest, _ = opt66.fastest
    _, smallest_bytes = opt66.smallest
    for span, weight_bytes in (*opt66.uniform.values(), opt66.dense):
        assert fastest.time_s <= span.time_s
        assert smallest_bytes <= weight_bytes
    assert opt66.uniform["cublas"] == opt66.dense


def test_split_k_is_the_rule_of_the_model(opt66: Choice) -> None:
    """The released code's hand-tuned value for the local QKV of OPT-66B on two GPUs (m = 13824) is 4."""
    qkv = opt66.free[0].of("flash-llm")
    assert qkv is not None
    assert (qkv.tile, qkv.split_k) == ((256, 16), 4)
    sparta = opt66.free[0].of("sparta")
    assert sparta is not None
    assert sparta.split_k is None


@pytest.mark.parametrize(("batch", "n"), [(1, 8), (13, 16), (33, 64), (65, 128), (300, 384)])
def test_tokens_are_padded_and_said_so(batch: int, n: int) -> None:
    choice = choose("opt-30b", "h100", batch=batch, sparsity=0.8, formats=["tiled-csl"])
    assert {candidate.n for matrix in choice.free for candidate in matrix.candidates} == {n}
    assert {matrix.tokens for matrix in choice.free} == {batch}
    assert any(f"flash-llm computes N = {n}" in note for note in command.remarks(choice))
    assert float(flash.padded_tokens(batch)) == n


def test_kernels_that_cannot_take_the_tokens_are_left_out() -> None:
    """MACKO multiplies a single token only."""
    chosen = {batch: choose("opt-13b", "h100", batch=batch, sparsity=0.8) for batch in (1, 2)}
    kernels = {batch: {c.kernel for c in choice.free[0].candidates} for batch, choice in chosen.items()}
    assert "macko" in kernels[1]
    assert "macko" not in kernels[2]


def test_experts_count_by_visits_and_copies() -> None:
    choice = choose("mixtral-8x7b", "h100", batch=4, formats=["dense"])
    matrix = next(matrix for matrix in choice.free if matrix.name == "experts-in")
    active = 8 * (1 - (1 - 2 / 8) ** 4)
    assert matrix.products == 32  # one launch for all active experts of a layer
    assert (matrix.copies, matrix.tokens) == (32 * 8, math.ceil(8 / active))
    assert matrix.dense.weight_bytes == 2 * 32 * 8 * matrix.m * matrix.k
    assert not next(matrix for matrix in choice.matrices if matrix.name == "router").prunable


def test_filters() -> None:
    lossless = choose("opt-13b", "h100", batch=8, sparsity=0.8, lossless_only=True)
    assert all(candidate.lossless for matrix in lossless.free for candidate in matrix.candidates)
    everything = choose("opt-13b", "h100", batch=8, sparsity=0.8)
    assert everything.lossless == lossless
    assert not everything.free[0].fastest.lossless
    assert any("Without rounding: " in note for note in command.remarks(everything))
    only = choose("opt-13b", "h100", batch=8, formats=["int8"])
    assert {candidate.kernel for candidate in only.free[0].candidates} == {"int8"}
    assert only.lossless is None
    assert only.free[0].dense.kernel == "cublas"


def test_unmeasured_kernel_takes_part_only_when_asked() -> None:
    asked = {"batch": 16, "sparsity": 0.6, "lossless_only": True}
    assert choose("opt-13b", "h100", **asked).free[0].of("lscd-bitmap") is None
    choice = choose("opt-13b", "h100", **asked, unmeasured=True)
    own = choice.free[0].of("lscd-bitmap")
    assert own is not None
    assert own.span.lo_s < own.span.time_s < own.span.hi_s
    assert not own.measured
    assert own.extrapolated
    assert any("Nobody has measured lscd-bitmap" in note for note in command.remarks(choice))
    named = choose("opt-13b", "h100", batch=16, sparsity=0.6, formats=["lscd-bitmap"])
    readers = ("lscd-bitmap", "lscd-bitmap-bulk")
    assert [list(matrix.candidates) for matrix in named.free] == [
        [matrix.of(kernel) for kernel in readers] for matrix in choice.free
    ]


def test_records_serve_as_well_as_names() -> None:
    assert choose(load_model("opt-13b"), load_gpu("h100"), batch=8) == choose("opt-13b", "h100", batch=8)


def test_more_sparsity_is_never_slower_nor_larger() -> None:
    choices = [choose("opt-30b", "h100", batch=16, sparsity=s, lossless_only=True) for s in (0.5, 0.7, 0.9)]
    for pick in (lambda c: c.fastest[0].time_s, lambda c: c.smallest[1]):
        values = [pick(choice) for choice in choices]
        assert values == sorted(values, reverse=True)


def test_dense_weights_stay_dense() -> None:
    choice = choose("opt-30b", "a100-80gb", batch=16, sparsity=0.0, lossless_only=True)
    assert {matrix.fastest.kernel for matrix in choice.free} == {"cublas"}
    assert {matrix.smallest.format for matrix in choice.free} == {"dense"}
    assert command.answer(choice).startswith("dense for all 4 matrices of opt-30b")


@pytest.mark.parametrize(("sparsity", "patterns"), [(0.0, set()), (0.3, {"6:8"}), (0.5, {"2:4", "6:8"})])
def test_patterns_that_drop_more_than_asked_take_no_part(sparsity: float, patterns: set[str]) -> None:
    """Unless their format is asked for by name."""
    choice = choose("opt-13b", "a100-80gb", batch=16, sparsity=sparsity, lossless_only=True)
    found = {c.format: c.sparsity for matrix in choice.free for c in matrix.candidates if KERNELS[c.kernel].patterns}
    assert set(found) == patterns
    assert all(own <= sparsity for own in found.values())
    named = choose("opt-13b", "a100-80gb", batch=16, sparsity=0.0, formats=["2:4"])
    assert {candidate.kernel for matrix in named.free for candidate in matrix.candidates} == {"two-four"}


def test_standing_is_what_a_reader_must_know_first(opt66: Choice) -> None:
    """Whether the kernel exists, then whether anybody measured it, then what becomes of the weights."""
    stand = {candidate.kernel: candidate.standing for candidate in opt66.free[0].candidates}
    assert stand["cublas"] == "lossless"
    assert stand["flash-llm"] == stand["two-four"] == stand["six-eight"] == "pruned"
    assert stand["int4"] == stand["int8"] == stand["int8-w8a8"] == "rounded"
    assert stand["two-four-int8"] == "pruned and rounded"
    blackwell = choose("opt-13b", "b200", batch=16, sparsity=0.5, unmeasured=True).free[0]
    for kernel, words in (
        ("mxfp4", "not measured"),
        ("lscd-bitmap", "not measured"),
        ("lscd-bitmap-4", "not measured"),
        ("fp8", "rounded"),
    ):
        candidate = blackwell.of(kernel)
        assert candidate is not None
        assert candidate.standing == words
    known = replace(opt66.free[0].candidates[0], change="rounded")
    assert (known.standing, known.lossless) == ("rounded", False)
    assert replace(known, measured=False).standing == "not measured"


def test_a_gpu_that_runs_nothing_asked_for_is_named() -> None:
    with pytest.raises(ValueError, match="H100 SXM5 80GB has no FP4 Tensor Cores"):
        choose("opt-13b", "h100", batch=16, formats=["nvfp4"])


def test_speedup_interval_by_hand() -> None:
    """Time 1 within a factor 2, dense 3 within a factor 1: 3 within 2 ** 0.75; both within 2: 2 ** (0.75 * sqrt 2).

    0.75 of the errors of single products, because a speed-up is of several matrices.
    """
    exact, wide = Span(3.0, 3.0, 3.0), Span(1.0, 0.5, 2.0)
    assert wide.speedup_over(exact) == pytest.approx((3.0, 3 / 2**0.75, 3 * 2**0.75))
    both = 2 ** (0.75 * math.sqrt(2))
    assert wide.speedup_over(wide) == pytest.approx((1.0, 1 / both, both))
    assert Span(1, 1, 2) + Span(2, 1, 3) == Span(3, 2, 5)
    assert wide.overlaps(Span(2.0, 2.0, 2.0))
    assert not wide.overlaps(Span(3.0, 2.1, 4.0))


def test_answer_counts_kernels_and_names_rivals(opt66: Choice) -> None:
    exact = opt66.lossless
    assert exact is not None
    sentence = command.answer(exact)
    ratio, low, high = exact.fastest[0].speedup_over(exact.dense[0])
    assert sentence.startswith("flash-llm for 4 of 4 matrices of opt-66b on 2 x a100-80gb at batch 16: ")
    assert f"{ratio:.2f}x dense, within [{low:.2f}, {high:.2f}]; " in sentence
    assert ("a tie with" in sentence) == bool(exact.ties)
    # One matrix made dense-only: a mixed plan, and flash-llm alone becomes a rival, being hardly slower.
    mixed = replace(
        exact, matrices=(replace(exact.matrices[0], candidates=(exact.matrices[0].dense,)), *exact.matrices[1:])
    )
    assert command.answer(mixed).startswith("flash-llm for 3 of 4, dense for 1 of 4 matrices")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch", "0"], "--batch is '0', allowed are whole numbers from 1"),
        (["--batch", "-3"], "--batch is '-3', allowed are whole numbers from 1"),
        (["--sparsity", "70"], "did you mean 0.7?"),
        (["--gpus", "5"], "opt-66b cannot be shared by 5 GPUs"),
        (["--gpu", "h1000"], "unknown GPU 'h1000': did you mean h100"),
        (["--model", "opt-67b"], "unknown model 'opt-67b': did you mean"),
        (["--formats", "tiledcsl"], "unknown format 'tiledcsl': did you mean tiled-csl"),
        (["--formats", "coo"], "no kernel model reads format 'coo'"),
        (["--formats", "macko"], "macko takes N of 1"),
        (["--formats", "int8", "--lossless-only"], "no lossless format among int8"),
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], message: str) -> None:
    given = {"--model": "opt-66b", "--gpu": "h100", "--batch": "16"}
    flags = [argument for argument in arguments if argument == "--lossless-only"]
    pairs = [argument for argument in arguments if argument not in flags]
    given |= dict(zip(pairs[::2], pairs[1::2], strict=True))
    result = CliRunner().invoke(app, ["choose", *flags, *(part for pair in given.items() for part in pair)])
    assert result.stdout == ""
    assert isinstance(result.exception, ValueError)
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)
