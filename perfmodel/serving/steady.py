"""What do users of a loaded server see? Mean and 90th percentile of TTFT and TPOT in the steady state.

An engine with continuous batching takes decoding sequences and chunks of other users' prompts into the same step. Each
output token brings ``input / output`` prompt tokens with it, so of all steps a share carries a chunk, and those take
longer for everyone:

    tpot = (1 - share) * step(decoding) + share * step(decoding, chunk),  share = decoding * input / (output * chunk)

Where the share reaches 1, a step carries several chunks, up to the engine's budget; beyond it prompts wait.

With a fixed number of users the sequences in flight are known; with requests that arrive at random, Little's law gives
them. Not a scheduler: no preemption, no order of requests, lengths all alike. Waiting follows from queueing theory:
prompts are read one after the other, at the rate that the steps leave (M/D/1), and sequences that do not fit into the
cache wait for one that ends.

References
----------
Little, "A proof for the queuing formula L = lambda W", Operations Research 9(3), 1961; Agrawal et al.,
"Sarathi-Serve", OSDI 2024 (chunks of prompts in decoding steps); Kwon et al., "PagedAttention", SOSP 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.catalog.arrays import numbers
from perfmodel.catalog.sparsities import Sparsities
from perfmodel.serving import passes
from perfmodel.serving.group import Group, make_group, whole
from perfmodel.serving.memory import memory
from perfmodel.serving.what_if import NOTHING, WhatIf

Array = NDArray[np.float64]

ROUNDS = 14  # of the fixed point; each halves the distance, as steps hardly grow with the sequences
HALVINGS = 50  # of the range of sequences, for a rate
P90_NORMAL = 1.2816  # standard deviations from the mean to the 90th percentile
P90_TAIL = float(np.log(10))  # means of an exponential tail to its 90th percentile
FULLEST = 0.98  # share of the prompts that steps can take before a queue of requests has no end


@dataclass(frozen=True)
class Steady:
    """A loaded server; arrays of the broadcast shape of the inputs.

    Attributes
    ----------
    ttft_s, ttft_p90_s : ndarray
        Seconds to the first token, waiting included; infinite where more arrives than is served.
    tpot_s, tpot_p90_s : ndarray
        Seconds between tokens of one request.
    requests_per_s : ndarray
        Requests that end a second.
    decoding : ndarray
        Sequences that decode at a time, mean.
    room : ndarray
        Sequences whose mean cache fits beside the weights; if not one does, all times are NaN.
    prompt_share : ndarray
        Share of the steps that carry a chunk of a prompt.
    gpus : ndarray
        GPUs in all.
    output_len : ndarray
        Tokens of each request.
    """

    ttft_s: Array
    ttft_p90_s: Array
    tpot_s: Array
    tpot_p90_s: Array
    requests_per_s: Array
    decoding: Array
    room: Array
    prompt_share: Array
    gpus: Array
    output_len: Array

    @property
    def fits(self) -> NDArray[np.bool_]:
        """Whether there is room for one sequence."""
        return np.asarray(self.room >= 1)

    @property
    def tokens_per_gpu_s(self) -> Array:
        """Output tokens a second and GPU."""
        return np.asarray(self.requests_per_s * self.output_len / self.gpus)

    def within(self, ttft_s: float, tpot_s: float) -> Array:
        """Share of the requests whose TTFT and TPOT both keep the limits, by exponential and normal tails."""
        mean_s = np.where(np.isfinite(self.ttft_s), self.ttft_s, 0.0)
        beyond = np.maximum(ttft_s - (mean_s - self._ttft_tail), 0) / np.maximum(self._ttft_tail, 1e-12)
        soon = np.where(np.isfinite(self.ttft_s), 1 - np.exp(-np.minimum(beyond, 700.0)), 0.0)
        spread = np.maximum((self.tpot_p90_s - self.tpot_s) / P90_NORMAL, 1e-12)
        return np.asarray(soon * _normal_share((tpot_s - self.tpot_s) / spread))

    @property
    def _ttft_tail(self) -> Array:
        """Mean of the part of the TTFT that varies."""
        p90_s, mean_s = (np.where(np.isfinite(end), end, 0.0) for end in (self.ttft_p90_s, self.ttft_s))
        return np.asarray((p90_s - mean_s) / (P90_TAIL - 1))

    def goodput(self, ttft_s: float, tpot_s: float) -> Array:
        """Requests a second that keep both limits."""
        return np.asarray(self.requests_per_s * self.within(ttft_s, tpot_s))


def _normal_share(deviations: Array) -> Array:
    from scipy.special import ndtr

    return np.asarray(ndtr(deviations))


def serve(
    model: Any,
    gpu: Any,
    system: Any,
    *,
    users: ArrayLike | None = None,
    requests_per_s: ArrayLike | None = None,
    input_len: ArrayLike,
    output_len: ArrayLike,
    chunk: float | None = None,
    **asked: Any,
) -> Steady:
    """Steady state of a server with ``users`` that each wait for their answer, or with requests that arrive at random.

    Parameters
    ----------
    model, gpu, system
        As `perfmodel.serving.evaluate`; ``asked`` holds its further arguments: sparsity, gpus, expert_parallel, ...
    users : array_like
        Requests in the server at all times (the benchmarks' concurrency), at least 1; else ``requests_per_s``.
    requests_per_s : array_like
        Requests that arrive each second, at random.
    input_len, output_len : array_like
        Tokens of each prompt, tokens generated for it.
    chunk : float, optional
        Tokens of prompts that a step takes, at most; the engine's own by default.

    Raises
    ------
    ValueError
        As `evaluate`; if not exactly one of users and requests is given; for pipeline stages, drafts and weights
        elsewhere, which a loaded server does not have here.
    """
    how: dict[str, Any] = {"users": users, "requests_per_s": requests_per_s, "chunk": chunk}
    return serve_each(model, gpu, [(system, asked.pop("sparsity", 0.0))], input_len, output_len, **how, **asked)[0]


def serve_each(
    model: Any,
    gpu: Any,
    systems: Sequence[tuple[Any, ArrayLike | Sparsities]],
    input_len: ArrayLike,
    output_len: ArrayLike,
    *,
    users: ArrayLike | None = None,
    requests_per_s: ArrayLike | None = None,
    chunk: float | None = None,
    **asked: Any,
) -> list[Steady]:
    """`serve` of several systems of one engine, each with its sparsity: all but their products is reckoned once."""
    if (users is None) == (requests_per_s is None):
        raise ValueError("give users (concurrency) or requests_per_s, one of them")
    _refuse_what_steps_lack(asked.get("pipeline_parallel", 1), asked.get("what_if", NOTHING))
    how = {"input_len": input_len, "output_len": output_len, **asked}
    made = [make_group(model, gpu, system, sparsity=sparsity, **how) for system, sparsity in systems]
    groups, gpus = tuple(group for group, _ in made), made[0][1]
    prompt, new = whole("input_len", input_len), whole("output_len", output_len)
    budget = groups[0].system.engine.prompt_tokens if chunk is None else float(whole("chunk", chunk))
    load = _Load(groups, prompt, new, budget)
    if users is not None:
        return _apart(_closed(load, whole("users", users), gpus))
    rate = numbers("requests_per_s", requests_per_s)
    if np.any(~(rate > 0)):
        raise ValueError(f"requests_per_s must be above 0, got {float(np.min(rate)):g}")
    return _apart(_open(load, rate, gpus))


def _apart(load: Steady) -> list[Steady]:
    """Of each system, along the first axis."""
    columns = [getattr(load, field.name) for field in fields(load)]
    return [Steady(*(column[i] for column in columns)) for i in range(len(load.room))]


def _refuse_what_steps_lack(stages: ArrayLike, what_if: WhatIf) -> None:
    """A step of decoding sequences and chunks of prompts has one stage, one token a sequence, all weights at hand."""
    for name, value, least in (
        ("pipeline_parallel", stages, 1),
        ("draft_tokens", what_if.draft_tokens, 0),
        ("offloaded", what_if.offloaded, 0),
    ):
        if np.any(np.asarray(value) != least):
            raise ValueError(f"{name} must be {least} under load, got {np.max(value):g}: `evaluate` has it")


@dataclass(frozen=True)
class _Load:
    """Requests of one kind, whose steps take ``budget`` tokens of prompts at most, on groups of one engine.

    The groups, which differ in their weights alone, are the first axis of what is asked and answered.
    """

    groups: tuple[Group, ...]
    prompt: Array
    new: Array
    budget: float

    @property
    def group(self) -> Group:
        """Whichever: for what does not depend on the weights."""
        return self.groups[0]

    @property
    def chunk(self) -> Array:
        """Tokens of one prompt that a step takes."""
        return np.minimum(self.prompt, self.budget)

    @property
    def most(self) -> Array:
        """Sequences that decode where every step reads all the prompts it can: more never get to decode."""
        return np.asarray(self.group.expert_parallel * self.new * self.budget / self.prompt)

    def steps(self, decoding: Array) -> _Steps:
        """Steps while ``decoding`` sequences decode: without prompts, or with a chunk, with several if they must."""
        wanted = decoding / self.group.expert_parallel * self.prompt / self.new  # tokens of prompts a step
        most = np.minimum(np.maximum(wanted, self.chunk), self.budget)
        plain, full = self._step_s(decoding, np.stack([np.zeros_like(most), most]))
        return _Steps(
            plain, full, np.minimum(wanted / self.chunk, 1.0), np.minimum(wanted / self.budget, FULLEST),
            self.prompt / self.chunk,
        )  # fmt: skip

    def _step_s(self, decoding: Array, extra: Array) -> Array:
        """Seconds of steps; ``extra`` has one more axis than ``decoding``, before it."""
        group, rows = self.group, decoding / self.group.expert_parallel
        heads = rows + extra / self.prompt
        seconds = self._products_s(rows + extra, np.maximum(heads, 1.0))
        seconds = seconds + passes.decode_attention_s(group, rows, self.prompt, self.new)
        seconds = seconds + passes.other_s(group, rows + extra, rows)
        seconds = seconds + passes.communication_s(group, rows + extra, heads)
        read_s = passes.prefill_attention_s(group, np.ones(()), self.prompt) * extra / self.prompt
        return np.asarray(seconds + read_s + group.host.step_s + group.host.sequence_s * rows)

    def _products_s(self, tokens: Array, heads: Array) -> Array:
        """Seconds of the products of each group; the second axis is theirs."""
        each = (passes.matmul_s(group, tokens[:, i], heads[:, i]) for i, group in enumerate(self.groups))
        return np.stack([np.broadcast_to(seconds, tokens[:, 0].shape) for seconds in each], axis=1)

    def room(self, load: Array) -> Array:
        """Sequences whose cache, half of the output long on average, fits beside the weights of each group.

        Of the full shape of what is asked, ``load`` included.
        """
        each = [self._room(group) for group in self.groups]
        sparsities = (np.shape(group.sparsity) for group in self.groups if not isinstance(group.sparsity, Sparsities))
        full = np.broadcast_shapes(load.shape, self.most.shape, *sparsities, *(room.shape for room in each))
        return np.stack([np.broadcast_to(room, full) for room in each])

    def _room(self, group: Group) -> Array:
        lengths = {"input_len": self.prompt, "output_len": np.ceil(self.new / 2)}
        one, two = (memory(group, batch=count, **lengths) for count in (1e3, 2e3))
        each = (two.total - one.total) / 1e3
        found = np.floor(1e3 + one.headroom / np.maximum(each, 1e-9))
        return np.asarray(np.maximum(found, 0.0))

    def outcome(self, decoding: Array, steps: _Steps, waited_s: Array, gpus: Array, room: Array) -> Steady:
        """What users see while ``decoding`` sequences decode in ``steps`` and each request has waited before."""
        share, tpot_s = steps.share, steps.mean_s
        spread = (steps.full_s - steps.plain_s) * np.sqrt(share * (1 - share) / self.new)
        rate = decoding / (self.new * tpot_s)
        steady_s, tail_s = steps.own_s + waited_s, steps.first_s - steps.own_s
        seen = (steady_s + tail_s, steady_s + P90_TAIL * tail_s, tpot_s, tpot_s + P90_NORMAL * spread, rate, decoding)
        known = (np.where(room < 1, np.nan, value) for value in seen)
        return Steady(*np.broadcast_arrays(*known, room, share, gpus, self.new))


@dataclass(frozen=True)
class _Steps:
    """Seconds of a step without and with prompts, share of the latter, of the prompts' budget, steps a prompt takes."""

    plain_s: Array
    full_s: Array
    share: Array
    busy: Array
    chunks: Array

    @property
    def mean_s(self) -> Array:
        """Between tokens of one request."""
        return np.asarray((1 - self.share) * self.plain_s + self.share * self.full_s)

    @property
    def own_s(self) -> Array:
        """In which a prompt is read once its turn has come."""
        return np.asarray(self.chunks * self.full_s)

    @property
    def first_s(self) -> Array:
        """To the first token of a request inside: half a step, prompts before it (M/D/1), its own prompt."""
        return np.asarray(self.plain_s / 2 + self.own_s * (1 + self.busy / (2 * (1 - self.busy))))


def _closed(load: _Load, users: Array, gpus: Array) -> Steady:
    """A fixed number of requests in the server: those that read their prompt or wait do not decode."""
    room = load.room(users)
    inside = np.minimum(users, np.maximum(room, 1.0))
    decoding = np.minimum(np.maximum(inside * 0.9, 0.5), load.most)
    for _ in range(ROUNDS):
        steps = load.steps(decoding)
        own_s = load.new * steps.mean_s
        decoding = np.minimum((decoding + inside * own_s / (own_s + steps.first_s)) / 2, load.most)
    # Users that neither decode nor read wait: for room, or for prompts before theirs (Little's law).
    steps = load.steps(decoding)
    own_s = load.new * steps.mean_s
    waited_s = np.maximum(users * own_s / decoding - own_s - steps.first_s, 0.0)
    return load.outcome(decoding, steps, waited_s, gpus, room)


def _open(load: _Load, rate: Array, gpus: Array) -> Steady:
    """Requests at random: as many decode as arrive while one decodes; more than are served, and the queue has no end.

    The more decode, the more are served a second, so their number is found by halving.
    """
    room = load.room(rate)
    low, high = np.zeros_like(room), np.minimum(np.maximum(room, 1.0), load.most)

    def falls_short(decoding: Array, steps: _Steps) -> Array:
        return np.asarray(rate * load.new * steps.mean_s > decoding)

    for _ in range(HALVINGS):
        middle = (low + high) / 2
        short = falls_short(middle, load.steps(middle))
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    steps = load.steps(high)
    overrun = np.logical_or(falls_short(high, steps), steps.busy >= FULLEST)
    return load.outcome(high, steps, np.where(overrun, np.inf, 0.0), gpus, room)
