"""Text, token by token: the prompt at once, then one step a token, each timed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels_numba.decoder.cache import KvCache
from kernels_numba.decoder.config import DecoderConfig
from kernels_numba.decoder.model import Decoder
from kernels_numba.formats.encoded import check


@dataclass(frozen=True)
class Step:
    """One step of decoding; the first reads the whole prompt.

    tokens : (batch,) the next token of each sequence.
    seconds : wall time of the step, choice of the tokens included.
    """

    tokens: NDArray[np.int64]
    seconds: float


@dataclass(frozen=True)
class Request:
    """What to generate.

    prompt : tokens, the same for all of ``batch`` sequences.
    tokens : most to generate; a sequence ends before at a token that ends texts.
    temperature : 0 takes the likeliest token; above, tokens are drawn with probability exp(score / temperature).
    """

    prompt: Sequence[int]
    tokens: int
    batch: int = 1
    temperature: float = 0.0
    seed: int = 0

    def check(self, config: DecoderConfig) -> None:
        """Raise ValueError, naming value and allowed range, if a model cannot do this."""
        room = config.positions - 1
        check(1 <= len(self.prompt) <= room, "tokens of the prompt", len(self.prompt), f"1 to {room} for this model")
        words, largest = config.vocabulary, max(self.prompt)
        check(largest < words, "token of the prompt", largest, f"0 to {words - 1}; is the tokenizer another model's?")
        room = config.positions - len(self.prompt)
        check(1 <= self.tokens <= room, "tokens to generate", self.tokens, f"1 to {room} after this prompt")
        check(self.batch >= 1, "batch", self.batch, "at least 1")
        warm = math.isfinite(self.temperature) and self.temperature >= 0
        check(warm, "temperature", self.temperature, "0 or a positive number")
        check(self.seed >= 0, "seed", self.seed, "at least 0")


def generate(decoder: Decoder, request: Request) -> Iterator[Step]:
    """Steps until every sequence has ended or has its tokens; one that has ended goes on with its last token.

    Raises
    ------
    ValueError
        As `Request.check`.
    """
    request.check(decoder.config)
    return _steps(decoder, request)


def _steps(decoder: Decoder, request: Request) -> Iterator[Step]:
    rng = np.random.default_rng(request.seed)
    ends = np.array(decoder.config.eos, np.int64)
    cache = KvCache(decoder.config, request.batch, len(request.prompt) + request.tokens)
    tokens = np.tile(np.array(request.prompt, np.int64), (request.batch, 1))  # (batch, T)
    ended = np.zeros(request.batch, np.bool_)
    for _ in range(request.tokens):
        begin = perf_counter()
        scores = decoder.forward(tokens, cache, last_only=True)[:, 0]  # (batch, vocabulary)
        following = np.where(ended, tokens[:, -1], _choose(scores, request.temperature, rng))
        yield Step(following, perf_counter() - begin)
        ended = np.isin(following, ends)
        if ended.all():
            return
        tokens = following[:, None]


def _choose(scores: NDArray[np.float32], temperature: float, rng: np.random.Generator) -> NDArray[Any]:
    """Likeliest token of each row, or one drawn: the likeliest after Gumbel noise."""
    return (scores + temperature * rng.gumbel(size=scores.shape) if temperature else scores).argmax(axis=-1)
