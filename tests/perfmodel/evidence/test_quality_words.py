"""Losses in words."""

from __future__ import annotations

from perfmodel.evidence.quality_words import POINTS, amount, count_words, lost, spread, tenths, unit


def test_losses_and_gains_are_told_apart() -> None:
    assert lost(1.44, POINTS) == "1.4 points lost"
    assert lost(-0.6, POINTS) == "0.6 points gained"
    assert lost(1.0, POINTS) == "1 point lost"
    assert lost(-0.04, POINTS) == "nothing lost"
    assert lost(5.25, "wikitext2-perplexity") == "5.2 % more perplexity"
    assert lost(-0.5, "c4-perplexity") == "0.5 % less perplexity"


def test_numbers_have_their_unit_and_no_minus_zero() -> None:
    assert amount(1.0, POINTS) == "1 point"
    assert amount(0.04, POINTS) == "0.04 points"
    assert amount(10.0, "wikitext2-perplexity") == "10 % of perplexity"
    assert (unit("mmlu"), unit("ptb-perplexity")) == ("points", "% of perplexity")
    assert tenths(-0.01) == "0.0"


def test_a_spread_is_shown_where_its_ends_differ() -> None:
    assert spread(-0.01, 0.04) == ""
    assert spread(1.0, 4.8, " (", ")") == " (1.0 to 4.8)"


def test_what_it_rests_on_counts_sources() -> None:
    assert count_words(1, 1) == "1 result"
    assert count_words(3, 1) == "3 results of 1 source"
    assert count_words(5, 2) == "5 results of 2 sources"
