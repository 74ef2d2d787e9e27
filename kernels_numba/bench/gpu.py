"""Are the kernels right on a real GPU, and how fast are they beside what else one could run?

``python -m kernels_numba.bench.gpu --check`` compares every kernel with float64 on fresh random problems (`check_gpu`).
``--bench`` times them and their rivals on the paper's matrix shapes, the most telling first (`order`), and profiles six
products after the first shape if Nsight Compute is there. Everything is compiled first, in parallel; each family of
kernels runs in a process of its own (`parent`); after each product the table and its provenance are written to
``data/measured/<gpu>/``. ``--minutes`` limits it all, ``--resume`` goes on where it ended, ``--only`` takes some
families, ``--dry-run`` goes the whole way on the emulator. Needs a driver; PyTorch or CuPy for the rivals; and
numba-cuda, or machine code brought along (``--cubins``, `gpu.build`).

Method: events around replays of a CUDA graph (launch "graph") or around launches one by one ("stream": what cannot
be captured, an upper bound where launching takes as long); 60 ms of warm-up, then the median of 9 stretches of about
8 ms. ``cold`` rotates through copies of the weights that together exceed the L2 cache three times over, while x and
the output, which are small, stay in it; ``warm`` repeats one copy and is left out where that would be read from
memory all the same (cuSPARSE: warm only). Weights are random in value and place, a slab of at most 4,608 rows
repeated in memory. Every product is compared with a float64 product before and after its timing, in poisoned outputs;
"error" is the larger relative error of the two, and a wrong product has no row. cuBLAS accumulates in float32 and has
the faster of two layouts. A device-to-device copy gives the ceiling of memory bandwidth. Clocks are left alone; clock
and power are medians over the timing, reasons for low clocks all that were seen in it.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kernels_numba.bench import families, profiles
from kernels_numba.bench.order import DRY_RUN, Program
from kernels_numba.bench.parent import Parent
from kernels_numba.bench.provenance import Row, read_table, write_table
from kernels_numba.gpu import cubins

BAD_INPUT = NO_GPU = 2
MEASURED = Path(__file__).resolve().parents[2] / "data" / "measured"
DRY_CHECK = {"problems": [(127, 63, 7)], "densities": [0.3]}  # what an emulator does in seconds


def compile_all(parent: Parent, jobs: int, *, check: bool) -> None:
    """Compile what the chosen families need into the cubin cache; a failure is told and left to the family.

    A check needs the kernels of both element types, a bench those of fp16.
    """
    from kernels_numba.formats import Element
    from kernels_numba.formats.encoded import HALF_ELEMENTS
    from kernels_numba.gpu.build import build
    from kernels_numba.gpu.variants import all_variants

    directory = cubins.cubin_directory()
    if cubins.is_carried(directory):
        parent.report(f"machine code from {directory}")
        return
    kernels = {name.removeprefix("lscd-").replace("-", "_") for name in parent.chosen} | set(families.PARTS)
    # The 2:4 kernel leaves the rest of its weights to CSR.
    kernels |= {"csr"} if "two_four" in kernels else set()
    needed = [variant.name for variant in all_variants().values() if variant.kernel in kernels]
    start = time.monotonic()
    elements = HALF_ELEMENTS if check else (Element.FLOAT16,)
    for name, fault in build(needed, [parent.gpu.arch], jobs, elements):
        if fault:
            parent.report(f"not compiled: {name}: {fault}")
    parent.report(f"compiled {len(needed)} kernels in {time.monotonic() - start:.0f} s")


def measure(parent: Parent, end: float, keep: Callable[[], object]) -> dict[str, Any]:
    """Time everything until ``end``; returns what the profiler found and whether that refutes the models."""
    program = parent.program
    parent.bench(program.first_steps(), end, keep)
    found, line = profiles.profile(parent, end)
    parent.report(line)
    verdict = profiles.verdict(parent.rows, found, program.shapes[0])
    parent.report(verdict)
    parent.bench(program.steps(), end, keep)
    return {"profiles": found, "profiled": line, "falsification": verdict}


def told_so_far(parent: Parent) -> dict[str, Any]:
    """Provenance of the rows at hand."""
    kept = {"left_out": parent.left_out(), "failures": parent.failures, "absent": parent.absent}
    kept["refused"] = [(family, *step, reason) for (family, step), reason in parent.refused.items()]
    return parent.told | {"cubins_sha256": cubins.code_hash()} | kept


def measure_here(minutes: float, seed: int) -> tuple[str, list[Row], dict[str, Any]]:
    """Benchmark this machine's GPU in silence: what a worker of a cluster runs.

    Returns the GPU's key in the catalogue, the rows and their provenance. Raises RuntimeError without a GPU.
    """
    end = time.monotonic() + 60 * minutes
    parent = Parent(families.names(), Program(), seed, lambda line: None)
    try:
        parent.describe(_method())
        compile_all(parent, os.cpu_count() or 1, check=False)
        outcome = measure(parent, end, lambda: None)
    finally:
        parent.close()
    del outcome["profiles"]
    return parent.gpu.key, parent.rows, told_so_far(parent) | outcome


def _method() -> str:
    return " ".join((__doc__ or "").split("Method: ")[1].split())


def _minutes(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text}; allowed: a positive number")
    return value


def _whole(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text}; allowed: a whole number from {least}")
        return int(text)

    return parse


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Command line."""
    title = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m kernels_numba.bench.gpu", description=title)
    add = parser.add_argument
    add("--check", action="store_true", help="compare every kernel with float64")
    add("--bench", action="store_true", help="time every kernel, profile six products and write the tables")
    add("--dry-run", action="store_true", help="on the emulator, with tiny shapes; needs --output")
    add("--only", action="append", choices=families.names(), metavar="FAMILY", help="repeatable; one of %(choices)s")
    add("--minutes", type=_minutes, default=10.0, help="time for everything (default 10)")
    add("--resume", action="store_true", help="keep the table's rows and measure what it lacks")
    add("--seed", type=_whole(0), default=None, help="of the random problems; bench 0, check a new one each time")
    add("--jobs", type=_whole(1), default=os.cpu_count() or 1, help="processes that compile (default: one a processor)")
    add("--cubins", type=Path, default=None, help="directory of machine code (default $LSCD_CUBINS, else a cache)")
    add("--output", type=Path, default=None, help="directory for <gpu>/kernels_lscd.csv (default data/measured)")
    options = parser.parse_args(arguments)
    if not (options.check or options.bench):
        parser.error("give --check, --bench, or both")
    if options.dry_run and (options.output is None or options.output.resolve().is_relative_to(MEASURED)):
        parser.error(f"argument --output: {options.output}; allowed with --dry-run: a directory outside data/measured")
    options.output = options.output or MEASURED
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the checks, the bench, or both; return the exit code: 0 fine, 1 a kernel is wrong or failed, 2 no GPU."""
    options = parse_arguments(arguments)
    end = time.monotonic() + 60 * options.minutes
    if options.cubins is not None:
        os.environ["LSCD_CUBINS"] = str(options.cubins.resolve())
    kind = {"dry_run": True} if options.dry_run else {}
    program = DRY_RUN if options.dry_run else Program()
    parent = Parent(options.only or families.names(), program, options.seed or 0, _report, **kind)
    try:
        parent.describe(_method())
        directory = options.output / parent.gpu.key
        if options.resume:
            parent.rows, _ = read_table(directory, parent.told)
        directory.mkdir(parents=True, exist_ok=True)
        return _run(parent, options, directory, end)
    except (OSError, RuntimeError, ValueError) as error:
        sys.stderr.write(f"bench.gpu: {error}\n")
        return NO_GPU
    finally:
        parent.close()


def _run(parent: Parent, options: argparse.Namespace, directory: Path, end: float) -> int:
    """Check and bench the GPU that was found; returns the exit code."""
    gpu, fine = parent.gpu, True
    _report(f"{parent.told['gpu']}, {gpu.sm_count} SMs, copy {gpu.copy_bytes_per_s / 1e9:.0f} GB/s")
    if not options.dry_run:
        parent.start()
        compile_all(parent, options.jobs, check=options.check)
    if options.check:
        seed = int(np.random.default_rng().integers(2**31)) if options.seed is None else options.seed
        right, total = parent.check(seed, DRY_CHECK if options.dry_run else {})
        parent.told["checked"] = {"right": right, "of": total, "seed": seed}
        _report(f"{right} of {total} products are right (seed {seed})")
        fine = right == total
    if options.bench:
        outcome = measure(parent, end, lambda: write_table(parent.rows, told_so_far(parent), directory))
        found = outcome.pop("profiles")
        if found:
            _report(f"wrote {len(found)} counters to {profiles.write(found, directory)}")
        path = write_table(parent.rows, told_so_far(parent) | outcome, directory)
        _report(f"wrote {len(parent.rows)} rows to {path}; {len(parent.left_out())} matrices left out")
        fine = fine and bool(parent.rows)
    return 0 if fine and not parent.failures else 1


def _report(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
