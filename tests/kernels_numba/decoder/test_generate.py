"""Generation against the definition: the likeliest token after all before it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernels_numba.decoder.generate import Request, generate
from kernels_numba.decoder.load import load_decoder
from kernels_numba.decoder.model import Decoder

PROMPT = [5, 9, 11, 4]


@pytest.fixture(params=["llama", "opt"])
def decoder(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Decoder:
    found = load_decoder(folders[request.param])
    found.config = replace(found.config, eos=())
    return found


def tokens(decoder: Decoder, **asked: Any) -> np.ndarray:
    """(steps, batch)."""
    return np.array([step.tokens for step in generate(decoder, Request(PROMPT, **asked))])


def test_greedy_is_the_likeliest_every_time(decoder: Decoder) -> None:
    text = list(PROMPT)
    for _ in range(10):
        text.append(int(decoder.forward(np.array([text]))[0, -1].argmax()))
    found = tokens(decoder, tokens=10, batch=2)
    assert found.T.tolist() == [text[4:]] * 2
    assert len(set(text)) > 4, "a text that says something"


def test_a_text_ends_at_its_token(decoder: Decoder) -> None:
    free = tokens(decoder, tokens=10)[:, 0].tolist()
    decoder.config = replace(decoder.config, eos=(free[3],))
    assert tokens(decoder, tokens=10)[:, 0].tolist() == free[: free.index(free[3]) + 1]


def test_draws_follow_seed_and_probability(decoder: Decoder) -> None:
    first, again, other = (tokens(decoder, tokens=6, batch=3, temperature=1.0, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    drawn = tokens(decoder, tokens=1, batch=4000, temperature=2.0)[0]
    scores = decoder.forward(np.array([PROMPT]))[0, -1].astype(np.float64) / 2
    wanted = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
    share = np.bincount(drawn, minlength=wanted.size) / drawn.size
    assert np.abs(share - wanted).max() < 4 * np.sqrt(0.25 / drawn.size)


def test_steps_are_timed(decoder: Decoder) -> None:
    assert all(step.seconds > 0 for step in generate(decoder, Request(PROMPT, 3)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": []}, "tokens of the prompt: 0; allowed: 1 to 63"),
        ({"prompt": [1] * 64}, "tokens of the prompt: 64; allowed: 1 to 63"),
        ({"prompt": [5, 61]}, "token of the prompt: 61; allowed: 0 to 60; is the tokenizer another model's"),
        ({"tokens": 0}, "tokens to generate: 0; allowed: 1 to 60"),
        ({"tokens": 61}, "tokens to generate: 61; allowed: 1 to 60"),
        ({"batch": 0}, "batch: 0; allowed: at least 1"),
        ({"temperature": -1.0}, "temperature: -1.0; allowed: 0 or a positive number"),
        ({"temperature": float("nan")}, "temperature: nan"),
        ({"seed": -1}, "seed: -1; allowed: at least 0"),
    ],
)
def test_requests_are_checked_before_anything_runs(decoder: Decoder, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(decoder, replace(Request(PROMPT, 4), **change))
