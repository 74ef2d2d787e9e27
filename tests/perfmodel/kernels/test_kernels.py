"""All kernel models: invariants and limits."""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel import predict
from perfmodel.catalog import gpu_names, load_gpu
from perfmodel.kernels import GPU_KERNELS, KERNELS, Call, Machine, Shape, kernel_model
from perfmodel.kernels.fits import calibrated
from tests.perfmodel.cases import CASE
from tests.perfmodel.kernels.running import CRAMPED, EVERYTHING, REFUSED, RUNNING, at_sparsity, tokens

GRID = np.linspace(0, 1, 41)


MANY_TOKENS = [pair for pair in RUNNING if pair[1] != "macko"]


def test_pairs_that_run_and_pairs_refused_are_all_there_are() -> None:
    """What tests over `RUNNING` leave out is refused by `predict`, with the reason the model gives."""
    assert len(RUNNING) + len(REFUSED) + len(CRAMPED) == len(gpu_names()) * len(GPU_KERNELS)
    assert {gpu for gpu, _ in CRAMPED} == {"gb10", "rtx-5080", "rtx-5090", "rtx-pro-6000"}
    for gpu, kernel in REFUSED:
        with pytest.raises(ValueError) as refusal:  # noqa: PT011 - the message is compared below, unescaped
            predict(kernel, gpu, 4096, 4096, tokens(kernel), at_sparsity(kernel))
        assert str(refusal.value) == KERNELS[kernel].refusal(load_gpu(gpu))
    assert {kernel for _, kernel in RUNNING} == set(GPU_KERNELS)
    assert {gpu for gpu, kernel in RUNNING if kernel == "cublas"} == set(gpu_names())
    assert EVERYTHING not in {gpu for gpu, _ in REFUSED}
    assert {kernel for gpu, kernel in REFUSED if gpu == "h100"} == {"nvfp4", "mxfp4"}


def test_no_model_has_more_than_five_free_parameters() -> None:
    for model in KERNELS.values():
        borrowed = calibrated(model.borrows).__dataclass_fields__ if model.borrows else ()
        assert len(calibrated(model.name).__dataclass_fields__.keys() - set(borrowed)) <= (5)


@pytest.mark.parametrize(
    ("gpu", "kernel"), [pair for pair in RUNNING if pair[1] in ("flash-llm", "sputnik", "cusparse", "sparta")]
)
def test_sparser_is_never_slower(gpu: str, kernel: str) -> None:
    times = predict(kernel, gpu, **CASE, sparsity=GRID).time_s
    assert (np.diff(times) <= 1e-12).all()


@pytest.mark.parametrize(("gpu", "kernel"), RUNNING)
def test_more_bandwidth_is_never_slower(gpu: str, kernel: str) -> None:
    machine = Machine.of(load_gpu(gpu))
    scale = np.geomspace(0.25, 64, 30)
    faster = machine.with_(dram_bytes_per_s=machine.dram_bytes_per_s * scale)
    shape = Shape.of(*CASE.values(), at_sparsity(kernel, 0.7))
    times = kernel_model(kernel).time(faster, shape, calibrated(kernel)).time_s
    assert times[0] > times[-1]
    assert (np.diff(times) <= 1e-15).all()


@pytest.mark.parametrize(("gpu", "kernel"), MANY_TOKENS)
def test_no_kernel_multiplies_faster_than_its_cores_can(gpu: str, kernel: str) -> None:
    """At any number of tokens: zeros count where they are multiplied, and CUDA cores accumulate in FP32."""
    model, card = kernel_model(kernel), load_gpu(gpu)
    n = 2.0 ** np.arange(6, 15)
    for asked in (0.0, 0.5, 0.8, 0.95):
        sparsity = float(model.own_sparsity(asked))
        time_s = predict(kernel, gpu, 36864, 9216, n, sparsity).time_s
        products = 2 * 36864 * 9216 * n
        if kernel in ("sputnik", "cusparse"):
            peak, done = card.peak.fp32_simt, products * (1 - sparsity)
        else:
            peak = card.peak.tensor(model.precision, sparse=model.sparse_cores)
            done = products * (2 * (1 - sparsity) if model.patterns else 1)
        assert (done / time_s <= peak * card.clock.gain).all(), (kernel, gpu, sparsity)


@pytest.mark.parametrize(("gpu", "kernel"), MANY_TOKENS)
def test_more_tokens_are_never_faster(gpu: str, kernel: str) -> None:
    tokens = np.array([8, 16, 32, 64, 128, 256, 512, 1024, 4096])
    times = predict(kernel, gpu, m=12288, k=12288, n=tokens, sparsity=at_sparsity(kernel)).time_s
    assert (np.diff(times) >= -0.07 * times[:-1]).all()  # another split of K may fill the last wave better


@pytest.mark.parametrize(("gpu", "kernel"), MANY_TOKENS)
def test_no_prediction_beats_the_datasheet(gpu: str, kernel: str) -> None:
    record = load_gpu(gpu)
    p = predict(kernel, gpu, m=12288, k=12288, n=[8, 64, 1024], sparsity=at_sparsity(kernel, 0.5))
    assert (p.time_s > p.weight_bytes / record.dram.bandwidth_bytes_per_s).all()
    assert np.isfinite(p.time_s).all()


@pytest.mark.parametrize("name", [name for name in GPU_KERNELS if name != "cusparse"])
def test_a_warm_call_that_hits_brings_nothing_from_memory(name: str) -> None:
    """All weights in the L2: bytes over DRAM are 0 but for what a split K writes; cold, at least the weights."""
    model, machine = KERNELS[name], Machine.of(load_gpu("rtx-4090"))
    shape = Shape.of(1024, 4096, tokens(name), at_sparsity(name, 0.5))
    warm, cold = (model.time(machine, shape, calibrated(name), Call(warm=warm)).dram_bytes for warm in (True, False))
    assert float(warm) < 0.2 * float(cold)
    assert float(cold) >= model.format.bytes_of(1024, 4096, shape.sparsity)


def test_split_k_is_at_most_the_tiles_there_are() -> None:
    """Asked for more, a kernel takes what there is: a small product stays a small one."""
    for name in ("flash-llm", "bitmap", "lscd-bitmap"):
        least, most = (float(predict(name, "a100-80gb", 100, 100, 8, 0.5, split_k=ways).time_s) for ways in (1, 2**40))
        assert most < 2 * least
