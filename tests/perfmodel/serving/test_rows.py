"""Tables of runs and of loaded servers: each row as if asked for alone, in the order and with the index given."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pandas as pd
import pytest

from perfmodel.serving.rows import RESULT_COLUMNS, SERVED_COLUMNS, evaluate_rows, serve_rows
from perfmodel.serving.run import evaluate
from perfmodel.serving.steady import serve

COMMON = {"batch": 8, "input_len": 64, "output_len": 64, "sparsity": 0.0, "gpus": 2}
SERVED = ("gpus", "sparsity", "users", "input_len", "output_len")


def grid() -> pd.DataFrame:
    """Runs of two systems, spreads, caches and launches, shuffled, with names for an index."""
    kinds = itertools.product(("vllm", "sglang"), (1, 2), (16.0, 8.0), ("", "stream"))
    rows = pd.DataFrame(
        [
            {"model": "mixtral-8x7b", "gpu": "h100", "system": system, **COMMON, "expert_parallel": spread,
             "cache_bits": bits, "launch": launch}
            for system, spread, bits, launch in kinds
        ]
    )  # fmt: skip
    rows["batch"] = 2 ** (np.arange(len(rows)) % 5)
    shuffled = rows.sample(frac=1, random_state=0)
    return shuffled.set_axis([f"row {i}" for i in range(len(rows))])


@cache
def predicted() -> pd.DataFrame:
    return evaluate_rows(grid())


def alone(row: pd.Series) -> float:
    asked = {name: row[name] for name in (*COMMON, "expert_parallel", "cache_bits")}
    run = evaluate(row["model"], row["gpu"], row["system"], **asked, launch=row["launch"] or None)
    return float(run.tokens_per_gpu_s)


def test_each_row_is_as_if_asked_alone() -> None:
    rows = grid()
    found = predicted()
    assert tuple(found.columns) == RESULT_COLUMNS
    assert found.index.equals(rows.index)
    assert found["tokens_per_gpu_s"].tolist() == pytest.approx([alone(row) for _, row in rows.iterrows()], rel=1e-12)
    assert found["tokens_per_gpu_s"].nunique() == len(rows)  # each column changes something


def test_columns_may_stand_in_any_order() -> None:
    rows = grid()
    columns = list(np.random.default_rng(1).permutation(rows.columns))
    pd.testing.assert_frame_equal(evaluate_rows(rows[columns].iloc[::-1]), predicted().iloc[::-1])


def test_an_index_may_repeat() -> None:
    rows = grid()
    found = evaluate_rows(rows.set_axis([7] * len(rows)))
    assert set(found.index) == {7}
    np.testing.assert_array_equal(found["ttft_ms"], predicted()["ttft_ms"])


def test_columns_that_are_missing_are_the_defaults() -> None:
    rows = grid()
    plain = rows.assign(expert_parallel=1, cache_bits=16.0, launch="").drop(columns=["expert_parallel", "cache_bits"])
    expected = rows.assign(expert_parallel=1, cache_bits=16.0, launch="")
    pd.testing.assert_frame_equal(evaluate_rows(plain.drop(columns="launch")), evaluate_rows(expected))


@pytest.mark.parametrize("empty", [np.nan, 0.0])
def test_an_empty_cell_is_the_checkpoints_own(empty: float) -> None:
    rows = grid()
    some = rows.assign(cache_bits=rows["cache_bits"].replace(16.0, empty))
    pd.testing.assert_frame_equal(evaluate_rows(some), predicted())


def test_what_does_not_fit_has_memory_and_no_time() -> None:
    rows = pd.DataFrame(
        [{"model": "llama-3.1-70b", "gpu": "h100", "system": "vllm", **COMMON, "gpus": gpus} for gpus in (1, 4)]
    )
    found = evaluate_rows(rows)
    assert found["fits"].tolist() == [False, True]
    assert (found["memory_gb"] > 0).all()
    assert found["memory_gb"].iloc[0] > 80
    numbers = [name for name in RESULT_COLUMNS if name not in ("fits", "memory_gb", "extrapolated", "change", "bound")]
    assert found.loc[0, numbers].isna().all()
    assert found.loc[1, numbers].notna().all()
    for name in ("tokens_per_gpu_s", "ttft_ms", "tpot_ms"):
        assert found.loc[1, f"lo_{name}"] < found.loc[1, name] < found.loc[1, f"hi_{name}"]


def test_a_row_that_cannot_be_is_a_sentence() -> None:
    with pytest.raises(ValueError, match="expert_parallel must divide 8 experts, got 3"):
        evaluate_rows(grid().assign(expert_parallel=3, gpus=3))
    with pytest.raises(ValueError, match="launch is 'grid', allowed are stream, graph"):
        evaluate_rows(grid().assign(launch="grid"))


def servers() -> pd.DataFrame:
    rows = pd.DataFrame(
        [
            {"model": "llama-3.1-8b", "gpu": gpu, "system": system, "gpus": 1, "sparsity": sparsity, "users": users,
             "input_len": 512, "output_len": output}
            for gpu in ("h100", "rtx-4090") for system, sparsity in (("vllm", 0.0), ("vllm+bitmap", 0.7))
            for users, output in ((4, 128), (512, 256))
        ]
    )  # fmt: skip
    return rows.sample(frac=1, random_state=3).set_axis(list("hgfedcba"))


def test_each_server_is_as_if_asked_alone() -> None:
    rows = servers()
    found = serve_rows(rows)
    assert tuple(found.columns) == (*SERVED_COLUMNS, "bound")
    assert found.index.equals(rows.index)
    for name, row in rows.iterrows():
        load = serve(row["model"], row["gpu"], row["system"], **{key: row[key] for key in SERVED})
        expected = [
            1e3 * load.ttft_s, 1e3 * load.ttft_p90_s, 1e3 * load.tpot_s, 1e3 * load.tpot_p90_s, load.requests_per_s,
            load.tokens_per_gpu_s, load.decoding, load.room, load.prompt_share,
        ]  # fmt: skip
        assert found.loc[name, list(SERVED_COLUMNS)].tolist() == pytest.approx(
            [float(value) for value in expected], rel=1e-9
        )


def test_servers_in_any_order_of_columns() -> None:
    rows = servers()
    pd.testing.assert_frame_equal(serve_rows(rows[rows.columns[::-1]].assign(mine="x")), serve_rows(rows))


def test_a_server_without_room_has_no_times() -> None:
    found = serve_rows(servers().assign(model=["llama-3.1-70b", *servers()["model"].iloc[1:]]))
    assert found["room"].iloc[0] == 0
    assert found[["ttft_ms", "tpot_ms", "requests_per_s"]].iloc[0].isna().all()
    assert (found["room"].iloc[1:] > 0).all()
    assert found["tpot_ms"].iloc[1:].notna().all()
