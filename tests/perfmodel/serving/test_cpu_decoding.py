"""A decoding step on a CPU: its parts by hand, and what it refuses."""

from __future__ import annotations

import pytest

from perfmodel.catalog import load_model
from perfmodel.serving.cpu_decoding import CpuHostParameters, Weights, decode_step_s, step_s
from tests.perfmodel.machines import round_cpu

MODEL = load_model("smollm2-135m")
CPU = round_cpu().on(1)
HOST = CpuHostParameters(layer_cycles=2e5, sequence_cycles=1e4, score_cycles=100)


def test_parts_of_a_step_by_hand() -> None:
    """All matrices once: 134,479,872 weights of 2 bytes. Attention: 100 cycles of a 2 GHz core for each of 9
    heads, or reading 30 layers of 3 heads of 64 keys and values."""
    step = decode_step_s(MODEL, CPU, "cpu-dense16", 2, 100, host=HOST)
    matrices = 30 * (576 * (576 + 2 * 192 + 576) + 3 * 576 * 1536) + 49152 * 576
    assert step.weight_bytes == 2 * matrices
    assert step.attention_s == pytest.approx(2 * 100 * 30 * 9 * 100 / 2e9)
    idle = decode_step_s(MODEL, CPU, "cpu-dense16", 2, 100, host=CpuHostParameters(score_cycles=0.0))
    assert idle.attention_s == pytest.approx(2 * 100 * 30 * 2 * 192 * 4 / CPU.dram_bytes_per_s, rel=0.01)
    assert step.host_s == pytest.approx(30 * (2e5 + 2 * 1e4) / 2e9)
    assert step.products_s > 0.9 * step.weight_bytes / CPU.dram_bytes_per_s
    assert step.total_s == step.products_s + step.attention_s + step.host_s


def test_what_moves_a_step() -> None:
    """Zeros save bytes of the layers only; a longer context reads more; an idle host takes nothing."""
    dense, sparse, long = (
        decode_step_s(MODEL, CPU, "cpu-bitmap", 1, context, share, host=HOST)
        for context, share in ((64, 0.0), (64, 0.6), (640, 0.0))
    )
    head = 49152 * 576 * (2 + 1 / 8)
    assert sparse.weight_bytes - head == pytest.approx((dense.weight_bytes - head) * (0.4 * 16 + 1) / 17, rel=1e-3)
    assert sparse.total_s < dense.total_s < long.total_s
    assert long.attention_s == pytest.approx(10 * dense.attention_s, rel=1e-6)
    idle = CpuHostParameters(layer_cycles=0.0, sequence_cycles=0.0)
    assert decode_step_s(MODEL, CPU, "cpu-bitmap", 1, 64, host=idle).host_s == 0


def test_matrices_one_by_one_are_the_model() -> None:
    """As `decode_step_s` sums them: q, k and v joined, and gate and up."""
    layer = ((960, 576), (576, 576), (3072, 576), (576, 1536))
    each = [Weights(m, k, 0.6, 4, 1, 1) for m, k in layer * 30] + [Weights(49152, 576, 0.0, 4, 1, 1)]
    cached = 4 * 64 * 30 * 2 * 192 * 4
    found = step_s(each, CPU, "cpu-bitmap", 4, 64, (30, 270, cached), HOST)
    wanted = decode_step_s(MODEL, CPU, "cpu-bitmap", 4, 64, 0.6, HOST)
    assert vars(found) == pytest.approx(vars(wanted))


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
