"""All kernel models: invariants and limits."""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel import predict
from perfmodel.catalog import gpu_names, load_gpu
from perfmodel.kernels import KERNELS, Call, Machine, Shape, kernel_model
from perfmodel.kernels.fits import calibrated
from tests.perfmodel.cases import CASE

GRID = np.linspace(0, 1, 41)


MANY_TOKENS = [name for name in KERNELS if name != "macko"]


def test_no_model_has_more_than_five_free_parameters() -> None:
    for model in KERNELS.values():
        borrowed = calibrated(model.borrows).__dataclass_fields__ if model.borrows else ()
        assert len(calibrated(model.name).__dataclass_fields__.keys() - set(borrowed)) <= (5)


@pytest.mark.parametrize("kernel", ["flash-llm", "sputnik", "cusparse", "sparta"])
@pytest.mark.parametrize("gpu", gpu_names())
def test_sparser_is_never_slower(kernel: str, gpu: str) -> None:
    times = predict(kernel, gpu, **CASE, sparsity=GRID).time_s
    assert (np.diff(times) <= 1e-12).all()


@pytest.mark.parametrize("kernel", list(KERNELS))
def test_more_bandwidth_is_never_slower(kernel: str) -> None:
    machine = Machine.of(load_gpu("a100-80gb"))
    scale = np.geomspace(0.25, 64, 30)
    faster = machine.with_(dram_bytes_per_s=machine.dram_bytes_per_s * scale)
    times = kernel_model(kernel).time(faster, Shape.of(*CASE.values(), 0.7), calibrated(kernel)).time_s
    assert (np.diff(times) <= 1e-15).all()


@pytest.mark.parametrize("kernel", MANY_TOKENS)
def test_more_tokens_are_never_faster(kernel: str) -> None:
    tokens = np.array([8, 16, 32, 64, 128, 256, 512, 1024, 4096])
    times = predict(kernel, "a100-80gb", m=12288, k=12288, n=tokens, sparsity=0.8).time_s
    assert (np.diff(times) >= -0.06 * times[:-1]).all()  # another split of K may fill the last wave better


@pytest.mark.parametrize("kernel", MANY_TOKENS)
@pytest.mark.parametrize("gpu", gpu_names())
def test_no_prediction_beats_the_datasheet(kernel: str, gpu: str) -> None:
    record = load_gpu(gpu)
    p = predict(kernel, gpu, m=12288, k=12288, n=[8, 64, 1024], sparsity=0.5)
    assert (p.time_s > p.weight_bytes / record.dram.bandwidth_bytes_per_s).all()
    assert np.isfinite(p.time_s).all()


@pytest.mark.parametrize("name", [name for name in KERNELS if name != "cusparse"])
def test_a_warm_call_that_hits_brings_nothing_from_memory(name: str) -> None:
    """All weights in the L2: bytes over DRAM are 0 but for what a split K writes; cold, at least the weights."""
    model, machine = KERNELS[name], Machine.of(load_gpu("rtx-4090"))
    shape = Shape.of(1024, 4096, 1 if name == "macko" else 8, 0.5)
    warm, cold = (model.time(machine, shape, calibrated(name), Call(warm=warm)).dram_bytes for warm in (True, False))
    assert float(warm) < 0.2 * float(cold)
    assert float(cold) >= model.format.bytes_of(1024, 4096, 0.5)


def test_split_k_is_at_most_the_tiles_there_are() -> None:
    """Asked for more, a kernel takes what there is: a small product stays a small one."""
    for name in ("flash-llm", "bitmap", "lscd-bitmap"):
        least, most = (float(predict(name, "a100-80gb", 100, 100, 8, 0.5, split_k=ways).time_s) for ways in (1, 2**40))
        assert most < 2 * least
