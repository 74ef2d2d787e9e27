"""The explorer's bench times every change that it makes."""

from __future__ import annotations

import pytest

from tests.lscd.explorer.browser import Page


def test_bench_times_every_change_it_makes() -> None:
    """The goal itself is for `make bench`: a shared machine may be slow."""
    pytest.importorskip("marimo")
    from lscd.explorer import bench

    times_ms = bench.answer_times_ms(changes=3)
    assert times_ms.shape == (3, 2)
    assert (times_ms[:, 0] > 0).all()
    assert (times_ms[:, 0] <= times_ms[:, 1]).all()


@pytest.mark.parametrize("panel", ["Sparsity", "Operators"])
def test_bench_times_keys_in_a_browser(page: Page, panel: str) -> None:
    from lscd.explorer import bench_browser

    assert bench_browser.missing() == ""
    page.open()
    times_ms = bench_browser.key_presses_ms(page.tab, panel, presses=2)
    assert times_ms.shape == (2, 2)
    assert (times_ms > 0).all()
    assert (times_ms[:, 0] < bench_browser.MOST_MS).all(), "the number has changed"
    assert (times_ms[:, 1] < bench_browser.MOST_MS).all(), "the charts have changed"


def test_bench_times_first_views(page: Page) -> None:
    from lscd.explorer import bench_browser

    times_ms = bench_browser.first_views_ms(page.address, page.tab.context.new_page, views=1)
    assert times_ms.shape == (1, 3)
    assert 0 < times_ms[0, 0] <= times_ms[0, 1] < times_ms[0, 2], "controls come last"
