"""Attention model: limits by hand, what it grows with, what the stored fit says."""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel.catalog import gpu_names, load_gpu
from perfmodel.kernels import Machine
from perfmodel.serving.attention import (
    AttentionParameters,
    attended_pairs,
    calibrated_attention,
    decode,
    latent_decode,
    prompt,
)

A100, H100, GB200 = (load_gpu(key) for key in ("a100-80gb", "h100", "gb200"))
BARE = AttentionParameters(launch_s=1e-5, block_cycles=1e2, lone_read=0.0, passes=1.0)
LLAMA = {"heads": 32, "kv_heads": 8, "head_dim": 128}


def test_a_long_decode_reads_its_cache():
    # 100 x 10,000 tokens of 8 heads, keys and values of 128 values of 2 bytes: 4.096 GB.
    seconds = float(decode(H100, 100, 10_000, **LLAMA, parameters=BARE).time_s)
    assert seconds == pytest.approx(1e-5 + 4.096e9 / Machine.of(H100).streamed_bytes_per_s, rel=2e-3)


def test_an_fp8_cache_takes_half_the_read():
    wide, narrow = (float(decode(H100, 64, 1e5, **LLAMA, cache_bytes=size, parameters=BARE).time_s) for size in (2, 1))
    assert (narrow - 1e-5) / (wide - 1e-5) == pytest.approx(0.5, abs=0.01)


def test_a_single_cache_is_slower_to_read_than_many():
    c = AttentionParameters(launch_s=1e-6, lone_read=0.5)
    one, many = (float(decode(H100, b, 2**24 / b, 1, 1, 128, parameters=c).time_s) - 1e-6 for b in (1, 64))
    assert one / many == pytest.approx(1.5 / (1 + 0.5 / 64), rel=1e-3)


def test_blocks_cost_where_caches_are_short():
    c = AttentionParameters(launch_s=1e-6, block_cycles=1980.0)
    # 132 x 101 caches of one token: 100 further blocks an SM, a microsecond each.
    assert float(decode(H100, 132 * 101, 1, 1, 1, 64, parameters=c).time_s) == pytest.approx(1.01e-4, rel=1e-2)


def test_heads_beyond_a_block_need_another():
    c = AttentionParameters(block_cycles=3e4)
    few, many = (float(latent_decode(H100, 1024, 1, heads, 576, 512, parameters=c).time_s) for heads in (64, 65))
    assert many > 1.5 * few


def test_latent_decoding_reads_one_cache_for_all_heads_until_they_multiply_longer():
    machine = Machine.of(H100)
    batch, context = 64, 30_000
    read_s = batch * context * 576 * 2 / machine.streamed_bytes_per_s
    products_s = 2 * batch * context * 1088 * 1024 / machine.power_flops_per_s
    few, many = (float(latent_decode(H100, batch, context, h, 576, 512, parameters=BARE).time_s) for h in (16, 1024))
    assert few == pytest.approx(1e-5 + read_s, rel=0.02)
    assert many == pytest.approx(1e-5 + products_s, rel=0.02)


def test_only_server_blackwells_multiply_an_fp8_latent_cache_as_it_is():
    gains = []
    for gpu in (H100, GB200):
        wide, narrow = (float(latent_decode(gpu, 64, 30_000, 2048, 576, 512, size).time_s) for size in (2, 1))
        gains.append(wide / narrow)
    assert gains[0] == pytest.approx(1.0, abs=0.02)
    assert gains[1] > 1.5


@pytest.mark.parametrize("gpu", [A100, H100, GB200])
@pytest.mark.parametrize("batch", [1, 32, 256])
def test_decoding_is_nearly_affine_in_context(gpu, batch):
    # What callers rely on when they pass the mean of a growing context.
    context = np.linspace(512, 4096, 50)
    seconds = decode(gpu, batch, context, **LLAMA).time_s
    assert float(np.mean(seconds)) == pytest.approx(
        float(decode(gpu, batch, np.mean(context), **LLAMA).time_s), rel=0.01
    )


def test_a_pair_is_a_query_and_a_key_before_it():
    for n, window, before in ((1, 1, 0), (9, 4, 0), (9, 4, 2), (9, 4, 30), (5, 100, 3)):
        counted = sum(min(before + i, window) for i in range(1, n + 1))
        assert attended_pairs(n, window, before) == counted


def test_a_long_prompt_multiplies_half_of_the_square():
    # An A100: half of 4 x 16,384^2 x 32 x 128 FLOP at 0.7 of 312 TFLOP/s, and an exponential a pair.
    pairs = 32 * 16_384 * 16_385 / 2
    expected_s = 512 * pairs / (0.7 * 312e12) + pairs / (16 * 108 * 1.41e9)
    assert float(prompt(A100, 1, 16_384, **LLAMA, parameters=BARE).time_s) == pytest.approx(expected_s, rel=0.03)


def test_a_prompt_in_chunks_computes_what_it_does_at_once():
    whole = float(prompt(H100, 1, 16_384, **LLAMA, parameters=BARE).time_s)
    starts = np.arange(4) * 4096
    chunks = float(np.sum(prompt(H100, 1, 4096, **LLAMA, before=starts, parameters=BARE).time_s))
    assert whole < chunks < 1.05 * whole


def test_a_window_caps_both_phases():
    assert prompt(H100, 1, 16_384, **LLAMA, window=1024).time_s < 0.2 * prompt(H100, 1, 16_384, **LLAMA).time_s
    assert prompt(H100, 1, 512, **LLAMA, window=1024).time_s == prompt(H100, 1, 512, **LLAMA).time_s


def test_narrow_heads_wait_for_exponentials():
    # Half the products, the same pairs: less than half is saved, least on a Blackwell.
    savings = [
        float(prompt(g, 8, 16_384, 32, 8, 128).time_s / prompt(g, 8, 16_384, 32, 8, 64).time_s)
        for g in (A100, H100, GB200)
    ]
    assert 2 > savings[0] > savings[1] > savings[2] > 1.2


@pytest.mark.parametrize("name", gpu_names())
def test_every_card_is_predicted_and_monotone(name):
    gpu, sizes = load_gpu(name), np.geomspace(1, 1e5, 40)
    for seconds in (
        decode(gpu, 4, sizes, **LLAMA).time_s,
        decode(gpu, sizes, 100, **LLAMA).time_s,
        latent_decode(gpu, 4, sizes, 16, 576, 512, 1).time_s,
        prompt(gpu, 1, sizes, **LLAMA).time_s,
        prompt(gpu, 1, 256, **LLAMA, before=sizes).time_s,
    ):
        assert np.all(np.isfinite(seconds))
        assert np.all(np.diff(seconds) >= 0)


def test_stored_fit_is_physical():
    c = calibrated_attention()
    assert 5e-6 < c.launch_s < 2e-5  # what a call takes at a batch and a context of one
    assert c.lone_read < 1
    assert 1.5 < c.passes < 3  # attention's own, and that of the kernel that stores keys and values
    assert 0.5 < c.early_tensor_efficiency < 0.8


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="batch must be positive, got 0"):
        decode(H100, 0, 10, **LLAMA)
    with pytest.raises(ValueError, match="latent must be positive, got -1"):
        latent_decode(H100, 1, 10, 16, -1, 512)
    with pytest.raises(ValueError, match="tokens must be positive, got nan"):
        prompt(H100, 1, float("nan"), **LLAMA)
