"""Perplexity against its definition, computed the slow way."""

from __future__ import annotations

import numpy as np
import pytest

from kernels_numba.decoder.config import DecoderConfig
from kernels_numba.decoder.model import Decoder
from kernels_numba.decoder.perplexity import Evaluation, evaluate
from tests.kernels_numba.decoder.models import LLAMA, OPT, weights_of

WINDOWS = np.random.default_rng(4).integers(0, 61, (3, 16))


@pytest.mark.parametrize("config", [LLAMA, OPT], ids=["llama", "opt"])
def test_it_is_the_mean_of_each_tokens_log_probability(config: dict) -> None:
    decoder = Decoder(DecoderConfig.from_dict(config), weights_of(config))
    logs = []
    for window in WINDOWS:
        for position in range(1, 16):
            scores = decoder.forward(window[None, :position])[0, -1].astype(np.float64)
            logs.append(scores[window[position]] - np.log(np.exp(scores).sum()))
    found = evaluate(decoder, WINDOWS)
    assert found.mean == pytest.approx(np.mean(logs), abs=1e-5)
    assert found.perplexity == pytest.approx(np.exp(-np.mean(logs)), rel=1e-5)
    by_window = np.mean(np.reshape(logs, (3, 15)), axis=1)
    assert found.standard_error == pytest.approx(np.std(by_window, ddof=1) / np.sqrt(3), rel=1e-3)
    assert (found.tokens, found.windows, found.length) == (45, 3, 16)


def test_a_model_that_knows_nothing_has_the_vocabulary_as_perplexity() -> None:
    weights = weights_of(LLAMA)
    weights["lm_head.weight"][:] = 0
    found = evaluate(Decoder(DecoderConfig.from_dict(LLAMA), weights), WINDOWS)
    assert found.perplexity == pytest.approx(61, rel=1e-6)


def test_a_single_window_has_no_error() -> None:
    found = Evaluation((-1.0,), 8, 0.1)
    assert (found.standard_error, found.perplexity_error) == (None, None)
    with pytest.raises(ValueError, match=r"windows: \(3, 1\); allowed: \(windows, length of at least 2\)"):
        evaluate(Decoder(DecoderConfig.from_dict(LLAMA), weights_of(LLAMA)), WINDOWS[:, :1])
