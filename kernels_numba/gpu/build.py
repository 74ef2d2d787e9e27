"""Compile all kernels at once, in parallel processes: before a benchmark, or into a folder to be carried.

``python -m kernels_numba.gpu.build --output DIR`` makes machine code for all six architectures. With
``LSCD_CUBINS=DIR`` the kernels then run where there is a driver but no compiler: neither numba-cuda nor a CUDA toolkit.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

from kernels_numba.formats import Element
from kernels_numba.formats.encoded import HALF_ELEMENTS
from kernels_numba.gpu import cubins
from kernels_numba.gpu.compile import ARCHITECTURES, check_arch, compile_kernel, runs_on
from kernels_numba.gpu.variants import all_variants, find_variants

BAD_INPUT = 2


def build(
    names: Sequence[str], archs: Sequence[str], jobs: int, elements: Sequence[Element] = HALF_ELEMENTS
) -> Iterator[tuple[str, str]]:
    """Compile variants in ``jobs`` processes into the cubin cache; yields each one's name, and "" or what went wrong.

    A task is one variant for all element types and architectures, because lowering it, the longest part, is the same
    for all; an architecture that lacks what a variant needs is left out.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(names)), mp_context=context) as pool:
        running = {pool.submit(_compile, name, tuple(archs), tuple(elements)): name for name in names}
        for done in as_completed(running):
            error = done.exception()
            yield running[done], f"{type(error).__name__}: {str(error).partition(chr(10))[0]}" if error else ""


def _compile(name: str, archs: tuple[str, ...], elements: tuple[Element, ...]) -> None:
    variant = all_variants()[name]
    for arch, element in itertools.product(archs, elements):
        if runs_on(variant, arch):
            compile_kernel(replace(variant, element=element), arch)


def _jobs(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}; allowed: 1 or more")
    return int(text)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Command line."""
    title = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m kernels_numba.gpu.build", description=title)
    parser.add_argument("--output", type=Path, required=True, help="directory for the machine code")
    parser.add_argument("--only", action="append", default=None, help="kernel or variant, repeatable (default all)")
    parser.add_argument("--arch", action="append", default=None, help="repeatable (default all six)")
    parser.add_argument("--jobs", type=_jobs, default=os.cpu_count() or 1, help="processes (default: one a processor)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Fill a directory; return the exit code: 0 fine, 1 something did not compile, 2 bad input."""
    options = parse_arguments(arguments)
    try:
        archs = [check_arch(arch) for arch in options.arch or ARCHITECTURES]
        chosen = {v.name: v for name in options.only or () for v in find_variants(name)} or all_variants()
        options.output.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"gpu.build: {error}\n")
        return BAD_INPUT
    os.environ["LSCD_CUBINS"] = str(options.output.resolve())
    (options.output / cubins.MANIFEST).unlink(missing_ok=True)  # a directory with one is not written to
    failed = 0
    for number, (name, fault) in enumerate(build(list(chosen), archs, options.jobs), 1):
        failed += bool(fault)
        sys.stdout.write(f"{number}/{len(chosen)} {name} {fault or 'compiled'}\n")
        sys.stdout.flush()
    shutil.rmtree(options.output / cubins.PTX, ignore_errors=True)
    cubins.write_manifest(options.output, archs, list(chosen))
    sys.stdout.write(f"wrote {len(archs)} x {len(chosen) - failed} kernels to {options.output}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
