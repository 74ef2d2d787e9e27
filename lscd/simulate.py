"""`lscd simulate`: why a kernel takes as long as it does, stage by stage."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lscd.errors import InputError, written_whole
from lscd.printing import headline, print_table, side_by_side

if TYPE_CHECKING:
    from perfmodel.pipeline import Simulation

GANTT_STEPS = (6, 9)  # past the start of the pipeline


def simulate(
    kernel: Annotated[
        str,
        typer.Argument(help="flash-llm, cublas, bitmap (SpInfer), or numba-tiled-csl, -bitmap, -bitmap-pairs, -dense."),
    ],
    gpu: Annotated[str, typer.Option(help="GPU: a name from `lscd gpus`, or a TOML file of your own.")],
    m: Annotated[int, typer.Option(help="Rows of the weight matrix (output features).")],
    k: Annotated[int, typer.Option(help="Columns of the weight matrix (input features).")],
    n: Annotated[int, typer.Option(help="Tokens in flight: batch x tokens per step.")],
    sparsity: Annotated[float, typer.Option(help="Fraction of zero weights, 0 to 1.")] = 0.8,
    no_reorder: Annotated[bool, typer.Option("--no-reorder", help="Scatter words in storage order.")] = False,
    single_buffer: Annotated[
        bool, typer.Option("--single-buffer", help="No overlap of loading and computing.")
    ] = False,
    register_decode: Annotated[
        bool, typer.Option("--register-decode", help="Decode in registers, no scatter.")
    ] = False,
    bandwidth_scale: Annotated[float, typer.Option(help="Device-memory bandwidth times this.")] = 1.0,
    shared_scale: Annotated[float, typer.Option(help="Shared memory of an SM times this.")] = 1.0,
    tile_k: Annotated[int | None, typer.Option(help="Depth of a tile, a multiple of 16.")] = None,
    split_k: Annotated[int | None, typer.Option(help="Ways to share K among blocks.")] = None,
    graph: Annotated[bool, typer.Option("--graph", help="Launched from a CUDA graph, not a stream.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sampled non-zeros per tile.")] = 0,
    trace: Annotated[Path | None, typer.Option(help="Write one SM's stages for ui.perfetto.dev.")] = None,
    gantt: Annotated[Path | None, typer.Option(help="Draw a few steps of one SM (.png, .svg or .pdf).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Simulate C[m,n] = A[m,k] @ B[k,n] tile by tile: time, what it waited for, how busy each resource was."""
    from perfmodel.pipeline import Submission, WhatIf
    from perfmodel.pipeline import simulate as run

    if trace is not None and trace == gantt:
        raise InputError(f"--trace and --gantt are both {trace}; give two files")
    if gantt is not None and gantt.suffix not in (".png", ".svg", ".pdf"):
        raise InputError(f"--gantt is {gantt}, allowed are files ending in .png, .svg or .pdf")
    what_if = WhatIf(
        reorder=not no_reorder, double_buffer=not single_buffer, register_decode=register_decode,
        bandwidth_scale=bandwidth_scale, shared_scale=shared_scale, tile_k=tile_k,
    )  # fmt: skip
    submission = Submission.GRAPH if graph else Submission.STREAM
    result = run(kernel, gpu, m, k, n, sparsity, split_k=split_k, what_if=what_if, seed=seed, submission=submission)
    _write(result, trace, gantt, f"{kernel}, {m} x {k}, N = {n}, sparsity {sparsity:g}, {result.machine.gpu.name}")
    summary = _summary(result)
    if as_json:
        question = {"kernel": kernel, "gpu": result.machine.gpu.key, "m": m, "k": k, "n": n, "sparsity": sparsity}
        print(json.dumps({**question, **summary}, indent=2))
    else:
        _print(summary)


def _summary(result: Simulation) -> dict[str, Any]:
    grid = result.grid
    return {
        "time_us": result.time_s * 1e6,
        "dram_bytes": result.dram_bytes,
        "blocks": grid.blocks,
        "split_k": grid.split_k,
        "resident_blocks_per_sm": grid.resident,
        "waves": grid.waves,
        "stalls": result.stall_breakdown,
        "utilisation": result.utilisation,
    }


def _print(summary: dict[str, Any]) -> None:
    headline(
        f"{summary['time_us']:.1f} us, {summary['dram_bytes'] / 1e6:.1f} MB over DRAM; "
        f"{summary['blocks']} blocks (split-K {summary['split_k']}), "
        f"{summary['resident_blocks_per_sm']} resident per SM, {summary['waves']:.2f} waves"
    )
    waited, busy = ({name: f"{share:.1%}" for name, share in summary[key].items()} for key in ("stalls", "utilisation"))
    print_table(("waited for", "share", "busy", "share"), side_by_side(waited, busy), text=("waited for", "busy"))


def _write(result: Simulation, trace: Path | None, gantt: Path | None, title: str) -> None:
    """Write both files or none."""
    with ExitStack() as files:
        trace_part, gantt_part = (path and files.enter_context(written_whole(path)) for path in (trace, gantt))
        if trace_part is not None:
            _write_trace(result, trace_part)
        if gantt_part is not None:
            _draw_gantt(result, gantt_part, title)


def _write_trace(result: Simulation, path: Path) -> None:
    from perfmodel.pipeline.timeline import perfetto_trace

    path.write_text(json.dumps(perfetto_trace(result)), encoding="utf-8")


def _draw_gantt(result: Simulation, path: Path, title: str) -> None:
    from perfmodel.pipeline.timeline import timeline
    from perfmodel.plotting.pipeline import gantt
    from perfmodel.plotting.style import house_style

    with house_style():
        gantt(timeline(result), title, GANTT_STEPS, result.machine.clock_hz).savefig(path)
