"""Map a function over many machines: dask.distributed does the work, this module bounds it and gives plain errors.

The chunks of a sweep go through `cluster_map`, kernel benchmarks through `on_every_worker`. A worker that dies has
its task run again elsewhere by the scheduler; the caller sees each result exactly once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

LOCAL = "local"
LOCAL_WORKERS = 2
TASKS_PER_WORKER = 2  # one runs, one waits: results in flight stay few, so memory stays bounded
WORKER_DEATHS = 5  # of one task, before it is called hopeless
CONNECT_TIMEOUT = "10s"


@contextmanager
def cluster_client(address: str) -> Iterator[Any]:
    """Connect to a scheduler at ``tcp://HOST:PORT``, or start `LOCAL_WORKERS` single-thread processes for ``"local"``.

    Raises
    ------
    ValueError
        If dask.distributed is not installed, the address is malformed, or nobody answers there.
    ConnectionError
        If the scheduler is lost on the way.
    """
    try:
        from dask import config
        from distributed import Client, LocalCluster
    except ImportError:
        raise ValueError("a cluster needs dask.distributed: pip install 'lscd-lab[cluster]'") from None
    if address != LOCAL and "://" not in address:
        raise ValueError(f"the cluster is {address!r}, allowed are {LOCAL!r} or an address such as tcp://HOST:8786")
    with _quiet(), config.set({"distributed.scheduler.allowed-failures": WORKER_DEATHS}):
        if address == LOCAL:
            # Any free port: dask warns where its own is taken, by another cluster of this machine.
            options = {"n_workers": LOCAL_WORKERS, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
            with LocalCluster(**options) as cluster, Client(cluster) as client:
                yield client
            return
        try:
            client = Client(address, timeout=CONNECT_TIMEOUT)
        except (OSError, ValueError, TypeError) as error:  # the last where TLS is not set up
            raise ValueError(f"no Dask scheduler answers at {address}: {error}") from error
        with client, _lost(address):
            yield client


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep dask's tracebacks off the terminal: what fails is said once, by whoever asked."""
    names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] == "distributed"]
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def _lost(address: str) -> Iterator[None]:
    """Say in a sentence that the scheduler is gone, or that no worker survives a task."""
    from distributed import CancelledError
    from distributed.comm import CommClosedError
    from distributed.scheduler import KilledWorker

    try:
        yield
    except (CancelledError, CommClosedError) as error:
        raise ConnectionError(f"the Dask scheduler at {address} is lost") from error
    except KilledWorker as error:
        raise ConnectionError(f"workers of {address} died {WORKER_DEATHS} times over the same task") from error
    except ImportError as error:
        raise ValueError(f"a worker of {address} does not have this package: {error}") from error


def on_every_worker(client: Any, function: Callable[..., Result], *arguments: Any) -> dict[str, Result]:
    """``function(*arguments)`` once on every worker, all at the same time; results by the worker's address.

    For work that belongs to a machine and not to a task, such as a benchmark of its GPU. What ``function`` raises on a
    worker is raised here.
    """
    results: dict[str, Result] = client.run(function, *arguments)
    return results


def cluster_map(
    client: Any, function: Callable[[Item], Result], items: Iterable[Item], **resources: float
) -> Iterator[tuple[Item, Result]]:
    """``(item, function(item))`` of every item, in the order they finish; each exactly once.

    Parameters
    ----------
    client
        From `cluster_client`.
    function
        Picklable; run again on another worker if its own dies, so it must have no side effect.
    items
        Picklable arguments; drawn as workers become free.
    **resources
        What a worker must own to take a task, as it was started with, for example ``GPU=1``.

    Raises
    ------
    Exception
        What ``function`` raised; the tasks in flight are cancelled.
    """
    from distributed import as_completed

    waiting = iter(items)
    owner: dict[str, tuple[Any, Item]] = {}  # the future is kept too: dropped, its task would be cancelled

    def submit() -> list[Any]:
        for item in waiting:
            future = client.submit(function, item, pure=False, resources=resources or None)
            owner[future.key] = (future, item)
            return [future]
        return []

    slots = TASKS_PER_WORKER * max(1, sum(client.nthreads().values()))
    running = as_completed([future for _ in range(slots) for future in submit()])
    try:
        for future in running:
            _, item = owner.pop(future.key)
            result = future.result()
            future.release()
            running.update(submit())
            yield item, result
    finally:
        client.cancel([future for future, _ in owner.values()])
