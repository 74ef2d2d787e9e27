"""Sweeps on a cluster: dying workers lose nothing, wrong addresses are explained."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pyarrow as pa
import pytest

from perfmodel.sweep import Plan, grid, run
from perfmodel.sweep.cluster import cluster_client, cluster_map
from perfmodel.sweep.runner import _checked_chunk
from perfmodel.sweep.store import Store
from tests.perfmodel.sweep.cases import plan, small_chunks


def test_a_dying_worker_loses_nothing_and_doubles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_chunks(monkeypatch)
    made, out = plan(), tmp_path / "out.parquet"
    seen: list[int] = []
    with Store(out, made) as store, cluster_client("local") as client:
        first_pid, *_ = client.run(os.getpid).values()
        for index, table in cluster_map(client, _Slow(made), store.missing()):
            seen.append(index)
            store.put(index, table)
            if len(seen) == 3:
                os.kill(first_pid, signal.SIGKILL)
        pids = set(client.run(os.getpid).values())
        store.finish()
    assert first_pid not in pids
    assert sorted(seen) == list(range(made.spec.grid.chunks))
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
