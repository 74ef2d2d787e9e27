"""From which sparsity the best sparse kernel overtakes a rival, and who is fastest where."""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel.catalog import gpu_names, load_model
from perfmodel.catalog.specs import Launch
from perfmodel.choice import choose
from perfmodel.kernels import KERNELS
from perfmodel.overtaking import (
    Overtaking,
    bests,
    bests_over,
    layer_on,
    overtaking,
    running,
    speedups,
    unstructured,
    winners,
)


def test_at_the_overtaking_sparsity_one_unstructured_kernel_is_ahead() -> None:
    found = overtaking("rtx-4090", "fp8", n=16)
    rival = layer_on("fp8", "rtx-4090", 16, 0.0)
    assert found.kernel in unstructured("rtx-4090")
    assert layer_on(found.kernel, "rtx-4090", 16, found.sparsity).speedup_over(rival)[0] >= 1
    for kernel in unstructured("rtx-4090"):
        before = layer_on(kernel, "rtx-4090", 16, found.sparsity - 0.02)
        assert not before.speedup_over(rival)[0] >= 1  # NaN: takes no 16 tokens
    assert found.low < found.sparsity < found.high


@pytest.mark.parametrize(
    ("at", "low", "high", "words"),
    [
        (0.6, 0.48, 0.73, "fp8 on h100, N = 16: overtaken from 60% (48% to 73%), bitmap"),
        (0.6, 0.48, np.nan, "overtaken from 60% (48% to nowhere), bitmap"),
        (np.nan, 0.94, np.nan, "overtaken nowhere up to 95%, at best from 94%; bitmap comes nearest"),
        (np.nan, np.nan, np.nan, "overtaken nowhere up to 95%; bitmap comes nearest"),
    ],
)
def test_it_reads_as_a_sentence(at: float, low: float, high: float, words: str) -> None:
    assert str(Overtaking("h100", "fp8", 16, "bitmap", at, low, high, extrapolated=False)).endswith(words)


def test_gpus_without_such_kernels_and_rivals_they_lack_are_refused() -> None:
    with pytest.raises(ValueError, match="mi300x runs no kernel for zeros anywhere"):
        overtaking("mi300x", "cublas", n=16)
    with pytest.raises(ValueError, match="has no FP8 Tensor Cores"):
        overtaking("a100-80gb", "fp8", n=16)


def test_winners_take_part_and_are_the_fastest() -> None:
    table = winners("h100", (1, 16, 256), (0.3, 0.6, 0.95))
    assert len(table) == 9
    for row in table.itertuples():
        best = layer_on(row.kernel, "h100", row.n, row.sparsity)
        dense = layer_on("cublas", "h100", row.n, 0.0)
        assert row.speedup == pytest.approx(best.speedup_over(dense)[0])
        assert float(KERNELS[row.kernel].own_sparsity(row.sparsity)) <= row.sparsity or not KERNELS[row.kernel].patterns
        for other in ("fp8", "int4", "flash-llm", "two-four"):
            assert not layer_on(other, "h100", row.n, row.sparsity).time_s < best.time_s * (1 - 1e-9)


@pytest.mark.parametrize("rival", ["two-four", "macko", "cusparse", "flash-llm", "mxfp4"])
def test_a_rival_keeps_all_weights_and_was_measured(rival: str) -> None:
    with pytest.raises(ValueError, match=f"{rival}' is none of the measured kernels that keep all weights: cublas,"):
        overtaking("gb200", rival, n=1)


def test_unknown_rivals_and_sparsities_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown kernel 'fp7'"):
        overtaking("h100", "fp7", n=16)
    for sparsities in ([0.9, 0.8], [0.8, 0.8], []):
        with pytest.raises(ValueError, match="each above the one before"):
            overtaking("h100", "fp8", n=16, sparsities=sparsities)


@pytest.mark.parametrize("model", ["opt-66b", "qwen3-30b-a3b", "mamba-2.8b"])
@pytest.mark.parametrize("n", [1, 48, 4096])
def test_a_layer_takes_as_long_as_in_the_choice_for_its_model(model: str, n: int) -> None:
    """Also with experts, each of which sees few of the tokens; all layers of these models are alike."""
    chosen = choose(model, "h200", batch=n, sparsity=0.8, launch=Launch.GRAPH)
    for kernel in ("cublas", "flash-llm", "int4"):
        parts = [candidate.span.time_s / x.products for x in chosen.free if (candidate := x.of(kernel)) is not None]
        assert float(layer_on(kernel, "h200", n, 0.8, model).time_s) == pytest.approx(sum(parts), rel=1e-9)


def test_speedups_are_those_of_layers_and_leave_out_who_takes_no_part() -> None:
    table = speedups(["flash-llm", "macko", "two-four"], "rtx-4090", [1, 16], [0.3, 0.8], "llama-3.1-8b")
    taken = table.groupby("kernel").size().to_dict()
    assert taken == {"flash-llm": 4, "macko": 2, "two-four": 2}, "MACKO takes one token, 2:4 no sparsity below its own"
    for row in table.itertuples():
        dense = layer_on("cublas", "rtx-4090", row.n, 0.0, "llama-3.1-8b")
        layer = layer_on(row.kernel, "rtx-4090", row.n, row.sparsity, "llama-3.1-8b")
        assert row.speedup == pytest.approx(layer.speedup_over(dense)[0])
        assert row.extrapolated == layer.extrapolated
    with pytest.raises(ValueError, match="is AMD's"):
        speedups(["flash-llm"], "mi300x", 16, 0.8)


@pytest.mark.parametrize("model", ["gpt2", "deepseek-v3", "mamba-2.8b"])
def test_every_gpu_has_a_speedup_of_any_model_at_any_number_of_tokens(model: str) -> None:
    for gpu in gpu_names():
        table = speedups(running(gpu), gpu, [1, 7, 4096], [0.3, 0.95], model)
        assert np.isfinite(table["speedup"]).all()
        assert set(table["n"]) == {1, 7, 4096}
        assert (bests(gpu, 7, 0.95, model)["low"] > 0).all()


@pytest.mark.parametrize("n", [1, 16, 4096])
@pytest.mark.parametrize(("model", "layers"), [("qwen3-30b-a3b", 48), ("opt-66b", 64)])
def test_a_layer_of_experts_is_what_a_choice_sums(model: str, layers: int, n: int) -> None:
    chosen = choose(load_model(model), "h100", batch=n, sparsity=0.7, launch="graph")
    total = sum(matrix.dense.span.time_s for matrix in chosen.free)
    assert layers * layer_on("cublas", "h100", n, 0.0, model).time_s == pytest.approx(total, rel=1e-6)


def test_the_best_over_a_grid_are_the_best_at_each_place() -> None:
    grid = bests_over("l4", (1, 48), (0.5, 0.9), "llama-3.1-8b")
    assert len(grid) == 2 * 2 * 3
    for (n, sparsity), rows in grid.groupby(["n", "sparsity"]):
        alone = bests("l4", n, sparsity, "llama-3.1-8b")
        assert rows.drop(columns=["n", "sparsity"]).to_dict("records") == alone.to_dict("records")
        for row in alone.itertuples():
            dense = layer_on("cublas", "l4", n, 0.0, "llama-3.1-8b")
            gain = layer_on(row.kernel, "l4", n, sparsity, "llama-3.1-8b").speedup_over(dense)
            assert (row.speedup, row.low, row.high) == pytest.approx(gain)


def test_no_row_is_a_kind_that_takes_no_part() -> None:
    grid = bests_over("mi300x", [16], (0.1, 0.6))
    assert set(grid["sparsity"]) == {0.6}, "AMD has patterns only, the mildest at 20 %"
    assert bests_over("a100-80gb", [16], [0.6], kernels=["flash-llm"])["kernel"].to_list() == ["flash-llm"]
