"""A loaded server: one user alone, more users, more than fit, requests at random, and what cannot be served."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from perfmodel.serving.group import make_group
from perfmodel.serving.memory import largest_batch
from perfmodel.serving.run import evaluate
from perfmodel.serving.steady import Steady, serve
from perfmodel.serving.what_if import WhatIf

LENGTHS = {"input_len": 1024, "output_len": 256}
USERS = 2 ** np.arange(9)
INF = float("inf")


def served(system: str = "vllm", model: str = "llama-3.1-8b", gpu: str = "h100", **asked: Any) -> Steady:
    return serve(model, gpu, system, **(LENGTHS | asked))


@pytest.mark.parametrize("system", ["vllm", "vllm+fp8", "sglang", "fastertransformer"])
def test_one_user_sees_the_plain_step(system: str) -> None:
    """Little of a long answer is disturbed by a short prompt; the first token takes at least the prompt's products."""
    lengths = {"input_len": 16, "output_len": 1024}
    alone, run = served(system, users=1, **lengths), evaluate("llama-3.1-8b", "h100", system, batch=1, **lengths)
    assert float(alone.tpot_s) == pytest.approx(float(run.tpot_s), rel=2e-3)
    assert float(alone.decoding) == pytest.approx(1, abs=2e-3)
    assert 0.3 < float(alone.ttft_s / run.ttft_s) < 3


def test_all_grows_with_users_but_what_one_of_them_gets() -> None:
    load = served(users=USERS)
    grown = (
        load.ttft_s, load.ttft_p90_s, load.tpot_s, load.tpot_p90_s, load.requests_per_s, load.decoding,
        load.prompt_share, load.tokens_per_gpu_s,
    )  # fmt: skip
    assert all((np.diff(values) > 0).all() for values in grown)
    assert (np.diff(load.requests_per_s / USERS) < 0).all()
    assert load.tokens_per_gpu_s == pytest.approx(256 * load.requests_per_s)
    assert ((load.prompt_share > 0) & (load.prompt_share <= 1)).all()
    assert (load.decoding < USERS).all()


@pytest.mark.parametrize("system", ["vllm", "vllm+int4", "vllm+flash-llm"])
def test_littles_law(system: str) -> None:
    """Requests that end a second, times the seconds each stays, are the users."""
    load = served(system, users=USERS, sparsity=0.7 if system.endswith("flash-llm") else 0.0)
    assert (load.room >= USERS[-1]).all()
    stay_s = load.ttft_s + 256 * load.tpot_s
    assert load.requests_per_s * stay_s == pytest.approx(USERS, rel=1e-4)


def test_mean_step_by_hand() -> None:
    """Of 64 users' steps a share carries a chunk; those are the slower ones, and the mean lies between."""
    load = served(users=64)
    assert float(load.prompt_share) == pytest.approx(float(load.decoding) / 256, rel=1e-9)  # chunk: the whole prompt
    longer = served(users=64, chunk=256)
    assert float(longer.prompt_share) == pytest.approx(float(longer.decoding) * 4 / 256, rel=1e-9)
    plain = evaluate("llama-3.1-8b", "h100", "vllm", batch=64, **LENGTHS).tpot_s
    assert float(load.tpot_s) > float(plain)


def test_smaller_chunks_are_a_shorter_wait_between_tokens() -> None:
    """At the 90th percentile of long prompts; the first token comes later, since each chunk reads all weights."""
    whole, cut = (served(users=8, input_len=8192, output_len=512, chunk=chunk) for chunk in (8192, 512))
    assert float(cut.tpot_p90_s - cut.tpot_s) < float(whole.tpot_p90_s - whole.tpot_s)
    assert float(cut.ttft_s) > float(whole.ttft_s)


def test_more_users_than_room_wait_for_their_first_token() -> None:
    few = served(users=1)
    load = served(users=float(few.room) * np.array([1, 2, 4, 8]))
    assert (np.diff(load.ttft_s) > 0).all()
    assert load.requests_per_s == pytest.approx(np.full(4, load.requests_per_s[0]), rel=1e-6)
    assert load.tpot_s == pytest.approx(np.full(4, load.tpot_s[0]), rel=1e-6)
    # Each further room of users waits until a room of sequences has ended.
    assert np.diff(load.ttft_s) / np.array([1, 2, 4]) == pytest.approx(float(few.room) / load.requests_per_s[0])


def test_smaller_weights_make_room() -> None:
    """On 24 GB the 16 GB of an 8B model leave little."""
    zeros = {"vllm+flash-llm": 0.7, "vllm+bitmap": 0.7}
    names = ("vllm", "vllm+flash-llm", "vllm+fp8", "vllm+bitmap", "vllm+int4")
    loads = [served(name, gpu="rtx-4090", users=64, sparsity=zeros.get(name, 0.0)) for name in names]
    rooms = [float(load.room) for load in loads]
    assert rooms == sorted(rooms)
    assert rooms[-1] > 3 * rooms[0]
    assert float(loads[-1].ttft_s) < float(loads[0].ttft_s) / 10
    assert float(loads[-1].requests_per_s) > float(loads[0].requests_per_s)


def test_room_is_of_caches_half_grown() -> None:
    """As many as a batch that is half as long in its answers, less what a thousand sequences' logits need."""
    load = served(users=1)
    batches = [float(load.room), np.ceil(1.03 * float(load.room))]
    run = evaluate("llama-3.1-8b", "h100", "vllm", batch=batches, input_len=1024, output_len=128)
    assert run.memory.fits.tolist() == [True, False]
    small = served(users=1, cache_bits=8)
    assert float(small.room) == pytest.approx(2 * float(load.room), rel=0.1)


def test_requests_that_are_served_leave_as_they_come() -> None:
    rate = np.array([0.1, 1, 5, 10, 14])
    load = served(requests_per_s=rate)
    assert load.requests_per_s == pytest.approx(rate, rel=2e-3)
    assert load.decoding == pytest.approx(rate * 256 * load.tpot_s, rel=2e-3)
    for values in (load.ttft_s, load.tpot_s, load.prompt_share):
        assert (np.diff(values) > 0).all()
        assert np.isfinite(values).all()


def test_more_requests_than_are_served_wait_without_end() -> None:
    rate = np.arange(2.0, 41.0)
    load = served(requests_per_s=rate)
    endless = np.isinf(load.ttft_s)
    assert not endless[0]
    assert endless[-1]
    assert (np.diff(endless.astype(int)) >= 0).all()
    assert (np.isinf(load.ttft_p90_s) == endless).all()
    assert (load.requests_per_s[endless] < rate[endless]).all()
    assert load.requests_per_s[~endless] == pytest.approx(rate[~endless], rel=5e-3)
    assert (load.within(INF, INF) == ~endless).all()
    assert (load.goodput(INF, INF)[endless] == 0).all()


def test_as_many_users_as_requests_bring_are_the_same_server() -> None:
    opened = served(requests_per_s=10)
    inside = 10 * float(opened.ttft_s + 256 * opened.tpot_s)
    closed = served(users=round(inside))
    assert float(closed.requests_per_s) == pytest.approx(10, rel=0.02)
    assert float(closed.tpot_s) == pytest.approx(float(opened.tpot_s), rel=0.02)


@pytest.mark.parametrize("load", [{"users": 2 ** np.arange(12)}, {"requests_per_s": np.arange(1.0, 30.0, 3.0)}])
def test_the_90th_percentile_is_beyond_the_mean(load: dict[str, Any]) -> None:
    found = served(**load)
    assert (found.ttft_p90_s >= found.ttft_s).all()
    assert (found.tpot_p90_s >= found.tpot_s).all()


def test_shares_of_good_requests() -> None:
    load = served(users=2 ** np.arange(11))
    limits = np.geomspace(1e-3, 1e3, 25)
    for shares in (
        np.array([load.within(limit, 0.03) for limit in limits]),
        np.array([load.within(0.2, limit) for limit in limits]),
    ):
        assert ((shares >= 0) & (shares <= 1)).all()
        assert (np.diff(shares, axis=0) >= 0).all()
        assert (shares[0] < 1e-9).all()
    assert load.within(INF, INF) == pytest.approx(np.ones(11))
    assert load.goodput(INF, INF) == pytest.approx(load.requests_per_s)
    assert (load.goodput(0.2, 0.03) <= load.requests_per_s).all()
    good = load.goodput(0.2, 0.03)
    assert 0 < np.argmax(good) < 10  # too few users, and too many, are both worse


def test_a_tenth_of_the_requests_is_beyond_the_90th_percentile() -> None:
    load = served(users=64)
    assert float(load.within(float(load.ttft_p90_s), INF)) == pytest.approx(0.9, abs=1e-6)
    assert float(load.within(INF, float(load.tpot_p90_s))) == pytest.approx(0.9, abs=1e-4)
    assert float(load.within(INF, float(load.tpot_s))) == pytest.approx(0.5)


@pytest.mark.parametrize("spread", [1, 2, 4])
def test_experts_spread_whole_have_room_for_as_many_sequences_as_fit(spread: int) -> None:
    """In all, not on each GPU; copies of everything else leave less room than sharing it."""
    how = {"gpus": 4, "expert_parallel": spread}
    load = served(model="mixtral-8x7b", users=[8, 64, 256], **how)
    group, _ = make_group("mixtral-8x7b", "h100", "vllm", **LENGTHS, **how)
    assert load.room == pytest.approx(np.full(3, largest_batch(group, input_len=1024, output_len=128)), rel=0.01)
    assert (load.room <= served(model="mixtral-8x7b", users=8, gpus=4).room).all()
    assert (np.diff(load.tokens_per_gpu_s) > 0).all()
    assert load.gpus.tolist() == [4, 4, 4]


def test_experts_that_are_none_are_not_spread() -> None:
    with pytest.raises(ValueError, match=r"expert_parallel must be 1 for llama-3\.1-8b, which has no experts"):
        served(users=8, gpus=4, expert_parallel=4)


def test_more_gpus_are_faster_and_have_more_room() -> None:
    load = served(users=64, gpus=[1, 2, 4, 8])
    assert (np.diff(load.tpot_s) < 0).all()
    assert (np.diff(load.room) > 0).all()
    assert (np.diff(load.tokens_per_gpu_s) < 0).all()


def test_broadcast_equals_one_by_one() -> None:
    users, prompts = np.array([1, 16, 600]), np.array([128, 4096])[:, None]
    grid = served(users=users, input_len=prompts)
    assert grid.ttft_s.shape == grid.room.shape == grid.within(1, 1).shape == (2, 3)
    for i, prompt in enumerate(prompts[:, 0]):
        for j, count in enumerate(users):
            one = served(users=count, input_len=prompt)
            assert grid.ttft_s[i, j] == pytest.approx(float(one.ttft_s), rel=1e-12)
            assert grid.tpot_s[i, j] == pytest.approx(float(one.tpot_s), rel=1e-12)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, r"give users \(concurrency\) or requests_per_s, one of them"),
        ({"users": 1, "requests_per_s": 1}, r"give users \(concurrency\) or requests_per_s, one of them"),
        ({"users": 0}, "users must be a whole number of at least 1, got 0"),
        ({"users": [1, 1.5]}, r"users must be a whole number of at least 1, got 1\.5"),
        ({"requests_per_s": 0}, "requests_per_s must be above 0, got 0"),
        ({"requests_per_s": [1, -2]}, "requests_per_s must be above 0, got -2"),
        ({"requests_per_s": np.nan}, "requests_per_s must be above 0, got nan"),
        ({"users": 1, "chunk": 0}, "chunk must be a whole number of at least 1, got 0"),
        ({"users": 1, "input_len": 0}, "input_len must be a whole number of at least 1, got 0"),
        ({"users": 1, "output_len": 2**20}, "llama-3.1-8b knows 131072 positions, got 1.0496e"),
        ({"users": 1, "system": "vlm"}, "unknown system 'vlm'"),
        ({"users": 1, "gpus": 2, "pipeline_parallel": 2}, "pipeline_parallel must be 1 under load, got 2"),
        ({"users": 1, "what_if": WhatIf(draft_tokens=3)}, "draft_tokens must be 0 under load, got 3"),
        ({"users": 1, "what_if": WhatIf(offloaded=0.5)}, "offloaded must be 0 under load, got 0.5"),
    ],
)
def test_what_cannot_be_served_is_a_sentence(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        served(**asked)


def test_without_room_there_is_no_time() -> None:
    load = served(model="llama-3.1-70b", users=[1, 8])
    assert not load.fits.any()
    assert np.isnan(load.tpot_s).all()
    assert np.isnan(load.requests_per_s).all()


@pytest.mark.parametrize(("system", "least"), [("gpt-fast", 200), ("fastertransformer", 200), ("vllm", 300)])
def test_room_counts_activations_of_what_is_there(system: str, least: int) -> None:
    """Not those of a thousand prompts at once."""
    assert served(system=system, users=1).room > least


@pytest.mark.parametrize("chunk", [1, 16, 512])
def test_a_step_reads_no_more_than_its_chunk(chunk: int) -> None:
    load = served(users=512, chunk=chunk)
    prompts_per_s = chunk / load.tpot_s / 1024
    assert load.requests_per_s <= 1.001 * prompts_per_s


@pytest.mark.parametrize(("prompt", "new"), [(4096, 4), (1024, 8), (2048, 16), (1024, 256)])
def test_prompts_are_not_read_faster_than_alone(prompt: int, new: int) -> None:
    """However many users wait: prefill alone bounds the requests a second."""
    lengths = {"input_len": prompt, "output_len": new}
    load = served(users=[64, 256, 1024], **lengths)
    alone = evaluate("llama-3.1-8b", "h100", "vllm", batch=256, **lengths)
    assert (load.requests_per_s < 1.02 * 256 / float(alone.ttft_s)).all()
