"""Which tests are slow, and which belong into one process because they share what is slow to make."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator, Iterator
from importlib.util import find_spec

import pytest
from xdist.remote import Producer
from xdist.scheduler.loadscope import LoadScopeScheduling

from kernels_numba.gpu.toolchain import NoCompilerError

# Compile or emulate kernels, run notebooks, build the report, start processes.
SLOW = (
    "kernels_numba/bench",
    "kernels_numba/check",
    "kernels_numba/checkpoints/test_container.py",
    "kernels_numba/cpu",
    "kernels_numba/formats/test_formats.py",
    "kernels_numba/gpu",
    "kernels_numba/ptx_emulator/test_mutations.py",
    "kernels_numba/ptx_emulator/test_quantised_mutations.py",
    "kernels_numba/test_bad_arrays.py",
    "kernels_numba/test_plan.py",
    "kernels_numba/test_spmm.py",
    "lscd/explorer/test_app.py",
    "lscd/explorer/test_static.py",
    "lscd/report/test_build.py",
    "lscd/test_evidence.py",
    "lscd/test_files.py",
    "lscd/test_fuzz.py",
    "lscd/test_kernels.py",
    "lscd/test_query.py",
    "lscd/test_sweep.py",
    "notebooks/test_runs.py",
    "perfmodel/sweep/test_cluster.py",
    "perfmodel/sweep/test_store.py",
    "test_docs.py",
)
# A process reads a kernel's PTX once, builds the report once, and fits once to rows left out of a fit. Longest first.
SAME_PROCESS = (
    ("kernels_numba/gpu", "kernels_numba/check", "kernels_numba/test_spmm.py"),
    ("kernels_numba/bench", "lscd/test_kernels.py"),
    (
        "lscd/report",
        "lscd/test_evidence.py",
        "lscd/test_predict.py",
        "perfmodel/evidence/test_kernel_fit.py",
        "perfmodel/evidence/test_uncertainty.py",
        "test_readme.py",
    ),
    ("kernels_numba/ptx_emulator/test_record_mutations.py", "kernels_numba/ptx_emulator/test_quantised_mutations.py"),
    (
        "kernels_numba/cpu",
        "kernels_numba/formats",
        "kernels_numba/checkpoints",
        "kernels_numba/test_bad_arrays.py",
        "kernels_numba/test_plan.py",
        "perfmodel/formats/test_formats.py",
    ),
)
# Ask for the CUDA compiler where nobody sees its refusal: in another process, or as one failed kernel among others.
COMPILING = (
    "kernels_numba/bench/test_check_gpu.py",
    "kernels_numba/bench/test_gpu.py",
    "kernels_numba/bench/test_parent.py",
    "kernels_numba/bench/test_provenance.py::test_the_gpu_and_the_code_are_described",
    "kernels_numba/check/test_check.py",
    "kernels_numba/gpu/test_cubins.py::test_everything_is_built_in_processes_of_its_own",
    "kernels_numba/gpu/test_cubins.py::test_what_does_not_compile_is_told_and_costs_no_other",
    "kernels_numba/gpu/test_toolchain.py",
    "lscd/test_kernels.py::test_check_",
    "notebooks/test_runs.py::test_notebook_runs[03",
)
COMPILER = find_spec("numba_cuda") is not None  # without it, as on macOS, what compiles kernels is skipped
NO_COMPILER = "needs the CUDA compiler: no numba-cuda is installed"


def _place(nodeid: str) -> str:
    """Path of a test below this folder; empty for an example in a docstring."""
    return nodeid.removeprefix("tests/") if nodeid.startswith("tests/") else ""


def _group(nodeid: str) -> int:
    """Which of `SAME_PROCESS` a test belongs to; as many as there are if to none."""
    place = _place(nodeid)
    return next((i for i, places in enumerate(SAME_PROCESS) if place.startswith(places)), len(SAME_PROCESS))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Groups first, so that none is started last; ``-m "not slow"`` (`make test-fast`) leaves the slow ones out."""
    for item in items:
        if _place(item.nodeid).startswith(SLOW):
            item.add_marker(pytest.mark.slow)
        if not COMPILER and _place(item.nodeid).startswith(COMPILING):
            item.add_marker(pytest.mark.skip(reason=NO_COMPILER))
    items.sort(key=lambda item: _group(item.nodeid))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    return (yield from _skipped_without_the_compiler())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    return (yield from _skipped_without_the_compiler())


def _skipped_without_the_compiler() -> Generator[None, object, object]:
    """A test that meets the refusal is skipped where there is no compiler; where there is one, it fails."""
    try:
        return (yield)
    except NoCompilerError:
        if COMPILER:
            raise
        pytest.skip(NO_COMPILER)


class Groups(LoadScopeScheduling):
    """Sends each group to one process, every other test to the next that is free.

    What ``--dist loadgroup`` is for; but it writes groups into node ids, which pytest 9.2 no longer reads back.
    """

    def _split_scope(self, nodeid: str) -> str:
        group = _group(nodeid)
        return nodeid if group == len(SAME_PROCESS) else str(group)


@pytest.hookimpl(optionalhook=True)  # without xdist all run in one process
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Groups:
    config.option.loadscopereorder = False
    return Groups(config, log)


def pytest_collection_finish() -> None:
    """Collect garbage rarely from here on: compiling and emulating in so large a process takes 4 to 9 % less time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)


@pytest.fixture(scope="session", autouse=True)
def _own_cubins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Kernels are compiled anew, once for all processes of this run, and leave nothing in the user's cache."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LSCD_CUBINS", str(shared / "cubins"))
        yield
