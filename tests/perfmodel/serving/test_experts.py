"""Experts: routing against simulations, grouped products against plain ones, and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel.catalog import load_gpu
from perfmodel.kernels import KERNELS, Machine, Shape
from perfmodel.kernels.fits import calibrated
from perfmodel.serving.experts import (
    ExpertParameters,
    Load,
    active_experts,
    calibrated_experts,
    fuses_experts,
    grouped_product_s,
    permutation,
)

A100, H100, GB200 = load_gpu("a100-80gb"), load_gpu("h100"), load_gpu("gb200")
NOTHING = ExpertParameters(1.0, 1.0, 0.0, 0.0, 0.0, 0.0)


def product_of(name, gpu, k, sparsity=0.0):
    def seconds(m, n):
        model = KERNELS[name]
        shape = Shape.of(m, k, model.padded_n(n), sparsity)
        return model.time(Machine.of(gpu), shape, calibrated(name)).time_s

    return seconds


def counted(tokens, experts, per_token, gpus, rng):
    """Experts with a token and their tokens on the busiest GPU: each token draws."""
    draws = np.argpartition(rng.random((tokens, experts)), per_token, axis=1)[:, :per_token]
    counts = np.bincount(draws.ravel(), minlength=experts).reshape(gpus, -1)
    busiest = counts[counts.sum(axis=1).argmax()]
    return np.count_nonzero(busiest), busiest.sum()


def dealt_by_power_law(tokens, experts, per_token, skew, rng):
    """Tokens of each expert as AIConfigurator makes them: sampled, rounded, cut at all tokens, the rest to the idle."""
    low, high = (1.0, 0.8 * tokens) if tokens * per_token > experts else (0.01, 2.0)
    low, high = low ** (1 - skew), high ** (1 - skew)
    loads = (low + (high - low) * rng.random(experts)) ** (1 / (1 - skew))
    counts = np.minimum(np.rint(loads / loads.sum() * tokens * per_token).astype(int), tokens)
    while (missing := tokens * per_token - counts.sum()) != 0:
        counts[counts.argmin() if missing > 0 else counts.argmax()] += np.sign(missing)
    return counts


@pytest.mark.parametrize("skew", [0.0, 1.0, 1.2, 2.0])
def test_one_token_visits_its_experts_and_many_tokens_all(skew):
    load = active_experts([1, 10**6], 128, 8, skew)
    assert load.active == pytest.approx([8, 128], rel=1e-3)
    assert load.rows == pytest.approx([8, 8e6])
    assert load.each[0] == pytest.approx(1)


@pytest.mark.parametrize(
    ("tokens", "experts", "per_token", "gpus"), [(16, 128, 8, 1), (16, 128, 8, 8), (256, 128, 8, 64), (64, 256, 8, 32)]
)
def test_uniform_routing_and_its_busiest_gpu_against_draws(tokens, experts, per_token, gpus):
    rng = np.random.default_rng(0)
    active, rows = np.mean([counted(tokens, experts, per_token, gpus, rng) for _ in range(100)], axis=0)
    load = active_experts(tokens, experts, per_token, gpus=gpus)
    assert (float(load.active), float(load.rows)) == pytest.approx((active, rows), rel=0.05)


@pytest.mark.parametrize("skew", [1.01, 1.2])
@pytest.mark.parametrize("tokens", [4, 64, 1024])
def test_power_law_against_the_published_generator(tokens, skew):
    rng = np.random.default_rng(0)
    drawn = [dealt_by_power_law(tokens, 256, 8, skew, rng) for _ in range(20)]
    load = active_experts(tokens, 256, 8, skew)
    assert float(load.active) == pytest.approx(np.mean([np.count_nonzero(counts) for counts in drawn]), rel=0.08)


def test_spread_of_the_power_law_by_hand():
    # Uniform in the logarithm from 1 to R: mean (R - 1) / ln R, mean square (R**2 - 1) / (2 ln R).
    log, most = np.log(800), 800
    expected = np.sqrt((most**2 - 1) / (2 * log) / ((most - 1) / log) ** 2 - 1)
    assert float(active_experts(1000, 256, 8, 1.0).spread) == pytest.approx(expected)


def test_popular_experts_leave_others_idle_and_one_gpu_waited_for():
    uniform, skewed = (active_experts(64, 256, 8, skew) for skew in (0.0, 1.2))
    assert skewed.active < uniform.active
    busy = [float(active_experts(4096, 256, 8, skew, 8).rows) / (4096 * 8 / 8) for skew in (0.0, 1.2)]
    assert busy[0] == pytest.approx(1, abs=0.03)
    assert busy[1] > 1.4
    # One expert a GPU, and no token visits it twice.
    assert active_experts(64, 8, 2, 3.0, 8).rows <= 64


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="skew must be at least 0, got -1"):
        active_experts(1, 8, 2, -1.0)
    with pytest.raises(ValueError, match="per_token must be at most experts, got 9 of 8"):
        active_experts(1, 8, 9)


def test_tokens_of_an_expert_leave_the_skinny_range_at_a_batch_of_hundreds():
    # 8 of 128: a sixteenth of the tokens each, once all experts have some.
    batch = np.arange(1, 2048)
    each = active_experts(batch, 128, 8).each
    assert batch[np.argmax(each > 16.001)] == 257
    assert batch[np.argmax(each > 64.001)] == 1025


def test_one_expert_is_a_plain_product_and_all_experts_are_one_tall_product():
    plain = product_of("cublas", H100, 4096)
    one = Load(np.ones(()), np.ones(()), np.zeros(()))
    assert grouped_product_s(H100, plain, 1024, one) == pytest.approx(float(plain(1024, 1)))
    many = Load(np.full((), 100.0), np.full((), 8.0), np.zeros(()))
    assert grouped_product_s(H100, plain, 1024, many, NOTHING) == pytest.approx(float(plain(102_400, 8)))


def test_one_launch_beats_a_product_an_expert():
    plain, load = product_of("cublas", H100, 2048), active_experts(16, 128, 8)
    assert grouped_product_s(H100, plain, 1536, load) < 0.4 * load.active * plain(1536, np.ceil(load.each))


def test_sparse_experts_save_their_bytes():
    gpu, load = load_gpu("rtx-4090"), active_experts(16, 128, 8)
    dense, sparse = (
        float(grouped_product_s(gpu, product_of(name, gpu, 4096, share), 3072, load))
        for name, share in (("cublas", 0.0), ("bitmap", 0.7))
    )
    assert 0.3 < sparse / dense < 0.7


def test_uneven_loads_and_cards_before_hopper_multiply_more():
    c = ExpertParameters(0.8, 0.5, 0.2, 1.0, 1e-5, 1e-6)
    seen = [
        float(grouped_product_s(gpu, lambda _, n: n, 1, Load(np.ones(()), np.full((), 100.0), np.asarray(spread)), c))
        for gpu, spread in ((H100, 0.0), (H100, 2.0), (A100, 0.0))
    ]
    assert seen == pytest.approx([125, 175, 200])


def test_permutation_by_hand():
    c = ExpertParameters(1.0, 1.0, 0.0, 0.5, 2e-5, 3e-6)
    # 1000 rows of 4 x 2048 + 4 x 512 values of two bytes, half of them moved.
    moved_s = 1000 * (4 * 2048 + 4 * 512) / Machine.of(H100).streamed_bytes_per_s
    assert permutation(H100, 1000, 2048, 512, c).time_s == pytest.approx(2e-5 + moved_s)
    assert permutation(GB200, 0, 2048, 512, c).time_s == pytest.approx(3e-6)


def test_only_data_centre_blackwells_have_fused_kernels():
    fused = {
        key for key in ("a100-80gb", "h100", "mi300x", "rtx-5090", "b200", "gb300") if fuses_experts(load_gpu(key))
    }
    assert fused == {"b200", "gb300"}


def test_stored_fit_is_within_its_ranges():
    stored = calibrated_experts()
    for name, field in ExpertParameters.__dataclass_fields__.items():
        assert field.metadata["low"] < getattr(stored, name) < field.metadata["high"]
    assert stored.warp_tensor_share < stored.tensor_share < 1
    assert stored.fused_s < stored.launches_s
