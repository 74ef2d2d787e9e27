"""Products on a CPU: times by hand, limits, and what runs where."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from perfmodel.catalog import load_gpu
from perfmodel.kernels import CPU_KERNELS, Call, Machine, Shape, baseline_of, kernels_of
from perfmodel.kernels.cpu import token_groups, token_strips
from perfmodel.kernels.machine import READ_SIZES
from perfmodel.prediction import left_out, predict, predict_all
from tests.comparison import assert_close
from tests.perfmodel.machines import round_cpu

ONE, TWO = (round_cpu().on(count) for count in (1, 2))
WITHOUT_TORCH = msgspec.structs.replace(
    TWO, peak=msgspec.structs.replace(TWO.peak, torch_fp32_gemm=None, bf16_gemm=None)
)
SIZE = {"m": 4096, "k": 4096}
# Tokens from which a kernel goes a faster way: the matrix unit; past a slow loop for one token; weights packed.
FASTER_FROM = {"cpu-bitmap-bf16": 5, "torch-bf16": 2, "torch-fp32": 16}


def test_a_machine_keeps_the_curve() -> None:
    machine = Machine.of(TWO)
    sizes = np.array([1.0, 2.0**15, 2.0**23, 2.0**26, 2.0**50])
    assert_close(machine.read_rate(sizes), [TWO.read_rate(size) for size in sizes], relative=1e-9)
    assert machine.read_rate(READ_SIZES[3]).shape == ()
    assert np.isnan([machine.sm_count, machine.l2_bytes, machine.tensor_flops_per_s]).all()
    assert np.isnan(Machine.of(load_gpu("h100")).reads_bytes_per_s).all()


@pytest.mark.parametrize("kernel", CPU_KERNELS)
def test_stacked_machines_equal_each_alone(kernel: str) -> None:
    model = CPU_KERNELS[kernel]
    shape, call = Shape.of(np.array([64, 4096, 128]), 4096, 4, 0.5), Call(warm=True)
    together = model.time(Machine.stack([ONE, TWO], [1, 0, 1]), shape, model.Parameters(), call).time_s
    alone = [
        float(model.time(Machine.of(cpu), Shape.of(m, 4096, 4, 0.5), model.Parameters(), call).time_s)
        for cpu, m in ((TWO, 64), (ONE, 4096), (TWO, 128))
    ]
    assert_close(together, alone, relative=1e-12)


def test_a_dense_product_by_hand() -> None:
    """One token of 16 M weights of 2 bytes: 33.6 MB at 80 % of 10 GB/s, 7 FLOP a weight of 100 GFLOP/s.

    Before it 20,000 cycles of 2 GHz and a parallel call of a microsecond.
    """
    model = CPU_KERNELS["cpu-dense16"]
    found = model.time(Machine.of(ONE), Shape.of(4096, 4096, 1, 0.0), model.Parameters())
    weights, moved = 4096**2, 2 * 4096**2 + 4 * 2 * 4096
    memory_s, compute_s = moved / 8e9, 7 * weights / 100e9
    assert float(found.time_s) == pytest.approx(11e-6 + np.hypot(memory_s, compute_s))
    assert float(found.dram_bytes) == moved
    assert found.bound.item() == "memory"


def test_what_a_cache_holds_is_read_faster_and_hardly_from_memory() -> None:
    small, large = ({"m": size, "k": size} for size in (256, 16384))
    for sizes, gain in ((small, 5), (large, 1)):
        cold, warm = (predict("numpy-fp32", ONE, **sizes, n=1, cache=cache) for cache in ("cold", "warm"))
        ratio = float(cold.terms["memory"] / warm.terms["memory"])
        assert ratio == pytest.approx(10, rel=0.01) if gain > 1 else ratio == pytest.approx(1)
        assert float(warm.dram_bytes) == pytest.approx(float(cold.dram_bytes) / ratio)


def test_tokens_as_kernels_compute_them() -> None:
    assert_close(token_groups([1, 2, 3, 4, 5, 16, 17]), [1, 2, 4, 4, 8, 16, 20], relative=0)
    assert_close(token_strips([1, 8, 9, 17, 32, 33, 64]), [8, 8, 16, 32, 32, 40, 64], relative=0)


@pytest.mark.parametrize("kernel", CPU_KERNELS)
def test_limits(kernel: str) -> None:
    """Sparser is never slower, more tokens and one thread never faster, and no read beats what was measured."""
    zeros = predict(kernel, TWO, **SIZE, n=1, sparsity=np.linspace(0, 1, 21)).time_s
    assert (np.diff(zeros) <= 1e-15).all()
    tokens = predict(kernel, TWO, **SIZE, n=np.arange(FASTER_FROM.get(kernel, 1), 70), sparsity=0.5).time_s
    assert (np.diff(tokens) >= -1e-15).all()
    both = predict(kernel, TWO, **SIZE, n=4, sparsity=0.5)
    one_s = float(predict(kernel, ONE, **SIZE, n=4, sparsity=0.5).time_s)
    assert one_s >= float(both.time_s) - 20 * TWO.call.seconds[1]  # a call of two threads costs more
    assert float(both.time_s) > 0.8 * float(both.weight_bytes) / TWO.dram_bytes_per_s
    assert both.measured
    assert both.lo_s <= both.time_s <= both.hi_s


def test_the_matrix_unit_takes_sixteen_tokens_for_one() -> None:
    without = msgspec.structs.replace(ONE, simd=["avx512f"])
    tiles, lanes = (
        predict("cpu-bitmap-bf16", cpu, 1024, 1024, [4, 5, 16, 17], 0.5).terms["compute"] for cpu in (ONE, without)
    )
    assert tiles[0] == lanes[0]
    assert tiles[1] == tiles[2] < tiles[3]
    assert (tiles[1:] < lanes[1:]).all()


def test_libraries_read_weights_several_times_as_measured() -> None:
    """PyTorch's FP32 product once for two tokens; NumPy packs beyond a million multiply-adds; BF16 alone is slow."""
    once, twice, thrice, packed = predict("torch-fp32", ONE, **SIZE, n=[2, 4, 8, 16]).terms["memory"]
    assert_close([twice, thrice, packed], [2 * once, 3 * once, 2 * once], relative=0.01)
    model = CPU_KERNELS["numpy-fp32"]
    small, large = (
        float(model.flops(Machine.of(ONE), Shape.of(m, 500, 2, 0.0), model.Parameters())) / m for m in (1000, 1001)
    )
    assert large == pytest.approx(3 * small)
    alone, two = predict("torch-bf16", ONE, **SIZE, n=[1, 2]).terms["memory"]
    assert alone > two


def test_who_runs_where_and_against_what() -> None:
    assert set(kernels_of(ONE)) == set(CPU_KERNELS)
    assert baseline_of(load_gpu("h100")) == "cublas"
    assert (baseline_of(ONE), baseline_of(WITHOUT_TORCH)) == ("torch-bf16", "numpy-fp32")
    assert float(predict("torch-bf16", ONE, **SIZE, n=1).speedup_vs_dense) == 1
    found = {p.kernel for _, p in predict_all(WITHOUT_TORCH, **SIZE, n=3)}
    assert found == set(CPU_KERNELS) - {"torch-fp32", "torch-bf16"}
    assert set(left_out(WITHOUT_TORCH, 3)) == {"torch-fp32", "torch-bf16"}
    assert not set(left_out("h100", 8)) & set(CPU_KERNELS)


@pytest.mark.parametrize(
    ("kernel", "device", "message"),
    [
        ("cublas", ONE, "round CPU is a CPU: kernel 'cublas' runs on GPUs"),
        ("cpu-bitmap", "h100", "is a GPU: kernel 'cpu-bitmap' runs on CPUs"),
        ("torch-bf16", WITHOUT_TORCH, "round CPU was measured without PyTorch .peak.bf16_gemm., which kernel"),
    ],
)
def test_refusals(kernel: str, device: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predict(kernel, device, **SIZE, n=8)  # type: ignore[arg-type]
