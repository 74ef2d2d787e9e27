"""Collectives by hand, in their limits, and which algorithm wins where."""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel.catalog import load_gpu
from perfmodel.serving.collectives import (
    OWN_KERNELS,
    Algorithm,
    CollectiveParameters,
    OwnKernels,
    all_gather_time,
    all_reduce_time,
    all_to_all_time,
    calibrated_collectives,
    link_bytes_per_s,
    one_way_bytes_per_s,
    point_to_point_time,
    switch_reduces,
)

A100, H100 = load_gpu("a100-80gb"), load_gpu("h100")


ALGORITHMS = list(Algorithm)
ENGINES = sorted(OWN_KERNELS)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_one_gpu_sends_nothing(algorithm):
    assert all_reduce_time(A100, 1, [0.0, 1e3, 1e9], algorithm).tolist() == [0, 0, 0]


def test_ring_by_hand():
    c = CollectiveParameters(bulk_start_cycles=1.41e4, hop_cycles=1.41e3, link_efficiency=0.5)
    # 4 GPUs: 6 hops of 1 us after a start of 10 us; 1.5 x 300 MB over half of 300 GB/s.
    seconds = all_reduce_time(A100, 4, 300e6, Algorithm.RING, c)
    assert float(seconds) == pytest.approx(16e-6 + 1.5 * 300e6 / 150e9)


def test_two_shot_by_hand():
    c = CollectiveParameters(two_shot_cycles=1.11e4, one_shot_peer_cycles=1e3, link_efficiency=0.5)
    # 4 GPUs: 11.1 + 3 x 1 thousand cycles are 10 us; 1.5 x 30 MB over half of 300 GB/s.
    seconds = all_reduce_time(A100, 4, 30e6, Algorithm.TWO_SHOT, c)
    assert float(seconds) == pytest.approx(10e-6 + 1.5 * 30e6 / 150e9)


def test_barriers_cost_what_they_say():
    c = CollectiveParameters(barrier_cycles=1.41e3)
    with_barriers, without = (OwnKernels(barriers=b, two_shot=True, most_bytes=np.inf) for b in (True, False))
    both = [float(all_reduce_time(A100, 4, 1e3, Algorithm.CUSTOM, c, kernels=k)) for k in (with_barriers, without)]
    assert both[0] - both[1] == pytest.approx(1e-6)
    assert both[1] == float(all_reduce_time(A100, 4, 1e3, Algorithm.ONE_SHOT, c))


def test_gather_is_half_a_ring():
    c = CollectiveParameters(start_cycles=0, bulk_start_cycles=0)
    sizes = np.geomspace(1e3, 1e9, 50)
    assert 2 * all_gather_time(A100, 8, sizes, c) == pytest.approx(all_reduce_time(A100, 8, sizes, parameters=c))


def test_all_to_all_by_hand():
    c = CollectiveParameters(bulk_start_cycles=1.27e4, hop_cycles=1.4e3, link_efficiency=0.5)
    # 8 GPUs: 10 us, then seven eighths of 240 MB over half of 300 GB/s.
    assert float(all_to_all_time(A100, 8, 240e6, c)) == pytest.approx(10e-6 + 210e6 / 150e9)
    # Four GPUs on one bridge have a quarter of a link each.
    card, free = load_gpu("l40s"), CollectiveParameters(start_cycles=0, bulk_start_cycles=0, hop_cycles=0)
    pair, four = (float(all_to_all_time(card, p, 240e6, free)) for p in (2, 4))
    assert four / pair == pytest.approx(4 * (3 / 4) / (1 / 2))


@pytest.mark.parametrize("time", [all_gather_time, all_to_all_time])
def test_gather_and_exchange_grow_and_need_a_second_gpu(time):
    sizes = np.geomspace(1, 1e9, 100)
    assert time(A100, 1, sizes).tolist() == [0] * 100
    assert np.all(np.diff(time(A100, [[2], [4], [8]], sizes), axis=1) >= 0)
    with pytest.raises(ValueError, match="gpus must be at least 1, got 0"):
        time(A100, 0, 1e3)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("gpu", ["a100-80gb", "h100", "gb200", "rtx-4090"])
def test_engines_grow_with_size_and_are_no_slower_than_nccl(gpu, engine):
    sizes = np.geomspace(1, 1e9, 200)
    for gpus in (2, 4, 8):
        own = all_reduce_time(load_gpu(gpu), gpus, sizes, Algorithm.CUSTOM, kernels=OWN_KERNELS[engine])
        nccl = all_reduce_time(load_gpu(gpu), gpus, sizes)
        if np.all(np.diff(nccl) >= 0):  # on eight GPUs it may gain by its change of protocol
            assert np.all(np.diff(own) >= 0)
        assert np.all(own <= nccl)
        assert own[-1] == nccl[-1]
        alone = gpu == "rtx-4090" and gpus > 2  # no NVLink: engines leave it to NCCL
        assert np.array_equal(own, nccl) == alone


def test_vllm_takes_one_shot_two_shot_and_nccl_in_turn():
    # Its own thresholds on eight GPUs: 256 KiB and 8 MiB.
    barrier_s = calibrated_collectives().barrier_cycles / A100.clock.hz
    for size, algorithm, extra_s in (
        (2**17, Algorithm.ONE_SHOT, barrier_s),
        (2**20, Algorithm.TWO_SHOT, barrier_s),
        (2**23, Algorithm.NCCL, 0),
    ):
        chosen = float(all_reduce_time(A100, 8, size, Algorithm.CUSTOM))
        assert chosen == pytest.approx(float(all_reduce_time(A100, 8, size, algorithm)) + extra_s), size


def test_tree_has_fewer_hops_and_more_bytes_than_a_ring():
    small = [float(all_reduce_time(A100, 8, 8, a)) for a in (Algorithm.TREE, Algorithm.RING)]
    large = [float(all_reduce_time(A100, 8, 1e9, a)) for a in (Algorithm.TREE, Algorithm.RING)]
    assert small[0] < small[1]
    assert large[0] > large[1]


def test_sum_in_the_switch_by_hand():
    c = CollectiveParameters(bulk_start_cycles=1.98e4, hop_cycles=1.98e3, link_efficiency=0.5)
    # 2 hops of 1 us after a start of 10 us; 1.125 x 400 MB over half of 450 GB/s.
    seconds = all_reduce_time(H100, 8, 400e6, Algorithm.IN_SWITCH, c)
    assert float(seconds) == pytest.approx(12e-6 + 1.125 * 400e6 / 225e9)


def test_nccl_sums_in_the_switch_on_hopper_with_more_than_two_gpus():
    def chosen(gpu, gpus):
        return float(all_reduce_time(gpu, gpus, 1e9))

    for gpu, gpus, algorithm in (
        (A100, 8, Algorithm.RING),
        (H100, 2, Algorithm.RING),
        (H100, 4, Algorithm.IN_SWITCH),
        (H100, 8, Algorithm.IN_SWITCH),
        (load_gpu("b200"), 8, Algorithm.IN_SWITCH),
    ):
        assert chosen(gpu, gpus) == float(all_reduce_time(gpu, gpus, 1e9, algorithm)), (gpu.key, gpus)
    assert not switch_reduces(load_gpu("l40s"))


def test_one_shot_wins_small_messages_only():
    sizes = np.array([4e3, 1e9])
    small, large = all_reduce_time(A100, 8, sizes, Algorithm.ONE_SHOT) < all_reduce_time(A100, 8, sizes)
    assert small
    assert not large


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_monotone_in_size_and_gpus(algorithm):
    sizes = np.geomspace(1, 1e9, 200)
    times = np.stack([all_reduce_time(A100, p, sizes, algorithm) for p in (2, 4, 8)])
    assert np.all(np.diff(times, axis=1) >= 0)
    # NCCL and custom change protocol later with more GPUs; a switch has less to send back to each of them.
    if algorithm not in (Algorithm.NCCL, Algorithm.CUSTOM, Algorithm.IN_SWITCH):
        assert np.all(np.diff(times, axis=0) >= 0)


def test_more_than_two_gpus_without_nvlink_share_the_bridge_of_their_host():
    card = load_gpu("rtx-4090")
    assert link_bytes_per_s(card, [2, 4, 8]).tolist() == [32e9, 8e9, 4e9]
    assert link_bytes_per_s(load_gpu("a100-80gb"), 8) == one_way_bytes_per_s(load_gpu("a100-80gb"))
    # NCCL on L40S: 20, 5.1 and 2.1 GB/s of a ring's traffic per GPU.
    size = 1e9
    for gpus, seen in ((2, 20e9), (4, 5.1e9), (8, 2.1e9)):
        seconds = float(all_reduce_time(load_gpu("l40s"), gpus, size))
        assert 2 * (gpus - 1) / gpus * size / seconds == pytest.approx(seen, rel=0.3)


def test_link_is_one_direction_of_nvlink_or_pcie():
    assert one_way_bytes_per_s(A100) == 300e9
    assert one_way_bytes_per_s(load_gpu("rtx-4090")) == 32e9


def test_a_transfer_is_no_slower_than_an_all_reduce():
    sizes = np.geomspace(1e3, 1e9, 50)
    assert np.all(point_to_point_time(A100, sizes) <= all_reduce_time(A100, 2, sizes) * 1.001)


def test_stored_fit_is_physical():
    c = calibrated_collectives()
    assert 0.5 < c.link_efficiency < 0.8  # 222 of 300 GB/s is the best the measurements reach
    assert c.low_latency_efficiency < c.link_efficiency
    assert c.start_cycles < c.bulk_start_cycles
    assert c.one_shot_cycles < c.two_shot_cycles < c.bulk_start_cycles
    assert c.one_shot_efficiency < c.link_efficiency
    assert 0 < c.barrier_cycles < c.one_shot_cycles


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="gpus must be at least 1, got 0"):
        all_reduce_time(A100, 0, 1e3)
    with pytest.raises(ValueError, match="message_bytes must be at least 0, got -1"):
        all_reduce_time(A100, 2, -1)
