"""How well a decoder foretells a text: perplexity over windows of equal length, with its standard error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels_numba.decoder.model import Decoder
from kernels_numba.formats.encoded import check


@dataclass(frozen=True)
class Evaluation:
    """How likely a decoder found the tokens of a text.

    by_window : mean natural log-likelihood of a token in each window; the first token of a window has nothing before
        it and is not scored.
    length : tokens of each window.
    seconds : wall time.
    """

    by_window: tuple[float, ...]
    length: int
    seconds: float

    @property
    def windows(self) -> int:
        """Windows read."""
        return len(self.by_window)

    @property
    def tokens(self) -> int:
        """Tokens scored."""
        return self.windows * (self.length - 1)

    @property
    def mean(self) -> float:
        """Mean natural log-likelihood of a token."""
        return float(np.mean(self.by_window))

    @property
    def standard_error(self) -> float | None:
        """Of `mean`, from how much the windows differ: neighbouring tokens are not independent. None of one window."""
        return float(np.std(self.by_window, ddof=1) / np.sqrt(self.windows)) if self.windows > 1 else None

    @property
    def perplexity(self) -> float:
        """``exp`` of the mean negative log-likelihood."""
        return float(np.exp(-self.mean))

    @property
    def perplexity_error(self) -> float | None:
        """Standard error of the perplexity, to first order."""
        return None if self.standard_error is None else self.perplexity * self.standard_error


def evaluate(
    decoder: Decoder, windows: NDArray[np.integer[Any]], progress: Callable[[str], None] = lambda name: None
) -> Evaluation:
    """Log-likelihood of each window (windows, length) by itself, its first token given.

    Parameters
    ----------
    progress : called after each window.
    """
    check(windows.ndim == 2 and windows.shape[1] >= 2, "windows", windows.shape, "(windows, length of at least 2)")
    start, means = perf_counter(), []
    for number, window in enumerate(windows):
        means.append(float(log_likelihoods(decoder, window).mean(dtype=np.float64)))
        progress(str(number))
    return Evaluation(tuple(means), windows.shape[1], perf_counter() - start)


def log_likelihoods(decoder: Decoder, window: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
    """Natural log-likelihood (length - 1,) of each token of a window after its first, given those before it."""
    scores = decoder.forward(window[None, :-1])[0]  # (length - 1, vocabulary)
    scores = scores - scores.max(axis=-1, keepdims=True)
    own: NDArray[np.float32] = np.take_along_axis(scores, window[1:, None], axis=-1)[:, 0]
    return own - np.log(np.exp(scores, out=scores).sum(axis=-1))
