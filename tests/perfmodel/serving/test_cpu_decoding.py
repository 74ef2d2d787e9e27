"""A decoding step on a CPU: its parts by hand, and what it refuses."""

from __future__ import annotations

import pytest

from perfmodel.catalog import load_model
from perfmodel.serving.cpu_decoding import CpuHostParameters, decode_step_s
from tests.perfmodel.machines import round_cpu

MODEL = load_model("smollm2-135m")
CPU = round_cpu().on(1)


def test_parts_of_a_step_by_hand() -> None:
    """All matrices once: 134,479,872 weights of 2 bytes. The cache: 30 layers of 3 heads of 64 keys and values."""
    step = decode_step_s(MODEL, CPU, "cpu-dense16", 2, 100)
    matrices = 30 * (576 * (576 + 2 * 192 + 576) + 3 * 576 * 1536) + 49152 * 576
    assert step.weight_bytes == 2 * matrices
    assert step.cache_s == pytest.approx(2 * 100 * 30 * 2 * 192 * 4 / CPU.dram_bytes_per_s, rel=0.01)
    assert step.host_s == pytest.approx(30 * 150e-6 + 200e-6)
    assert step.products_s > 0.9 * step.weight_bytes / CPU.dram_bytes_per_s
    assert step.total_s == step.products_s + step.cache_s + step.host_s


def test_what_moves_a_step() -> None:
    """Zeros save bytes of the layers only; a longer context reads more; an idle host takes nothing."""
    dense, sparse, long = (
        decode_step_s(MODEL, CPU, "cpu-bitmap", 1, context, share)
        for context, share in ((64, 0.0), (64, 0.6), (640, 0.0))
    )
    head = 49152 * 576 * (2 + 1 / 8)
    assert sparse.weight_bytes - head == pytest.approx((dense.weight_bytes - head) * (0.4 * 16 + 1) / 17, rel=1e-3)
    assert sparse.total_s < dense.total_s < long.total_s
    assert long.cache_s == pytest.approx(10 * dense.cache_s, rel=1e-6)
    idle = CpuHostParameters(layer_s=0.0, step_s=0.0)
    assert decode_step_s(MODEL, CPU, "cpu-bitmap", 1, 64, host=idle).host_s == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel": "cublas"}, "is a CPU: kernel 'cublas' runs on GPUs"),
        ({"batch": 0}, "batch is 0, allowed is at least 1"),
        ({"context": 0}, "context is 0, allowed is at least 1"),
        ({"sparsity": 1.5}, "sparsity must lie in"),
    ],
)
def test_refusals(change: dict[str, object], message: str) -> None:
    asked: dict[str, object] = {"kernel": "cpu-bitmap", "batch": 1, "context": 1}
    with pytest.raises(ValueError, match=message):
        decode_step_s(MODEL, CPU, **(asked | change))  # type: ignore[arg-type]
