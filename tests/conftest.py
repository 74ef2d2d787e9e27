"""Which tests are slow, and which belong into one process because they share what is slow to make."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

# Compile or emulate kernels, run notebooks, build the report, start processes.
SLOW = (
    "kernels_numba/bench",
    "kernels_numba/checkpoints/test_container.py",
    "kernels_numba/cpu",
    "kernels_numba/formats/test_formats.py",
    "kernels_numba/gpu",
    "kernels_numba/ptx_emulator/test_mutations.py",
    "kernels_numba/test_check.py",
    "kernels_numba/test_plan.py",
    "kernels_numba/test_spmm.py",
    "lscd/explorer/test_app.py",
    "lscd/report/test_build.py",
    "lscd/test_evidence.py",
    "lscd/test_kernels.py",
    "lscd/test_sweep.py",
    "perfmodel/sweep/test_cluster.py",
    "test_docs.py",
    "test_notebooks.py",
)
# A process compiles a kernel once, and builds the report that its tests look at once (pytest's ``--dist loadgroup``).
SAME_PROCESS = {
    "report": ("lscd/report/test_build.py",),
    "gpu kernels": (
        "kernels_numba/gpu",
        "kernels_numba/bench",
        "kernels_numba/test_check.py",
        "kernels_numba/test_spmm.py",
    ),
    "cpu kernels": (
        "kernels_numba/cpu",
        "kernels_numba/formats",
        "kernels_numba/checkpoints",
        "kernels_numba/test_plan.py",
    ),
}
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark both; ``-m "not slow"`` (`make test-fast`) leaves the slow ones out."""
    for item in items:
        if HERE not in item.path.parents:
            continue
        place = item.path.relative_to(HERE).as_posix()
        if place.startswith(SLOW):
            item.add_marker(pytest.mark.slow)
        for group, places in SAME_PROCESS.items():
            if place.startswith(places):
                item.add_marker(pytest.mark.xdist_group(group))


def pytest_collection_finish() -> None:
    """Collect garbage rarely from here on: a quarter of the time it takes to compile kernels in so large a process."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)
