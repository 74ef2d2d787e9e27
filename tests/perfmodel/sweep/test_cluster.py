"""Sweeps on a cluster: dying workers lose nothing, wrong addresses are explained."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Timer

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
    [
        ("somewhere", "allowed are 'local' or an address"),
        ("tcp://127.0.0.1:9", "no Dask scheduler answers"),
        ("tls://127.0.0.1:9", "no Dask scheduler answers"),
    ],
)
def test_a_wrong_cluster_address_is_explained(address: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perfmodel.sweep.cluster.CONNECT_TIMEOUT", "300ms")
    with pytest.raises(ValueError, match=message), cluster_client(address):
        pass


def test_a_lost_scheduler_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    small_chunks(monkeypatch)
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0", "--host", "127.0.0.1"]
    told = tmp_path / "scheduler.json"
    with subprocess.Popen(
        [*command, "--no-dashboard", "--scheduler-file", str(told)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as scheduler:
        deadline = time.monotonic() + 30
        while not told.exists() or not told.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        Timer(1.0, scheduler.kill).start()  # no worker ever comes: the sweep waits for its first chunk
        with pytest.raises(ConnectionError, match=r"the Dask scheduler at tcp://127\.0\.0\.1:\d+ is lost"):
            run(plan(), tmp_path / "out.parquet", cluster=json.loads(told.read_text())["address"])
    assert list(tmp_path.iterdir()) == [told]
