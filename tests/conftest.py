"""Which tests are slow: those that compile or emulate kernels, run notebooks, build the report, start processes."""

from __future__ import annotations

from pathlib import Path

import pytest

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
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark them, so that ``-m "not slow"`` (`make test-fast`) leaves them out."""
    for item in items:
        if HERE in item.path.parents and item.path.relative_to(HERE).as_posix().startswith(SLOW):
            item.add_marker(pytest.mark.slow)
