"""Sweeps: the same numbers as one prediction at a time, whatever stops them and wherever they run."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from perfmodel.kernels import KERNELS
from perfmodel.prediction import predict_table
from perfmodel.serving.run import evaluate
from perfmodel.sweep import Plan, grid, read_facts, run
from perfmodel.sweep.cluster import cluster_client, cluster_map
from perfmodel.sweep.grid import Dimension, Grid
from perfmodel.sweep.runner import _checked_chunk
from perfmodel.sweep.spec import LIMIT_POINTS, Spec
from perfmodel.sweep.store import Store
from perfmodel.sweep.table import chunk_table
from tests.comparison import assert_close

ROOT = Path(__file__).resolve().parent.parent
RUNNER = CliRunner()
AXES: dict[str, Any] = {
    "gpu": ["a100-80gb", "rtx-4090"],
    "kernel": "all",
    "m": [1000, 36864],
    "k": [1024, 9217],
    "n": [1, 8, 12, 100],
    "sparsity": {"start": 0.0, "stop": 0.9, "step": 0.3},
}
E2E: dict[str, Any] = {
    "model": ["opt-30b", "mixtral-8x7b"],
    "gpu": ["a100-80gb"],
    "gpus": [1, 2, 3],
    "system": ["flash-llm", "fastertransformer"],
    "sparsity": [0.0, 0.8],
    "batch": [1, 8, 64],
    "input_len": [64, 512],
    "output_len": [1, 512, 2048],
}


def plan(target: str = "predict", axes: dict[str, Any] | None = None, **more: Any) -> Plan:
    possible = {"possible": True} | more.pop("constraints", {})
    axes = axes or (AXES if target == "predict" else E2E)
    return Plan.of({"sweep": {"target": target, **more}, "axes": axes, "constraints": possible})


def swept(made: Plan, out: Path) -> pd.DataFrame:
    run(made, out)
    return pd.read_parquet(out)


def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut the small grids of these tests into several blocks and chunks."""
    monkeypatch.setattr(grid, "BLOCK_POINTS", 16)
    monkeypatch.setattr(grid, "CHUNK_POINTS", 64)


# --- The grid ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 7), min_size=1, max_size=4), st.integers(1, 40), st.integers(1, 100))
@settings(max_examples=60, deadline=None)
def test_blocks_hold_every_point_once_and_in_order(sizes: list[int], block: int, chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grid, "BLOCK_POINTS", block)
        patch.setattr(grid, "CHUNK_POINTS", chunk)
        made = Grid.of([Dimension({f"x{i}": np.arange(float(size))}) for i, size in enumerate(sizes)])
        blocks = [b for index in range(made.chunks) for b in made.chunk(index)]
        assert all(b.points <= max(block, 1) or b.shape.count(1) >= len(sizes) - 1 for b in blocks)
        rows = np.concatenate(
            [np.stack([np.broadcast_to(v, b.shape).ravel() for v in b.numbers.values()], axis=1) for b in blocks]
        )
    assert np.array_equal(
        rows, np.stack(np.meshgrid(*map(np.arange, sizes), indexing="ij"), -1).reshape(-1, len(sizes))
    )


def test_names_come_first_and_zipped_axes_move_together() -> None:
    parsed = {
        "sweep": {"target": "predict"},
        "axes": {"sparsity": [0.5, 0.6], "n": [8], "gpu": "h100", "kernel": ["cublas", "sputnik"]},
        "zipped": [{"m": [1024, 2048], "k": [4096, 8192]}],
    }
    rows = chunk_table(Plan.of(parsed), 0).to_pandas()
    assert list(rows.columns[:6]) == ["gpu", "kernel", "sparsity", "n", "m", "k"]
    assert len(rows) == 8
    assert set(zip(rows["m"], rows["k"], strict=True)) == {(1024, 4096), (2048, 8192)}


def test_ranges_include_their_end_and_hit_decimals() -> None:
    axes = AXES | {
        "sparsity": {"start": 0.1, "stop": 0.9, "step": 0.1},
        "n": {"log_start": 1, "log_stop": 4, "count": 9},
    }
    spec = plan(axes=axes).spec
    assert list(spec.grid.column("sparsity")) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert list(spec.grid.column("n")) == [1, 2, 3, 4]


# --- The numbers ------------------------------------------------------------------------------------------------------


def test_predict_rows_equal_single_predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_chunks(monkeypatch)
    columns = ["n_padded", "time_us", "speedup_vs_dense", "bound", "extrapolated", "lo_us", "hi_us"]
    rows = swept(plan(columns=columns), tmp_path / "out.parquet")
    possible = sum(int((~np.isnan(model.padded_n([1, 8, 12, 100]))).sum()) for model in KERNELS.values())
    assert len(rows) == 2 * 2 * 2 * 4 * possible
    alone = predict_table(rows.assign(n=rows["n_padded"]).astype({"gpu": str, "kernel": str}))
    same_n = rows["n"] == rows["n_padded"]  # otherwise the baseline of the sweep multiplies fewer tokens
    for column in ("time_us", "lo_us", "hi_us"):
        assert_close(rows[column], alone[column], relative=1e-12)
    assert_close(rows["speedup_vs_dense"][same_n], alone["speedup_vs_dense"][same_n], relative=1e-12)
    assert (rows["speedup_vs_dense"] <= alone["speedup_vs_dense"] + 1e-12).all()
    assert (rows["bound"].astype(str) == alone["bound"]).all()
    assert (rows["extrapolated"] == alone["extrapolated"]).all()


def test_e2e_rows_equal_single_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_chunks(monkeypatch)
    rows = swept(plan("e2e"), tmp_path / "out.parquet")
    # 3 GPUs share neither model; OPT knows 2048 positions, Mixtral's are computed.
    assert len(rows) == 2 * 2 * 2 * 3 * 2 * (2 + 3)
    for row in rows.sample(40, random_state=0).itertuples():
        alone = evaluate(
            row.model, row.gpu, row.system, batch=row.batch, input_len=row.input_len, output_len=row.output_len,
            sparsity=row.sparsity, gpus=row.gpus,
        )  # fmt: skip
        assert row.fits == bool(alone.memory.fits)
        assert row.memory_gb == pytest.approx(float(alone.memory.total) / 1e9, rel=1e-12)
        expected = float(alone.tokens_per_gpu_s) if row.fits else np.nan
        assert row.tokens_per_gpu_s == pytest.approx(expected, rel=1e-12, nan_ok=True)


def test_more_bandwidth_is_never_slower_and_scale_one_changes_nothing() -> None:
    scales = [0.5, 1.0, 2.0, 4.0]
    what_if = chunk_table(plan(axes=AXES | {"dram_bandwidth_scale": scales}), 0).to_pandas()
    times = what_if["time_us"].to_numpy().reshape(-1, len(scales))
    assert (np.diff(times, axis=1) <= 1e-12).all()
    assert np.array_equal(times[:, 1], chunk_table(plan(), 0).to_pandas()["time_us"])


def test_constraints_keep_what_they_say(tmp_path: Path) -> None:
    everything = swept(plan("e2e"), tmp_path / "all.parquet")
    limits = {"fits": True, "tpot_ms": {"max": 30.0}, "batch": {"min": 8}}
    kept = swept(plan("e2e", constraints=limits), tmp_path / "kept.parquet")
    wanted = everything[everything["fits"] & (everything["tpot_ms"] <= 30) & (everything["batch"] >= 8)]
    assert 0 < len(kept) < len(everything)
    pd.testing.assert_frame_equal(kept, wanted.reset_index(drop=True))


# --- What is refused before any work ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"axes": {"sparsty": [0.5]}}, "unknown axis 'sparsty': did you mean sparsity"),
        ({"axes": {"n": None}}, "missing axis n"),
        ({"axes": {"m": []}}, "axis m is empty"),
        ({"axes": {"kernel": []}}, "axis kernel is empty"),
        ({"axes": {"sparsity": [80]}}, "did you mean 0.8"),
        ({"axes": {"m": [1.5]}}, "axis m holds 1.5, allowed is a whole number from 1"),
        ({"axes": {"m": [0]}}, "axis m holds 0"),
        ({"axes": {"m": ["big"]}}, "axis m must hold numbers"),
        ({"axes": {"m": [float("nan")]}}, "axis m holds nan"),
        ({"axes": {"gpu": ["a100"]}}, "unknown GPU 'a100': did you mean"),
        ({"axes": {"gpu": [3]}}, "axis gpu holds 3"),
        ({"axes": {"n": {"start": 8, "stop": 1, "step": 1}}}, "start <= stop"),
        ({"axes": {"n": {"start": 1, "stop": 8}}}, "axis n is a list, {start, stop, step}"),
        ({"axes": {"n": {"log_start": 0, "log_stop": 8, "count": 3}}}, "0 < log_start"),
        ({"axes": {"n": {"start": 1, "stop": 1e12, "step": 1}}}, "allowed are at most 1,000,000"),
        ({"axes": {"dram_bandwidth_scale": [0]}}, "allowed is a factor above 0"),
        ({"zipped": [{"m": [1, 2]}]}, "axis m is given twice"),
        ({"zipped": [{"dram_bandwidth_scale": [1, 2], "clock_scale": [1]}]}, "equally long"),
        ({"sweep": {"target": "predikt"}}, "unknown target 'predikt': did you mean predict"),
        ({"sweep": {"columns": ["time_ms"]}}, "unknown result column 'time_ms': did you mean time_us"),
        ({"sweep": {"out": "x"}}, "unknown key of .sweep. 'out'"),
        ({"axis": {}}, "unknown table 'axis': did you mean axes"),
        ({"constraints": {"fits": True}}, "unknown constraint 'fits'"),
        ({"constraints": {"time_us": {"min": 2, "max": 1}}}, "constraint time_us is"),
        ({"constraints": {"extrapolated": {"max": 1}}}, "allowed is true or false"),
        ({"constraints": {"possible": "yes"}}, "possible is 'yes'"),
    ],
)
def test_a_wrong_spec_is_refused_with_the_remedy(change: dict[str, Any], message: str) -> None:
    parsed: dict[str, Any] = {"sweep": {"target": "predict"}, "axes": dict(AXES), "constraints": {}}
    for table, values in change.items():
        parsed[table] = parsed.get(table, {}) | values if isinstance(values, dict) else values
    parsed["axes"] = {axis: value for axis, value in parsed["axes"].items() if value is not None}
    with pytest.raises(ValueError, match=message):
        Spec.of(parsed)


def test_impossible_points_are_refused_before_work_unless_left_out(tmp_path: Path) -> None:
    for target, change, message in (
        ("predict", AXES, "macko takes N of 1, got n 8"),
        ("e2e", E2E, "opt-30b .* knows 2048 positions; impossible is gpus 1, input_len 64, output_len 2048"),
        ("e2e", E2E | {"output_len": 512}, "opt-30b has 56 heads .* impossible is gpus 3"),
    ):
        asked = plan(target, change, constraints={"possible": False})
        with pytest.raises(ValueError, match=message):
            run(asked, tmp_path / "out.parquet")
    assert not list(tmp_path.iterdir())


def test_many_points_need_a_yes(tmp_path: Path) -> None:
    large = plan(axes=AXES | {"sparsity": {"start": 0, "stop": 1, "step": 1e-5}})
    assert large.spec.grid.points > LIMIT_POINTS
    with pytest.raises(ValueError, match=rf"{large.spec.grid.points:,} points, more than 20,000,000; .* --yes"):
        run(large, tmp_path / "out.parquet")
    assert not list(tmp_path.iterdir())


# --- The file ---------------------------------------------------------------------------------------------------------


def test_two_runs_give_the_same_bytes_and_the_file_says_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_chunks(monkeypatch)
    made = plan()
    first, second = tmp_path / "a.parquet", tmp_path / "b.parquet"
    rows = run(made, first, threads=1)
    assert run(made, second, threads=3) == rows
    assert first.read_bytes() == second.read_bytes()
    facts = read_facts(first)
    assert facts["spec"]["axes"]["n"] == AXES["n"]
    assert facts["points"] == made.spec.grid.points
    assert facts["versions"]["numpy"] == np.__version__
    assert len(facts["catalogue"]) == 64
    file = pq.ParquetFile(first)
    assert file.num_row_groups == made.spec.grid.chunks > 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet", "b.parquet"]
    stamp = first.stat().st_mtime_ns
    assert run(made, first) == rows  # complete already: nothing is done again
    assert first.stat().st_mtime_ns == stamp


def test_foreign_and_damaged_outputs_are_refused_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_chunks(monkeypatch)
    made, out = plan(), tmp_path / "out.parquet"
    pq.write_table(pa.table({"x": [1]}), out)
    foreign = out.read_bytes()
    with pytest.raises(ValueError, match="not written by a sweep"):
        run(made, out)
    with pytest.raises(ValueError, match="not written by a sweep"):
        read_facts(out)
    assert out.read_bytes() == foreign
    out.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(ValueError, match="damaged or no Parquet file"):
        run(made, out)
    out.unlink()
    run(plan(axes=AXES | {"n": [8]}), out)
    with pytest.raises(ValueError, match=r"another sweep: other .*spec"):
        run(made, out)
    facts = read_facts(out)
    table = pq.read_table(out)
    pq.write_table(table.drop_columns(["bound"]), out)
    with pytest.raises(ValueError, match="its sweep wrote"):
        read_facts(out)
    assert "bound" in facts["columns"]


def test_parts_are_checked_before_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_chunks(monkeypatch)
    made, out = plan(), tmp_path / "out.parquet"
    store = Store(out, made)
    for index in (0, 1):
        store.put(index, chunk_table(made, index))
    assert store.missing() == list(range(2, made.spec.grid.chunks))
    with pytest.raises(ValueError, match=r"another sweep: other .*spec"):
        Store(out, plan(axes=AXES | {"n": [8]}))
    with pytest.raises(ValueError, match="chunk 2 is missing"):
        store.finish()
    chunk = store.parts / "chunk-00000001.parquet"
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:100])
    with pytest.raises(ValueError, match=r"chunk-00000001.parquet is damaged"):
        run(made, out)
    middle = whole.find(b"\x15", 60)  # inside the pages, so that only their checksum tells
    chunk.write_bytes(whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :])
    with pytest.raises(ValueError, match=r"chunk-00000001.parquet is damaged"):
        run(made, out)
    assert not out.exists()
    chunk.unlink()
    (store.parts / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"notes.txt does not belong to this sweep"):
        run(made, out)
    (store.parts / "notes.txt").unlink()
    run(made, out)
    run(made, tmp_path / "fresh.parquet")
    assert out.read_bytes() == (tmp_path / "fresh.parquet").read_bytes()


# --- The cluster ------------------------------------------------------------------------------------------------------


def test_a_dying_worker_loses_nothing_and_doubles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_chunks(monkeypatch)
    made, out = plan(), tmp_path / "out.parquet"
    store = Store(out, made)
    seen: list[int] = []
    with cluster_client("local") as client:
        first_pid, *_ = client.run(os.getpid).values()
        for index, table in cluster_map(client, _Slow(made), store.missing()):
            seen.append(index)
            store.put(index, table)
            if len(seen) == 3:
                os.kill(first_pid, signal.SIGKILL)
        pids = set(client.run(os.getpid).values())
    assert first_pid not in pids
    assert sorted(seen) == list(range(made.spec.grid.chunks))
    store.finish()
    run(made, tmp_path / "here.parquet")
    assert out.read_bytes() == (tmp_path / "here.parquet").read_bytes()


class _Slow:
    """A chunk in 30 ms or more, under the workers' own (default) cut of the grid set back to the small one."""

    def __init__(self, made: Plan) -> None:
        self.plan, self.sizes = made, (grid.BLOCK_POINTS, grid.CHUNK_POINTS)

    def __call__(self, index: int) -> pa.Table:
        grid.BLOCK_POINTS, grid.CHUNK_POINTS = self.sizes
        time.sleep(0.03)
        return _checked_chunk(self.plan, index)


@pytest.mark.parametrize(
    ("address", "message"),
    [("somewhere", "allowed are 'local' or an address"), ("tcp://127.0.0.1:9", "no Dask scheduler answers")],
)
def test_a_wrong_cluster_address_is_explained(address: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perfmodel.sweep.cluster.CONNECT_TIMEOUT", "300ms")
    with pytest.raises(ValueError, match=message), cluster_client(address):
        pass


def test_a_worker_of_another_version_is_refused() -> None:
    made = plan()
    other = Plan(made.spec, made.parsed, made.versions | {"numpy": "0.1"}, made.catalogue)
    with pytest.raises(ValueError, match=r"this worker has numpy .* instead of 0.1"):
        _checked_chunk(other, 0)
