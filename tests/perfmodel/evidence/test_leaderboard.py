"""Who is fastest as measured: never across sources, caches or launches, ties told, dense of the same comparison."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from perfmodel import predict
from perfmodel.catalog import load_kernel_times, load_sources
from perfmodel.catalog.checks import KERNEL_TIME_COLUMNS, checked_kernel_times
from perfmodel.evidence.leaderboard import (
    CELL,
    COMPARED,
    MEASURED,
    MODEL,
    SHAPES,
    TIE,
    leaderboard,
    measured_times,
    over_tokens,
    shape_classes,
    unranked,
    winners,
)

MINE = "mine"


@pytest.fixture(scope="module")
def published() -> pd.DataFrame:
    return leaderboard()


def own(*rows: tuple[object, ...], **columns: object) -> pd.DataFrame:
    """Rows ``kernel, m, k, n, sparsity, time_us`` of a user on an A100."""
    table = pd.DataFrame(rows, columns=["kernel", "m", "k", "n", "sparsity", "time_us"])
    rest = {"gpu": "a100-80gb", "time_err_us": np.nan, "status": "value", "cache": "warm", "source": MINE, "note": ""}
    return checked_kernel_times(table.assign(**rest | columns))


def mine(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["source"] == MINE]


TALL = (28672, 8192)


def test_a_speed_up_is_over_dense_of_the_same_source_at_its_geometric_mean() -> None:
    rows = own(
        ("cublas", 28672, 8192, 8, 0, 200), ("cublas", 57344, 8192, 8, 0, 400),
        ("new", 28672, 8192, 8, 0.7, 100), ("new", 57344, 8192, 8, 0.7, 50),
    )  # fmt: skip
    found = mine(leaderboard(rows)).set_index("kernel")
    assert found.loc["new", "speedup"] == pytest.approx(4.0)  # of 2 and 8
    assert found.loc["cublas", "speedup"] == 1
    assert found.loc["cublas", "behind"] == pytest.approx(3.0)
    assert set(found["products"]) == {2}
    assert set(found["dense"]) == {MEASURED}
    assert list(found["place"]) == [1, 2]


@pytest.mark.parametrize("other", [{"cache": "cold"}, {"launch": "graph"}, {"source": "others"}, {"copies": 4}])
def test_nothing_is_compared_across_sources_caches_and_launches(other: dict[str, object]) -> None:
    rows = pd.concat([own(("cublas", *TALL, 8, 0, 200)), own(("new", *TALL, 8, 0.7, 100), **other)])
    found = leaderboard(rows)
    new = found[found["kernel"] == "new"].iloc[0]
    assert new["dense"] == MODEL, "its own comparison has no dense product"
    assert new["speedup"] != pytest.approx(2.0)


def test_where_a_user_timed_no_dense_product_the_model_called_alike_stands_in() -> None:
    found = mine(leaderboard(own(("new", *TALL, 8, 0.7, 100)))).iloc[0]
    dense = predict("cublas", "a100-80gb", *TALL, 8, cache="warm")
    assert found["dense"] == MODEL
    assert found["speedup"] == pytest.approx(float(dense.time_s) * 1e4, rel=1e-6)


def test_ties_share_a_place_and_kernels_that_keep_all_weights_compete_everywhere() -> None:
    rows = own(
        ("cublas", *TALL, 8, 0, 200), ("new", *TALL, 8, 0.7, 100), ("newer", *TALL, 8, 0.7, 104),
        ("newest", *TALL, 8, 0.7, 106), ("int8", *TALL, 8, 0, 90),
    )  # fmt: skip
    won = mine(winners(leaderboard(rows)))
    at = won[won["sparsity"] == 0.7].iloc[0]
    assert (at["fastest"], at["next"]) == (("int8",), "new")
    assert at["behind"] == pytest.approx(100 / 90 - 1)
    without = mine(winners(leaderboard(rows[rows["kernel"] != "int8"]))).iloc[0]
    assert (without["fastest"], without["next"]) == (("new", "newer"), "newest")
    assert at["speedup"] == pytest.approx(200 / 90)


def test_kernels_are_compared_on_products_that_all_were_measured_on() -> None:
    rows = own(
        ("cublas", 28672, 8192, 8, 0, 100), ("cublas", 57344, 8192, 8, 0, 100), ("cublas", 32768, 8192, 8, 0, 100),
        ("new", 28672, 8192, 8, 0.7, 50), ("new", 57344, 8192, 8, 0.7, 10),
        ("newer", 28672, 8192, 8, 0.7, 40), ("newer", 32768, 8192, 8, 0.7, 90), ("once", 57344, 8192, 8, 0.7, 1),
    )  # fmt: skip
    found = mine(leaderboard(rows)).set_index("kernel")
    assert found.loc["newer", "speedup"] == pytest.approx(2.5)
    assert found.loc["new", "speedup"] == pytest.approx(2.0)
    assert set(found["products"]) == {1}
    assert "once" not in found.index, "measured on less than half of the products"


def test_shapes_are_physical_classes() -> None:
    rows = own(
        ("new", 4096, 4096, 8, 0.7, 1), ("new", 12288, 12288, 8, 0.7, 1), ("new", 36864, 12288, 8, 0.7, 1),
        ("new", 12288, 49152, 8, 0.7, 1),
    )  # fmt: skip
    assert list(shape_classes(rows)) == ["small", "square", "tall", "wide"] == list(SHAPES)


def test_the_published_table_holds_what_the_sources_say(published: pd.DataFrame) -> None:
    """Figure 9 at 80 %, 8 tokens, the three shapes out of the MLP: means by hand."""
    cell = {"gpu": "a100-80gb", "source": "flash-llm-fig9", "shapes": "wide", "sparsity": 0.8, "n": 8}
    chosen = published[(published[list(cell)] == pd.Series(cell)).all(axis=1)].set_index("kernel")
    times = load_kernel_times("published/kernel_a100.csv").query("n == 8 and k >= 2 * m")
    dense = times[times["kernel"] == "cublas"].set_index(["m", "k"])["time_us"]
    for kernel in ("flash-llm", "sparta"):
        ours = times[(times["kernel"] == kernel) & (times["sparsity"] == 0.8)].set_index(["m", "k"])["time_us"]
        assert chosen.loc[kernel, "speedup"] == pytest.approx(np.exp(np.log(dense / ours).mean()))
    assert published["source"].isin(load_sources()).all()


def test_every_comparison_is_whole(published: pd.DataFrame) -> None:
    assert set(published["dense"]) == {MEASURED}
    assert set(published["shapes"]) <= set(SHAPES)
    for _, places in published.groupby(list(CELL)):
        assert "cublas" in set(places["kernel"])
        assert places["kernel"].is_unique
        assert places["behind"].is_monotonic_increasing
        assert places["behind"].iloc[0] == 0
        assert ((places["place"] == 1) == (places["behind"] < TIE)).all()
        assert len(places) > 1
    assert not set(unranked(published)) & set(published["source"])
    assert {"aiconfigurator-quantised", "macko-sputnik"} <= set(unranked(published))


def test_only_times_that_are_stated_well_are_ranked() -> None:
    rows = measured_times()
    assert set(rows["status"]) == {"value", "assumed-gpu"}
    assert not rows.duplicated([*COMPARED, "kernel", "m", "k", "n", "sparsity"]).any()
    assert list(rows.columns)[: len(KERNEL_TIME_COLUMNS)] == list(KERNEL_TIME_COLUMNS)


def test_neighbouring_tokens_are_joined_where_the_same_kernels_lead() -> None:
    table = leaderboard(own(
        *(("cublas", *TALL, n, 0, 200) for n in (8, 16, 32)), ("new", *TALL, 8, 0.7, 100), ("new", *TALL, 16, 0.7, 125),
        ("new", *TALL, 32, 0.7, 400),
    ))  # fmt: skip
    joined = mine(over_tokens(winners(table)))
    assert list(joined["n_from"]) == [8, 32]
    assert list(joined["n_to"]) == [16, 32]
    assert list(joined["fastest"]) == [("new",), ("cublas",)]
    assert (joined["speedup_from"].iloc[0], joined["speedup_to"].iloc[0]) == (pytest.approx(1.6), pytest.approx(2.0))
