"""The five answers of the front pages: computed, with interval and baseline, and right where one can check by hand."""

from __future__ import annotations

import re

import numpy as np
import pytest

from lscd.report import answers
from lscd.report.exhibit import percent
from perfmodel.kernels import KERNELS
from perfmodel.overtaking import bests, layer_on, overtaking, unstructured

LINES = answers.first_answers().splitlines()


def test_there_are_five_and_each_has_a_number_in_bold() -> None:
    assert [line.split(". **")[0] for line in LINES] == list("12345")
    for line in LINES:
        assert re.search(r"\?\*\* .*\*\*[^*]+\*\*", line), line
    told = " ".join(LINES)
    for word in ("cuBLAS", "90 % interval", "evidence", "OPT-66B", "INT4 weights", "FP8", "NVFP4", "published"):
        assert word in told
    assert "nan" not in told


def test_it_pays_from_where_sparse_overtakes_dense() -> None:
    found = overtaking("a100-80gb", "cublas", 16)
    assert f"**{percent(found.sparsity, 0)}** zeros on an A100" in LINES[0]
    assert f"to {percent(found.high, 0)})" in LINES[0]


def test_how_much_is_the_layer_of_the_best_kernel() -> None:
    row = bests("a100-80gb", 16, 0.8).set_index("change").loc["pruned"]
    assert KERNELS[row["kernel"]].title in LINES[1]
    assert f"**{row['speedup']:.2f}x** ({row['low']:.2f} to {row['high']:.2f})" in LINES[1]
    layer, step = map(float, re.findall(r"\*\*([\d.]+)x\*\*", LINES[1]))
    assert 1 < step < layer


@pytest.mark.parametrize("gpu", ["a100-80gb", "h100"])
def test_the_batch_is_the_last_that_is_clearly_faster(gpu: str) -> None:
    batch, inside = answers.clear_until(gpu)

    def clear(n: int) -> bool:
        dense = layer_on("cublas", gpu, n, 0.0)
        return any(layer_on(name, gpu, n, 0.8).speedup_over(dense)[1] > 1 for name in unstructured(gpu))

    assert clear(batch)
    assert not clear(batch + 1)
    assert inside <= batch


def test_batches_count_up_to_the_first_gap() -> None:
    holds = np.ones(len(answers.BATCHES), dtype=bool)
    assert answers._leading(holds) == answers.BATCHES[-1]
    holds[40] = False
    assert answers._leading(holds) == 40
    assert answers._leading(~holds) == 0


def test_gpus_on_which_it_does_not_pay_are_those_whose_interval_reaches_one() -> None:
    named = re.search(r"On \*\*(.*?)\*\*", LINES[3])
    assert named
    assert "H20" in named[1]
    assert "A100" not in named[1]
    for gpu in ("h20", "b200", "a100-80gb", "rtx-4090"):
        dense = layer_on("cublas", gpu, 16, 0.0)
        low = max(layer_on(name, gpu, 16, 0.8).speedup_over(dense)[1] for name in unstructured(gpu))
        assert (answers.gpu_title(gpu) in named[1]) == (low <= 1), gpu
    assert "MI300X" in LINES[3]


def test_rivals_are_counted_on_gpus_that_run_them() -> None:
    fp8 = answers.against("fp8")
    assert "h100" in fp8
    assert "a100-80gb" not in fp8, "an A100 has no FP8"
    slower = sum(high < 1 for _, _, high in fp8.values())
    assert f"FP8 on {slower} of {len(fp8)} GPUs" in LINES[4]
    value, low, high = answers.against("int4")["a100-80gb"]
    assert low < value < high
    assert f"**{value:.2f}x** ({low:.2f} to {high:.2f}) the speed of INT4" in LINES[4]


def test_a_sparsity_at_the_end_of_the_search_says_so() -> None:
    assert answers._share(0.3) == "30 % or less"
    assert answers._share(0.5) == "50 %"
    assert answers._share(float("nan")) == "nowhere up to 95 %"
