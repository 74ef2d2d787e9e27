"""Writes the tables of README.md that hold computed numbers, between their markers.

`python -m lscd.report.readme` rewrites the file; a test says whether it is up to date.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from lscd.report.exhibit import Context, percent
from lscd.report.kernels import GOALS, TITLES
from perfmodel.catalog import load_trace
from perfmodel.evidence.run_spread import judged_runs
from perfmodel.evidence.summary import kernel_summary, run_summary
from perfmodel.evidence.validation import error_statistics

KERNEL_TOKENS, KERNEL_DENSITY = (8, 16, 32, 64), 0.2
README = Path(__file__).resolve().parents[2] / "README.md"


def error_table(context: Context) -> str:
    """Model against published, fitted and held-out rows of Fig 9, with the worst miss."""
    joined = context.joined[(context.joined["source"] == "flash-llm-fig9") & ~context.joined["resident"]]
    joined = joined.assign(split=joined["fitted"].map({True: "fitted", False: "held out"}))
    statistics = error_statistics(joined, ["kernel", "split"]).set_index(["kernel", "split"])
    lines = [
        "| kernel | fitted: mean error (N = 8, 32) | held out: mean error (N = 16) | median | worst | goal |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for kernel, goal in GOALS.items():
        fitted, held = statistics.loc[(kernel, "fitted")], statistics.loc[(kernel, "held out")]
        worst = f"{100 * held['worst']:+.0f} %"
        cells = (TITLES[kernel], percent(fitted["mean"]), percent(held["mean"]), percent(held["median"]), worst)
        lines.append(f"| {' | '.join(cells)} | {percent(goal)} |")
    return "\n".join(lines)


def elsewhere_table(context: Context) -> str:
    """Kernels on held-out rows of all sources and GPUs, and whole runs by source, worst group named."""
    lines = ["| what | held out | mean error | worst group |", "| --- | --- | --- | --- |"]
    for kernel, row in kernel_summary(context.joined).iterrows():
        rows = f"{row['rows']:,} products, {row['gpus']} GPU{'s' * (row['gpus'] > 1)}"
        worst = f"{row['worst']} {percent(row['worst_mean'], 0)}"
        lines.append(f"| {TITLES[str(kernel)]} | {rows} | {percent(row['mean'])} | {worst} |")
    for source, row in run_summary(judged_runs()).iterrows():
        worst = f"{row['worst']} {percent(row['worst_mean'], 0)}"
        lines.append(f"| runs: `{source}` | {row['rows']:,} runs | {percent(row['mean'])} | {worst} |")
    return "\n".join(lines)


def kernel_table(context: Context) -> str:
    """What the compiler and the emulator say of the sparse kernel, by tile width."""
    lines = [
        "| tokens N | registers, blocks per SM (A100) | (H100) | spills | main loop, instructions | "
        "scatter at 80 %: wavefronts a tile, reordered | not reordered | at best |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for n in KERNEL_TOKENS:
        trace = load_trace(f"tiled_csl_n{n}_v4")
        a100, h100 = trace["architectures"]["sm_80"], trace["architectures"]["sm_90"]
        scatter = next(row for row in trace["scatter"] if row["density"] == KERNEL_DENSITY)
        cells = (
            n,
            f"{a100['registers']}, {a100['blocks_per_sm']}",
            f"{h100['registers']}, {h100['blocks_per_sm']}",
            a100["spill_bytes"] + h100["spill_bytes"],
            sum(h100["main_loop_instructions"].values()),
            f"{scatter['wavefronts']:.0f}",
            f"{scatter['wavefronts_not_reordered']:.0f}",
            f"{scatter['ideal_wavefronts']:.0f}",
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


TABLES: dict[str, Callable[[Context], str]] = {
    "errors": error_table,
    "elsewhere": elsewhere_table,
    "kernels": kernel_table,
}


def rewritten(text: str, context: Context) -> str:
    """``text`` with the content between each pair of markers replaced."""
    for name, make in TABLES.items():
        block = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        table = make(context).replace("\\", r"\\")
        text, count = re.subn(block, rf"\g<1>{table}\n\g<2>", text, flags=re.DOTALL)
        if count != 1:
            raise ValueError(f"README.md needs exactly one pair of markers <!-- {name} --> and <!-- /{name} -->")
    return text


if __name__ == "__main__":
    README.write_text(rewritten(README.read_text(encoding="utf-8"), Context()), encoding="utf-8")
