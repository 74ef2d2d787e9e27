"""Sweeps killed at one point after another, each then started again; printed is what lay about.

``python -m tests.perfmodel.sweep.killed FOLDER STEP`` kills before every STEP-th thing that a sweep does to its files.
In a process of its own, because it forks: nothing here may start a thread before.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from perfmodel.sweep import Plan, grid, lock, run
from perfmodel.sweep.seal import SealedSink
from tests.perfmodel.sweep.cases import AXES, plan


def killing(countdown: list[int], deed: Callable[..., Any], *arguments: Any, **how: Any) -> Any:
    """``deed`` of the arguments, unless it is the one to be killed at."""
    countdown[0] -= 1
    if countdown[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return deed(*arguments, **how)


def hooked(home: Any, name: str, countdown: list[int]) -> None:
    deed = getattr(home, name)
    setattr(home, name, lambda *arguments, **how: killing(countdown, deed, *arguments, **how))


def in_a_child(work: Callable[[], object]) -> int:
    """Signal or exit code (negative) of ``work`` in a forked process."""
    child = os.fork()
    if not child:
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_at(point: int, made: Plan, out: Path) -> None:
    countdown = [point]
    for home, names in (
        (Path, ("mkdir", "unlink", "replace", "rmdir", "write_bytes")),
        (SealedSink, ("write", "_seal")),
        (lock, ("_lock",)),
    ):
        for name in names:
            hooked(home, name, countdown)
    run(made, out, threads=1)


def main(folder: Path, step: int) -> list[dict[str, Any]]:
    grid.BLOCK_POINTS, grid.CHUNK_POINTS = 16, 64
    made = plan(axes=AXES | {"gpu": "h100", "kernel": ["cublas", "sputnik"], "n": [8, 12]})
    whole = folder / "whole.parquet"
    in_a_child(partial(run, made, whole))
    seen = []
    for point in range(1, 10_000, step):
        out = folder / f"at{point}" / "out.parquet"
        out.parent.mkdir()
        stopped = in_a_child(partial(killed_at, point, made, out))
        left = sorted(path.name for path in out.parent.iterdir())
        sound = not out.exists() or out.read_bytes() == whole.read_bytes()
        again = in_a_child(partial(run, made, out))
        after = sorted(path.name for path in out.parent.iterdir())
        same = out.exists() and out.read_bytes() == whole.read_bytes()
        seen.append(
            {
                "point": point,
                "stopped": stopped,
                "left": left,
                "sound": sound,
                "again": again,
                "after": after,
                "same": same,
            }
        )
        if stopped == 0:
            break
    return seen


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]))))
