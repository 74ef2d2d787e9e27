"""Run a sweep: evaluate the chunks that are missing, here or on a cluster, and store each as it is done."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path

import pyarrow as pa

from perfmodel.sweep.cluster import cluster_client, cluster_map
from perfmodel.sweep.evaluate import check_possible
from perfmodel.sweep.spec import check_size
from perfmodel.sweep.store import Store
from perfmodel.sweep.table import Plan, check_worker, chunk_table

Progress = Callable[[int, int], None]  # chunks done, chunks in all

DEFAULT_THREADS = min(8, os.cpu_count() or 1)


def run(
    plan: Plan,
    out: str | Path,
    *,
    yes: bool = False,
    threads: int = DEFAULT_THREADS,
    cluster: str = "",
    progress: Progress | None = None,
) -> int:
    """Sweep ``plan`` into the Parquet file ``out``; started again after any stop, it goes on where it stopped.

    Parameters
    ----------
    plan
        From `Plan.of`.
    out
        Final file; unfinished chunks lie in ``out.parts``.
    yes
        Allow more than `perfmodel.sweep.spec.LIMIT_POINTS` points.
    threads
        Threads on this machine. NumPy and Parquet leave the interpreter lock for most of their work.
    cluster
        ``"local"`` or ``tcp://HOST:PORT``: evaluate there instead; this process stores what comes back.
    progress
        Called after every chunk.

    Returns
    -------
    int
        Rows of the file.

    Raises
    ------
    ValueError
        Too many points, impossible points, or an ``out`` that holds something else. Nothing is touched.
    OSError
        If the disk is full; what is stored stays, and the same call goes on from there.
    """
    check_size(plan.spec, yes)
    check_possible(plan.spec)
    with Store(out, plan) as store:
        missing, total = store.missing(), plan.spec.grid.chunks
        done = total - len(missing)
        chunks = _on_cluster(plan, missing, cluster) if cluster else _on_threads(plan, missing, threads)
        report = progress or (lambda done, total: None)
        report(done, total)
        for index, table in chunks:
            store.put(index, table)
            done += 1
            report(done, total)
        return store.finish()


def _on_threads(plan: Plan, indices: list[int], threads: int) -> Iterator[tuple[int, pa.Table]]:
    """Chunks as they are done; at most one more than ``threads`` are in memory."""
    waiting = iter(indices)
    with ThreadPoolExecutor(threads) as pool:
        running: dict[Future[pa.Table], int] = {}
        try:
            while True:
                for index in waiting:
                    running[pool.submit(chunk_table, plan, index)] = index
                    if len(running) > threads:
                        break
                if not running:
                    return
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield running.pop(future), future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _on_cluster(plan: Plan, indices: list[int], address: str) -> Iterator[tuple[int, pa.Table]]:
    if not indices:
        return
    with cluster_client(address) as client:
        yield from cluster_map(client, partial(_checked_chunk, plan), indices)


def _checked_chunk(plan: Plan, index: int) -> pa.Table:
    check_worker(plan)
    return chunk_table(plan, index)
