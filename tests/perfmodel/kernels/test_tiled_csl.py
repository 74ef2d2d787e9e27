"""The model of Flash-LLM's kernel: split of K, residency, padding and the on-chip floor."""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel import predict
from perfmodel.catalog import load_gpu
from perfmodel.catalog.specs import Bound
from perfmodel.kernels import Machine, Shape, kernel_model
from perfmodel.kernels.fits import calibrated
from perfmodel.kernels.tiled_csl import blocks_per_sm, padded_tokens, split_k
from tests.perfmodel.cases import CASE


def test_infinite_bandwidth_leaves_the_on_chip_floor() -> None:
    machine = Machine.of(load_gpu("a100-80gb")).with_(dram_bytes_per_s=1e18)
    result = TILED.time(machine, Shape.of(*CASE.values(), 0.7), calibrated("flash-llm"))
    assert result.bound.item() is Bound.SHARED_MEMORY
    floor = result.terms[Bound.SHARED_MEMORY] + result.terms[Bound.LATENCY]
    assert floor < result.time_s < 1.05 * floor  # blocks of later waves fill their pipelines once more


def test_empty_matrix_keeps_the_published_floor() -> None:
    p = predict("flash-llm", "a100-80gb", **CASE, sparsity=1.0)
    assert float(p.time_s) == pytest.approx(136e-6, rel=0.04)


TILED = kernel_model("flash-llm")


def test_split_k_rule_gives_the_tuned_values_of_the_released_code() -> None:
    # Flash-LLM's benchmark and inference scripts, by local M (two 256-row blocks resident on each of 108 SMs).
    tuned = {
        21504: 5, 7168: 7, 28672: 7, 27648: 2, 9216: 6, 36864: 3, 12288: 9, 49152: 9,
        10752: 5, 14336: 7, 13824: 4, 18432: 3, 24576: 9, 5376: 10, 6912: 8,
    }  # fmt: skip
    m = np.array(list(tuned))
    assert list(split_k(m / 256, 216, 112)) == list(tuned.values())


def test_unsplit_products_pay_for_no_reduction() -> None:
    machine, p = Machine.of(load_gpu("a100-80gb")), calibrated("flash-llm")
    wide = TILED.time(machine, Shape.of(36864, 9216, 4096, 0.8), p)
    moved = TILED.format.bytes(36864, 9216, 0.8) + 2 * 4096 * (36864 + 9216)
    assert float(wide.dram_bytes) == pytest.approx(float(moved))


def test_split_k_never_exceeds_the_k_tiles() -> None:
    assert (split_k(1, 216, np.array([1, 2, 5])) <= np.array([1, 2, 5])).all()


@pytest.mark.parametrize(("gpu", "blocks"), [("a100-80gb", 2), ("h100", 2), ("rtx-4090", 1), ("v100", 1)])
def test_resident_blocks_follow_shared_memory(gpu: str, blocks: int) -> None:
    assert blocks_per_sm(Machine.of(load_gpu(gpu)), np.array(16.0)) == blocks


def test_padded_tokens() -> None:
    assert list(padded_tokens([1, 8, 9, 16, 17, 33, 64, 65, 128, 129])) == [8, 8, 16, 16, 32, 64, 64, 128, 128, 256]
