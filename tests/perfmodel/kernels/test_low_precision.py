"""Kernels of few bits and of 2:4: times by hand, what binds them, what they refuse."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from perfmodel import predict
from perfmodel.catalog import gpu_names, load_gpu
from perfmodel.catalog.specs import Bound, Precision
from perfmodel.kernels import GPU_KERNELS, KERNELS, Call, Machine, Shape
from perfmodel.kernels.call import STREAM_LAUNCH_S
from perfmodel.kernels.fits import kernel_fits
from perfmodel.kernels.low_precision import FAMILY, PIPELINE_CYCLES, QUANTISE_S
from tests.perfmodel.kernels.running import EVERYTHING, RUNNING

DENSE = ("fp8", "fp8-block", "nvfp4", "mxfp4", "int8-w8a8")
PATTERN = ("two-four", "six-eight", "two-four-fp8", "two-four-int8")
WEIGHT_ONLY = ("int8", "int4")
NEW = [pair for pair in RUNNING if pair[1] in (*DENSE, *PATTERN, *WEIGHT_ONLY)]
M, K, N = 12800, 10240, 1024
# Bytes of a weight, scales included, and of an activation as it is multiplied.
WEIGHT_BYTES = {
    "fp8": 1 + 4 / K, "fp8-block": 1 + 4 / 128**2, "nvfp4": 0.5 + 1 / 16, "mxfp4": 0.5 + 1 / 32, "int8-w8a8": 1 + 4 / K,
    "two-four": 2 * 9 / 16, "six-eight": 2 * 27 / 32, "two-four-fp8": 10 / 16, "two-four-int8": 10 / 16,
}  # fmt: skip
INPUT_BYTES = {"nvfp4": 0.5, "mxfp4": 0.5, "two-four": 2, "six-eight": 2}  # all others: 1
# Multiplications in a second of the machine below, by kernel.
RATES = {"fp8": 2e14, "fp8-block": 2e14, "nvfp4": 4e14, "mxfp4": 4e14, "int8-w8a8": 1.9e14}
RATES |= {"two-four": 2.1e14, "six-eight": 2.1e14, "two-four-fp8": 4.1e14, "two-four-int8": 4.2e14}
INFINITE = 1e40


def machine(**changes: float) -> Machine:
    """100 SMs at 1 GHz, 1 TB/s; no limit by power or L2."""
    base = Machine.of(load_gpu("b200")).with_(
        sm_count=100, clock_hz=1e9, dram_bytes_per_s=1e12, dram_share=1.0, l2_bytes_per_s=INFINITE,
        tensor_flops_per_s=1e14, power_flops_per_s=float("inf"), fp8_flops_per_s=2e14, fp4_flops_per_s=4e14,
        int8_flops_per_s=1.9e14, fp16_sparse_flops_per_s=2.1e14, fp8_sparse_flops_per_s=4.1e14,
        int8_sparse_flops_per_s=4.2e14,
    )  # fmt: skip
    return base.with_(**changes)


def endless_tensor_cores() -> Machine:
    return machine(**{f.name: INFINITE for f in fields(Machine) if f.name.endswith("_flops_per_s")})


def plain(kernel: str, **changes: float) -> Any:
    """Parameters with which no resource but those in ``changes`` costs anything beyond its datasheet."""
    neutral = {"bandwidth_efficiency": 1.0, "tensor_efficiency": 1.0, "cycles_per_column": 0, "cycles_per_weight": 0}
    return replace(KERNELS[kernel].Parameters(), **neutral | changes)


def sparsity(kernel: str) -> float:
    return KERNELS[kernel].patterns[0] if kernel == "six-eight" else 0.5


def is_measured_on(gpu: str, kernel: str) -> bool:
    return gpu in kernel_fits()["nvfp4" if kernel == "mxfp4" else kernel].gpus


def seconds(kernel: str, at: Machine, parameters: Any, call: Call, n: int = N) -> float:
    return float(KERNELS[kernel].time(at, Shape.of(M, K, n, sparsity(kernel)), parameters, call).time_s)


QUANTISED = Call(graph=True, quantised=True)


def pipeline_s(kernel: str, parameters: Any) -> float:
    """Filled and drained at 1 GHz."""
    return (parameters.latency_cycles if kernel in PATTERN else PIPELINE_CYCLES) / 1e9


def multiplied_share(kernel: str) -> float:
    """Columns that are multiplied: half with 2:4 would be 1, for the rate counts the zeros; 6:8 has windows of 12."""
    return 1.5 if kernel == "six-eight" else 1.0


@pytest.mark.parametrize("kernel", [*DENSE, *PATTERN])
def test_bytes_by_hand(kernel: str) -> None:
    """Endless Tensor Cores: weights with scales, activations and output pass at 1 TB/s, after launch and pipeline."""
    p = plain(kernel)
    inputs = INPUT_BYTES.get(kernel, 1) * multiplied_share(kernel) * K * N
    expected = (WEIGHT_BYTES[kernel] * M * K + inputs + 2 * M * N) / 1e12
    found = seconds(kernel, endless_tensor_cores(), p, QUANTISED) - pipeline_s(kernel, p)
    assert found == pytest.approx(expected, rel=1e-3)  # two families leave scales of a row out
    slow = replace(p, bandwidth_efficiency=0.5)
    assert seconds(kernel, endless_tensor_cores(), slow, QUANTISED) - pipeline_s(kernel, p) == pytest.approx(2 * found)


@pytest.mark.parametrize("kernel", [*DENSE, *PATTERN])
def test_launches_by_hand(kernel: str) -> None:
    """A launch in a stream; another that quantises, and what it reads and writes, unless activations come quantised."""
    p, at = plain(kernel), machine()
    least = seconds(kernel, at, p, QUANTISED)
    assert seconds(kernel, at, p, Call(quantised=True)) - least == pytest.approx(STREAM_LAUNCH_S)
    extra = seconds(kernel, at, p, Call(graph=True)) - least
    if kernel in ("two-four", "six-eight"):
        assert extra == 0
        return
    launch_s = QUANTISE_S if kernel in PATTERN else p.quantise_s
    assert extra == pytest.approx(launch_s + (2 + INPUT_BYTES.get(kernel, 1)) * N * K / 1e12)


@pytest.mark.parametrize("kernel", [*DENSE, *PATTERN])
def test_products_by_hand(kernel: str) -> None:
    """Endless memory: two operations for each weight and token, at 0.9 of the peak of this precision."""
    p, at = plain(kernel, tensor_efficiency=0.9), machine(dram_bytes_per_s=INFINITE)
    expected = 2 * M * K * multiplied_share(kernel) * N / (0.9 * RATES[kernel])
    assert seconds(kernel, at, p, QUANTISED) - pipeline_s(kernel, p) == pytest.approx(expected)
    scaled = replace(p, cycles_per_weight=0.03)
    expected += 0.03 * M * K * multiplied_share(kernel) / (100 * 1e9)
    assert seconds(kernel, at, scaled, QUANTISED) - pipeline_s(kernel, p) == pytest.approx(expected)
    assert seconds(kernel, at.with_(power_flops_per_s=1e12), p, QUANTISED) > 10 * expected


@pytest.mark.parametrize("kernel", [*DENSE, *PATTERN])
def test_walk_along_k_by_hand(kernel: str) -> None:
    """Endless memory and Tensor Cores: two cycles a column, however many rows there are."""
    p, at = plain(kernel, cycles_per_column=2.0), endless_tensor_cores().with_(dram_bytes_per_s=INFINITE)
    expected = 2.0 * K * multiplied_share(kernel) / 1e9
    assert seconds(kernel, at, p, QUANTISED) - pipeline_s(kernel, p) == pytest.approx(expected)


def test_weight_only_by_hand() -> None:
    """INT4 in groups of 128: half a byte and a scale; decoded at a rate, along K at another."""
    model, at = KERNELS["int4"], machine(power_flops_per_s=INFINITE, tensor_flops_per_s=INFINITE)
    free = model.Parameters(
        bandwidth_efficiency=1.0, latency_cycles=0.0, cycles_per_weight=0.0, cycles_per_token=0.0, cycles_per_column=0.0
    )
    shape, graph = Shape.of(M, K, 16, 0.0), Call(graph=True)

    def found(parameters: Any, on: Machine = at) -> float:
        return float(model.time(on, shape, parameters, graph).time_s)

    assert found(free) == pytest.approx(((0.5 + 2 / 128) * M * K + 2 * 16 * (M + K)) / 1e12, rel=1e-6)
    fast = at.with_(dram_bytes_per_s=INFINITE)
    assert found(replace(free, cycles_per_column=3.0), fast) == pytest.approx(3.0 * K / 1e9)
    assert found(replace(free, cycles_per_weight=0.02), fast) == pytest.approx(0.02 * M * K / 1e11)
    assert found(replace(free, cycles_per_token=1e-3), fast) == pytest.approx(16e-3 * M * K / 1e11)
    assert found(replace(free, latency_cycles=1e4), fast) == pytest.approx(1e-5)


@pytest.mark.parametrize(("gpu", "kernel"), [pair for pair in NEW if is_measured_on(*pair)])
def test_bound_by_memory_at_8_tokens_and_by_compute_at_8192(gpu: str, kernel: str) -> None:
    """On the GPUs it was measured on; MXFP4 where NVFP4 was."""
    p = predict(kernel, gpu, 16384, 16384, [8, 8192], sparsity(kernel))
    assert list(p.bound) == [Bound.MEMORY, Bound.COMPUTE]


@pytest.mark.parametrize(("gpu", "kernel"), NEW)
def test_large_products_are_never_bound_by_latency(gpu: str, kernel: str) -> None:
    """Elsewhere Tensor Cores outgrow the L2, or are so slow, an H20's or a B300's in INT8, that they decide early."""
    p = predict(kernel, gpu, 16384, 16384, [8, 8192], sparsity(kernel))
    assert set(p.bound) <= {Bound.MEMORY, Bound.COMPUTE, Bound.L2}
    slow = gpu == "h20" or (gpu in ("b300", "gb300") and KERNELS[kernel].precision is Precision.INT8)
    at_8 = {name: float(seconds[0]) for name, seconds in p.terms.items()}
    assert at_8[Bound.MEMORY] >= 0.9 * max(at_8.values()) or slow  # a B200 brings FP8 as fast as its SMs take it
    assert p.bound[1] is not Bound.MEMORY


@pytest.mark.parametrize(("gpu", "kernel"), NEW)
def test_no_larger_product_is_faster(gpu: str, kernel: str) -> None:
    """In rows, columns and tokens; other kernels may share K differently, these do not."""
    for axis in "mkn":
        sizes: dict[str, Any] = {"m": 8192, "k": 8192, "n": 64} | {axis: np.arange(1, 65) * 128}
        times = predict(kernel, gpu, **sizes, sparsity=sparsity(kernel)).time_s
        assert (np.diff(times) >= 0).all(), axis
        assert times[-1] > times[0], axis


@pytest.mark.parametrize("kernel", ["fp8", "int8-w8a8"])
def test_eight_bits_are_half_the_bytes(kernel: str) -> None:
    eight, dense = (predict(name, "h100", 16384, 16384, 8) for name in (kernel, "cublas"))
    assert 0.5 < float(eight.weight_bytes / dense.weight_bytes) < 0.501
    four = predict("nvfp4", EVERYTHING, 16384, 16384, 8)
    assert float(four.weight_bytes / dense.weight_bytes) == pytest.approx(4.5 / 16, rel=1e-3)
    assert 1.5 < float(eight.speedup_vs_dense) < 2.1


@pytest.mark.parametrize("kernel", list(GPU_KERNELS))
def test_activations_that_come_quantised_save_a_launch_where_one_is(kernel: str) -> None:
    n = 1 if kernel == "macko" else 8
    share = float(KERNELS[kernel].own_sparsity(0.5))
    plain_s, quantised_s = (
        float(predict(kernel, EVERYTHING, 4096, 4096, n, share, activations=kind).time_s)
        for kind in ("fp16", "quantised")
    )
    if kernel in (*DENSE, "two-four-fp8", "two-four-int8"):
        assert 5e-7 < plain_s - quantised_s < 2e-5
    else:
        assert plain_s == quantised_s


def test_patterns_are_priced_by_their_density() -> None:
    """2(1 - s) times the columns, (1 - s)(16 + 2) bits a weight: 6:8 is half as much again as 2:4 in both."""
    assert FAMILY == (0.5, 1 / 3, 0.25, 0.2)
    for kernel in PATTERN:
        model = KERNELS[kernel]
        columns = [float(model.columns(Shape.of(4096, 8192, 64, s))) / 8192 for s in FAMILY]  # type: ignore[attr-defined]
        assert columns == pytest.approx([1, 4 / 3, 1.5, 1.6])
        two, six = (float(model.format.bytes_of(4096.0, 8192.0, s)) for s in (0.5, 0.25))
        assert six == pytest.approx(1.5 * two)
    two, six = (predict(name, "a100-80gb", 16384, 16384, 64, s) for name, s in (("two-four", 0.5), ("six-eight", 0.25)))
    assert float(six.weight_bytes / two.weight_bytes) == pytest.approx(1.5)
    assert float(two.weight_bytes) == 16384**2 * 9 / 8


def test_what_nobody_measured_may_be_as_its_measured_like() -> None:
    """The ranges of MXFP4 hold the fit of NVFP4, so that its interval does not leave it out."""
    like = kernel_fits()["nvfp4"].parameters
    for f in fields(KERNELS["mxfp4"].Parameters):
        assert f.metadata["low"] <= like[f.name] <= f.metadata["high"], f.name
    times = [predict(kernel, "gb200", 16384, 16384, [8, 64, 1024]) for kernel in ("mxfp4", "nvfp4")]
    assert (times[0].lo_s < times[1].time_s).all()
    assert (times[1].time_s < times[0].hi_s).all()


def test_no_kernel_has_more_than_five_parameters_of_its_own() -> None:
    for model in KERNELS.values():
        borrowed = {f.name for f in fields(KERNELS[model.borrows].Parameters)} if model.borrows else set()
        assert len({f.name for f in fields(model.Parameters)} - borrowed) <= 5, model.name
    assert all(KERNELS[kernel].borrows is None for kernel in (*DENSE, *PATTERN, *WEIGHT_ONLY))


@pytest.mark.parametrize(
    ("kernel", "gpu", "message"),
    [
        ("fp8", "a100-80gb", r"A100.* no FP8 Tensor Cores \(peak.fp8_tensor\).*'fp8'.*use int8 \(w8a16\)"),
        ("fp8-block", "rtx-3090", r"no FP8 Tensor Cores.*'fp8-block'"),
        ("nvfp4", "h100", r"H100.* no FP4 Tensor Cores \(peak.fp4_tensor\).*'nvfp4'.*use int4 \(w4a16\)"),
        ("mxfp4", "l40s", r"no FP4 Tensor Cores"),
        ("two-four", "v100", r"V100.* no 2:4 FP16 Tensor Cores \(peak.fp16_sparse\).*'two-four'"),
        ("two-four-fp8", "a100-80gb", r"no 2:4 FP8 Tensor Cores \(peak.fp8_sparse\)"),
        ("int8-w8a8", "v100", r"no INT8 Tensor Cores"),
        ("flash-llm", "mi300x", r"MI300X is AMD's: only dense and 2:4 products .* not kernel 'flash-llm'"),
        ("fp8", "mi355x", r"is AMD's"),
    ],
)
def test_refusals_name_gpu_precision_and_remedy(kernel: str, gpu: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predict(kernel, gpu, 4096, 4096, 8, float(KERNELS[kernel].own_sparsity(0.5)))


@pytest.mark.parametrize(
    ("kernel", "asked", "message"),
    [
        ("two-four", 0.8, r"two-four takes the sparsity of its pattern, 0.5 \(2:4\), got 0.8"),
        ("two-four", 0.0, r"0.5 \(2:4\), got 0"),
        (
            "six-eight",
            0.5,
            r"of its pattern, 0.25 \(6:8\) or 0.333 \(4:6\) or 0.2 \(8:10\), got 0.5",
        ),
        ("two-four-fp8", [0.5, 0.6], r"got 0.6"),
    ],
)
def test_a_pattern_refuses_other_sparsities(kernel: str, asked: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predict(kernel, "h100", 4096, 4096, 8, asked)


def test_a_third_may_be_rounded() -> None:
    """4:6 drops a third, which nobody types exactly; the prediction is that of the exact third."""
    rounded, exact = (predict("six-eight", "h100", 4096, 4096, 8, s) for s in (0.33, 1 / 3))
    assert float(rounded.time_s) == float(exact.time_s)
    assert float(rounded.weight_bytes) == float(exact.weight_bytes)


@pytest.mark.parametrize("gpu", gpu_names())
def test_dense_runs_everywhere(gpu: str) -> None:
    p = predict("cublas", gpu, 8192, 8192, [1, 8, 4096], [0.0, 0.3, 0.9])
    assert np.isfinite(p.time_s).all()
    assert (p.speedup_vs_dense == 1).all()
