"""One forward pass: attention, small kernels, what each grows with."""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel.catalog import load_gpu, load_model
from perfmodel.serving.passes import Group
from perfmodel.serving.systems import calibrated_systems, load_system
from perfmodel.serving.transformer import kv_bytes_per_token, kv_read_bytes_per_token
from tests.perfmodel.serving.cases import A100

ONE = np.ones(())


def group(model="opt-30b", gpu=A100, system="fastertransformer", p=1):
    found = load_model(model), gpu, load_system(system)
    return Group(*found, np.zeros(()), np.asarray(float(p)), calibrated_systems())


def test_attention_waits_along_the_context_and_reads_it_at_the_rate_of_long_reads():
    of = group()
    layers, rate = of.model.shape.layers, of.machine.streamed_bytes_per_s
    wait_s = layers * 100 * calibrated_systems().attention_cycles / A100.clock.boost_hz
    read_s = 8 * 100 * float(kv_bytes_per_token(of.model.shape)) / rate
    assert float(of.decode_attention_s(8 * ONE, 100 * ONE)) == pytest.approx(wait_s + read_s)


def test_query_heads_that_share_keys_read_them_once_only_where_the_engine_can():
    shape = load_model("llama-2-70b").shape  # 64 query heads, 8 of keys and values
    assert float(kv_read_bytes_per_token(shape) / kv_bytes_per_token(shape)) == 8
    assert float(kv_read_bytes_per_token(shape, 4, shared=True)) == float(kv_bytes_per_token(shape, 4))
    ft, engine = (
        group("llama-2-70b", system=name, p=4).decode_attention_s(64 * ONE, 4096 * ONE)
        for name in ("fastertransformer", "lmdeploy")
    )
    assert float(ft) > 7 * float(engine)


def test_without_groups_both_ways_read_the_same():
    shape = load_model("opt-66b").shape
    assert float(kv_read_bytes_per_token(shape, 2)) == float(kv_read_bytes_per_token(shape, 2, shared=True))


def test_blocks_that_share_a_context_do_not_wait_for_it():
    ft, engine = (group(system=name).decode_attention_s(ONE, 2048 * ONE) for name in ("fastertransformer", "lmdeploy"))
    wait_s = 48 * 2048 * calibrated_systems().attention_cycles / A100.clock.boost_hz
    assert float(ft - engine) == pytest.approx(wait_s)


def test_small_kernels_cost_time_for_each_sequence_not_for_each_token_of_a_prompt():
    of, c = group(), calibrated_systems()
    few, many = (float(of.other_s(512 * ONE, sequences * ONE)) for sequences in (1, 65))
    assert many - few == pytest.approx(64 * 48 * c.row_s)


def test_deepspeed_takes_longer_in_each_layer():
    extra = float(group(system="deepspeed").other_s(ONE, ONE) - group().other_s(ONE, ONE))
    assert extra == pytest.approx(48 * calibrated_systems().deepspeed_layer_s)


def test_waits_are_as_long_as_the_clock_is_slow():
    slow, fast = (group(gpu=load_gpu(name)).wait_s for name in ("a100-80gb", "h100"))
    assert slow / fast == pytest.approx(load_gpu("h100").clock.boost_hz / A100.clock.boost_hz)


def test_a_sparse_product_costs_its_kernel_and_no_more():
    from perfmodel.kernels import KERNELS, Machine, Shape
    from perfmodel.kernels.fits import calibrated

    shape, machine = Shape.of(28672, 7168, 8, 0.8), Machine.of(A100)
    alone = KERNELS["flash-llm"].time(machine, shape, calibrated("flash-llm")).time_s
    assert float(load_system("flash-llm").prunable_time(machine, shape)) == float(alone)
