"""How losses of quality are said: points lost or gained, more perplexity, on how many results that rests."""

from __future__ import annotations

POINTS = "points"  # a metric that stands for any mean of many tasks
PERPLEXITY = "perplexity"  # how names of such metrics end
NOTHING = 0.05  # losses that print as none


def unit(metric: str) -> str:
    """What a loss is counted in."""
    return "% of perplexity" if metric.endswith(PERPLEXITY) else "points"


def amount(loss: float, metric: str) -> str:
    """A loss in words: ``1 point``, ``2.5 points``, ``10 % of perplexity``."""
    number = _short(loss)
    return f"{number} {'point' if number == '1' and unit(metric) == POINTS else unit(metric)}"


def _short(value: float) -> str:
    return f"{value:.2g}" if 0 < value < NOTHING else tenths(value).removesuffix(".0")


def lost(loss: float, metric: str) -> str:
    """``1.2 points lost``, ``0.3 points gained``, ``nothing lost``; ``8 % more perplexity``."""
    if abs(loss) < NOTHING:
        return "nothing lost"
    if metric.endswith(PERPLEXITY):
        return f"{_short(abs(loss))} % {'more' if loss > 0 else 'less'} perplexity"
    return f"{amount(abs(loss), metric)} {'lost' if loss > 0 else 'gained'}"


def tenths(value: float) -> str:
    """A loss to one decimal, without minus zero."""
    return f"{round(value, 1) + 0.0:.1f}"


def spread(low: float, high: float, before: str = "", after: str = "") -> str:
    """``1.0 to 4.8`` between ``before`` and ``after``; empty where both print alike."""
    ends = [tenths(end) for end in (low, high)]
    return "" if ends[0] == ends[1] else f"{before}{ends[0]} to {ends[1]}{after}"


def count_words(results: int, sources: int) -> str:
    """``1 result``, ``3 results of 1 source``: on how much an answer rests."""
    if results == 1:
        return "1 result"
    return f"{results} results of {sources} source{'s' * (sources > 1)}"
