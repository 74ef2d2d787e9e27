"""The plan of a checkpoint as people read it: the answer first, then how sure, then a row for each kind of matrix."""

from __future__ import annotations

from lscd.printing import digits, headline, print_table, say
from lscd.weights_plan import CheckpointPlan, MatrixPlan, answer, remarks
from lscd.weights_quantised import label_of, print_quantised, span

HEADER = (
    "matrices", "count", "m x k", "type", "zeros", "tile spread", "fullest tile", "dense MB", "smallest", "MB",
)  # fmt: skip
TIMED_HEADER = ("fastest exact", "us", "dense us")


def print_plan(plan: CheckpointPlan, every: bool) -> None:
    """Print ``plan``; one row a matrix if ``every``, otherwise layers of equal shape together."""
    if plan.quantised:
        print_quantised(plan.quantised, plan.gpu, plan.tokens, every)
    if plan.matrices:
        _print_whole(plan, every)
    if plan.matrices or any(matrix.census for matrix in plan.quantised):
        say("Tile spread: deviation of the non-zeros per 128 x 64 tile over that of independent zeros (1).")
    say(f"Other tensors: {digits(plan.other_bytes / 1e6, 4)} MB as they are.")
    for line in _totals(plan) if plan.matrices else ():
        say(line)


def _print_whole(plan: CheckpointPlan, every: bool) -> None:
    """Print the answer on matrices stored whole, how far to trust it, and their table."""
    headline(f"{'The others are stored whole. ' if plan.quantised else ''}{answer(plan)}")
    for remark in remarks(plan):
        say(remark)
    timed = plan.gpu is not None
    header = (*HEADER, *(TIMED_HEADER if timed else ()))
    rows = [(label, *_row(group, timed)) for label, group in _groups(plan.matrices, every)]
    print_table(header, rows, text=("matrices", "m x k", "type", "smallest", "fastest exact"))


def _groups(matrices: list[MatrixPlan], every: bool) -> list[tuple[str, list[MatrixPlan]]]:
    """Matrices put together by name, its numbers blanked out, shape and type."""
    groups: dict[tuple[str, tuple[int, int], str], list[MatrixPlan]] = {}
    for matrix in matrices:
        groups.setdefault((label_of(matrix.name, every), matrix.census.shape, matrix.dtype), []).append(matrix)
    return [(label, group) for (label, _, _), group in groups.items()]


def _row(group: list[MatrixPlan], timed: bool) -> list[str]:
    m, k = group[0].census.shape
    zeros = [matrix.census.sparsity for matrix in group]
    spreads = [matrix.census.tile_spread for matrix in group]
    ratios = [spread.ratio for spread in spreads if spread.ratio is not None]
    totals = {
        name: sum(matrix.format_bytes[name] for matrix in group)
        for name in group[0].census.format_bytes
        if all(name in matrix.format_bytes for matrix in group)
    }
    smallest = min(totals, key=lambda name: totals[name])
    cells = [
        f"{len(group)}",
        f"{m} x {k}",
        group[0].dtype,
        span(zeros, "{:.3f}"),
        span(ratios, "{:.1f}") if ratios else "-",
        f"{max(spread.max_density for spread in spreads):.2f}",
        f"{totals['dense'] / 1e6:.3f}",
        smallest,
        f"{totals[smallest] / 1e6:.3f}",
    ]
    if timed:
        cells.append(", ".join(sorted({str(matrix.best_kernel) for matrix in group})))
        cells.append(f"{sum(matrix.time_us(matrix.best_kernel) for matrix in group):.1f}")
        cells.append(f"{sum(matrix.time_us(matrix.dense_kernel) for matrix in group):.1f}")
    return cells


def _totals(plan: CheckpointPlan) -> list[str]:
    """All matrices in one format, and on one kernel."""
    totals = plan.as_json()["total"]
    sizes = ", ".join(f"{name} {digits(size / 1e6, 4)}" for name, size in totals["bytes_by_format"].items())
    words = [f"All matrices in one format [MB]: {sizes}."]
    if plan.gpu is not None:
        times = ", ".join(f"{name} {digits(time_us, 4)}" for name, time_us in totals["us_by_kernel"].items())
        words.append(f"All matrices on one kernel, one after the other [us]: {times}.")
    return words
