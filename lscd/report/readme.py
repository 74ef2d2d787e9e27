"""Writes what README.md and pages of docs hold of computed numbers, between their markers.

`python -m lscd.report.readme` rewrites the files; a test says whether they are up to date.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lscd.report.accuracy import unrounded, within_budget
from lscd.report.answers import first_answers
from lscd.report.exhibit import Context, percent
from lscd.report.kernels import TITLES
from lscd.report.own_kernels import predicted_table, simulated_table
from lscd.report.papers import summary
from perfmodel.catalog import load_table, load_trace
from perfmodel.evidence.real_model import QUALITY_TABLE, short_steps
from perfmodel.evidence.run_spread import judged_runs
from perfmodel.evidence.summary import GOALS, held_out, kernel_summary, run_summary
from perfmodel.evidence.validation import error_statistics
from perfmodel.kernels import CPU_KERNELS

DECODED_BATCHES = (1, 4, 16)
DECODED = (  # in words, kernel, zeros, row of the pruning study
    ("dense, FP32, NumPy", "numpy-fp32", 0.0, "none"),
    ("dense, FP16, our kernel", "cpu-dense16", 0.0, "none"),
    ("50 % zeros (SparseGPT), our bitmap", "cpu-bitmap", 0.5, "sparsegpt-0.5"),
    ("60 %", "cpu-bitmap", 0.6, "sparsegpt-0.6"),
    ("70 %", "cpu-bitmap", 0.7, "sparsegpt-0.7"),
    ("70 %, BF16", "cpu-bitmap-bf16", 0.7, "sparsegpt-0.7"),
)
ESCAPED, WAVE = "\\*", "\\~"  # which Markdown would read
KERNEL_TOKENS, KERNEL_DENSITY = (8, 16, 32, 64), 0.2
SAMPLE, SAMPLE_WIDTH = "lscd worth --model llama-3.1-70b --gpu h100 --gpus 2 --sparsity 0.6 --batch 16", 120


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
        rows = f"{row['rows']:,} products, {row['devices']}"
        worst = f"{row['worst']} {percent(row['worst_mean'], 0)}"
        title = f"{TITLES[str(kernel)]}{' (CPU)' if kernel in CPU_KERNELS else ''}"
        lines.append(f"| {title} | {rows} | {percent(row['mean'])} | {worst} |")
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


def decoding_table(context: Context) -> str:
    """Quality and decoding speed of a real language model on a CPU, dense and pruned, beside its prediction."""
    steps = short_steps()
    quality = load_table(QUALITY_TABLE).set_index("row")["perplexity"]
    lines = [
        "| weights | perplexity | MB a step | "
        + " | ".join(f"batch {batch}: tokens/s (predicted)" for batch in DECODED_BATCHES)
        + " |",
        "| --- | --- | --- |" + " --- |" * len(DECODED_BATCHES),
    ]
    for words, kernel, sparsity, row in DECODED:
        mine = steps[(steps["kernel"] == kernel) & (steps["sparsity"] == sparsity)].set_index("batch")
        speeds = [
            f"{mine.loc[n, 'tokens_per_s']:.0f} ({mine.loc[n, 'predicted_tokens_per_s']:.0f})" for n in DECODED_BATCHES
        ]
        cells = (words, f"{quality[row]:.1f}", f"{mine['step_bytes'].iloc[0] / 1e6:.0f}", *speeds)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def quality_table(context: Context) -> str:
    """The fastest way within one and two points, by model and GPU."""
    exhibit = within_budget(context)
    assert exhibit.shown is not None
    rows = [
        exhibit.shown.columns,
        ["---"] * len(exhibit.shown.columns),
        *exhibit.shown.itertuples(index=False, name=None),
    ]
    lines = [f"| {' | '.join(row).replace('*', ESCAPED).replace('~', WAVE)} |" for row in rows]
    return "\n".join([*lines, "", f"{exhibit.finding} {unrounded()}"])


def held_out_words(context: Context) -> str:
    """How far off kernels and whole runs are on what no fit saw, in a sentence."""
    kernels, runs = kernel_summary(context.joined), run_summary(judged_runs())
    gpus = held_out(context.joined).query("kernel not in @CPU_KERNELS")["gpu"].nunique()
    products, whole = (f"{int(table['rows'].sum()):,}" for table in (kernels, runs))
    usual, worst = ([percent(end(table["mean"]), 0) for table in (kernels, runs)] for end in (np.nanmedian, np.nanmax))
    return (
        "On [all rows that anybody measured and no fit saw](docs/explanation/evidence.md#on-what-nobody-fitted), "
        f"{products} products on {gpus} GPUs and a CPU with weights beyond the L2, half of the kernels have a mean "
        f"error of at most {usual[0]}, the worst {worst[0]}; of {whole} whole runs half of the sources at most "
        f"{usual[1]}, the worst {worst[1]}. Where sources disagree, both are scored."
    )


def sample(_: Context) -> str:
    """What a first question to the command line prints, its sentences wrapped as on a terminal."""
    command = [sys.executable, "-m", *shlex.split(SAMPLE)]
    printed = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout
    lines = [textwrap.fill(line, SAMPLE_WIDTH, break_long_words=False) for line in printed.splitlines()]
    return "\n".join(["```text", f"$ {SAMPLE}", *lines, "```"])


ROOT = Path(__file__).resolve().parents[2]
README, DOCS = ROOT / "README.md", ROOT / "docs"
TABLES: dict[Path, dict[str, Callable[[Context], str]]] = {
    README: {
        "answers": lambda _: first_answers(),
        "sample": sample,
        "errors": error_table,
        "held out": held_out_words,
        "papers": lambda _: summary(),
    },
    DOCS / "explanation" / "evidence.md": {"elsewhere": elsewhere_table},
    DOCS / "explanation" / "kernels.md": {"kernels": kernel_table},
    DOCS / "accuracy.md": {"quality": quality_table},
    DOCS / "cpu.md": {"decoding": decoding_table},
    DOCS / "bitmap.md": {"predicted": lambda _: predicted_table(), "simulated": lambda _: simulated_table()},
}


def rewritten(page: Path, context: Context) -> str:
    """Text of ``page`` with the content between each pair of its markers replaced."""
    text = page.read_text(encoding="utf-8")
    for name, make in TABLES[page].items():
        block = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        table = make(context).replace("\\", r"\\")
        text, count = re.subn(block, rf"\g<1>{table}\n\g<2>", text, flags=re.DOTALL)
        if count != 1:
            raise ValueError(f"{page.name} needs exactly one pair of markers <!-- {name} --> and <!-- /{name} -->")
    return text


if __name__ == "__main__":
    for path in TABLES:
        path.write_text(rewritten(path, Context()), encoding="utf-8")
