"""One forward pass: attention, small kernels, what each grows with."""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel.catalog import load_gpu
from perfmodel.serving import passes
from perfmodel.serving.systems import calibrated_systems, load_system
from perfmodel.serving.transformer import cache_bytes, head_matrices, kv_bytes_per_token
from tests.perfmodel.serving.cases import A100, group

ONE = np.ones(())
LONG = {"prompt": 4096 * ONE, "new": ONE}


def read_s(of, batch, context):
    """Seconds in which the KV cache is read at the rate of any long read."""
    stored = float(kv_bytes_per_token(of.model.shape, of.p))
    return batch * context * stored / of.machine.streamed_bytes_per_s


def test_attention_waits_along_the_context_and_reads_it_at_the_rate_of_long_reads():
    of = group()
    wait_s = 48 * 100 * calibrated_systems().attention_cycles / A100.clock.boost_hz
    found = passes.decode_attention_s(of, 8 * ONE, 96 * ONE, 8 * ONE)
    assert float(found) == pytest.approx(wait_s + read_s(of, 8, 100))


def test_query_heads_that_share_keys_read_them_once_only_where_the_engine_can():
    wait_s = 80 * 4096.5 * calibrated_systems().attention_cycles / A100.clock.boost_hz
    of, engine = (group("llama-2-70b", system=name, p=4) for name in ("fastertransformer", "vllm"))
    apart, together = (float(passes.decode_attention_s(g, 64 * ONE, **LONG)) for g in (of, engine))
    assert apart == pytest.approx(wait_s + 8 * read_s(of, 64, 4096.5), rel=1e-6)  # 64 query heads, 8 of keys
    assert read_s(of, 64, 4096) < together < 1.5 * read_s(of, 64, 4096)


def test_without_groups_both_ways_read_the_same():
    ft, engine = (group("opt-66b", system=name, p=2) for name in ("fastertransformer", "vllm"))
    stored = read_s(ft, 64, 1024.5)
    for of in (ft, engine):
        found = float(passes.decode_attention_s(of, 64 * ONE, 1024 * ONE, ONE))
        assert stored < found < 1.4 * stored


def test_windows_read_no_more_than_they_hold():
    short, long = (
        float(passes.decode_attention_s(group("gpt-oss-20b", system="vllm"), 64 * ONE, n * ONE, ONE))
        for n in (8192, 16384)
    )
    full = group("gpt-oss-20b", system="vllm")
    half = read_s(full, 64, 8192) / 2  # the other half of the layers look back at 128 tokens
    assert long - short == pytest.approx(half, rel=0.1)


def test_a_recurrent_part_reads_and_writes_its_state_however_long_the_sequence():
    of = group("mamba-2.8b", system="vllm")
    short, long = (float(passes.decode_attention_s(of, 8 * ONE, n * ONE, ONE)) for n in (10, 10_000))
    assert short == long == 2 * 8 * float(cache_bytes(of.model.shape, 1)) / of.machine.streamed_bytes_per_s


def test_latent_attention_reads_one_cache_for_all_heads():
    of = group("deepseek-v3", load_gpu("h200"), "vllm", p=8)
    assert float(kv_bytes_per_token(of.model.shape)) == float(kv_bytes_per_token(of.model.shape, 8)) == 61 * 576 * 2
    found = float(passes.decode_attention_s(of, 64 * ONE, **LONG))
    assert read_s(of, 64, 4096) < found < 2 * read_s(of, 64, 4096)


def test_small_kernels_cost_time_for_each_sequence_not_for_each_token_of_a_prompt():
    of, c = group(), calibrated_systems()
    few, many = (float(passes.other_s(of, 512 * ONE, sequences * ONE)) for sequences in (1, 65))
    assert many - few == pytest.approx(64 * 48 * c.row_s)


def test_deepspeed_takes_longer_in_each_layer():
    slow, fast = (float(passes.other_s(group(system=name), ONE, ONE)) for name in ("deepspeed", "fastertransformer"))
    assert slow - fast == pytest.approx(48 * calibrated_systems().deepspeed_layer_s)


def test_waits_are_as_long_as_the_clock_is_slow():
    slow, fast = (passes.wait_s(group(gpu=load_gpu(name))) for name in ("a100-80gb", "h100"))
    assert slow / fast == pytest.approx(load_gpu("h100").clock.boost_hz / A100.clock.boost_hz)


def test_a_sparse_product_costs_its_kernel_and_no_more():
    from perfmodel.kernels import KERNELS, Machine, Shape
    from perfmodel.kernels.fits import calibrated

    shape, machine = Shape.of(28672, 7168, 8, 0.8), Machine.of(A100)
    alone = KERNELS["flash-llm"].time(machine, shape, calibrated("flash-llm")).time_s
    assert float(load_system("flash-llm").product(machine, shape).time_s) == float(alone)


@pytest.mark.parametrize(
    ("model", "system"),
    [
        ("llama-3.1-8b", "vllm+bitmap"),
        ("mixtral-8x7b", "vllm+int4"),
        ("opt-350m", "flash-llm"),
        ("gpt-oss-20b", "vllm"),
    ],
)
def test_products_at_once_are_those_of_each_matrix(model, system):
    """Few tokens, an array of them on two numbers of GPUs, and more than go through a kernel's model at once."""
    sparsity = 0.7 if system in ("vllm+bitmap", "flash-llm") else 0.0
    of = group(model, load_gpu("h100"), system, sparsity=sparsity, p=np.array([1.0, 2.0]))
    for n in (16 * ONE, np.array([[1.0], [64.0], [5000.0]]), np.arange(1.0, 3001.0)[:, None]):
        matrices = [*of.matrices, *head_matrices(of.model.shape, of.p)]
        each = sum(matrix.layers * passes.stored_s(of, matrix, n) for matrix in matrices)
        launched = sum(matrix.layers for matrix in matrices) * of.system.call.launch_s()
        assert passes.matmul_s(of, n, n) == pytest.approx(each - launched, rel=1e-12)
