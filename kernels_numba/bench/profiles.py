"""What six products do inside, by Nsight Compute where it is installed, and whether that refutes the decoding model.

A time alone does not say why. So the counters that the performance models predict are read for one large shape at 16
tokens: issue slots, pipes, device memory, bank conflicts, reasons to wait. Clocks are left alone.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from kernels_numba.bench import parent as parents
from kernels_numba.bench.parent import Parent
from kernels_numba.bench.provenance import Row
from kernels_numba.files import written_whole

TABLE = "profiles.csv"
N = 16
CONDENSED = "lscd-condensed-pairs"  # a bit for each register: predicted to be the fastest at 90 %
# Family and sparsity; the last with what stands in for it where it is not there.
PRODUCTS = (
    (("cublas", 0.0),),
    (("lscd-bitmap", 0.8),),
    (("lscd-bitmap-pairs", 0.9),),
    ((CONDENSED, 0.8),),
    ((CONDENSED, 0.9),),
    ((f"{CONDENSED}-bulk", 0.9), ("lscd-tiled-csl", 0.8)),
)
DURATION, ISSUE = "gpu__time_duration.sum", "smsp__issue_active.avg.pct_of_peak_sustained_active"
DRAM = "dram__throughput.avg.pct_of_peak_sustained_elapsed"
PIPES = ("alu", "fma", "xu", "lsu")
STALLS = (
    "long_scoreboard", "short_scoreboard", "barrier", "math_pipe_throttle", "mio_throttle", "lg_throttle", "wait",
    "not_selected", "selected", "no_instruction", "dispatch_stall",
)  # fmt: skip
METRICS = (
    DURATION,
    ISSUE,
    DRAM,
    "dram__bytes_read.sum",
    "sm__warps_active.avg.pct_of_peak_sustained_active",
    *(f"sm__inst_executed_pipe_{pipe}.avg.pct_of_peak_sustained_active" for pipe in PIPES),
    "l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum",
    "l1tex__data_pipe_lsu_wavefronts_mem_shared.sum",
    *(f"smsp__average_warps_issue_stalled_{reason}_per_issue_active.ratio" for reason in STALLS),
)
# A release of the tool that does not know one of the names refuses them all; these it knows.
SECTIONS = ("SpeedOfLight", "ComputeWorkloadAnalysis", "MemoryWorkloadAnalysis", "WarpStateStats")
ASKED = (("--metrics", ",".join(METRICS)), tuple(word for name in SECTIONS for word in ("--section", name)))
PATIENCE_S = 90.0  # of one run of the tool
PATIENCE = 2  # products without counters: a driver that lets only administrators read them gives none
BUSY, MEMORY_BOUND = 70.0, 80.0  # percent
REFUTED = "the model is wrong here"


@dataclass(frozen=True)
class Profile:
    """One number of one launched kernel, of the product of a family with a matrix."""

    gpu: str
    kernel: str
    m: int
    k: int
    n: int
    sparsity: float
    function: str
    metric: str
    unit: str
    value: float


def profile(parent: Parent, end: float) -> tuple[list[Profile], str]:
    """Counters of the six products, and a line that says what became of it.

    Only the first shape, and what there is of the chosen families. A product that cannot be profiled is left out; after
    `PATIENCE` of them, or at the time ``end``, no more are tried.
    """
    tool = shutil.which("ncu")
    if tool is None or parent.kind.get("dry_run"):
        return [], "not profiled: ncu is not installed" if tool is None else "not profiled: a dry run"
    found: list[Profile] = []
    failed: list[str] = []
    for options in PRODUCTS:
        product = next((option for option in options if option[0] in parent.living()), None)
        if product is None or len(failed) == PATIENCE or time.monotonic() > end:
            continue
        texts = (_run(tool, asked, parent, *product) for asked in ASKED)
        rows = next((rows for text in texts if (rows := _profiles(parent, *product, text))), [])
        found += rows
        failed += [] if rows else [f"{product[0]} at {product[1]}"]
    count = len({(row.kernel, row.sparsity) for row in found})
    return found, f"profiled {count} of {len(PRODUCTS)} products; without counters: {', '.join(failed) or 'none'}"


def _run(tool: str, asked: Sequence[str], parent: Parent, family: str, sparsity: float) -> str:
    """What ncu writes of one product; empty if it fails."""
    job = parent.job("profile", (*parent.program.shapes[0], sparsity), [N])
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "ncu.csv"
        how = ("--clock-control", "none", "--profile-from-start", "off", "--target-processes", "all")
        what = ("--csv", "--page", "raw", "--log-file", str(log))
        command = [tool, *how, *what, *asked, *parents.CHILD, "--family", family]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, env=parents.environment(), start_new_session=True, **pipes) as process:
            try:
                process.communicate((json.dumps(job) + "\n").encode(), timeout=PATIENCE_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # the tool's own session: it and the child it started
        return log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""


def _profiles(parent: Parent, family: str, sparsity: float, text: str) -> list[Profile]:
    m, k = parent.program.shapes[0]
    return [Profile(parent.gpu.key, family, m, k, N, sparsity, *rest) for rest in parse(text)]


def parse(text: str) -> list[tuple[str, str, str, float]]:
    """Function, metric, unit and value of every number in ncu's page "raw": a header, a row of units, the launches."""
    lines = [line for line in text.splitlines() if line.startswith('"')]
    if len(lines) < 3:
        return []
    header, units, *launches = csv.reader(io.StringIO("\n".join(lines)))
    found = []
    for launch in launches:
        function = launch[header.index("Kernel Name")]
        for metric, unit, value in zip(header, units, launch, strict=False):
            try:
                number = float(value.replace(",", ""))
            except ValueError:
                continue
            if "__" in metric:  # the other columns are numbers of processes and launches
                found.append((function, metric, unit, number))
    return found


def write(found: Sequence[Profile], directory: Path) -> Path:
    """Write the counters as CSV."""
    path = directory / TABLE
    with written_whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Profile)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in found)
    return path


def verdict(rows: Sequence[Row], found: Sequence[Profile], shape: tuple[int, int]) -> str:
    """Does the run refute the model that says condensed tiles decode fastest at 90 %, bound by issue or by memory?

    Two tests, each of which says if it could not be made: condensed is ahead of pairs; and where issue slots are less
    than 70 % busy, memory is at least 80 % busy.
    """
    times = {
        row.kernel: row.time_us
        for row in rows
        if (row.m, row.k, row.n, round(row.sparsity, 2), row.cache) == (*shape, N, 0.9, "cold")
    }
    condensed, pairs = (times.get(name) for name in (CONDENSED, "lscd-bitmap-pairs"))
    if condensed is None or pairs is None:
        first = "not tested (a time is missing)"
    else:
        first = f"{condensed:.1f} us against {pairs:.1f} of pairs" + ("" if condensed < pairs else f": {REFUTED}")
    values = _longest(found, CONDENSED, 0.9)
    if ISSUE not in values or DRAM not in values:
        second = "not tested (no counters)"
    else:
        wrong = values[ISSUE] < BUSY and values[DRAM] < MEMORY_BOUND
        second = f"issue {values[ISSUE]:.0f} %, DRAM {values[DRAM]:.0f} %" + (f": {REFUTED}" if wrong else "")
    return f"condensed at 90 %, N = {N}: time {first}; bound {second}"


def _longest(found: Sequence[Profile], kernel: str, sparsity: float) -> dict[str, float]:
    """Counters of the longest launch of a product: not its reduction."""
    mine = [row for row in found if (row.kernel, row.sparsity) == (kernel, sparsity)]
    longest = max((row for row in mine if row.metric == DURATION), key=lambda row: row.value, default=None)
    return {row.metric: row.value for row in mine if longest and row.function == longest.function}
